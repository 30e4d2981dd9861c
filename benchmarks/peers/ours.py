"""The broker, as `broker run` starts it: users with tokens, a policy, log in memory, heartbeat, metrics."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import attrs

from benchmarks import processes
from benchmarks.load.dialects import Subscriber, command
from benchmarks.load.publishers import PipePublisher, Publisher, WebhookPublisher
from benchmarks.peers import Running
from broker.config import AuthConfig, load_config
from broker.edge.tokens import issue_token

FOLDER = Path(__file__).parent.parent
NAME = "games.42.created"  # visible to everyone
_HOUR = 3600


@dataclass(frozen=True)
class Ours:
    """The broker with the configuration of this folder.

    patterns: what user number N subscribes to. environ: what differs from the configuration.
    extra: what is added to the configuration. program: the module that is run. headers: of the subscribers' handshakes.
    piped: the events come by its standard input.
    """

    name: str = "this broker"
    patterns: Callable[[int], Sequence[str]] = lambda _: ("games.*.created",)
    environ: Mapping[str, str] = field(default_factory=dict)
    extra: str = ""
    program: str = "cli"
    headers: str = ""
    piped: bool = False
    publisher: Callable[[int, str], Publisher] = WebhookPublisher  # from port and token

    def why_not(self) -> str | None:
        """See `Peer`."""
        return None

    @contextmanager
    def running(self) -> Iterator[Running]:
        """See `Peer`."""
        with tempfile.TemporaryDirectory(prefix="broker-benchmark-") as name:
            folder, port = Path(name), processes.free_port()
            shutil.copy(FOLDER / "policy.toml", folder)
            config = folder / "config.toml"
            config.write_text((FOLDER / "config.toml").read_text() + self.extra)
            environ = {
                "PYTHONPATH": str(FOLDER.parent),
                "BROKER_SERVER__PORT": str(port),
                **self.environ,
            }
            program = [sys.executable, "-m", self.program, "run", "--config", str(config), *["--stdin"] * self.piped]
            with _pipe() as (stdin, pipe), processes.started(program, folder, port, environ, stdin) as pid:
                auth = load_config(config, {}).auth
                auth = attrs.evolve(auth, secret=attrs.evolve(auth.secret, generate=False))
                token = issue_token(auth, {"sub": "publisher", "publish": ["**"]}, _HOUR)
                yield Running(
                    pid,
                    port,
                    "ours",
                    lambda number: [self._subscriber(auth, user) for user in range(number)],
                    lambda: PipePublisher(pipe) if self.piped else self.publisher(port, token),
                )

    def _subscriber(self, auth: AuthConfig, user: int) -> Subscriber:
        token = issue_token(auth, {"sub": f"user-{user}"}, _HOUR)
        patterns = enumerate(self.patterns(user), start=1)
        steps = tuple(
            (command("subscribe", pattern, number), b'{"reply":%d,"data":' % number) for number, pattern in patterns
        )
        return Subscriber("/ws", steps, f"Authorization: Bearer {token}\r\n{self.headers}")


PIPED = Ours(name=f"{Ours.name}, events by a pipe", piped=True)


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)
