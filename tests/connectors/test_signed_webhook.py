"""Events by HTTP from publishers that sign: who they are, what they may, and what they may send beyond the others."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.core.event import Event
from broker.core.http import Request, Response
from broker.core.permissions import Permission
from connectors.signatures import Signatures, Source
from connectors.webhook import Webhook
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
    signed_by_github,
    signed_by_standard_webhooks,
    unread,
)

KEY = b"k" * 24
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
CLOUDEVENT = b'{"specversion":"1.0","id":"1","source":"/s","type":"games.1.created","data":1}'
BILLING = Source("billing", "standard-webhooks", (KEY,), Permission(["games.**"]))
HUB = Source("hub", "github", (KEY,), Permission(["games.**", "hub.**"]))


def webhook(*sources: Source, authenticate: bool = True) -> Webhook:
    who = Words() if authenticate else Anybody()
    return Webhook(who, path="/in", max_body=MAX_BODY, authenticate=authenticate, signatures=Signatures(sources))


def by_billing(body: bytes, media_type: str | None = JSON, token: str | None = None, **more: str) -> Request:
    return post(body, media_type, token, **{**signed_by_standard_webhooks(KEY, body), **more})


def by_hub(body: bytes, media_type: str | None = JSON, token: str | None = None, **more: str) -> Request:
    return post(body, media_type, token, **{**signed_by_github(KEY, body), **more})


def from_github(event: str, body: bytes, **more: str) -> Request:
    return by_hub(body, x_github_event=event, x_github_delivery="72d3162e", **more)


async def sent(request: Request) -> tuple[Response, list[Event]]:
    """What both sources' webhook answers, and what it took."""
    door = Door()
    return await answer(request, door, webhook(BILLING, HUB)), door.events


async def refused(request: Request, hook: Webhook | None = None) -> tuple[int, str]:
    door = Door()
    response = await answer(request, door, hook or webhook(BILLING, HUB))
    assert door.events == []
    return response.status, said(response)["code"]


# --- Who it is -------------------------------------------------------------------------------------------------------


async def test_a_signed_event_is_taken_and_bears_the_name_of_its_source() -> None:
    response, events = await sent(by_billing(EVENT))
    assert (response.status, said(response)) == (202, {"ids": ["msg_1"]})
    assert events == [Event("games.1.created", b'{"a":1}', "msg_1", "webhook.billing")]
    response, events = await sent(by_hub(EVENT))
    assert (response.status, events) == (202, [Event("games.1.created", b'{"a":1}', None, "webhook.hub")])


@pytest.mark.parametrize("sign", [by_billing, by_hub])
@pytest.mark.parametrize(
    ("body", "media_type", "number"),
    [
        (EVENT, JSON, 1),
        (b"[%b,%b]" % (EVENT, EVENT), JSON, 2),
        (b"[]", JSON, 0),
        (EVENT + b"\n" + EVENT, NDJSON, 2),
        (CLOUDEVENT, STRUCTURED, 1),
        (b"[%b,%b]" % (CLOUDEVENT, CLOUDEVENT), BATCH, 2),
    ],
)
async def test_who_signs_may_send_what_others_may(
    sign: Callable[[bytes, str], Request], body: bytes, media_type: str, number: int
) -> None:
    response, events = await sent(sign(body, media_type))
    assert response.status == 202
    assert [event.name for event in events] == ["games.1.created"] * number


@pytest.mark.parametrize("sign", [by_billing, by_hub])
async def test_a_tampered_body_is_refused_before_it_is_decoded(sign: Callable[[bytes], Request]) -> None:
    for tampered in (EVENT.replace(b"1", b"2"), b"no JSON", b"", b"\xff"):
        request = replace(sign(EVENT), read_body=reading(tampered))
        assert await refused(request) == (401, "invalid_signature")


async def test_a_signature_that_can_not_be_good_is_refused_before_a_byte_is_read() -> None:
    for headers in ({"webhook-signature": "v1,AAAA"}, {"x-hub-signature-256": "sha256=00"}):
        assert await refused(post(unread, JSON, None, **headers)) == (401, "invalid_signature")


