"""Events by HTTP: every answer that a publisher can get."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.core.errors import BrokerError, LogUnavailable, Overloaded, Stopping
from broker.core.event import Event
from broker.core.http import Request
from connectors.webhook import PATIENCE, Webhook
from tests.connectors.posting import (
    EVENT,
    JSON,
    MAX_BODY,
    NDJSON,
    Anybody,
    Door,
    Words,
    answer,
    never,
    post,
    reading,
    said,
    unread,
)
from tests.turns import somebody_else

CLOUDEVENT = b'{"specversion":"1.0","id":"1","source":"/s","type":"games.1.created","data":{"a":1}}'

# --- 202 -------------------------------------------------------------------------------------------------------------


def test_it_answers_post_on_its_path() -> None:
    (route,) = Webhook(Words(), path="/in", max_body=MAX_BODY).routes(Door())
    assert (route.method, route.path) == ("POST", "/in")


@pytest.mark.parametrize(
    ("body", "media_type", "number"),
    [
        (EVENT, JSON, 1),
        (b"[%b,%b]" % (EVENT, EVENT), JSON, 2),
        (b"[]", JSON, 0),
        (EVENT + b"\n\n" + EVENT + b"\n", NDJSON, 2),
        (EVENT, "application/ndjson", 1),
        (EVENT, "application/jsonl", 1),
        (b"", NDJSON, 0),
    ],
)
async def test_what_is_taken_is_answered_with_the_ids(body: bytes, media_type: str, number: int) -> None:
    door = Door()
    response = await answer(post(body, media_type), door)
    assert (response.status, said(response)) == (202, {"ids": [f"id {index}" for index in range(number)]})
    assert door.events == [Event("games.1.created", b'{"a":1}', None, "webhook")] * number


@pytest.mark.parametrize(
    ("one", "join", "media_type", "events", "turns"),
    [
        (EVENT, b"\n", NDJSON, 20_000, 18),
        (EVENT, b",", JSON, 20_000, 18),
        (CLOUDEVENT, b",", "application/cloudevents-batch+json", 1_280, 18),
    ],
    ids=["lines", "array", "CloudEvents"],
)
async def test_a_body_of_many_events_does_not_keep_the_others_waiting(
    one: bytes, join: bytes, media_type: str, events: int, turns: int
) -> None:
    body = join.join([one] * events)
    webhook, door = Webhook(Words(), path="/in", max_body=10_000_000), Door()
    async with somebody_else() as other:
        response = await answer(post(b"[%b]" % body if join == b"," else body, media_type), door, webhook)
    assert response.status == 202
    assert len(door.events) == events
    assert other.turns >= turns


async def test_to_find_what_is_wrong_in_a_large_body_does_not_keep_the_others_waiting() -> None:
    body = b"[%b,nonsense]" % b",".join([EVENT] * 20_000)
    webhook = Webhook(Words(), path="/in", max_body=10_000_000)
    async with somebody_else() as other:
        response = await answer(post(body), webhook=webhook)
    assert (response.status, said(response)["index"]) == (400, 20_000)
    assert other.turns >= 18


async def test_of_many_events_none_is_taken_if_the_last_one_is_bad() -> None:
    door = Door()
    body = b"\n".join([EVENT] * 5_000 + [b"nonsense"])
    response = await answer(post(body, NDJSON), door, Webhook(Words(), path="/in", max_body=10_000_000))
    assert (response.status, said(response)["index"], door.events) == (400, 5_000, [])


async def test_an_id_of_the_publisher_is_kept() -> None:
    assert said(await answer(post(b'{"event":"games.1","id":"mine"}'))) == {"ids": ["mine"]}


@pytest.mark.parametrize("media_type", ["Application/JSON", f'{JSON}; charset="UTF-8"', f"{NDJSON};charset=utf8"])
async def test_a_media_type_may_be_written_in_its_several_ways(media_type: str) -> None:
    assert (await answer(post(media_type=media_type))).status == 202


async def test_a_token_may_come_in_the_query() -> None:
    request = Request(
        "POST", "/in", {"token": ["games"]}, [(b"content-type", b"application/json")], b"1.1", reading(EVENT)
    )
    assert (await answer(request)).status == 202


async def test_without_users_everybody_may_publish_and_no_token_is_looked_at() -> None:
    webhook = Webhook(Anybody(), path="/in", max_body=MAX_BODY, authenticate=False)
    assert (await answer(post(token="nonsense"), webhook=webhook)).status == 202


async def test_a_body_may_be_as_long_as_it_may() -> None:
    body = EVENT + b" " * (MAX_BODY - len(EVENT))
    assert (await answer(post(body))).status == 202


# --- 400, 413, 415 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b'[%b,{"event":""},%b]' % (EVENT, EVENT), JSON),
        (b"[%b,1]" % EVENT, JSON),
        (b"%b\n\n{}\n" % EVENT, NDJSON),
        (b'%b\n{"event":"games.1","id":""}' % EVENT, NDJSON),
    ],
)
async def test_a_bad_event_is_told_by_its_index_and_nothing_is_taken(body: bytes, media_type: str) -> None:
    door = Door()
    response = await answer(post(body, media_type, token="all"), door)
    assert (response.status, said(response)["index"], said(response)["code"]) == (400, 1, "bad_event")
    assert door.events == []


async def test_a_bad_name_is_bad_before_it_is_forbidden() -> None:
    response = await answer(post(b'{"event":"a b"}'))
    assert (response.status, said(response)["index"]) == (400, 0)


async def test_the_broker_s_own_names_are_bad() -> None:
    assert (await answer(post(b'{"event":"broker.x"}', token="all"))).status == 400


async def test_an_array_that_is_no_json_is_bad_as_a_whole() -> None:
    response = await answer(post(b"[" + EVENT))
    assert response.status == 400
    assert "index" not in said(response)


async def test_a_body_that_is_too_long_is_refused() -> None:
    door = Door()
    response = await answer(post(EVENT + b" " * MAX_BODY), door)
    assert (response.status, said(response)["code"], door.events) == (413, "body_too_large", [])


@pytest.mark.parametrize(
    "request_",
    [
        post(unread, None),
        post(unread, "text/plain"),
        post(unread, "application/x-www-form-urlencoded"),
        post(unread, f"{JSON}, text/plain"),
        post(unread, f"{JSON}; charset=latin-1"),
        post(unread, content_encoding="gzip"),
    ],
)
async def test_what_no_decoder_reads_is_refused_by_its_head(request_: Request) -> None:
    response = await answer(request_)
    assert (response.status, said(response)["code"]) == (415, "unsupported_media_type")


# --- 401, 403 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "code"), [(None, "missing_token"), ("nobody", "invalid_token"), ("old", "token_expired")]
)
async def test_who_is_not_known_is_refused_before_a_byte_is_read(token: str | None, code: str) -> None:
    response = await answer(post(unread, token=token))
    assert (response.status, said(response)["code"]) == (401, code)
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_another_scheme_is_no_token() -> None:
    assert (await answer(post(unread, token=None, authorization="Basic eDp5"))).status == 401


@pytest.mark.parametrize("token", ["reader", "broken"])
async def test_a_token_without_the_right_to_publish_is_refused_before_a_byte_is_read(token: str) -> None:
    response = await answer(post(unread, token=token))
    assert (response.status, said(response)["code"]) == (403, "not_permitted")
    assert "index" not in said(response)


async def test_an_event_beyond_the_right_is_told_by_its_index_and_nothing_is_taken() -> None:
    door = Door()
    response = await answer(post(b'[%b,{"event":"users.1"},{"event":"users.2"}]' % EVENT), door)
    assert (response.status, said(response)["index"], said(response)["code"]) == (403, 1, "not_permitted")
    assert door.events == []


@pytest.mark.parametrize("name", ["games", "other.x", "GAMES.1"])
async def test_a_right_is_no_wider_than_its_patterns(name: str) -> None:
    assert (await answer(post(b'{"event":"%b"}' % name.encode()))).status == 403


# --- 503 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "after"),
    [
        (Overloaded(), "overloaded", "1"),
        (Stopping(), "stopping", "1"),
        (LogUnavailable("the disk is full"), "log_unavailable", "1"),
    ],
)
async def test_who_can_not_be_served_now_is_told_when_to_come_again(error: BrokerError, code: str, after: str) -> None:
    response = await answer(post(), Door(error))
    assert (response.status, said(response)["code"], response.headers["Retry-After"]) == (503, code, after)


async def test_a_request_waits_a_little_for_room_and_not_for_ever() -> None:
    door = Door()
    await answer(post(), door)
    assert door.timeout == PATIENCE


async def test_one_body_too_many_at_a_time_is_told_to_come_again(autojump_clock: MockClock) -> None:
    webhook = Webhook(Words(), path="/in", max_body=MAX_BODY)
    async with trio.open_nursery() as nursery:
        for _ in range(64):
            nursery.start_soon(answer, post(never), None, webhook)
        await wait_all_tasks_blocked()
        response = await answer(post(), webhook=webhook)
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        nursery.cancel_scope.cancel()


async def test_a_request_that_ends_makes_room_for_another(autojump_clock: MockClock) -> None:
    webhook = Webhook(Words(), path="/in", max_body=MAX_BODY)
    for body in [EVENT, b"bad", b"x" * (MAX_BODY + 1)] * 64:
        await answer(post(body), webhook=webhook)
    assert (await answer(post(), webhook=webhook)).status == 202
