"""The other formats in which services publish to RabbitMQ, on a real one."""

from __future__ import annotations

import json

import pytest

from tests.system.amqp import publish, source, wait_running
from tests.system.client import connected
from tests.system.harness import Brokers, unique
from tests.system.rabbitmq import RabbitMQ

pytestmark = pytest.mark.system

EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "orders.1.created"}


async def test_cloudevents_come_structured_and_binary_and_each_counts_once(
    brokers: Brokers, rabbitmq: RabbitMQ
) -> None:
    queue = unique("cloudevents")
    broker = brokers.start(source("main", rabbitmq.url(), queue, format="cloudevents"))
    await wait_running(broker, "main")
    structured = json.dumps({**EVENT, "data": {"mode": "structured"}}).encode()
    headers = {f"ce-{name}": value for name, value in {**EVENT, "id": "2"}.items()}
    colons = {f"cloudEvents:{name}": value for name, value in {**EVENT, "id": "3"}.items()}
    async with connected(broker, "ada") as client:
        await client.subscribe("**")
        for _ in range(2):
            await publish(rabbitmq.url(), queue, structured, content_type="application/cloudevents+json; charset=utf-8")
            await publish(rabbitmq.url(), queue, b'"binary"', content_type="application/json", headers=headers)
            await publish(rabbitmq.url(), queue, b'"colons"', content_type="application/json", headers=colons)
        await publish(rabbitmq.url(), queue, b"[]", content_type="application/cloudevents-batch+json")
        await publish(rabbitmq.url(), queue, b'"none"', content_type="application/json", headers={"other": True})
        last = {**EVENT, "id": "4", "type": "orders.1.last"}
        await publish(rabbitmq.url(), queue, json.dumps(last).encode(), content_type="application/cloudevents+json")
        assert [await client.frame() for _ in range(4)] == [
            {"event": "orders.1.created", "data": {"mode": "structured"}},
            {"event": "orders.1.created", "data": "binary"},
            {"event": "orders.1.created", "data": "colons"},
            {"event": "orders.1.last", "data": None},
        ]
    assert broker.metric("broker_amqp_main_refused_bad_event_total") == 2
    assert broker.metric("broker_repeated_total") == 3


async def test_a_cloudevent_may_be_named_by_its_subject(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    queue = unique("subjects")
    broker = brokers.start(source("main", rabbitmq.url(), queue, format="cloudevents", cloudevents_name="subject"))
    await wait_running(broker, "main")
    async with connected(broker, "ada") as client:
        await client.subscribe("**")
        body = json.dumps({**EVENT, "subject": "orders.7", "data": 1}).encode()
        await publish(rabbitmq.url(), queue, body, content_type="application/cloudevents+json")
        assert await client.frame() == {"event": "orders.7", "data": 1}


async def test_the_routing_key_names_the_event_and_the_body_is_the_payload(
    brokers: Brokers, rabbitmq: RabbitMQ
) -> None:
    queue = unique("keys")
    broker = brokers.start(source("main", rabbitmq.url(), queue, format="routing_key"))
    await wait_running(broker, "main")
    async with connected(broker, "ada") as client:
        await client.subscribe("**")
        await publish(rabbitmq.url(), queue, b' {"a":  1.0} ')
        assert await client.frame() == {"event": queue, "data": {"a": 1.0}}
