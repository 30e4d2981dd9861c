"""Presence of a real broker: who comes and goes is told, also when the broker itself went without a word."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from tests.system.application import socket
from tests.system.harness import SHIPPED_CONFIG, SHIPPED_POLICY, Broker, Brokers, eventually

pytestmark = pytest.mark.system

PRESENCE = "[presence]\ngrace = 0.5\n"


def watching(client: ClientConnection, *patterns: str) -> None:
    for pattern in patterns:
        client.send(json.dumps({"event": "subscribe", "data": pattern, "id": pattern}))
        while json.loads(client.recv(timeout=20)).get("reply") != pattern:
            pass


def heard(client: ClientConnection) -> Any:
    event = json.loads(client.recv(timeout=20))
    return event["event"], event["data"]


def online(broker: Broker, user: str) -> Any:
    bearer = broker.token(publish=["users.*.messages"])
    return broker.request("GET", f"/users/{user}", Authorization=f"Bearer {bearer}").json


def test_who_comes_and_who_goes_is_told_once(brokers: Brokers) -> None:
    broker = brokers.start(SHIPPED_CONFIG + PRESENCE, SHIPPED_POLICY)
    with socket(broker, user="ada") as ada:
        watching(ada, "users.bob.*")
        with socket(broker, user="bob"), socket(broker, user="bob"):
            assert heard(ada) == ("users.bob.online", {"userId": "bob"})
            assert online(broker, "bob") == {"user": "bob", "online": True, "connections": 2}
        assert heard(ada) == ("users.bob.offline", {"userId": "bob"})
        assert online(broker, "bob") == {"user": "bob", "online": False, "connections": 0}
        assert broker.metric("broker_users_online") == 1


def test_who_loads_a_page_anew_was_never_away(brokers: Brokers) -> None:
    broker = brokers.start(PRESENCE, SHIPPED_POLICY)
    with socket(broker, user="ada") as ada:
        watching(ada, "users.bob.*")
        for _ in range(5):
            with socket(broker, user="bob"):
                pass
        assert [heard(ada)[0], heard(ada)[0]] == ["users.bob.online", "users.bob.offline"]


def test_an_event_stream_is_a_connection_like_any_other(brokers: Brokers) -> None:
    broker = brokers.start(PRESENCE, SHIPPED_POLICY)
    with socket(broker, user="ada") as ada:
        watching(ada, "users.carol.*")
        stream = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=20)
        stream.request("GET", f"/events?pattern=a&token={broker.token('carol')}")
        assert heard(ada)[0] == "users.carol.online"
        stream.close()
        assert heard(ada)[0] == "users.carol.offline"


def test_after_a_crash_who_does_not_come_back_is_told_to_have_gone(brokers: Brokers) -> None:
    broker = brokers.start(PRESENCE, SHIPPED_POLICY)
    with socket(broker, user="ada") as ada, socket(broker, user="bob"), socket(broker, user="carol"):
        watching(ada, "users.*.*")
        eventually(lambda: broker.metric("broker_events_total") == 3, "three who are online")
        brokers.kill(broker)
    again = brokers.start_again(broker)
    with socket(again, user="ada") as ada, socket(again, user="bob"):
        watching(ada, "users.*.*")
        assert heard(ada) == ("users.carol.offline", {"userId": "carol"})
        assert {online(again, user)["online"] for user in ("ada", "bob")} == {True}
        assert again.metric("broker_events_total") == 1


def test_after_an_ordinary_end_too(brokers: Brokers) -> None:
    broker = brokers.start(PRESENCE, SHIPPED_POLICY)
    with socket(broker, user="bob"):
        eventually(lambda: broker.metric("broker_events_total") == 1, "bob")
        broker.process.terminate()
        assert broker.wait_ended() == 0
    again = brokers.start_again(broker)
    with socket(again, user="ada") as ada:
        watching(ada, "users.bob.*")
        assert heard(ada)[0] == "users.bob.offline"


def test_relations_of_the_policy_do_not_know_of_it(brokers: Brokers) -> None:
    broker = brokers.start(PRESENCE, SHIPPED_POLICY)
    with socket(broker, user="bob"):
        eventually(lambda: broker.metric("broker_events_total") == 1, "bob")
        metrics = broker.metrics()
        assert {value for name, value in metrics.items() if name.startswith("broker_relation_")} == {0}


def test_with_other_names_it_is_told_by_these(brokers: Brokers) -> None:
    config = 'online = "people.<userId>.came"\noffline = "people.<userId>.went"\n'
    broker = brokers.start(PRESENCE + config)
    with socket(broker, user="ada") as ada:
        watching(ada, "people.bob.*")
        with socket(broker, user="bob"):
            assert heard(ada)[0] == "people.bob.came"
        assert heard(ada)[0] == "people.bob.went"


def test_a_broker_that_only_hands_on_what_others_publish_adds_nothing_of_its_own(brokers: Brokers) -> None:
    broker = brokers.start('log.path = ":memory:"\n')
    with socket(broker, user="ada") as ada:
        watching(ada, "**")
        with socket(broker, user="bob"):
            eventually(lambda: online(broker, "bob")["online"], "bob")
        broker.publish("the.end")
        assert heard(ada)[0] == "the.end"
        assert broker.metric("broker_events_total") == 1