@pytest.mark.parametrize("hook", [webhook(), webhook(HUB)])
async def test_where_nobody_signs_like_that_it_says_so_before_a_byte_is_read(hook: Webhook) -> None:
    request = replace(by_billing(EVENT), read_body=unread)
    assert await refused(request, hook) == (401, "invalid_signature")
    response = await answer(request, webhook=hook)
    assert "no source here has the signature standard-webhooks" in said(response)["error"]


@pytest.mark.parametrize("sign", [by_billing, by_hub])
@pytest.mark.parametrize("token", ["games", "nobody", "old"])
async def test_a_token_and_a_signature_together_are_refused(sign: Callable[..., Request], token: str) -> None:
    request = replace(sign(EVENT, token=token), read_body=unread)
    assert await refused(request) == (401, "invalid_token")
    assert await refused(request, webhook()) == (401, "invalid_token")
    in_the_query = replace(sign(EVENT), query={"token": [token]})
    assert await refused(in_the_query) == (401, "invalid_token")


async def test_two_signatures_together_are_refused() -> None:
    request = by_billing(EVENT, **signed_by_github(KEY, EVENT))
    assert await refused(replace(request, read_body=unread)) == (401, "invalid_token")


async def test_a_token_serves_beside_sources_as_before() -> None:
    response, events = await sent(post())
    assert (response.status, [event.source for event in events]) == (202, ["webhook"])
    assert await refused(post(unread, token=None)) == (401, "missing_token")


@pytest.mark.parametrize("sign", [by_billing, by_hub])
async def test_a_source_may_publish_what_it_may_and_nothing_else(sign: Callable[[bytes], Request]) -> None:
    request = sign(b'[%b,{"event":"users.1"},%b]' % (EVENT, EVENT))
    assert await refused(request) == (403, "not_permitted")
    response = await answer(request, webhook=webhook(BILLING, HUB))
    assert said(response)["index"] == 1
    assert said(response)["error"].endswith("may not publish 'users.1'")


async def test_a_source_s_right_is_not_that_of_another() -> None:
    body = b'{"event":"hub.x"}'
    assert (await sent(by_hub(body)))[0].status == 202
    assert await refused(by_billing(body)) == (403, "not_permitted")


async def test_the_broker_s_own_names_are_bad() -> None:
    everything = replace(BILLING, permission=Permission(["**", "broker.**"]))
    assert await refused(by_billing(b'{"event":"broker.x"}'), webhook(everything)) == (400, "bad_event")


# --- Without users ---------------------------------------------------------------------------------------------------


async def test_without_users_who_does_not_sign_needs_nothing() -> None:
    hook = webhook(BILLING, authenticate=False)
    assert (await answer(post(token=None), webhook=hook)).status == 202
    assert (await answer(post(token="nonsense"), webhook=hook)).status == 202


async def test_without_users_a_signature_is_checked_where_somebody_signs() -> None:
    hook = webhook(BILLING, authenticate=False)
    assert (await answer(by_billing(EVENT), webhook=hook)).status == 202
    assert await refused(replace(by_billing(EVENT), read_body=reading(b"[]")), hook) == (401, "invalid_signature")
    assert await refused(by_billing(b'{"event":"users.1"}'), hook) == (403, "not_permitted")


async def test_without_users_and_sources_a_signature_is_not_looked_at() -> None:
    for hook in (webhook(authenticate=False), webhook(HUB, authenticate=False)):
        assert (await answer(post(EVENT, JSON, None, webhook_signature="v1,AAAA"), webhook=hook)).status == 202


# --- How much of it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [by_billing, by_hub])
async def test_a_body_that_is_too_long_is_refused(sign: Callable[[bytes], Request]) -> None:
    longest = EVENT + b" " * (MAX_BODY - len(EVENT))
    assert (await sent(sign(longest)))[0].status == 202
    assert await refused(sign(longest + b" ")) == (413, "body_too_large")


