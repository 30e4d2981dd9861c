"""Sending events over HTTP: patience, lost connections, and answers of what is no broker."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from cli import http_client
from cli.http_client import Answer, EventsClient, Unreachable
from cli.target import Target
from tests.cli.invoke import HANG_UP, FakeBroker, Say, serving, take

EVENT = b'{"event":"a","id":"1"}'
BUSY = Say(503, {"error": "busy", "code": "overloaded"}, {"Retry-After": "3"})


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with serving() as fake:
        yield fake


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it was waited each time; nobody really waits."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def send(fake: FakeBroker, *events: bytes, token: str | None = None) -> Answer:
    with EventsClient(Target(urlsplit(fake.url), token)) as client:
        return client.send(events or [EVENT])


def test_a_batch_is_ndjson_on_the_events_path(fake: FakeBroker) -> None:
    answer = send(fake, EVENT, EVENT, token="t")
    assert (answer.taken, answer.ids) == (True, ["1", "1"])
    (asked,) = fake.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/events", EVENT + b"\n" + EVENT + b"\n")
    assert (asked.headers["content-type"], asked.headers["authorization"]) == ("application/x-ndjson", "Bearer t")


def test_without_a_token_there_is_no_authorization(fake: FakeBroker) -> None:
    send(fake)
    assert "authorization" not in fake.asked[0].headers


def test_one_connection_takes_many_batches(fake: FakeBroker) -> None:
    with EventsClient(Target(urlsplit(fake.url), None)) as client:
        for _ in range(3):
            client.send([EVENT])
    assert len({asked.connection for asked in fake.asked}) == 1


def test_a_busy_broker_is_asked_again_when_it_said(fake: FakeBroker, pauses: list[float]) -> None:
    fake.first = [BUSY, BUSY]
    assert send(fake).taken
    assert pauses == [3, 3]


@pytest.mark.parametrize(("said", "waited"), [("3600", 10), ("soon", 1), ("\xb2", 1), ("0", 0)])
def test_it_is_not_waited_longer_than_is_reasonable(
    said: str, waited: float, fake: FakeBroker, pauses: list[float]
) -> None:
    fake.first = [Say(503, {"error": "busy"}, {"Retry-After": said})]
    assert send(fake).taken
    assert pauses == [waited]


def test_a_broker_that_is_always_busy_is_given_up(fake: FakeBroker, pauses: list[float]) -> None:
    fake.then = lambda _: BUSY
    answer = send(fake)
    assert (answer.taken, answer.status, answer.error) == (False, 503, "busy")


def test_a_lost_connection_is_opened_once_more(fake: FakeBroker) -> None:
    fake.first = [HANG_UP]
    assert send(fake).taken
    assert fake.asked[0].body == fake.asked[1].body


def test_a_connection_that_was_lost_while_idle_is_opened_once_more(fake: FakeBroker) -> None:
    fake.then = lambda asked: Say(202, take(asked).body, {"Connection": "close"})
    with EventsClient(Target(urlsplit(fake.url), None)) as client:
        assert client.send([EVENT]).taken
        assert client.send([EVENT]).taken


def test_a_connection_that_is_lost_again_is_the_end(fake: FakeBroker) -> None:
    fake.then = lambda _: HANG_UP
    with pytest.raises(Unreachable, match=fake.url):
        send(fake)
    assert len(fake.asked) == 2


def test_where_nobody_listens_it_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        target = Target(urlsplit(f"http://127.0.0.1:{taken.getsockname()[1]}"), None)
        with EventsClient(target) as client, pytest.raises(Unreachable, match="refused; is it running"):
            client.send([EVENT])


def test_https_to_a_server_without_is_told(fake: FakeBroker) -> None:
    target = Target(urlsplit(fake.url.replace("http:", "https:")), None)
    with EventsClient(target) as client, pytest.raises(Unreachable, match="SSL"):
        client.send([EVENT])


def test_a_server_that_takes_too_long_is_told(fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "TIMEOUT", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = Target(urlsplit(f"http://127.0.0.1:{silent.getsockname()[1]}"), None)
        with EventsClient(target) as client, pytest.raises(Unreachable, match="timed out"):
            client.send([EVENT])


def test_an_error_is_told_with_its_index(fake: FakeBroker) -> None:
    fake.first = [Say(400, {"error": "what is this?", "code": "bad_event", "index": 1})]
    answer = send(fake, EVENT, EVENT)
    assert (answer.taken, answer.too_large, answer.error, answer.index) == (False, False, "what is this?", 1)


def test_a_body_that_is_too_large_is_told_as_such(fake: FakeBroker) -> None:
    fake.first = [Say(413, {"error": "too large"})]
    assert send(fake).too_large


@pytest.mark.parametrize("index", [2, -1, "0", None, 0.5])
def test_an_index_that_is_none_of_the_batch_is_none(index: object, fake: FakeBroker) -> None:
    fake.first = [Say(400, {"error": "oh", "index": index})]
    assert send(fake, EVENT, EVENT).index is None


@pytest.mark.parametrize(
    "say",
    [
        Say(200, b"<html>"),
        Say(202, b"<html>"),
        Say(202, {"ids": []}),
        Say(202, {"ids": 1}),
        Say(202, []),
        Say(404, b""),
        Say(500, {"detail": "oh"}),
        Say(400, ["oh"]),
        Say(200, {"ids": ["1"]}),
        Say(400, b"\xff\xfe"),
    ],
)
def test_an_answer_of_what_is_no_broker_is_told_as_such(say: Say, fake: FakeBroker) -> None:
    fake.first = [say]
    answer = send(fake)
    assert (answer.taken, answer.error) == (False, f"an answer of no broker: HTTP {say.status}")
