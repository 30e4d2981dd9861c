"""Pages for the JavaScript client: Node runs them, tests drive them line by line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import trio

MODULE = Path(__file__).parents[2] / "broker" / "browser" / "client.js"
PROGRAM = Path(__file__).with_name("page.mjs")
DEBIAN_MODULES = "/usr/share/nodejs"
OLDEST_NODE = 18
BUILTIN_WEBSOCKET = 20  # from this version on, Node has one of its own; from 22 on without being told to

Line = dict[str, Any]


@cache
def node_version() -> int:
    """Of the Node that is here; 0: there is none."""
    node = shutil.which("node")
    if node is None:
        return 0
    told = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout
    return int(told.removeprefix("v").partition(".")[0])


def why_no_page() -> str | None:
    """Say why no page can run on this machine; None if one can."""
    if node_version() < OLDEST_NODE:
        return f"there is no Node {OLDEST_NODE} or later (on Debian: apt-get install nodejs)"
    return None


def why_no_ws() -> str | None:
    """Say why a page can have no WebSocket of the package `ws`; None if it can."""
    if reason := why_no_page():
        return reason
    probe = subprocess.run(["node", "-e", "require('ws')"], check=False, capture_output=True, env=environ())
    return "Node lacks the package ws (on Debian: apt-get install node-ws)" if probe.returncode else None


def why_no_builtin() -> str | None:
    """Say why a page can have no WebSocket of Node's own; None if it can."""
    if reason := why_no_page():
        return reason
    if node_version() < BUILTIN_WEBSOCKET:
        return f"only Node {BUILTIN_WEBSOCKET} or later has a WebSocket of its own"
    return None


def environ() -> dict[str, str]:
    paths = (os.environ.get("NODE_PATH"), DEBIAN_MODULES)
    return {**os.environ, "NODE_PATH": ":".join(filter(None, paths))}


def flags() -> list[str]:
    """What this Node needs to be told, so that it has what a browser has."""
    version = node_version()
    return [
        "--no-warnings",
        *(["--experimental-global-webcrypto"] if version < 19 else []),
        *(["--experimental-websocket"] if BUILTIN_WEBSOCKET <= version < 22 else []),
    ]


class Page:
    """One page: what it is told to do, and what it tells."""

    def __init__(self, process: trio.Process, socket: str) -> None:
        self.process = process
        self._socket = socket
        self._lines: deque[bytes] = deque()
        self._kept: deque[Line] = deque()
        self._part = b""

    async def do(self, deed: str, **more: object) -> None:
        """Have something done (see page.mjs); on return it is."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps({"do": deed, **more}).encode() + b"\n")
        while "done" not in (line := await self._read()):
            self._kept.append(line)

    async def several(self, *steps: Line) -> None:
        """Have several things done in one turn of JavaScript."""
        await self.do("several", steps=steps)

    async def connect(self, url: str | None, **options: object) -> None:
        """Connect; `tokens`: what whoever gives tokens gives, one after the other, and then an error."""
        await self.do("connect", url=url, socket=self._socket, options=options)

    async def subscribe(self, pattern: str, name: str | None = None, handler: str = "tell") -> None:
        """Subscribe with one of the handlers in page.mjs, under a name, which is the pattern if none is given."""
        await self.do("subscribe", pattern=pattern, name=name or pattern, handler=handler)

    async def command(self, name: str, event: str = "greet", data: object = None, **options: object) -> None:
        """Give a command; it is told under this name how it went."""
        await self.do("command", name=name, event=event, data=data, options=options)

    async def publish(self, name: str, event: str = "games.1", data: object = None, **options: object) -> None:
        """Publish an event; it is told under this name how it went."""
        await self.do("publish", name=name, event=event, data=data, options=options)

    async def fire(self, milliseconds: float) -> None:
        """Let the time of the client's oldest timer of this length be up."""
        await self.do("fire", milliseconds=milliseconds)

    async def told(self) -> Line:
        """The next thing that it tells."""
        return self._kept.popleft() if self._kept else await self._read()

    async def timers(self) -> list[float]:
        """The milliseconds of every timer that the client has set; nothing else may have been told before."""
        await self.do("timers")
        line = await self.told()
        assert list(line) == ["timers"], line
        return sorted(line["timers"])

    async def ended(self) -> int:
        """Wait until it has ended by itself; its exit status."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        return await self.process.wait()

    async def _read(self) -> Line:
        assert self.process.stdout is not None
        while not self._lines:
            data = await self.process.stdout.receive_some()
            assert data, "the page has ended"
            *lines, self._part = (self._part + bytes(data)).split(b"\n")
            self._lines.extend(lines)
        line: Line = json.loads(self._lines.popleft())
        return line


@asynccontextmanager
async def open_page(socket: str = "ws", *, real_time: bool = False) -> AsyncIterator[Page]:
    """A page for the length of the block; `socket`: whose WebSocket it has, "ws" or "builtin"."""
    command = ["node", *flags(), str(PROGRAM), str(MODULE), *(["--real-time"] if real_time else [])]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ())
    try:
        yield Page(process, socket)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            await trio.aclose_forcefully(stream)
