"""Server-sent events for clients of others: curl, and the EventSource of Node, which is that of the HTML standard."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.system.harness import PATIENCE, REPOSITORY, Broker, Brokers, environ

pytestmark = pytest.mark.system

PAGE = """
setInterval(() => {}, 1000);  // or Node ends while the source waits to come back
const source = new EventSource(process.argv[1]);
const tell = (what) => console.log(JSON.stringify(what));
source.onopen = () => tell({ open: true });
source.onmessage = ({ data, lastEventId }) => tell({ ...JSON.parse(data), id: lastEventId });
source.onerror = () => tell({ closed: source.readyState === EventSource.CLOSED });
"""
NODE = ("node", "--no-warnings", "--experimental-eventsource", "-e")


@cache
def has_event_source() -> bool:
    """Whether there is a Node with an EventSource: 20.18, 22.3 and later ones."""
    if shutil.which("node") is None:
        return False
    probe = [*NODE, "process.exit(typeof EventSource === 'undefined' ? 1 : 0)"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


@pytest.fixture
def event_source() -> None:
    if not has_event_source():
        pytest.skip("there is no Node with an EventSource")


@pytest.fixture
def curl() -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")


class Program:
    """A program whose output is read line by line."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._read = b""

    async def line(self) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._read:
            with trio.fail_after(PATIENCE):
                data = await self.process.stdout.receive_some()
            if not data:
                raise EOFError
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    async def json(self) -> Any:
        return json.loads(await self.line())

    async def status(self) -> int:
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def running(command: Sequence[str], folder: Path | None = None) -> AsyncIterator[Program]:
    """A program that is ended with the block, if it has not ended by itself; our own commands are at its hand."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env=environ(PATH=path)
    )
    assert process.stdout is not None
    async with process.stdout:
        try:
            yield Program(process)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def url(broker: Broker, port: int, pattern: str, token: str) -> str:
    return f"http://127.0.0.1:{port}/events?pattern={pattern}&token={token}"


def readme_command(broker: Broker) -> Sequence[str]:
    """The command for this in README.md."""
    (line,) = re.findall(r"^```sh listen\n(.*)\n```$", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    return ["bash", "-c", f"exec {line.replace(':8080', f':{broker.port}')}"]


async def test_curl_prints_events_as_they_come_by_the_command_in_the_readme(curl: None, open_broker: Broker) -> None:
    async with running(readme_command(open_broker), open_broker.folder) as program:
        while not (await program.line()).startswith("id: "):
            pass
        open_broker.publish("games.42.created")
        while not (told := await program.line()).startswith("data: "):
            pass
        assert told == 'data: {"event":"games.42.created","data":null}'


async def test_curl_is_told_of_the_end(curl: None, brokers: Brokers) -> None:
    broker = brokers.start()
    asked = url(broker, broker.port, "a.*", broker.token("ada"))
    async with running(["curl", "-sSN", "--globoff", asked]) as program:
        assert (await program.line()).startswith("retry: ")
        while not (await program.line()).startswith("id: "):
            pass
        event_id = broker.publish("a.b", {"n": 1})
        assert [await program.line() for _ in range(4)] == [
            "",
            f"id: {event_id}",
            'data: {"event":"a.b","data":{"n": 1}}',
            "",
        ]
        broker.signal(signal.SIGTERM)
        assert await program.status() == 0  # it would be 18 if the body had been cut


async def test_an_event_source_comes_back_by_itself_and_misses_nothing(event_source: None, open_broker: Broker) -> None:
    async with trio.open_nursery() as nursery:
        wire = Wire(open_broker.port)
        await nursery.start(wire.run)
        asked = url(open_broker, wire.port, "node.*", open_broker.token("ada"))
        async with running([*NODE, PAGE, asked]) as page:
            assert await page.json() == {"open": True}
            ids = [open_broker.publish("node.one", 1)]
            assert await page.json() == {"event": "node.one", "data": 1, "id": ids[0]}
            wire.cut()
            ids += [open_broker.publish("node.one", number) for number in (2, 3)]
            assert await page.json() == {"closed": False}
            assert await page.json() == {"open": True}  # after the time that `retry` says
            for number in (2, 3):
                assert await page.json() == {"event": "node.one", "data": number, "id": ids[number - 1]}
        nursery.cancel_scope.cancel()


async def test_an_event_source_is_told_why_it_ends_and_does_not_come_back_with_a_token_that_ended(
    event_source: None, open_broker: Broker
) -> None:
    token = open_broker.token("ada", exp=time.time() + 1.5)
    async with running([*NODE, PAGE, url(open_broker, open_broker.port, "node.*", token)]) as page:
        assert await page.json() == {"open": True}
        assert (await page.json())["code"] == "token_expired"
        assert await page.json() == {"closed": False}
        assert await page.json() == {"closed": True}  # 401


class Wire:
    """Passes on what two sides say, until it is cut; then for those who come next."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[trio.CancelScope] = set()
        self.port = 0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._pass_on, [listener])

    def cut(self) -> None:
        """End every connection that there is."""
        for scope in self._open:
            scope.cancel()

    async def _pass_on(self, near: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._open.add(scope)
            far = await trio.open_tcp_stream("127.0.0.1", self._target)
            async with near, far, trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, near, far, scope)
                await self._copy(far, near, scope)
        self._open.discard(scope)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()
