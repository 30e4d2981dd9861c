"""`broker tail`, against a real broker: what comes is printed as it came, and each end is told with what to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.invoke import Say, broker, serving

COMMAND = [sys.executable, "-m", "cli"]

CONFIG = """
[server]
port = 0
shutdown_grace = 1.0
[websocket]
max_subscriptions = 2
"""

POLICY = """
default = "everyone"
[[rules]]
events = "users.<userId>.**"
visible_to = { users = "<userId>" }
"""


class Running:
    """A broker process, its address and its configuration."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.config = str(folder / "config.toml")
        self.url = process.stdout.readline().split()[2]

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]

    def publish(self, name: str, data: str) -> None:
        assert broker("publish", "--url", self.url, "--config", self.config, name, "--", data).status == 0

    @contextmanager
    def tailing(self, *arguments: str, count: int | None = None) -> Iterator[subprocess.Popen[str]]:
        """A `broker tail` that has subscribed."""
        options = ["--url", self.url, "--config", self.config, *([] if count is None else ["--count", str(count)])]
        command = [*COMMAND, "tail", *options, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                assert process.stderr.readline().startswith("subscribed to ")
                yield process
            finally:
                process.kill()


@contextmanager
def running(folder: Path, port: str = "0", config: str = CONFIG) -> Iterator[Running]:
    """A broker on this port or a free one, for the length of the block."""
    (folder / "config.toml").write_text(config)
    (folder / "policy.toml").write_text(POLICY)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    environ["BROKER_SERVER__PORT"] = port
    command = [*COMMAND, "run", "--config", str(folder / "config.toml")]
    with (
        (folder / "err.txt").open("w") as err,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, env=environ) as process,
    ):
        try:
            yield Running(folder, process)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("broker")) as live:
        yield live


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a configuration, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("BROKER_"):
            monkeypatch.delenv(name)


# --- What is printed -------------------------------------------------------------------------------------------------


def test_events_are_printed_as_they_came_until_there_are_enough(live: Running) -> None:
    with live.tailing("a.*", count=2) as tail:
        live.publish("a.b", '{"big": 1e999999,"t":"\\u00e4ä"}')
        live.publish("b.c", "1")
        live.publish("a.c", "-1")
        out, err = tail.communicate()
    assert out.splitlines() == ['{"event":"a.b","data":{"big": 1e999999,"t":"\\u00e4ä"}}', '{"event":"a.c","data":-1}']
    assert (tail.returncode, err) == (0, "")


def test_an_event_is_one_line_however_it_was_written(live: Running) -> None:
    with live.tailing("a.*", count=1) as tail:
        live.publish("a.b", "[1,\n2]")
        out, _ = tail.communicate()
    assert out.count("\n") == 1
    assert json.loads(out) == {"event": "a.b", "data": [1, 2]}


def test_without_a_pattern_everything_is_printed(live: Running) -> None:
    with live.tailing(count=1) as tail:
        live.publish("any.thing", "1")
        assert tail.communicate()[0] == '{"event":"any.thing","data":1}\n'


def test_what_matches_several_patterns_is_printed_once(live: Running) -> None:
    with live.tailing("a.*", "**", count=2) as tail:
        live.publish("a.b", "1")
        live.publish("b.c", "2")
        out, _ = tail.communicate()
    assert [json.loads(line)["data"] for line in out.splitlines()] == [1, 2]


def test_what_is_printed_is_what_the_user_may_see(live: Running) -> None:
    with live.tailing("users.**", "--as", "ada", count=1) as tail:
        live.publish("users.bob.mail", "1")
        live.publish("users.ada.mail", "2")
        assert tail.communicate()[0] == '{"event":"users.ada.mail","data":2}\n'


def test_a_reader_that_has_had_enough_is_no_fault(live: Running) -> None:
    with live.tailing() as tail:
        assert tail.stdout is not None
        tail.stdout.close()
        live.publish("a.b", "1")
        assert tail.stderr is not None
        assert tail.stderr.read() == ""
        assert tail.wait() == 0


# --- How it ends -----------------------------------------------------------------------------------------------------


