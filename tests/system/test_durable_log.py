"""The log on disk, seen from outside: what a broker has taken and learned outlives it, however it ends."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from tests.system.client import connected
from tests.system.harness import OPEN_POLICY, SHIPPED_CONFIG, SHIPPED_POLICY, Broker, Brokers, command

pytestmark = pytest.mark.system

End = Callable[[Brokers, Broker], Broker]


def publish(broker: Broker, name: str, data: object, event_id: str) -> str:
    answer = broker.post(json.dumps({"event": name, "data": data, "id": event_id}).encode())
    assert answer.status == 202, answer
    (taken,) = answer.json["ids"]
    return str(taken)


def killed(brokers: Brokers, broker: Broker) -> Broker:
    brokers.kill(broker)
    return brokers.start_again(broker)


def stopped(brokers: Brokers, broker: Broker) -> Broker:
    broker.signal(signal.SIGTERM)
    assert broker.wait_ended() == 0
    brokers.running.remove(broker)
    return brokers.start_again(broker)


@pytest.mark.parametrize("end", [killed, stopped])
async def test_who_is_a_member_is_known_after_a_restart(brokers: Brokers, end: End) -> None:
    broker = brokers.start(SHIPPED_CONFIG, SHIPPED_POLICY)
    broker.publish("groups.1.created", {"members": ["ada", "bob", "cid"]})
    broker.publish("groups.1.updated", {"members": ["ada", "bob"]})
    broker = end(brokers, broker)
    broker.publish("groups.2.created", {"members": ["bob"]})
    broker = end(brokers, broker)
    async with connected(broker, "ada") as ada, connected(broker, "bob") as bob, connected(broker, "cid") as cid:
        for client in (ada, bob, cid):
            await client.subscribe("groups.**")
        broker.publish("groups.1.messages.1.created")
        broker.publish("groups.2.messages.1.created")
        assert await ada.names() == ["groups.1.messages.1.created"]
        assert await bob.names() == ["groups.1.messages.1.created", "groups.2.messages.1.created"]
        assert await cid.names() == []
    assert broker.metric("broker_relation_facts") == 3


@pytest.mark.parametrize("end", [killed, stopped])
async def test_an_id_is_known_after_a_restart(brokers: Brokers, end: End) -> None:
    broker = brokers.start()
    given_by_us = broker.publish("news.first")
    publish(broker, "news.second", 1, "own")
    broker = end(brokers, broker)
    async with connected(broker, "ada") as ada:
        await ada.subscribe("news.*")
        assert publish(broker, "news.first", 1, given_by_us) == given_by_us
        assert publish(broker, "news.second", 1, "own") == "own"
        publish(broker, "news.third", 1, "another")
        assert await ada.names() == ["news.third"]
    assert broker.metric("broker_repeated_total") == 2


async def test_it_says_what_it_opened(brokers: Brokers) -> None:
    broker = brokers.start(SHIPPED_CONFIG, SHIPPED_POLICY)
    broker.publish("groups.1.created", {"members": ["ada", "bob"]})
    broker = killed(brokers, broker)
    opened, recalled = broker.wait_logged("log.opened"), broker.wait_logged("relations.recalled")
    assert (opened["events"], opened["facts"]) == (1, 0)
    assert (recalled["facts"], recalled["learned_again"]) == (2, 1)
    broker = stopped(brokers, broker)
    opened, recalled = broker.wait_logged("log.opened"), broker.wait_logged("relations.recalled")
    assert (opened["events"], opened["facts"]) == (1, 2)
    assert (recalled["facts"], recalled["learned_again"]) == (2, 0)


async def test_the_log_is_for_us_alone_and_lies_beside_the_configuration(brokers: Brokers) -> None:
    broker = brokers.start()
    log = broker.folder / ".broker/log.db"
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


async def test_in_memory_nothing_is_written(brokers: Brokers) -> None:
    broker = brokers.start('[log]\npath = ":memory:"')
    broker.publish("news.first")
    assert not [file for file in broker.folder.rglob("*") if ".db" in file.name or "memory" in file.name]
    broker = stopped(brokers, broker)
    assert broker.metric("broker_log_events") == 0


async def test_a_second_broker_on_the_same_log_is_refused_and_told_why(brokers: Brokers) -> None:
    broker = brokers.start()
    ended = command("run", folder=broker.folder)
    assert ended.returncode == 2
    said = ended.stderr.decode()
    assert f"log.db is in use by another broker, process {broker.process.pid}" in said
    assert "Traceback" not in said
    broker.publish("news.first")


async def test_a_damaged_log_is_refused_and_told_what_to_do(brokers: Brokers) -> None:
    broker = brokers.start()
    broker.publish("news.first")
    brokers.kill(broker)
    for file in (broker.folder / ".broker").glob("log.db*"):
        file.write_bytes(b"nonsense" * 1000)
    ended = command("run", folder=broker.folder)
    assert ended.returncode == 2
    said = ended.stderr.decode().splitlines()[-1]
    assert "log.db is damaged, or no log at all (docs/operations.md" in said


async def test_a_policy_that_is_refused_leaves_no_log_behind(brokers: Brokers) -> None:
    broker = brokers.launch("", "nonsense")
    assert broker.wait_ended() == 2
    brokers.running.remove(broker)
    assert not (broker.folder / ".broker/log.db").exists()
    (broker.folder / "policy.toml").write_text(OPEN_POLICY)
    broker.ready_file.touch()
    brokers.start_again(broker).publish("news.first")
