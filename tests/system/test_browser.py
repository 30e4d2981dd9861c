"""The JavaScript client in a real browser, against a real broker that is killed, restarted, and left by its log."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.needing import needed
from tests.system import harness
from tests.system.chromium import Chromium, PageFailed, Tab, open_chromium, why_not
from tests.system.harness import Broker, Brokers

pytestmark = [pytest.mark.system, pytest.mark.longest(90)]

EXAMPLES = harness.REPOSITORY / "examples"

# What a page does to watch; `hold` keeps the client from connecting until `letGo` is called.
WATCH = """
const seen = [], told = [];
let held = Promise.resolve(), letGo;
const hold = () => (held = new Promise((resolve) => (letGo = resolve)));
const { connect, BrokerError } = await import(MODULE);
const client = connect(BROKER, {
  token: async () => {
    told.push("token");
    await held;
    return TOKENS.length > 1 ? TOKENS.shift() : TOKENS[0];
  },
});
client.on("open", () => told.push("open"));
client.on("close", ({ code, retryIn }) => told.push(`closed ${code}`, retryIn));
await client.subscribe("games.**", ({ event, data }) => seen.push([event, data])).ready;
"""


@pytest.fixture(scope="session")
def chromium_is_here() -> None:
    needed(why_not())


@pytest.fixture
async def chromium(chromium_is_here: None) -> AsyncIterator[Chromium]:
    async with open_chromium() as chromium:
        yield chromium


@pytest.fixture
def same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every broker of this test listens on one port, so that a page finds the next one where the last one was."""
    ordinary, port = harness.environ, free_port()
    monkeypatch.setattr(harness, "environ", lambda **more: ordinary(**{"BROKER_SERVER__PORT": str(port), **more}))


