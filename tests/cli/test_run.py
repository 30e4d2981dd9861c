"""`broker run`: what it tells when it serves, and how it ends when it can't."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from broker.app import Address
from broker.config import Config
from cli import run as module
from tests.cli.invoke import broker

ADDRESS = Address("http://127.0.0.1:12345", 12345)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration that runs, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BROKER_"):
            monkeypatch.delenv(name)
    (tmp_path / "config.toml").write_text("[server]\nport = 0\n")
    (tmp_path / "policy.toml").write_text('default = "everyone"\n')
    return tmp_path


@pytest.fixture(autouse=True)
def process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, tuple[int, int]]]]:
    """What the command changes of its process: its loggers are put back, its limits only noted."""
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: limits.append((kind, limit)))
    loggers = [logging.getLogger(name) for name in (None, "broker", "connectors", "cli")]
    before = [(logger, logger.level, logger.handlers) for logger in loggers]
    interval = sys.getswitchinterval()
    yield limits
    sys.setswitchinterval(interval)
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers


class Serving:
    """A broker that says it serves, and ends."""

    def __init__(self) -> None:
        self.config: Config | None = None

    def build(self, config: Config, _folder: Path) -> Serving:
        self.config = config
        return self

    async def run(self, started: Callable[[Address], None]) -> None:
        await trio.lowlevel.checkpoint()
        started(ADDRESS)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Serving:
    serving = Serving()
    monkeypatch.setattr(module, "build_broker", serving.build)
    return serving


def test_one_line_says_where_it_serves(serving: Serving) -> None:
    result = broker("run")
    assert (result.status, result.out) == (0, "broker: serving http://127.0.0.1:12345 (WebSocket at /ws)\n")


def test_the_ready_file_is_json_and_the_only_file_left(serving: Serving, elsewhere: Path) -> None:
    before = set(elsewhere.iterdir())
    assert broker("run", "--ready-file", "ready.json").status == 0
    assert set(elsewhere.iterdir()) - before == {elsewhere / "ready.json"}
    ready = json.loads((elsewhere / "ready.json").read_text())
    assert ready == {"url": "http://127.0.0.1:12345", "port": 12345, "pid": os.getpid()}


def test_a_ready_file_of_an_earlier_run_is_replaced(serving: Serving, elsewhere: Path) -> None:
    (elsewhere / "ready.json").write_text("of an earlier run")
    assert broker("run", "--ready-file", "ready.json").status == 0
    assert json.loads((elsewhere / "ready.json").read_text())["port"] == 12345


@pytest.mark.parametrize("path", ["no/such/folder/ready.json", "config.toml/ready.json", "."])
def test_a_ready_file_that_can_not_be_written_is_told_before_anything_is_served(path: str, serving: Serving) -> None:
    result = broker("run", "--ready-file", path)
    assert (result.status, result.out) == (2, "")
    assert "ready-file" in result.err


def test_a_start_that_fails_leaves_no_half_ready_file(elsewhere: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (elsewhere / "config.toml").write_text(f"[server]\nport = {taken.getsockname()[1]}\n")
        broker("run", "--ready-file", "ready.json")
    assert [path.name for path in elsewhere.iterdir() if "ready" in path.name] == []


def test_to_be_welcomed_is_to_be_told_how_to_try_it(serving: Serving) -> None:
    assert "broker publish" in broker("run", "--welcome").err


@pytest.mark.parametrize(("arguments", "enabled"), [([], False), (["--stdin"], True)])
def test_standard_input_is_a_source_where_it_is_wanted(arguments: list[str], enabled: bool, serving: Serving) -> None:
    broker("run", *arguments)
    assert serving.config is not None
    assert serving.config.connectors.stdin.enabled is enabled


def test_threads_get_their_turn_soon(serving: Serving) -> None:
    broker("run")
    assert sys.getswitchinterval() <= 0.001


def test_as_many_files_are_allowed_as_may_be(
    serving: Serving,
    process_as_before: list[tuple[int, tuple[int, int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    broker("run")
    assert process_as_before == [(resource.RLIMIT_NOFILE, (4096, 4096))]


@pytest.mark.parametrize(
    ("config", "policy", "told"),
    [
        ("[sever]\n", 'default = "everyone"\n', ["config.toml: line 1: sever"]),
        (
            "[server]\nport = 70000\nhots = 1\n",
            'default = "everyone"\n',
            ["line 2: server.port", "line 3: server.hots"],
        ),
        ("", 'default = "nobdy"\n', ["policy.toml: line 1: default"]),
        ('[auth]\nsecret = { env = "NO_SUCH_VARIABLE" }\n', 'default = "everyone"\n', ["NO_SUCH_VARIABLE"]),
    ],
)
def test_what_is_configured_wrongly_is_told_and_nothing_is_served(
    config: str, policy: str, told: list[str], elsewhere: Path
) -> None:
    (elsewhere / "config.toml").write_text(config)
    (elsewhere / "policy.toml").write_text(policy)
    result = broker("run")
    assert (result.status, result.out) == (2, "")
    assert all(fault in result.err for fault in told)


def test_a_configuration_that_is_missing_is_told_with_what_to_do() -> None:
    result = broker("run", "--config", "other.toml")
    assert result.status == 2
    assert "broker config init" in result.err


def test_a_port_that_is_taken_is_told_with_what_to_do(elsewhere: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (elsewhere / "config.toml").write_text(f"[server]\nport = {taken.getsockname()[1]}\n")
        result = broker("run")
    assert (result.status, result.out) == (2, "")
    assert "server.port" in result.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(number: signal.Signals, elsewhere: Path) -> None:
    command = [sys.executable, "-m", "cli", "run", "--ready-file", "ready.json", "--welcome"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("broker: serving http://127.0.0.1:")
        process.send_signal(number)
        out, err = process.communicate()
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
