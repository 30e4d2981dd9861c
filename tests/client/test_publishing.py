"""Publishing: an event is taken once, however often it has to be sent, or its publisher hears why not."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from broker.client import (
    ClientClosed,
    Options,
    Publisher,
    PublishFailed,
    TokenUnavailable,
    connect,
    open_publisher,
)
from broker.core.errors import BadName, PublisherError
from tests.cli.invoke import HANG_UP, Say, serving
from tests.client.server import FakeBroker
from tests.client.test_renewing import token
from tests.client.using import URL

Answer = httpx.Response | Exception | None
BUSY = {"error": "the broker is busy", "code": "overloaded"}


class Webhook:
    """Answers by a list, then by taking everything. None: there is no answer."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[httpx.Request] = []
        self.times: list[float] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        self.asked.append(request)
        self.times.append(trio.current_time())
        answer = self.answers.pop(0) if self.answers else take(request)
        if answer is None:
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer

    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.asked]


def take(request: httpx.Request) -> httpx.Response:
    return httpx.Response(202, json={"ids": [json.loads(request.content)["id"]]})


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Webhook:
    """Whoever publishes, publishes to this."""
    webhook = Webhook()
    client = partial(httpx.AsyncClient, transport=httpx.MockTransport(webhook))
    monkeypatch.setattr("broker.client.publishing.httpx.AsyncClient", client)
    monkeypatch.setattr("broker.client.retrying.new_backoff.__defaults__", (lambda: 1.0,))
    return webhook


@pytest.fixture
async def publisher(webhook: Webhook) -> AsyncIterator[Publisher]:
    async with open_publisher(URL, "a.b.c") as publisher:
        yield publisher


async def test_an_event_is_posted_with_its_token_and_an_id(publisher: Publisher, webhook: Webhook) -> None:
    event_id = await publisher.publish("games.42.created", {"name": "Größe"})
    (request,) = webhook.asked
    assert (request.method, str(request.url)) == ("POST", "http://broker.example/events")
    assert (request.headers["authorization"], request.headers["content-type"]) == ("Bearer a.b.c", "application/json")
    assert webhook.bodies() == [{"event": "games.42.created", "data": {"name": "Größe"}, "id": event_id}]


async def test_a_random_id_is_another_each_time_and_an_own_one_is_kept(publisher: Publisher, webhook: Webhook) -> None:
    assert await publisher.publish("a") != await publisher.publish("a")
    assert await publisher.publish("a", id="mine") == "mine"


async def test_a_client_publishes_as_it_connects(broker: FakeBroker, webhook: Webhook) -> None:
    async with connect("wss://broker.example:8443/ws", "a.b.c", options=Options(events_path="/in")) as client:
        await client.publish("a", 1, id="mine")
    assert str(webhook.asked[0].url) == "https://broker.example:8443/in"
    assert webhook.asked[0].headers["authorization"] == "Bearer a.b.c"
    with pytest.raises(ClientClosed):
        await client.publish("a")


async def test_without_a_token_none_is_shown(webhook: Webhook) -> None:
    async with open_publisher(URL) as publisher:
        await publisher.publish("a")
    assert "authorization" not in webhook.asked[0].headers


async def test_what_got_no_answer_is_sent_again_with_the_same_id(
    publisher: Publisher, webhook: Webhook, autojump_clock: MockClock
) -> None:
    webhook.answers = [httpx.ConnectError(""), httpx.ReadError("reset"), httpx.RemoteProtocolError("hung up")]
    event_id = await publisher.publish("a")
    assert [body["id"] for body in webhook.bodies()] == [event_id] * 4
    assert webhook.times == [0, 0.25, 0.75, 1.75]