def free_port() -> int:
    """Below what Linux gives to outgoing connections: while a broker is down, nobody gets its port by chance."""
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@contextmanager
def site(pages: Mapping[str, str]) -> Iterator[str]:
    """A web server for these pages; its origin, which is no broker's."""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            self.send_response(200 if page is not None else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((page or "").encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def watching(tab: Tab, broker: Broker, *tokens: str) -> None:
    """Have the page watch `games.**` with these tokens, one after the other, the last one for good."""
    given = {"MODULE": f"{broker.url}/client.js", "BROKER": broker.url, "TOKENS": tokens or [broker.token("ada")]}
    constants = "".join(f"const {name} = {json.dumps(value)};" for name, value in given.items())
    await tab.evaluate(constants + WATCH)


def published(broker: Broker, *numbers: int) -> list[Any]:
    """Publish `games.<number>` for each, in one request; what a page has to see of it."""
    broker.publish_all([(f"games.{number}", json.dumps({"number": number}).encode()) for number in numbers])
    return [[f"games.{number}", {"number": number}] for number in numbers]


def publish_without_users(broker: Broker, name: str, data: object = None) -> None:
    """Where nobody has a token."""
    assert broker.post(json.dumps({"event": name, "data": data}).encode(), token="none").status == 202


async def seen(tab: Tab, number: int) -> Any:
    await tab.until(f"seen.length >= {number}")
    return await tab.evaluate("seen")


def test_the_module_is_sent_once_to_each_browser(brokers: Brokers) -> None:
    broker = brokers.start()
    first = broker.request("GET", "/client.js", Origin="https://app.example")
    assert (first.status, first.headers["access-control-allow-origin"]) == (200, "*")
    assert first.headers["content-type"].startswith("text/javascript")
    again = broker.request("GET", "/client.js", If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert "content-length" not in again.headers


async def test_what_happens_around_a_kill_comes_once_and_in_order(
    chromium: Chromium, brokers: Brokers, same_port: None
) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker)
    expected = published(broker, 1, 2, 3)
    assert await seen(tab, 3) == expected
    await tab.evaluate("hold()")
    expected += published(broker, *range(4, 200))  # some of which are on their way when the broker dies
    brokers.kill(broker)
    await tab.until('told.filter((what) => what === "token").length >= 2')
    broker = brokers.start_again(broker)
    expected += published(broker, *range(200, 400))  # nobody is there to hear of it
    await tab.evaluate("letGo()")
    await tab.until('told.at(-1) === "open"')
    expected += published(broker, 400)
    assert await seen(tab, 400) == expected
    assert await tab.evaluate("told.slice(0, 3)") == ["token", "open", "closed 1006"]
    assert tab.complaints == []


async def test_several_kills_cost_nothing(chromium: Chromium, brokers: Brokers, same_port: None) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker)
    expected = []
    for turn in range(3):
        expected += published(broker, *range(100 * turn, 100 * turn + 50))
        brokers.kill(broker)
        broker = brokers.start_again(broker)
        expected += published(broker, *range(100 * turn + 50, 100 * turn + 100))
    assert await seen(tab, 300) == expected


async def test_a_page_of_another_origin_imports_subscribes_and_publishes(chromium: Chromium, brokers: Brokers) -> None:
    with site({"/": "<!doctype html><title>elsewhere</title>"}) as origin:
        broker = brokers.start(f"[server]\nallowed_origins = [{json.dumps(origin)}]")
        tab = await chromium.tab(f"{origin}/")
        await watching(tab, broker, broker.token("ada", publish=["games.**"]))
        event_id = await tab.evaluate(
            'await client.publish("games.1.created", { name: "Blitz \u265e" }, { id: "first" })'
        )
        assert event_id == "first"
        assert await tab.evaluate('await client.publish("games.1.created", {}, { id: "first" })') == "first"
        await tab.evaluate('await client.publish("games.1.deleted")')
        assert await seen(tab, 2) == [["games.1.created", {"name": "Blitz \u265e"}], ["games.1.deleted", None]]
        refused = await tab.evaluate('await client.publish("users.ada.online").catch(({ code }) => code)')
        assert refused == "not_permitted"
        assert tab.complaints == []


async def test_a_page_of_an_origin_that_may_not_connect_learns_nothing(chromium: Chromium, brokers: Brokers) -> None:
    with site({"/": "<!doctype html><title>elsewhere</title>"}) as origin:
        broker = brokers.start()
        tab = await chromium.tab(f"{origin}/")
        await tab.evaluate(f"const {{ connect }} = await import({json.dumps(broker.url + '/client.js')}), told = []")
        await tab.evaluate(
            f"const client = connect({json.dumps(broker.url)}, {{ token: {json.dumps(broker.token('ada'))} }})"
        )
        await tab.evaluate(
            'client.on("open", () => told.push("open")), client.on("close", ({ code }) => told.push(code))'
        )
        await tab.until("told.length >= 2")
        assert set(await tab.evaluate("told")) == {1006}


async def test_without_a_url_a_client_finds_the_broker_that_its_module_came_from(
    chromium: Chromium, brokers: Brokers
) -> None:
    with site({"/": "<!doctype html><title>elsewhere</title>"}) as origin:
        broker = brokers.start(f'[auth]\nmode = "none"\n[server]\nallowed_origins = [{json.dumps(origin)}]')
        tab = await chromium.tab(f"{origin}/")
        await tab.evaluate(f"const {{ connect }} = await import({json.dumps(broker.url + '/client.js')})")
        await tab.evaluate("const seen = [], client = connect()")
        await tab.evaluate('await client.subscribe("*", ({ event }) => seen.push(event)).ready')
        publish_without_users(broker, "anything")
        assert await seen(tab, 1) == ["anything"]


async def test_a_token_that_expires_is_replaced_and_nothing_is_missed(chromium: Chromium, brokers: Brokers) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    # Its end is a whole second, as most issuers have it, and late enough for a slow machine to connect before.
    await watching(tab, broker, broker.token("ada", exp=int(time.time()) + 5), broker.token("ada"))
    expected = []
    for number in range(10_000):
        expected += published(broker, number)
        if await tab.evaluate('told.filter((what) => what === "open").length === 2'):
            break
    assert await seen(tab, len(expected)) == expected
    assert await tab.evaluate("told") == ["token", "open", "closed 4003", 0, "token", "open"]


async def test_a_token_that_will_never_do_is_the_end_and_says_why(chromium: Chromium, brokers: Brokers) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await tab.evaluate('const { connect } = await import("/client.js")')
    ended = await tab.evaluate('await new Promise((resolve) => connect({ token: "nonsense" }).on("close", resolve))')
    assert (ended["code"], ended["retryIn"]) == (4002, None)
    (complaint,) = tab.complaints
    assert complaint.startswith("broker: error: the broker refuses this client: 4002 ")


async def test_what_the_log_no_longer_has_is_told_as_a_gap(
    chromium: Chromium, brokers: Brokers, same_port: None
) -> None:
    broker = brokers.start('[log]\npath = ":memory:"')
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker)
    await tab.evaluate("const gaps = [], listening = connect({ token: TOKENS[0] })")
    await tab.evaluate(
        'listening.on("gap", ({ code }) => gaps.push(code)); await listening.subscribe("a", () => {}).ready'
    )
    expected = published(broker, 1)
    assert await seen(tab, 1) == expected
    brokers.kill(broker)
    broker = brokers.start_again(broker)
    await tab.until('told.at(-1) === "open" && gaps.length')
    assert await tab.evaluate("gaps") == ["resume_gap"]
    (complaint,) = tab.complaints
    assert complaint.startswith("broker: gap: ")
    expected += published(broker, 2)
    assert await seen(tab, 2) == expected