async def test_bodies_that_nobody_answers_for_yet_take_no_room_from_those_with_a_token(
    autojump_clock: MockClock,
) -> None:
    hook = webhook(BILLING)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(answer, replace(by_billing(EVENT), read_body=never), None, hook)
        await wait_all_tasks_blocked()
        assert (await answer(post(), webhook=hook)).status == 202
        response = await answer(by_billing(EVENT), webhook=hook)
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        nursery.cancel_scope.cancel()


async def test_a_request_that_ends_makes_room_for_another(autojump_clock: MockClock) -> None:
    hook = webhook(BILLING)
    bad = replace(by_billing(EVENT), read_body=reading(b"bad"))
    for request in [by_billing(EVENT), bad, by_billing(b"bad"), by_billing(b"x" * (MAX_BODY + 1))] * 16:
        await answer(request, webhook=hook)
    assert (await answer(by_billing(EVENT), webhook=hook)).status == 202


# --- Forms of their own ----------------------------------------------------------------------------------------------


async def test_the_payload_that_standard_webhooks_recommends_is_an_event() -> None:
    body = b'{"type":"games.1.ended", "timestamp":"2022-11-03T20:26:10.344522Z", "data": {"b": 1, "a": [ ]} , "more":1}'
    response, events = await sent(by_billing(body))
    assert response.status == 202
    assert events == [Event("games.1.ended", b'{"b": 1, "a": [ ]}', "msg_1", "webhook.billing")]


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"games.1"}',
        b'{"type":1,"data":1}',
        b'{"data":1}',
        b'{"type":"games.1","data":1,"event":"games.1"}',
        b'{"type":"games.1","data":1,"event":null}',
        b'[{"type":"games.1","data":1}]',
        b'{"type":"games 1","data":1}',
        b'{"type":"games.1","data":"\xff"}',
        b'{"type":"games.\\ud800","data":1}',
        b'{"type":"games.1","data":%b}' % (b"[" * 129 + b"]" * 129),
        b'{"type":"games.1","data":nope}',
        b"{",
    ],
)
async def test_what_is_not_that_payload_is_no_event(body: bytes) -> None:
    if b"\xff" in body:
        assert await refused(post(body, JSON, None, **signed_by_standard_webhooks(KEY, b""))) == (
            401,
            "invalid_signature",
        )
    else:
        assert await refused(by_billing(body)) == (400, "bad_event")


async def test_only_who_signs_with_standard_webhooks_may_send_its_payload() -> None:
    body = b'{"type":"games.1.ended","data":1}'
    assert await refused(post(body)) == (400, "bad_event")
    assert await refused(by_hub(body)) == (400, "bad_event")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"action":"opened","issue":{"event":"x"}}', "hub.issues.opened"),
        (b'{"zen":"Keep it logically awesome."}', "hub.issues"),
        (b'{"action":null}', "hub.issues"),
        (b'{"event":{"a":1}}', "hub.issues"),
        (b"{}", "hub.issues"),
    ],
)
async def test_what_github_sends_is_an_event_named_by_it(body: bytes, name: str) -> None:
    response, events = await sent(from_github("issues", b" %b\n" % body))
    assert (response.status, said(response)) == (202, {"ids": ["72d3162e"]})
    assert events == [Event(name, body, "72d3162e", "webhook.hub")]


async def test_an_event_of_the_broker_s_own_form_stays_one() -> None:
    _, events = await sent(from_github("issues", EVENT))
    assert events == [Event("games.1.created", b'{"a":1}', None, "webhook.hub")]


async def test_only_what_github_has_signed_is_github_s() -> None:
    body = b'{"action":"opened"}'
    assert await refused(by_billing(body, x_github_event="issues")) == (400, "bad_event")
    assert await refused(post(body, x_github_event="issues")) == (400, "bad_event")
    assert await refused(by_hub(body)) == (400, "bad_event")


