"""What an operator gets wrong, what RabbitMQ says to it, and that everybody else is served all the same."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import trio
from trio_websocket import ConnectionClosed

from connectors.amqp.codec import Basic
from connectors.amqp.connection import open_connection
from connectors.amqp.url import parse_url
from tests.system.amqp import (
    declare,
    envelope,
    publish,
    publishing,
    ready,
    source,
    sources,
    take,
    wait_running,
    wait_state,
)
from tests.system.client import connected
from tests.system.harness import Broker, Brokers, command, eventually, unique
from tests.system.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.system, pytest.mark.longest(60)]


def told(broker: Broker, name: str) -> str:
    """Why a source is unavailable, as the log has it."""

    def reason() -> str | None:
        entries = broker.logged("connector.unavailable")
        return next((entry["reason"] for entry in entries if entry["connector"] == f"amqp_{name}"), None)

    return eventually(reason, f"reason why {name} is unavailable")


async def test_each_fault_is_told_with_what_rabbitmq_said_and_the_other_sources_go_on(
    brokers: Brokers, rabbitmq: RabbitMQ
) -> None:
    queue, taken = unique("good"), unique("taken")
    await declare(rabbitmq.url(), taken, durable=False)
    faults = {
        "password": (rabbitmq.url(password="secret-but-wrong"), queue, {}),
        "vhost": (rabbitmq.url(vhost="nowhere"), queue, {}),
        "missing": (rabbitmq.url(), unique("missing"), {"declare": False}),
        "arguments": (rabbitmq.url(), taken, {}),
        "rights": (rabbitmq.url("limited", "limited", "other"), queue, {}),
        "closed": ("amqp://127.0.0.1:9/", queue, {}),
        "plain": (f"amqps://127.0.0.1:{rabbitmq.port}/", queue, {}),
    }
    sections = [source(name, url, named, **more) for name, (url, named, more) in faults.items()]
    broker = brokers.start("".join([*sections, source("good", rabbitmq.url(), queue)]))
    await wait_running(broker, "good")
    said = {name: await trio.to_thread.run_sync(told, broker, name) for name in faults}
    for name, words in {
        "password": ("ACCESS_REFUSED", "check user and password"),
        "vhost": ("vhost nowhere not found", "check the vhost"),
        "missing": ("no queue 'missing", "set declare = true"),
        "arguments": ("inequivalent arg 'durable'", "make durable, dead_letter_exchange and arguments equal"),
        "rights": ("access to queue", "set_permissions"),
        "closed": ("Connection refused", "is RabbitMQ running there?"),
        "plain": ("TLS failed", "TLS port"),
    }.items():
        for word in words:
            assert word in said[name], said[name]
    assert "secret-but-wrong" not in broker.errors()

    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        await publish(rabbitmq.url(), queue, envelope("a.b"))
        assert (await client.frame())["event"] == "a.b"
    assert broker.request("GET", "/readyz").status == 200
    assert sources(broker)["amqp_good"] == "running"


async def test_a_queue_that_is_made_later_is_found(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    queue = unique("later")
    broker = brokers.start(source("main", rabbitmq.url(), queue, declare=False))
    await trio.to_thread.run_sync(told, broker, "main")
    await declare(rabbitmq.url(), queue)
    await wait_running(broker, "main")


async def test_a_queue_that_is_deleted_is_made_anew(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    queue = unique("deleted")
    broker = brokers.start(source("main", rabbitmq.url(), queue))
    await wait_running(broker, "main")
    await trio.to_thread.run_sync(rabbitmq.ctl, "delete_queue", queue)
    assert "ended the consumer" in await trio.to_thread.run_sync(told, broker, "main")
    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        await wait_running(broker, "main")
        await publish(rabbitmq.url(), queue, envelope("a.b"))
        assert (await client.frame())["event"] == "a.b"


async def test_the_next_node_is_tried_where_one_is_down(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    urls = ["amqp://127.0.0.1:9/", "amqp://127.0.0.1:10/", rabbitmq.url()]
    broker = brokers.start(source("main", urls, unique("cluster")))
    await wait_running(broker, "main")


async def test_tls_and_a_client_certificate_are_all_that_is_needed(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    by_password, by_certificate = unique("tls"), unique("external")
    broker = brokers.start(
        source("tls", rabbitmq.tls_url(), by_password)
        + source("external", rabbitmq.external_url(), by_certificate)
        + source("stranger", f"amqps://127.0.0.1:{rabbitmq.tls_port}/", by_password)
    )
    await wait_running(broker, "tls", "external")
    assert "certificate is not trusted" in await trio.to_thread.run_sync(told, broker, "stranger")
    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        for number, queue in enumerate((by_password, by_certificate)):
            await publish(rabbitmq.tls_url(), queue, envelope("a.b", number))
            assert (await client.frame())["data"] == number


async def test_bindings_bring_what_is_published_to_an_exchange(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    exchange = unique("events")
    binding = {"exchange": exchange, "type": "topic", "routing_key": "games.**"}
    more = {"bindings": [binding], "format": "routing_key"}
    broker = brokers.start(source("main", rabbitmq.url(), unique("bound"), **more))
    await wait_running(broker, "main")
    async with connected(broker, "ada") as client, publishing(rabbitmq.url()) as channel:
        await client.subscribe("**")
        for key in ("games", "games.1", "games.1.created", "groups.1"):
            await channel.publish(exchange, key, b'"payload"', Basic.Properties(), mandatory=False)
        assert [await client.frame() for _ in range(2)] == [
            {"event": "games.1", "data": "payload"},
            {"event": "games.1.created", "data": "payload"},
        ]


async def test_what_a_stopping_broker_delivered_is_acknowledged_and_the_rest_is_there(
    brokers: Brokers, rabbitmq: RabbitMQ
) -> None:
    queue, number = unique("stopping"), 2000
    broker = brokers.start(source("main", rabbitmq.url(), queue, prefetch=20))
    await wait_running(broker, "main")
    seen: list[int] = []
    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        await publish(rabbitmq.url(), queue, *(envelope(f"a.{each}", each) for each in range(number)))
        broker.process.terminate()
        with suppress(ConnectionClosed):
            while True:
                seen.append((await client.frame())["data"])
    await trio.to_thread.run_sync(broker.wait_ended)
    left = await take(rabbitmq.url(), queue, await ready(rabbitmq.url(), queue))
    assert sorted([*seen, *(json.loads(delivery.body)["data"] for delivery in left)]) == list(range(number))


async def test_publishing_waits_while_rabbitmq_is_short_of_memory(own_rabbitmq: RabbitMQ) -> None:
    node, queue = own_rabbitmq, unique("blocked")
    await declare(node.url(), queue)
    async with open_connection(parse_url(node.url()), name="test") as connection, trio.open_nursery() as nursery:
        channel = await connection.open_channel()
        await channel.confirm(10)
        await trio.to_thread.run_sync(node.ctl, "set_vm_memory_high_watermark", "0")
        first = await channel.publish("", queue, b"1", Basic.Properties())
        while not connection.blocked:
            await trio.sleep(0.01)
        second_sent = trio.Event()

        async def publish_second() -> None:
            second = await channel.publish("", queue, b"2", Basic.Properties())
            second_sent.set()
            await second.wait_confirmed()

        nursery.start_soon(publish_second)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not second_sent.is_set()
        await trio.to_thread.run_sync(node.ctl, "set_vm_memory_high_watermark", "0.8")
        await first.wait_confirmed()
        await second_sent.wait()


async def test_a_url_that_is_none_stops_the_start_and_shows_no_password(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    folder = brokers.folder
    (folder / "policy.toml").write_text('default = "everyone"\n')
    (folder / "config.toml").write_text(source("main", "amqp://me:hidden@host:port/", "q"))
    done = command("run", folder=folder)
    assert done.returncode == 2
    assert b"no AMQP URL" in done.stderr
    assert b"hidden" not in done.stderr


async def test_a_source_that_comes_back_is_waited_for_without_end(brokers: Brokers, own_rabbitmq: RabbitMQ) -> None:
    node = own_rabbitmq
    broker = brokers.start(source("main", node.url(), unique("again")))
    await wait_running(broker, "main")
    for _ in range(2):
        await trio.to_thread.run_sync(node.stop)
        await trio.to_thread.run_sync(wait_state, broker, "main", "waiting")
        await trio.to_thread.run_sync(node.start)
        await wait_running(broker, "main")
