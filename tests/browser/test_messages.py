"""What an application sends is handed on as it came; what only looks like it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.browser.fake_broker import FakeBroker, Visit
from tests.browser.pages import Page, open_page, why_no_builtin, why_no_ws
from tests.browser.visits import back, begun, handed
from tests.needing import needed

ANY_JSON: list[Any] = [None, 7, 0.5, True, "text", [], [1, "é"], {}, {"novel": True}, {"from": "ada", "text": "hello"}]
NO_JSON = ["", "hello", "<html>", "[1", "NaN", "ada nudges you"]
# What has something of a frame of the broker's, and is none.
ALIKE: list[dict[str, Any]] = [
    {"event": "chat.42.said", "data": {"text": "hello"}},
    {"event": "chat.42.said"},
    {"event": "order", "data": 1, "id": 7},
    {"event": 7, "id": "p7"},
    {"event": None, "id": "p7"},
    {"id": "p7", "data": 1},
    {"error": "sold out"},
    {"error": {"text": "sold out"}, "code": 7},
    {"code": "sold_out"},
    {"reply": "p7", "data": 1},
]


async def hearing(page: Page, broker: FakeBroker, *patterns: str) -> Visit:
    visit = await begun(page, broker, *patterns)
    await page.do("hear")
    return visit


@pytest.mark.parametrize("value", ANY_JSON + ALIKE)
async def test_json_is_handed_on_as_its_value(value: Any, page: Page, broker: FakeBroker) -> None:
    visit = await hearing(page, broker, "**")
    await visit.say(json.dumps(value))
    assert await page.told() == {"heard": value}


@pytest.mark.parametrize("text", NO_JSON)
async def test_a_text_that_is_no_json_is_handed_on_as_it_is(text: str, page: Page, broker: FakeBroker) -> None:
    visit = await hearing(page, broker, "**")
    await visit.say(text)
    assert await page.told() == {"heard": text}


@pytest.mark.parametrize("socket", ["ws", "builtin"])
@pytest.mark.parametrize("data", [b"", b"{}", bytes(range(256))])
async def test_binary_is_handed_on_as_an_array_buffer(data: bytes, socket: str, broker: FakeBroker) -> None:
    needed(why_no_ws() if socket == "ws" else why_no_builtin())
    async with open_page(socket) as page:
        visit = await hearing(page, broker, "**")
        await visit.say(data)
        assert await page.told() == {"heard": {"binary": list(data)}}


async def test_messages_and_events_come_in_their_order(page: Page, broker: FakeBroker) -> None:
    visit = await hearing(page, broker, "a.*")
    await visit.event("a.1", "p1")
    await visit.event("a.1", None, "said")
    await visit.event("a.2", "p2")
    await visit.say("hello")
    assert [await page.told() for _ in range(4)] == [
        handed("a.*", "a.1", "p1"),
        {"heard": {"event": "a.1", "data": "said"}},
        handed("a.*", "a.2", "p2"),
        {"heard": "hello"},
    ]


async def test_what_the_broker_itself_says_is_no_message(page: Page, broker: FakeBroker) -> None:
    visit = await hearing(page, broker, "a")
    await page.do("listen", kind="error")
    await visit.event("a", "p1")
    await visit.reply(99, "to nobody")
    await visit.refuse(99, "handler_failed")
    await visit.say('{"error": "too deep", "code": "bad_json"}')
    await visit.say("the last")
    assert await page.told() == handed("a", "a", "p1")
    assert await page.told() == {"told": "error", "code": "bad_json", "message": "too deep", "fatal": False}
    assert await page.told() == {"heard": "the last"}


async def test_what_comes_before_the_first_position_is_a_message_whatever_will_be_subscribed(
    page: Page, broker: FakeBroker
) -> None:
    await page.several(
        {"do": "connect", "url": broker.url, "socket": "ws", "options": {}},
        {"do": "hear"},
        {"do": "subscribe", "pattern": "**", "name": "all"},
    )
    visit = await broker.visit()
    await visit.event("chat.welcome", None, "ada")  # no event yet, since nothing was asked for
    assert await page.told() == {"heard": {"event": "chat.welcome", "data": "ada"}}
    await visit.welcome("here")
    assert await page.told() == {"told": "open"}


async def test_after_a_loss_only_what_may_be_an_event_that_comes_again_is_passed_over(
    page: Page, broker: FakeBroker
) -> None:
    visit = await hearing(page, broker, "a.*")
    await visit.vanish()
    visit = await back(page, broker)
    subscribed = await visit.expect("subscribe", "a.*")
    resumed = await visit.expect("resume", "here")
    await visit.event("a.1", None, "slips in")
    others: list[Any] = [{"event": "b.1", "data": 1}, {"event": 7, "data": 1}, {"text": "a.1"}, "a.1", None]
    for value in others:
        await visit.say(json.dumps(value))
        assert await page.told() == {"heard": value}
    await visit.say(b"a.1")
    assert await page.told() == {"heard": {"binary": [97, 46, 49]}}
    await visit.reply(subscribed, {})
    await visit.event("a.1", None, "slips in")
    await visit.event("a.1", "p1", "slips in")
    assert await page.told() == handed("a.*", "a.1", "p1", "slips in")
    await visit.reply(resumed, {"id": "p1"})
    assert await page.told() == {"told": "open"}
    await visit.event("a.1", None, "said")
    assert await page.told() == {"heard": {"event": "a.1", "data": "said"}}


async def test_an_event_of_a_pattern_that_goes_meanwhile_is_no_message(page: Page, broker: FakeBroker) -> None:
    visit = await hearing(page, broker, "a")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("a")
    resumed = await visit.expect("resume", "here")
    await page.do("unsubscribe", name="a")
    await visit.event("a", None, "slips in")
    await visit.reply(resumed, {"id": "here"})
    assert await page.told() == {"told": "open"}


async def test_what_is_told_behind_a_gap_is_a_message(page: Page, broker: FakeBroker) -> None:
    visit = await hearing(page, broker, "**")
    await page.do("listen", kind="gap")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("**")
    await visit.refuse(await visit.expect("resume", "here"), "resume_gap")
    assert (await page.told())["told"] == "gap"
    assert await page.told() == {"told": "open"}
    await visit.event("a", None, "said")
    assert await page.told() == {"heard": {"event": "a", "data": "said"}}


async def test_a_message_does_not_move_the_position(page: Page, broker: FakeBroker) -> None:
    visit = await hearing(page, broker, "a")
    for message in ALIKE:
        await visit.say(json.dumps(message))
        assert await page.told() == {"heard": message}
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("a")
    await visit.welcome("here", since="here")


async def test_a_message_that_nobody_wants_is_dropped_without_a_word(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "a")
    await page.do("hearInVain")
    for message in ("<html>", "7", b"binary", '{"event": "a", "data": "said"}'):
        await visit.say(message)
    await visit.event("a", "p1")
    assert await page.told() == handed("a", "a", "p1")


async def test_a_message_comes_to_each_who_listens_though_one_fails(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    for deed in ("hear", "hearAndFail", "hear"):
        await page.do(deed)
    await visit.say("hello")
    told = [await page.told() for _ in range(3)]
    assert told == [{"heard": "hello"}, {"heard": "hello"}, {"uncaught": "who hears has a fault"}]


async def test_a_message_is_a_sign_of_life(page: Page, broker: FakeBroker) -> None:
    visit = await hearing(page, broker)
    await page.fire(1000)
    await page.fire(30_000)
    await visit.expect("resume", None)
    await visit.say("hello")
    assert await page.told() == {"heard": "hello"}
    await page.fire(10_000)
    assert 30_000 in await page.timers()
