"""When the client connects, with which token, how long it waits, and when it gives up."""

from __future__ import annotations

import pytest
import trio

from tests.browser.fake_broker import FakeBroker
from tests.browser.pages import Page, open_page, why_no_builtin, why_no_ws
from tests.browser.visits import SHORTEST, back, begun, ending
from tests.needing import needed

FATAL = (1000, 1002, 1003, 1007, 1008, 1009, 4001, 4002, 4004)
PASSING = (1001, 1011, 1012, 4008, 4009, 4900)
OUT_OF_TOKENS = "Error: no token today"


async def told_as_fatal(page: Page, code: int, reason: str) -> None:
    assert await page.told() == ending(code, reason, None)
    told = await page.told()
    assert (told["told"], told["code"], told["fatal"], told["reason"]) == ("error", code, True, reason)
    assert await page.timers() == []


@pytest.mark.parametrize("code", FATAL)
async def test_what_will_not_get_better_is_the_end(code: int, page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.do("listen", kind="error")
    await visit.close(code, "so it is")
    await told_as_fatal(page, code, "so it is")


@pytest.mark.parametrize("code", PASSING)
async def test_what_may_get_better_is_tried_again(code: int, page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await visit.close(code, "for now")
    assert await page.told() == ending(code, "for now", SHORTEST)
    await page.fire(SHORTEST)
    await (await broker.visit()).welcome("here", since="here")
    assert await page.told() == {"told": "open"}


async def test_an_end_that_nobody_listens_to_is_seen_on_the_console(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await visit.close(4001, "a token is needed")
    assert await page.told() == ending(4001, "a token is needed", None)
    assert await page.told() == {"warned": "broker: error: the broker refuses this client: 4001 a token is needed"}


async def test_pauses_double_up_to_ten_seconds(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    for pause in (250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000):
        await (await broker.stream()).aclose()
        assert (await page.told())["retryIn"] == pause
        assert await page.timers() == [pause]
        await page.fire(pause)


async def test_pauses_begin_anew_after_a_connection_that_lasted(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await visit.vanish()
    visit = await back(page, broker)
    await visit.welcome("here", since="here")
    assert await page.told() == {"told": "open"}
    await visit.vanish()
    assert await page.told() == ending(1006, "", 2 * SHORTEST)
    await page.fire(2 * SHORTEST)
    visit = await broker.visit()
    await visit.welcome("here", since="here")
    assert await page.told() == {"told": "open"}
    await page.do("sleep", milliseconds=10_000)
    await visit.vanish()
    await back(page, broker)


async def test_a_page_that_wakes_tries_at_once(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await visit.vanish()
    assert await page.told() == ending(1006, "", SHORTEST)
    await page.do("wake")
    await (await broker.visit()).welcome("here", since="here")
    assert await page.told() == {"told": "open"}
    assert SHORTEST not in await page.timers()


async def test_a_page_that_wakes_asks_for_a_sign_of_life(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.do("wake")
    await visit.expect("resume", None)
    await page.fire(10_000)
    assert await page.told() == ending(1006, "no sign of life", SHORTEST)


async def test_silence_is_asked_about_after_half_a_minute_and_is_the_end_ten_seconds_later(
    page: Page, broker: FakeBroker
) -> None:
    visit = await begun(page, broker)
    await page.fire(1000)
    assert await page.timers() == [30_000]
    await page.fire(30_000)
    await visit.expect("resume", None)
    assert await page.timers() == [1000, 10_000]
    await page.fire(10_000)
    assert await page.told() == ending(1006, "no sign of life", SHORTEST)
    assert await page.timers() == [SHORTEST]


async def test_any_frame_is_a_sign_of_life(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "a")
    await page.fire(30_000)
    await visit.expect("resume", None)
    await visit.event("a", "p1")
    assert (await page.told())["handed"] == "a"
    await page.fire(10_000)
    assert 30_000 in await page.timers()


async def test_a_handshake_without_an_answer_is_given_up(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await broker.stream()
    await page.fire(10_000)
    assert await page.told() == ending(1006, "no answer to the handshake", SHORTEST)


@pytest.mark.parametrize("status", [301, 401, 403, 404])
async def test_a_handshake_that_is_refused_is_the_end_where_that_can_be_known(
    status: int, page: Page, broker: FakeBroker
) -> None:
    await page.connect(broker.url)
    await page.do("listen", kind="error")
    await broker.reject(status)
    await told_as_fatal(page, status, f"Unexpected server response: {status}")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_handshake_that_comes_at_a_bad_time_is_tried_again(status: int, page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await broker.reject(status)
    assert await page.told() == ending(1006, f"Unexpected server response: {status}", SHORTEST)


@pytest.mark.parametrize("socket", ["ws", "builtin"])
async def test_nobody_at_the_address_is_tried_again(socket: str) -> None:
    needed(why_no_ws() if socket == "ws" else why_no_builtin())
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    _, port = listener.socket.getsockname()
    await listener.aclose()
    async with open_page(socket) as page:
        await page.connect(f"http://127.0.0.1:{port}")
        told = await page.told()
        assert (told["told"], told["code"], told["retryIn"]) == ("close", 1006, SHORTEST)
        assert await page.timers() == [SHORTEST]


async def test_a_websocket_of_node_s_own_does_as_well(broker: FakeBroker) -> None:
    needed(why_no_builtin())
    async with open_page("builtin") as page:
        visit = await begun(page, broker, "**")
        await visit.vanish()
        told = await page.told()
        assert (told["told"], told["code"], told["retryIn"]) == ("close", 1006, SHORTEST)
        await page.fire(SHORTEST)
        visit = await broker.visit()
        await visit.confirm("**")
        await visit.welcome("p1", since="here")
        assert await page.told() == {"told": "open"}
        await visit.close(4001, "so it is")
        assert await page.told() == ending(4001, "so it is", None)


async def test_a_fixed_token_goes_into_the_query_as_it_is(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url, token="a+b/c=d&e ü")
    assert (await broker.visit()).query == {"token": ["a+b/c=d&e ü"]}


async def test_every_connection_has_a_token_of_its_own(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url, tokens=["first", "second"])
    visit = await broker.visit()
    assert visit.query == {"token": ["first"]}
    await visit.welcome("here")
    assert [await page.told(), await page.told()] == [{"asked": "token"}, {"told": "open"}]
    await visit.vanish()
    visit = await back(page, broker)
    assert visit.query == {"token": ["second"]}


async def test_an_expired_token_is_replaced_at_once(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url, tokens=["old", "fresh"])
    visit = await broker.visit()
    await visit.welcome("here")
    assert [await page.told(), await page.told()] == [{"asked": "token"}, {"told": "open"}]
    await visit.close(4003, "the token has expired")
    assert await page.told() == ending(4003, "the token has expired", 0)
    await page.fire(0)
    assert (await broker.visit()).query == {"token": ["fresh"]}


async def test_tokens_that_are_never_fresh_are_not_asked_for_without_end(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url, tokens=["old", "older", "oldest"])
    for pause in (0, 500, 1000):
        visit = await broker.visit()
        assert await page.told() == {"asked": "token"}
        await visit.close(4003, "the token has expired")
        assert await page.told() == ending(4003, "the token has expired", pause)
        await page.fire(pause)


async def test_a_fixed_token_that_has_expired_is_the_end(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, token="fixed")
    await page.do("listen", kind="error")
    await visit.close(4003, "the token has expired")
    await told_as_fatal(page, 4003, "the token has expired")


async def test_whoever_gives_the_token_may_fail_for_a_while(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url, tokens=[])
    assert await page.told() == {"asked": "token"}
    assert await page.told() == ending(1006, OUT_OF_TOKENS, SHORTEST)
    await page.fire(SHORTEST)
    assert await page.told() == {"asked": "token"}
    assert await page.told() == ending(1006, OUT_OF_TOKENS, 2 * SHORTEST)


async def test_an_error_that_answers_nothing_is_told(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.do("listen", kind="error")
    await visit.say('{"error": "too deep", "code": "bad_json"}')
    assert await page.told() == {"told": "error", "code": "bad_json", "message": "too deep", "fatal": False}


@pytest.mark.parametrize(
    ("beneath", "options", "path"),
    [
        ("", {}, "/ws"),
        ("/", {}, "/ws"),
        ("/broker", {}, "/broker/ws"),
        ("/broker/?a=b#c", {}, "/broker/ws"),
        ("/broker", {"path": "live/ws"}, "/broker/live/ws"),
        ("/broker", {"path": "/live"}, "/live"),
    ],
)
async def test_the_websocket_is_beneath_the_url(
    beneath: str, options: dict[str, str], path: str, page: Page, broker: FakeBroker
) -> None:
    await page.connect(f"{broker.url}{beneath}", **options)
    assert (await broker.visit()).path == path


async def test_the_url_may_be_that_of_a_websocket(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url.replace("http", "ws"))
    assert (await broker.visit()).path == "/ws"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", None])  # this module came from a file
async def test_a_url_that_is_none_of_a_broker_is_refused(url: str | None, page: Page) -> None:
    await page.connect(url)
    assert await page.told() == {"thrown": {"message": "connect() needs the URL of a broker"}, "kind": "TypeError"}


async def test_without_a_websocket_it_says_what_to_do(node: None) -> None:
    async with open_page("none") as page:
        await page.connect("http://127.0.0.1")
        told = await page.told()
        assert told["kind"] == "TypeError"
        assert "give the class as an option" in told["thrown"]["message"]


async def test_there_is_only_so_much_to_listen_to(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    for kind in ("opne", "toString", "__proto__"):
        await page.do("listen", kind=kind)
        assert (await page.told())["kind"] == "TypeError"


async def test_a_subscription_needs_a_pattern_and_a_function(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.do("subscribe", pattern=7, name="seven")
    assert (await page.told())["kind"] == "TypeError"
    await page.do("subscribe", pattern="a", name="a", handler="there is no such handler")
    assert (await page.told())["kind"] == "TypeError"


async def test_closing_says_goodbye_and_leaves_nothing_behind(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "a")
    await page.do("close")
    await page.do("close")
    assert await visit.ended() == 1000
    assert await page.timers() == []
    await page.do("listeners")
    assert await page.told() == {"listeners": 0}
    await page.subscribe("b")
    assert (await page.told())["thrown"]["code"] == "closed"


async def test_closing_ends_a_pause(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await visit.vanish()
    assert await page.told() == ending(1006, "", SHORTEST)
    await page.do("close")
    assert await page.timers() == []


async def test_closing_ends_the_wait_for_a_token(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url, tokens="for ever")
    assert await page.timers() == [30_000]
    await page.do("close")
    assert await page.timers() == []


async def test_closing_in_the_turn_of_connecting_connects_to_nobody(page: Page, broker: FakeBroker) -> None:
    await page.several({"do": "connect", "url": broker.url, "socket": "ws", "options": {}}, {"do": "close"})
    assert await page.timers() == []
    assert await page.ended() == 0


async def test_a_token_that_never_comes_is_given_up(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url, tokens="for ever")
    await page.fire(30_000)
    assert await page.told() == ending(1006, "BrokerError: no token in time", SHORTEST)


async def test_a_handler_that_closes_is_the_last_one_that_is_called(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.subscribe("*", "closing", handler="close")
    await page.subscribe("*", "behind it")
    await page.subscribe("**", "far behind it")
    visit = await broker.visit()
    await visit.welcome("start")
    assert await page.told() == {"told": "open"}
    await visit.confirm("*", "**")
    await visit.welcome("here")
    await visit.event("a", "p1")
    await visit.event("b", "p2")
    assert await visit.ended() == 1000
    assert await page.timers() == []


@pytest.mark.parametrize("socket", ["ws", "builtin"])
async def test_a_closed_client_keeps_no_process_alive(socket: str, broker: FakeBroker) -> None:
    needed(why_no_ws() if socket == "ws" else why_no_builtin())
    async with open_page(socket, real_time=True) as page:
        visit = await begun(page, broker, "**")
        await visit.event("a", "p1")
        assert (await page.told())["handed"] == "**"
        await page.do("close")
        assert await visit.ended() == 1000
        assert await page.ended() == 0
