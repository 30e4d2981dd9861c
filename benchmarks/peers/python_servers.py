"""Peers in Python: each a script in `benchmarks/servers`.

They are run by the interpreter that BENCH_PYTHON names, or else by the one that runs the benchmarks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.load.dialects import Subscriber
from benchmarks.load.frames import client_frame
from benchmarks.load.publishers import WebSocketPublisher
from benchmarks.peers import Running

SERVERS = Path(__file__).parent.parent / "servers"


@dataclass(frozen=True)
class PythonServer:
    """A script that serves at the port that it is given.

    needs: the packages that it imports, as they are called on PyPI, and the modules that they bring.
    """

    name: str
    script: str
    dialect: str
    subscriber: Subscriber
    publisher: Subscriber
    needs: tuple[tuple[str, str], ...] = ()  # nothing: what the broker itself needs will do

    def why_not(self) -> str | None:
        """See `Peer`."""
        missing = [package for package, module in self.needs if not _importable(module)]
        if not missing:
            return None
        return f"{_python()} lacks {', '.join(missing)}; BENCH_PYTHON may name an interpreter that has it"

    @contextmanager
    def running(self) -> Iterator[Running]:
        """See `Peer`."""
        port = processes.free_port()
        interpreter = _python() if self.needs else sys.executable
        command = [interpreter, str(SERVERS / self.script), str(port)]
        with (
            tempfile.TemporaryDirectory(prefix="broker-peer-") as folder,
            processes.started(command, Path(folder), port) as pid,
        ):
            yield Running(
                pid,
                port,
                self.dialect,
                lambda number: [self.subscriber] * number,
                lambda: WebSocketPublisher(port, self.dialect, self.publisher),
            )


def _python() -> str:
    return os.environ.get("BENCH_PYTHON") or sys.executable


def _importable(module: str) -> bool:
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([_python(), "-c", look], check=False).returncode == 0


_SUBSCRIBE = ((client_frame(b"subscribe"), b"subscribed"),)
_OPEN = ((b"", b"0{"), (client_frame(b"40"), b"40{"))

WEBSOCKETS = PythonServer(
    "websockets broadcast()",
    "websockets_server.py",
    "plain",
    Subscriber("/", _SUBSCRIBE),
    Subscriber("/"),
    (("websockets", "websockets"),),
)
SOCKETIO = PythonServer(
    "python-socketio",
    "socketio_server.py",
    "socketio",
    Subscriber("/socket.io/?EIO=4&transport=websocket", (*_OPEN, (client_frame(b'42["subscribe"]'), b"subscribed"))),
    Subscriber("/socket.io/?EIO=4&transport=websocket", _OPEN),
    (("python-socketio", "socketio"), ("aiohttp", "aiohttp")),
)
NAIVE = PythonServer(
    "trio-websocket, a send each",
    "naive_server.py",
    "naive",
    Subscriber("/", ((client_frame(b'{"event":"subscribe","id":1}'), b'{"reply":1'),)),
    Subscriber("/"),
)
