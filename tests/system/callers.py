"""The clients that come with the broker, driven alike: in Python, in Node, in Chromium."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final, Protocol

import trio

from broker.client import Client, CommandFailed, Event, connect
from tests.browser.pages import Line, Page, open_page, why_no_builtin, why_no_ws
from tests.needing import needed
from tests.system.chromium import Tab, open_chromium, why_not
from tests.system.harness import PATIENCE, Broker


class Refused(Exception):
    """The answer to a command is an error: its code and its text."""


class Caller(Protocol):
    """A client that listens to messages from the beginning. Binary ones are told as `{"binary": […]}`."""

    async def command(self, event: str, data: object = None) -> Any:
        """The data of the reply.

        Raises Refused.
        """

    async def subscribe(self, pattern: str) -> None:
        """Subscribe; on return it is confirmed."""

    async def heard(self, number: int) -> list[Any]:
        """The next messages."""

    async def events(self, number: int) -> list[list[Any]]:
        """Name and data of the next events."""


class PythonCaller:
    """The client in Python."""

    def __init__(self, client: Client, nursery: trio.Nursery) -> None:
        self._client = client
        self._nursery = nursery
        self._messages = client.messages()
        self._send_events, self._events = trio.open_memory_channel[Event](1000)

    async def command(self, event: str, data: object = None) -> Any:
        try:
            return await self._client.command(event, data)
        except CommandFailed as failed:
            raise Refused(failed.code, str(failed)) from None

    async def subscribe(self, pattern: str) -> None:
        await self._nursery.start(self._follow, pattern)

    async def heard(self, number: int) -> list[Any]:
        values = [await anext(self._messages) for _ in range(number)]
        return [{"binary": list(value)} if isinstance(value, bytes) else value for value in values]

    async def events(self, number: int) -> list[list[Any]]:
        taken = [await self._events.receive() for _ in range(number)]
        return [[event.name, event.data] for event in taken]

    async def _follow(self, pattern: str, task_status: trio.TaskStatus[None]) -> None:
        async with self._client.subscribe(pattern) as events:
            task_status.started()
            async for event in events:
                await self._send_events.send(event)


class NodeCaller:
    """The client in JavaScript, in Node."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._numbers = count(1)
        self._heard: deque[Any] = deque()
        self._handed: deque[list[Any]] = deque()
        self._settled: dict[str, Line] = {}

    async def command(self, event: str, data: object = None) -> Any:
        name = f"command {next(self._numbers)}"
        await self._page.command(name, event, data)
        line = await self._settling(name)
        if "error" in line:
            raise Refused(line["error"]["code"], line["error"]["message"])
        return line.get("value")

    async def subscribe(self, pattern: str) -> None:
        await self._page.subscribe(pattern)
        await self._page.do("ready", name=pattern)
        assert "error" not in await self._settling(pattern)

    async def heard(self, number: int) -> list[Any]:
        while len(self._heard) < number:
            await self._listen()
        return [self._heard.popleft() for _ in range(number)]

    async def events(self, number: int) -> list[list[Any]]:
        while len(self._handed) < number:
            await self._listen()
        return [self._handed.popleft() for _ in range(number)]

    async def _settling(self, name: str) -> Line:
        while name not in self._settled:
            await self._listen()
        return self._settled.pop(name)

    async def _listen(self) -> None:
        line = await self._page.told()
        if "heard" in line:
            self._heard.append(line["heard"])
        elif "handed" in line:
            self._handed.append([line["event"], line["data"]])
        elif "settled" in line:
            self._settled[line["settled"]] = line
        else:
            assert line.get("told") in ("open", "close"), line


LISTEN: Final = """
const { connect } = await import("/client.js");
const heard = [], seen = [];
const readable = (message) => (message instanceof ArrayBuffer ? { binary: [...new Uint8Array(message)] } : message);
const client = connect({ token: TOKEN });
client.on("message", (message) => heard.push(readable(message)));
const ask = (event, data) =>
  client.command(event, data).then((answer) => ({ answer }), ({ code, message }) => ({ refused: [code, message] }));
"""


class ChromiumCaller:
    """The client in JavaScript, in a page."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab

    async def command(self, event: str, data: object = None) -> Any:
        told = await self._tab.evaluate(f"await ask({json.dumps(event)}, {json.dumps(data)})")
        if "refused" in told:
            raise Refused(*told["refused"])
        return told["answer"]

    async def subscribe(self, pattern: str) -> None:
        handler = "({ event, data }) => seen.push([event, data])"
        await self._tab.evaluate(f"await client.subscribe({json.dumps(pattern)}, {handler}).ready")

    async def heard(self, number: int) -> list[Any]:
        return await self._taken("heard", number)

    async def events(self, number: int) -> list[list[Any]]:
        return await self._taken("seen", number)

    async def _taken(self, name: str, number: int) -> list[Any]:
        await self._tab.until(f"{name}.length >= {number}")
        taken: list[Any] = await self._tab.evaluate(f"{name}.splice(0, {number})")
        return taken


@asynccontextmanager
async def python(broker: Broker, user: str) -> AsyncIterator[Caller]:
    async with connect(broker.url, broker.token(user)) as client, trio.open_nursery() as nursery:
        yield PythonCaller(client, nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def node(broker: Broker, user: str, socket: str = "ws") -> AsyncIterator[Caller]:
    needed(why_no_ws() if socket == "ws" else why_no_builtin())
    async with open_page(socket, real_time=True) as page:
        await page.several(
            {"do": "connect", "url": broker.url, "socket": socket, "options": {"token": broker.token(user)}},
            {"do": "hear"},
        )
        yield NodeCaller(page)


@asynccontextmanager
async def node_builtin(broker: Broker, user: str) -> AsyncIterator[Caller]:
    async with node(broker, user, "builtin") as caller:
        yield caller


@asynccontextmanager
async def chromium(broker: Broker, user: str) -> AsyncIterator[Caller]:
    needed(why_not())
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(open_chromium())
        tab = await browser.tab(f"{broker.url}/healthz")
        await tab.evaluate(f"const TOKEN = {json.dumps(broker.token(user))};{LISTEN}")
        yield ChromiumCaller(tab)
        assert tab.complaints == []


Call = Callable[[Broker, str], AbstractAsyncContextManager[Caller]]

EVERY_CLIENT: Final[tuple[Call, ...]] = (python, node, node_builtin, chromium)
PATIENT: Final = 3 * PATIENCE  # seconds for a test in which a browser starts and a broker as well