async def test_a_publish_outlasts_a_broker_that_is_away(chromium: Chromium, brokers: Brokers, same_port: None) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker, broker.token("ada", publish=["games.**"]))
    brokers.kill(broker)
    await tab.evaluate('const publishing = client.publish("games.1.created", 1, { id: "first" })')
    brokers.start_again(broker)
    assert await tab.evaluate("await publishing") == "first"
    assert await seen(tab, 1) == [["games.1.created", 1]]


async def test_a_page_that_wakes_does_not_wait_any_longer(
    chromium: Chromium, brokers: Brokers, same_port: None
) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker)
    for event in ('dispatchEvent(new Event("online"))', 'document.dispatchEvent(new Event("visibilitychange"))'):
        await tab.evaluate("Math.random = () => 1e6")  # and so the pause is longer than anybody waits
        brokers.kill(broker)
        await tab.until('typeof told.at(-1) === "number" && told.at(-1) > 1e6')
        broker = brokers.start_again(broker)
        await tab.evaluate(event)
        await tab.until('told.at(-1) === "open"')


async def test_commands_are_answered_and_bad_patterns_told(chromium: Chromium, brokers: Brokers) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker)
    assert (await tab.evaluate('await client.command("authenticate", TOKENS[0])'))["expires_at"] > time.time()
    assert await tab.evaluate('await client.command("dance").catch(({ code }) => code)') == "unknown_command"
    await tab.evaluate('const bad = client.subscribe("games..x", () => {})')
    refused = "await bad.ready.catch((error) => [error instanceof BrokerError, error.code])"
    assert await tab.evaluate(refused) == [True, "bad_pattern"]
    (complaint,) = tab.complaints
    assert complaint.startswith("broker: error: 'games..x'")


async def test_more_subscriptions_and_commands_than_a_flood_cost_nothing(chromium: Chromium, brokers: Brokers) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker)
    await tab.evaluate(
        "const many = [...Array(900).keys()].map((number) => client.subscribe(`many.${number}`, () => {}));"
        "await Promise.all(many.map(({ ready }) => ready))"
    )
    await tab.evaluate("many.slice(0, 120).forEach((subscription) => subscription.unsubscribe())")
    codes = await tab.evaluate(
        'await Promise.all([...Array(120).keys()].map(() => client.command("dance").catch(({ code }) => code)))'
    )
    assert set(codes) == {"unknown_command"}
    assert await tab.evaluate("told") == ["token", "open"]
    assert broker.metric("broker_subscriptions") == 1 + 900 - 120


async def test_a_handler_that_fails_is_seen_and_harms_nobody(chromium: Chromium, brokers: Brokers) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker)
    await tab.evaluate('await client.subscribe("**", () => { throw new Error("my own fault") }).ready')
    assert await seen(tab, len(expected := published(broker, 1, 2))) == expected
    assert [complaint.splitlines()[0] for complaint in tab.complaints] == ["Error: my own fault"] * 2


async def test_a_closed_client_is_gone(chromium: Chromium, brokers: Brokers) -> None:
    broker = brokers.start()
    tab = await chromium.tab(f"{broker.url}/healthz")
    await watching(tab, broker)
    await tab.evaluate("client.close()")
    harness.eventually(lambda: broker.metric("broker_connections") == 0, "end of the connection")
    with pytest.raises(PageFailed, match="the client is closed"):
        await tab.evaluate('await client.command("dance")')


@pytest.mark.parametrize(
    ("example", "event"), [("game_platform", "games.42.created"), ("first_edition", "game.created")]
)
async def test_the_page_of_an_example_shows_what_its_user_may_see(
    example: str, event: str, chromium: Chromium, brokers: Brokers
) -> None:
    folder = EXAMPLES / example
    pages: dict[str, str] = {}
    with site(pages) as origin:
        config = (folder / "config.toml").read_text().replace("http://localhost:8000", origin)
        broker = brokers.start(config, (folder / "policy.toml").read_text())
        pages["/"] = (
            (folder / "index.html")
            .read_text()
            .replace("localhost:8080", f"localhost:{broker.port}")
            .replace("${location.hostname}:8080", f"127.0.0.1:{broker.port}")
        )
        tab = await chromium.tab(f"{origin}/")
        if example == "game_platform":
            await tab.evaluate(f'document.querySelector("[name=token]").value = {json.dumps(broker.token("ada"))}')
        await tab.evaluate('document.querySelector("button").click()')
        harness.eventually(lambda: broker.metric("broker_subscriptions") == 1, "subscription")
        publish = broker.publish if example == "game_platform" else partial(publish_without_users, broker)
        publish(event, {"name": "<b>Blitz</b>"})
        lines = '[...document.querySelectorAll("#seen li")].map((line) => line.textContent)'
        # Who subscribes right after it has connected may or may not be shown that it is online.
        shown = await tab.until(f"""{lines}.find((line) => !line.includes('"users.ada.online"'))""")
        assert json.loads(shown) == {"event": event, "data": {"name": "<b>Blitz</b>"}}