async def test_a_busy_broker_is_given_the_time_that_it_asks_for(
    publisher: Publisher, webhook: Webhook, autojump_clock: MockClock
) -> None:
    webhook.answers = [
        httpx.Response(503, json=BUSY, headers={"Retry-After": "3"}),
        httpx.Response(503, json=BUSY, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        httpx.Response(502, text="<html>"),
        httpx.Response(429, json=BUSY, headers={"Retry-After": "0"}),
    ]
    await publisher.publish("a")
    assert webhook.times == [0, 3, 3.5, 4.5, 6.5]


async def test_but_not_more_than_there_is(publisher: Publisher, webhook: Webhook, autojump_clock: MockClock) -> None:
    webhook.answers = [httpx.Response(503, json=BUSY, headers={"Retry-After": "9" * 1000})]
    with pytest.raises(PublishFailed, match="'a' was not published: HTTP 503 the broker is busy") as failed:
        await publisher.publish("a", timeout=5)
    assert (failed.value.status, failed.value.code, trio.current_time()) == (503, "overloaded", 5)


async def test_where_nobody_answers_it_gives_up_in_the_end(
    publisher: Publisher, webhook: Webhook, autojump_clock: MockClock
) -> None:
    webhook.answers = [httpx.ConnectError("no network")] * 100
    with pytest.raises(PublishFailed, match="no network") as failed:
        await publisher.publish("a")
    assert (failed.value.status, failed.value.code, trio.current_time()) == (None, None, 30)
    assert len(webhook.asked) < 10


async def test_an_answer_that_never_comes_is_not_waited_for(
    publisher: Publisher, webhook: Webhook, autojump_clock: MockClock
) -> None:
    webhook.answers = [None]
    with pytest.raises(PublishFailed, match="there was no time"):
        await publisher.publish("a", timeout=2)
    assert trio.current_time() == 2


@pytest.mark.parametrize(
    ("answer", "told", "code"),
    [
        (httpx.Response(403, json={"error": "no", "code": "not_permitted"}), "HTTP 403 no", "not_permitted"),
        (httpx.Response(400, json={"error": "bad", "code": "bad_event", "index": 0}), "HTTP 400 bad", "bad_event"),
        (httpx.Response(401, json={"error": "who?", "code": "missing_token"}), "HTTP 401 who\\?", "missing_token"),
        (httpx.Response(404, text="<html>"), "HTTP 404, and no answer of a broker's", None),
        (httpx.Response(202, json={}), "HTTP 202, and no answer of a broker's", None),
        (httpx.Response(202, json={"ids": []}), "was not published", None),
        (httpx.Response(200, text="[" * 2_000_000), "HTTP 200, and no answer of a broker's", None),
        (httpx.Response(307, headers={"Location": "https://elsewhere.example"}), "HTTP 307", None),
    ],
)
async def test_what_is_refused_is_told_and_not_sent_again(
    answer: httpx.Response, told: str, code: str | None, publisher: Publisher, webhook: Webhook
) -> None:
    webhook.answers = [answer]
    with pytest.raises(PublishFailed, match=told) as failed:
        await publisher.publish("a")
    assert (failed.value.status, failed.value.code) == (answer.status_code, code)
    assert len(webhook.asked) == 1


@pytest.mark.parametrize(
    ("name", "data", "event_id", "error"),
    [
        ("a..b", 1, None, BadName),
        ("a", object(), None, TypeError),
        ("a", float("nan"), None, ValueError),
        ("a", 1, "", PublisherError),
        ("a", 1, "a\n", PublisherError),
    ],
)
async def test_what_is_no_event_is_not_sent(
    name: str, data: object, event_id: str | None, error: type[Exception], publisher: Publisher, webhook: Webhook
) -> None:
    with pytest.raises(error):
        await publisher.publish(name, data, event_id)
    assert webhook.asked == []


async def test_over_a_real_socket_nothing_else_happens() -> None:
    with serving() as fake:
        fake.first = [HANG_UP, Say(503, BUSY, {"Retry-After": "0"}), HANG_UP]
        async with open_publisher(fake.url, "a.b.c") as publisher:
            event_id = await publisher.publish("a", {"text": "ä" * 100_000})
            await publisher.publish("b")
        bodies = [json.loads(asked.body) for asked in fake.asked]
        assert [(body["event"], body["id"] == event_id) for body in bodies] == [("a", True)] * 4 + [("b", False)]
        assert fake.asked[-1].headers["host"] == fake.url.removeprefix("http://")
        assert fake.asked[-1].connection is fake.asked[-2].connection


# --- Tokens -----------------------------------------------------------------------------------------------------------


def in_turn(*tokens: str) -> Callable[[], str]:
    return lambda left=list(tokens): left.pop(0)  # type: ignore[misc]


async def test_a_token_that_is_refused_is_replaced_once(webhook: Webhook) -> None:
    webhook.answers = [httpx.Response(401, json={"error": "expired", "code": "token_expired"})]
    async with open_publisher(URL, in_turn("first", "second")) as publisher:
        await publisher.publish("a")
        await publisher.publish("b")
    used = [request.headers["authorization"] for request in webhook.asked]
    assert used == ["Bearer first", "Bearer second", "Bearer second"]


async def test_a_token_that_has_run_out_is_not_used(webhook: Webhook) -> None:
    async with open_publisher(URL, in_turn(token(time.time() - 1), "fresh")) as publisher:
        await publisher.publish("a")
        await publisher.publish("b")
    assert webhook.asked[-1].headers["authorization"] == "Bearer fresh"


async def test_a_function_that_gives_no_token_is_told(webhook: Webhook) -> None:
    async with open_publisher(URL, in_turn()) as publisher:
        with pytest.raises(TokenUnavailable):
            await publisher.publish("a")
