"""Publishing: what is sent, what is sent again, and for how long."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.fake_broker import FakeBroker
from tests.browser.pages import Line, Page

PLAIN = {"Content-Type": "application/json"}


async def asked(page: Page, broker: FakeBroker, **options: object) -> Line:
    """The first request of a page that publishes `games.1`."""
    await page.connect(broker.url, **options)
    await page.publish("published", "games.1", {"name": "Blitz"})
    return await page.told()


async def answered(page: Page, status: int, body: Any, **headers: str) -> None:
    await page.do("answer", status=status, body=body, headers={n.replace("_", "-"): v for n, v in headers.items()})


def refused(code: str, message: str) -> Line:
    return {"settled": "published", "error": {"code": code, "message": message}}


async def test_an_event_is_posted_with_an_id_of_its_own(page: Page, broker: FakeBroker) -> None:
    request = await asked(page, broker)
    body = request.pop("body")
    event_id = body.pop("id")
    assert body == {"event": "games.1", "data": {"name": "Blitz"}}
    assert re.fullmatch(r"\d+(-\d+){3}", event_id)  # 128 random bits
    assert request == {"request": f"{broker.url}/events", "method": "POST", "headers": PLAIN}
    await answered(page, 202, {"ids": [event_id]})
    assert await page.told() == {"settled": "published", "value": event_id}


async def test_no_two_events_have_the_same_id(page: Page, broker: FakeBroker) -> None:
    first = await asked(page, broker)
    await page.publish("second")
    assert first["body"]["id"] != (await page.told())["body"]["id"]


async def test_an_id_of_the_publisher_s_is_kept(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.publish("published", id="order-7")
    assert (await page.told())["body"] == {"event": "games.1", "data": None, "id": "order-7"}


async def test_the_token_goes_into_the_header(page: Page, broker: FakeBroker) -> None:
    request = await asked(page, broker, token="a-token")
    assert request["headers"] == {**PLAIN, "Authorization": "Bearer a-token"}


async def test_a_path_beneath_a_proxy_s_and_one_of_its_own_are_kept(page: Page, broker: FakeBroker) -> None:
    await page.connect(f"{broker.url}/broker", eventsPath="in/events")
    await page.publish("published")
    assert (await page.told())["request"] == f"{broker.url}/broker/in/events"


async def test_a_broker_that_cannot_be_reached_is_tried_again_with_the_same_id(page: Page, broker: FakeBroker) -> None:
    first = await asked(page, broker)
    for pause in (250, 500, 1000, 2000):
        await page.do("refuse")
        assert pause in await page.timers()
        await page.fire(pause)
        assert await page.told() == first
    await answered(page, 202, {"ids": ["its id"]})
    assert await page.told() == {"settled": "published", "value": "its id"}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_broker_that_is_busy_is_tried_again_when_it_says(status: int, page: Page, broker: FakeBroker) -> None:
    first = await asked(page, broker)
    await answered(page, status, {"error": "full", "code": "overloaded"}, Retry_After="3")
    assert 3250 in await page.timers()
    await page.fire(3250)
    assert await page.told() == first


@pytest.mark.parametrize("named", ["Wed, 21 Oct 2015 07:28:00 GMT", "soon"])
async def test_a_time_to_come_again_that_is_no_number_is_passed_over(
    named: str, page: Page, broker: FakeBroker
) -> None:
    await asked(page, broker)
    await answered(page, 503, "<html>", Retry_After=named)
    assert 250 in await page.timers()


async def test_a_request_without_an_answer_is_made_again(page: Page, broker: FakeBroker) -> None:
    first = await asked(page, broker, timeout=4321)
    await page.fire(4321)  # of the handshake, which was begun before
    assert (await page.told())["told"] == "close"
    await page.fire(4321)
    await page.fire(250)
    await page.fire(250)
    assert await page.told() == first


async def test_a_broker_that_stays_away_is_given_up_after_a_while(page: Page, broker: FakeBroker) -> None:
    await asked(page, broker)
    await page.do("sleep", milliseconds=29_800)
    await page.do("refuse")
    assert await page.told() == refused("unreachable", "TypeError: fetch failed")


async def test_a_broker_that_stays_busy_is_given_up_with_what_it_said_last(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.publish("published", timeout=2000)
    await page.told()
    await answered(page, 503, {"error": "there was no room", "code": "overloaded"}, Retry_After="5")
    assert await page.told() == refused("overloaded", "there was no room")


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (400, {"error": "no name", "code": "bad_event", "index": 0}, "bad_event", "no name"),
        (401, {"error": "a token is needed", "code": "missing_token"}, "missing_token", "a token is needed"),
        (403, {"error": "not this one", "code": "not_permitted", "index": 0}, "not_permitted", "not this one"),
        (404, "<html>nothing here</html>", "http_404", "HTTP 404"),
        (200, {"status": "ok"}, "http_200", "HTTP 200"),
    ],
)
async def test_what_will_not_get_better_is_not_tried_again(
    status: int, body: object, code: str, message: str, page: Page, broker: FakeBroker
) -> None:
    await asked(page, broker)
    await answered(page, status, body)
    assert await page.told() == refused(code, message)


async def test_a_token_that_has_expired_is_replaced_once(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url, tokens=["for the socket", "fresh"])
    assert await page.told() == {"asked": "token"}
    await page.publish("published")
    first = await page.told()
    assert first["headers"]["Authorization"] == "Bearer for the socket"
    await answered(page, 401, {"error": "it has expired", "code": "token_expired"})
    assert await page.told() == {"asked": "token"}
    second = await page.told()
    assert second["headers"]["Authorization"] == "Bearer fresh"
    assert second["body"] == first["body"]
    await answered(page, 401, {"error": "it has expired", "code": "token_expired"})
    assert await page.told() == refused("token_expired", "it has expired")


async def test_whoever_may_not_subscribe_may_still_publish(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await (await broker.visit()).close(4002, "the token names no user")
    assert [(await page.told())["told"], (await page.told()).get("warned") is not None] == ["close", True]
    await page.publish("published")
    await page.told()
    await answered(page, 202, {"ids": ["its id"]})
    assert await page.told() == {"settled": "published", "value": "its id"}


async def test_closing_ends_a_request_and_a_pause(page: Page, broker: FakeBroker) -> None:
    await asked(page, broker)
    await page.publish("second")
    await page.told()
    await page.do("refuse")
    await page.do("close")
    told = [await page.told(), await page.told()]
    assert all(line["error"] == {"code": "closed", "message": "the client is closed"} for line in told)
    assert await page.timers() == []
    await page.publish("third")
    assert (await page.told())["error"]["code"] == "closed"
    assert await page.timers() == []