@pytest.mark.parametrize("event", ["", "a b", "a.*", "a..b", "\xff", "x" * 300])
async def test_an_event_of_github_has_a_good_name_or_is_refused(event: str) -> None:
    response, events = await sent(from_github(event, b"{}"))
    assert (response.status, len(events)) == ((202, 1) if event == "\xff" else (400, 0))


@pytest.mark.parametrize(
    "body", [b'{"action":"a b"}', b'{"action":""}', b'{"action":nope}', b'{"action":"\\ud800"}', b"{"]
)
async def test_a_bad_payload_of_github_is_refused(body: bytes) -> None:
    assert await refused(from_github("issues", body)) == (400, "bad_event")


async def test_a_form_of_github_is_refused_with_what_to_choose_instead() -> None:
    request = replace(from_github("push", b"payload=%7B%7D"), read_body=unread)
    headers = [item for item in request.headers if item[0] != b"content-type"]
    form = replace(request, headers=[*headers, (b"content-type", b"application/x-www-form-urlencoded")])
    response = await answer(form, webhook=webhook(HUB))
    assert response.status == 415
    assert "choose application/json" in said(response)["error"]


@pytest.mark.parametrize("sign", [by_billing, by_hub])
async def test_a_name_that_no_signature_covers_is_not_taken(sign: Callable[..., Request]) -> None:
    head = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "games.1.created"}
    request = replace(sign(b"1", **head), read_body=unread)
    assert await refused(request) == (415, "unsupported_media_type")
    assert (
        "a signature does not cover the ce- headers"
        in said(await answer(request, webhook=webhook(BILLING, HUB)))["error"]
    )


# --- Ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "media_type", "ids"),
    [
        (EVENT, JSON, ["msg_1"]),
        (b'{"event":"games.1","id":"mine"}', JSON, ["msg_1"]),
        (b'[{"event":"games.1","id":"mine"}]', JSON, ["msg_1"]),
        (CLOUDEVENT, STRUCTURED, ["msg_1"]),
        (b'{"type":"games.1","data":1}', JSON, ["msg_1"]),
        (b'[%b,{"event":"games.1","id":"mine"},%b]' % (EVENT, EVENT), JSON, ["msg_1.0", "mine", "msg_1.2"]),
        (EVENT + b"\n\n" + EVENT, NDJSON, ["msg_1.0", "msg_1.1"]),
        (b"[%b,%b]" % (CLOUDEVENT, CLOUDEVENT.replace(b'"1"', b'"2"')), BATCH, ["/s 1", "/s 2"]),
        (b"[]", JSON, []),
    ],
)
async def test_the_message_s_id_is_the_event_s(body: bytes, media_type: str, ids: list[str]) -> None:
    assert said((await sent(by_billing(body, media_type)))[0]) == {"ids": ids}


async def test_an_empty_id_is_bad_also_where_another_could_stand_for_it() -> None:
    assert await refused(by_billing(b'[%b,{"event":"games.1","id":""}]' % EVENT)) == (400, "bad_event")


async def test_the_head_s_id_counts_for_nobody_else() -> None:
    _, events = await sent(by_hub(EVENT, webhook_id="msg_1", x_github_delivery="x"))
    assert [event.id for event in events] == [None]


# --- Whatever comes --------------------------------------------------------------------------------------------------

latin = st.text(st.characters(max_codepoint=255), max_size=40)
names = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-hub-signature-256",
    "x-github-event",
    "ce-specversion",
]
members = st.dictionaries(st.sampled_from(["event", "type", "data", "action", "id"]), st.none() | st.text(max_size=3))


@given(st.dictionaries(st.sampled_from(names), latin), st.binary() | members.map(json.dumps).map(str.encode))
async def test_hostile_requests_are_answered(headers: dict[str, str], body: bytes) -> None:
    answers: list[Awaitable[tuple[Response, list[Event]]]] = [
        sent(post(body, JSON, None, **headers)),
        sent(post(body, JSON, None, **{**signed_by_github(KEY, body), **headers})),
    ]
    for waiting in answers:
        response, events = await waiting
        assert response.status in (202, 400, 401, 403, 415)
        assert not events or response.status == 202
