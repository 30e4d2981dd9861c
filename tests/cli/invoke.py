"""Runs `broker` commands in this process as a shell would, and a server that answers them as a test wants."""

from __future__ import annotations

import io
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cli.main import app


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


def broker(*arguments: str, stdin: bytes = b"") -> Result:
    """Run `broker ARGUMENTS`; an exception that it lets out is one here."""
    out, err = io.StringIO(), io.StringIO()
    with io.TextIOWrapper(tempfile.TemporaryFile()) as pipe, redirect_stdout(out), redirect_stderr(err):
        pipe.buffer.write(stdin)
        pipe.buffer.seek(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", pipe)
            with pytest.raises(SystemExit) as ended:
                app(list(arguments), prog_name="broker")
    status = ended.value.code
    assert isinstance(status, int)
    return Result(status, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: object

    def events(self) -> list[dict[str, Any]]:
        """The events in its NDJSON body."""
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass(frozen=True)
class Say:
    """An answer: JSON, or bytes as they are."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


HANG_UP = Say(0)  # no answer at all

Script = Callable[[Asked], Say]


def take(asked: Asked) -> Say:
    """What a broker says that takes everything."""
    return Say(202, {"ids": [event["id"] for event in asked.events()]})


class FakeBroker:
    """An HTTP server that keeps what it was asked, and answers by a script: first the given answers, then `then`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.first: list[Say] = []
        self.then: Script = take

    def answer(self, asked: Asked) -> Say:
        self.asked.append(asked)
        return self.first.pop(0) if self.first else self.then(asked)

    def names(self) -> list[list[str]]:
        """The names of the events of each request."""
        return [[event["event"] for event in asked.events()] for asked in self.asked]


@contextmanager
def serving() -> Iterator[FakeBroker]:
    """A fake broker on a free port, for the length of the block."""

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one piece

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            say = fake.answer(Asked(self.command, self.path, headers, body, self))
            if say is HANG_UP:
                self.close_connection = True
                return
            text = say.body if isinstance(say.body, bytes) else json.dumps(say.body).encode()
            self.send_response(say.status)
            for name, value in {**say.headers, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        fake = FakeBroker(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield fake
        server.shutdown()
        thread.join()