def test_ctrl_c_is_no_traceback(live: Running) -> None:
    with live.tailing() as tail:
        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate()
    assert (tail.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_of_the_broker_is_told_and_survived(end: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path) as first, first.tailing(count=3) as tail:
        first.publish("a.1", "1")
        first.process.send_signal(end)
        first.process.wait()
        assert tail.stderr is not None
        lost = tail.stderr.readline()
        with running(tmp_path, first.port) as second:
            second.publish("a.2", "2")  # before or after it is there again
            assert tail.stderr.readline() == "connected again\n"
            second.publish("a.3", "3")
            out, err = tail.communicate()
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["a.1", "a.2", "a.3"]
    assert (tail.returncode, err) == (0, "")
    assert lost.startswith(f"connection lost: {1001 if end is signal.SIGTERM else 1006} ")
    assert lost.endswith("; trying again\n")


def test_what_is_missing_after_a_restart_is_told(tmp_path: Path) -> None:
    forgetful = CONFIG + '[log]\npath = ":memory:"\n'
    with running(tmp_path, config=forgetful) as first, first.tailing(count=2) as tail:
        first.publish("a.1", "1")
        first.process.terminate()
        first.process.wait()
        with running(tmp_path, first.port, forgetful) as second:
            assert tail.stderr is not None
            assert tail.stderr.readline().startswith("connection lost: ")
            assert tail.stderr.readline().startswith("events are missing here: ")
            assert tail.stderr.readline() == "connected again\n"
            second.publish("a.2", "2")
            out, err = tail.communicate()
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["a.1", "a.2"]
    assert (tail.returncode, err) == (0, "")


def test_a_token_of_our_own_making_is_replaced_when_it_has_expired(tmp_path: Path) -> None:
    with running(tmp_path) as live, pytest.MonkeyPatch.context() as patch:
        patch.setattr("cli.target._TOKEN_SECONDS", 2)
        # In a process of its own, since this one's output is the other command's meanwhile.
        publish = [*COMMAND, "publish", "--url", live.url, "--config", live.config, "a.1", "1"]
        publisher = threading.Timer(2.5, subprocess.run, [publish], {"stdout": subprocess.DEVNULL})
        publisher.start()
        tail = broker("tail", "--url", live.url, "--config", live.config, "--count", "1")
        publisher.join()
    assert tail.out == '{"event":"a.1","data":1}\n'
    assert tail.err == "subscribed to **\n"


@pytest.mark.parametrize(
    ("token", "told"), [("nonsense", ["4002", "bring another token"]), (None, ["4001", "bring a token"])]
)
def test_a_token_that_does_not_do_is_told_with_its_code_and_what_to_do(
    token: str | None, told: list[str], live: Running
) -> None:
    tail = broker("tail", "--url", live.url, *(["--token", token] if token else []))
    assert (tail.status, tail.out) == (1, "")
    assert tail.err.count("\n") == 1
    assert all(part in tail.err for part in told)


def test_a_subscription_that_is_refused_is_told(live: Running) -> None:
    tail = broker("tail", "--url", live.url, "--config", live.config, "a", "b", "c")
    assert (tail.status, tail.out) == (1, "")
    assert "(too_many_subscriptions)" in tail.err


@pytest.mark.parametrize("pattern", ["", "a..b", "a*", "a b", "<x>", "{a,b}"])
def test_a_pattern_that_is_none_is_used_wrongly(pattern: str) -> None:
    result = broker("tail", pattern, "--url", "http://127.0.0.1:1")
    assert (result.status, result.out) == (2, "")


def test_where_there_is_no_broker_it_is_told_where() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = broker("tail", "--url", url, "--token", "t")
    assert (result.status, result.out, result.err) == (1, "", f"no broker answers at {url}; is it running?\n")


@pytest.mark.parametrize(
    ("say", "told"),
    [
        (Say(401, {"error": "the token has expired", "code": "token_expired"}), "HTTP 401 the token has expired"),
        (Say(404, b"<html>"), "HTTP 404"),
        (Say(200, ["hello"]), "HTTP 200"),
    ],
)
def test_a_refused_handshake_is_told_in_the_server_s_words(say: Say, told: str) -> None:
    with serving() as fake:
        fake.first = [say]
        tail = broker("tail", "--url", fake.url, "--token", "t")
        assert (tail.status, tail.out) == (1, "")
        assert f"{fake.url} refused: {told}" in tail.err
        assert fake.asked[0].headers["authorization"] == "Bearer t"


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """A server that says one thing to one client, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(65_536)
                accepted.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("answer", [b"220 mail.example ESMTP\r\n", b""])
def test_a_server_that_is_no_broker_is_told(answer: bytes) -> None:
    with saying(answer) as url:
        tail = broker("tail", "--url", url, "--token", "t")
    assert (tail.status, tail.err) == (1, f"no broker answers at {url}; is it running?\n")


def test_a_server_that_only_pretends_to_shake_hands_is_told() -> None:
    with saying(b"HTTP/1.1 101 Switching Protocols\r\n\r\n") as url:
        tail = broker("tail", "--url", url, "--token", "t")
    assert (tail.status, tail.err) == (1, f"no broker answers at {url}; is it running?\n")
