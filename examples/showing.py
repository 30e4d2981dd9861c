"""Showing an application in a browser: its broker, a web server for its page, and a link for each of its users."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from examples.stage import PAGE_PORT, RunningBroker, running_broker


@dataclass(frozen=True)
class Shown:
    """An application that runs. page: where its page is."""

    broker: RunningBroker
    page: str

    @property
    def link(self) -> str:
        """The page, told where its broker is."""
        return f"{self.page}?broker={self.broker.url.replace('http', 'ws', 1)}"

    def link_of(self, user: str, *options: str) -> str:
        """The page as this user opens it. options: more of them for `broker token`.

        Behind the `#`, where it goes to no server, stands what a login would have given to the page.
        """
        return f"{self.link}#{self.broker.token('--user', user, *options)}"


class _Page(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """It is of no interest who looks at it."""


@contextmanager
def shown(folder: Path, port: int = 0, page_port: int = 0) -> Iterator[Shown]:
    """Run the application in `folder`, and serve its page, for the length of the block; 0: any free port."""
    with ThreadingHTTPServer(("127.0.0.1", page_port), partial(_Page, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            environ = {"BROKER_SERVER__PORT": str(port)}
            with running_broker(folder, environ=environ, page_port=server.server_port) as broker:
                yield Shown(broker, f"http://localhost:{server.server_port}/")
        finally:
            server.shutdown()
            thread.join()


def show(folder: Path, users: Mapping[str, Sequence[str]]) -> int:
    """Run the application until Ctrl-C. users: by name, with the options of `broker token` for each."""
    parser = argparse.ArgumentParser(prog=f"python -m examples.{folder.name}")
    parser.add_argument("--port", type=int, default=8080, help="of the broker; 0: any free one")
    parser.add_argument("--page-port", type=int, default=PAGE_PORT, help="of the page")
    options = parser.parse_args()
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with shown(folder, options.port, options.page_port) as app:
            print("Open side by side; Ctrl-C stops.")
            links = {user: app.link_of(user, *claims) for user, claims in users.items()} or {"anybody": app.link}
            for user, link in links.items():
                print(f"  {user:7} {link}", flush=True)
            stop.wait()
    except OSError as error:
        print(f"can't serve the page at port {options.page_port}: {error.strerror}", file=sys.stderr)
        return 1
    except RuntimeError as error:  # the broker has said why
        print(error, file=sys.stderr)
        return 1
    return 0
