"""Real `broker` processes: started in a folder of their own, spoken to over HTTP, and held to account at their end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import jwt

REPOSITORY = Path(__file__).parents[2]
SHIPPED_CONFIG = (REPOSITORY / "config.toml").read_text()
SHIPPED_POLICY = (REPOSITORY / "policy.toml").read_text()
OPEN_POLICY = 'default = "everyone"\n'
PATIENCE = 20.0  # seconds for what takes a moment; only a fault makes anybody wait that long

T = TypeVar("T")
_numbers = count(1)


def unique(stem: str) -> str:
    """A name that no other test uses."""
    return f"{stem}{next(_numbers)}"


def eventually(look: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + patience
    while not (seen := look()):
        assert time.monotonic() < deadline, f"in {patience} seconds there was no {what}"
        time.sleep(0.01)
    return seen


@dataclass(frozen=True)
class Answer:
    """What an HTTP server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Broker:
    """One `broker run` process."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process
        self.ready_file = folder / "ready.json"

    # -- the process

    def wait_ready(self) -> None:
        def ready() -> bool:
            status = self.process.poll()
            assert status is None, f"the broker ended with {status}: {self.errors()}"
            return self.ready_file.exists()

        eventually(ready, "ready file")

    @property
    def port(self) -> int:
        port: int = json.loads(self.ready_file.read_text())["port"]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    def output(self) -> str:
        return (self.folder / "stdout").read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The entries of the broker's log under this name."""
        entries = [json.loads(line) for line in self.errors().splitlines() if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]

    def wait_logged(self, event: str) -> dict[str, Any]:
        return eventually(lambda: self.logged(event), f"log entry {event}")[-1]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_ended(self, patience: float = PATIENCE) -> int:
        return self.process.wait(patience)

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def open_files(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    # -- tokens

    @property
    def secret(self) -> str:
        return (self.folder / ".broker/jwt.secret").read_text().strip()

    def token(self, user: str | None = None, **claims: object) -> str:
        """A good token, for an hour where the claims don't say otherwise."""
        named = {} if user is None else {"sub": user}
        return jwt.encode({"exp": time.time() + 3600, **named, **claims}, self.secret, algorithm="HS256")

    # -- HTTP

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; header names with `_` for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, body: bytes, content_type: str = "application/json", token: str | None = None) -> Answer:
        """Publish a body as it is, by default with the right to publish anything."""
        bearer = self.token(publish=["**"]) if token is None else token
        return self.request("POST", "/events", body, Content_Type=content_type, Authorization=f"Bearer {bearer}")

    def publish(self, name: str, data: object = None) -> str:
        """Publish one event; returns its id when the broker has taken it."""
        return self.publish_text(name, json.dumps(data).encode())

    def publish_text(self, name: str, data: bytes) -> str:
        """Publish one event with this very text as its payload."""
        return self.publish_all([(name, data)])[0]

    def publish_all(self, events: Sequence[tuple[str, bytes]]) -> list[str]:
        """Publish events as one array; returns their ids."""
        items = [b'{"event":%b,"data":%b}' % (json.dumps(name).encode(), data) for name, data in events]
        answer = self.post(b"[%b]" % b",".join(items))
        assert answer.status == 202, answer
        ids: list[str] = answer.json["ids"]
        return ids

    def metrics(self) -> dict[str, float]:
        text = self.request("GET", "/metrics").body.decode()
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in rows}

    def metric(self, name: str) -> float:
        """The present value; 0 for what has not happened yet."""
        return self.metrics().get(name, 0.0)


@dataclass
class Brokers:
    """Starts brokers, and sees to it that each one ends well."""

    folder: Path
    running: list[Broker] = field(default_factory=list)

    def start(
        self,
        config: str = "",
        policy: str = OPEN_POLICY,
        *,
        arguments: Sequence[str] = (),
        stdin: int | None = subprocess.DEVNULL,
    ) -> Broker:
        """Start a broker with these files, and wait until it serves."""
        broker = self.launch(config, policy, arguments=arguments, stdin=stdin)
        broker.wait_ready()
        return broker

    def launch(
        self, config: str, policy: str, *, arguments: Sequence[str] = (), stdin: int | None = subprocess.DEVNULL
    ) -> Broker:
        folder = self.folder / unique("broker")
        folder.mkdir()
        (folder / "config.toml").write_text(config)
        (folder / "policy.toml").write_text(policy)
        return self._run(folder, arguments=arguments, stdin=stdin)

    def start_again(self, broker: Broker) -> Broker:
        """Start a broker where another one has ended, and wait until it serves."""
        broker.ready_file.unlink()
        again = self._run(broker.folder)
        again.wait_ready()
        return again

    def _run(self, folder: Path, *, arguments: Sequence[str] = (), stdin: int | None = subprocess.DEVNULL) -> Broker:
        command = [*BROKER, "run", "--ready-file", "ready.json", *arguments]
        with (folder / "stdout").open("wb") as output, (folder / "stderr").open("wb") as errors:
            process = subprocess.Popen(command, cwd=folder, env=environ(), stdin=stdin, stdout=output, stderr=errors)
        broker = Broker(folder, process)
        self.running.append(broker)
        return broker

    def kill(self, broker: Broker) -> None:
        """End a broker as a power cut would."""
        self.running.remove(broker)
        broker.process.kill()
        broker.process.wait()

    def check(self) -> None:
        """Whoever still should runs, and nobody has complained of a fault of its own."""
        for broker in self.running:
            assert "Traceback" not in broker.errors(), broker.errors()
            assert broker.process.poll() in (None, 0), broker.errors()

    def stop(self) -> None:
        """End those that still run, by SIGTERM, and check how each one ended."""
        for broker in self.running:
            if not broker.logged("broker.stopping"):
                broker.process.terminate()
        try:
            for broker in self.running:
                assert broker.wait_ended() == 0, broker.errors()
            self.check()
        finally:
            for broker in self.running:
                broker.process.kill()  # of no effect on those that have ended
                broker.process.wait()
                if broker.process.stdin is not None:
                    broker.process.stdin.close()


BROKER = (sys.executable, "-m", "cli")


def environ(**more: str) -> dict[str, str]:
    """Our own environment without what would configure a broker, but with any free port."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "BROKER_SERVER__PORT": "0", **more}


def command(*arguments: str, folder: Path, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    """Run a `broker` command to its end in `folder`; `more` goes to its environment."""
    return subprocess.run(
        [*BROKER, *arguments],
        cwd=folder,
        env=environ(**more),
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
