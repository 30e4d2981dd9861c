"""What every example stands on: a broker process of its own, users who are connected to it, and a publisher."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

PATIENCE = 30.0  # seconds that anything here may take
PAGE_PORT = 8000  # from which the configurations let pages connect


@dataclass(frozen=True)
class RunningBroker:
    """A broker process: where it serves, and the folder with its configuration."""

    url: str
    pid: int
    folder: Path

    def token(self, *options: str) -> str:
        """A token, made by `broker token` with these options."""
        command = [sys.executable, "-m", "cli", "token", "--config", str(self.folder / "config.toml"), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()

    def wait_for_source(self, name: str) -> None:
        """Wait until this source brings events in."""
        end = time.monotonic() + PATIENCE
        while self._sources().get(name) != "running":
            if time.monotonic() > end:
                raise TimeoutError(f"the source {name} brings nothing; the broker's log says why")
            time.sleep(0.05)

    async def publish(self, events: Sequence[dict[str, Any]], token: str | None = None) -> list[str]:
        """POST the events to the webhook, all or none; returns their ids."""
        return await trio.to_thread.run_sync(self._post, json.dumps(events).encode(), token)

    def _sources(self) -> dict[str, str]:
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=PATIENCE) as response:
            sources: dict[str, str] = json.load(response)["connectors"]
        return sources

    def _post(self, body: bytes, token: str | None) -> list[str]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        request = urllib.request.Request(f"{self.url}/events", body, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            ids: list[str] = json.load(response)["ids"]
        return ids


@contextmanager
def running_broker(
    folder: Path, *options: str, environ: Mapping[str, str] | None = None, page_port: int = PAGE_PORT
) -> Iterator[RunningBroker]:
    """Run a broker with the configuration in `folder`, on a free port, for the length of the block.

    It runs in a copy of the folder, so that nothing is left behind.

    options: more of them for `broker run`. environ: what its configuration takes from the environment.
    page_port: where the page is that may connect.
    """
    with tempfile.TemporaryDirectory(prefix="broker-example-") as name:
        copy = Path(name)
        for file in (*folder.glob("*.toml"), *folder.glob("*.py")):
            shutil.copy(file, copy)
        config = copy / "config.toml"
        config.write_text(config.read_text().replace(f":{PAGE_PORT}", f":{page_port}"))
        ready = copy / "ready.json"
        command = [
            sys.executable,
            "-m",
            "cli",
            "run",
            "--config",
            str(config),
            "--ready-file",
            str(ready),
        ]
        process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, "BROKER_SERVER__PORT": "0", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_ready(process, ready)
            told = json.loads(ready.read_text())
            yield RunningBroker(told["url"], told["pid"], copy)
        finally:
            _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], ready: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not ready.exists():
        if process.poll() is not None:
            raise RuntimeError(f"the broker ended with status {process.returncode} before it served")
        if time.monotonic() > end:
            raise TimeoutError("the broker does not begin to serve")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Client:
    """One user's connection, as any WebSocket client would have it."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._commands = 0
        self._kept: deque[dict[str, Any]] = deque()  # what came while a command waited for its answer

    async def command(self, name: str, data: object) -> dict[str, Any]:
        """Give a command, and wait for its answer."""
        self._commands += 1
        await self._socket.send_message(json.dumps({"event": name, "data": data, "id": self._commands}))
        while (frame := await self._frame()).get("reply") != self._commands:
            self._kept.append(frame)
        return frame

    async def message(self) -> dict[str, Any]:
        """The next one that is no answer, from the first on that came while a command waited for its answer."""
        return self._kept.popleft() if self._kept else await self._frame()

    async def events_until(self, last: str) -> list[dict[str, Any]]:
        """The events that come, up to and without the one called `last`, which this client must be able to see."""
        events = []
        while (frame := await self._frame()).get("event") != last:
            events.append(frame)
        return events

    async def ending(self) -> tuple[int, str]:
        """Wait for the broker to close the connection; returns code and reason."""
        try:
            await self._frame()
        except ConnectionClosed as closed:
            if closed.reason is not None:
                return closed.reason.code, closed.reason.reason or ""
        raise RuntimeError("the broker did not close the connection with a code")

    async def _frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await self._socket.get_message())
        return frame


@asynccontextmanager
async def connected(broker: RunningBroker, token: str | None = None, path: str = "/ws") -> AsyncIterator[Client]:
    """Connect for the length of the block, with this token if there is one."""
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    address = urlsplit(broker.url)
    stream = await trio.open_tcp_stream(address.hostname or "", address.port or 80)
    # The library alone leaves the socket open where the broker ends the connection.
    try:
        async with trio.open_nursery() as nursery:
            socket = await wrap_client_stream(nursery, stream, address.netloc, path, extra_headers=headers)
            yield Client(socket)
            await socket.aclose()
    finally:
        await trio.aclose_forcefully(stream)
