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
def running(folder: Path) -> Iterator[Running]:
    """A broker on a free port, for the length of the block."""
    (folder / "config.toml").write_text(CONFIG)
    (folder / "policy.toml").write_text(POLICY)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    command = [*COMMAND, "run", "--config", str(folder / "config.toml")]
    with (
        (folder / "err.txt").open("w") as err,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, env=environ) as process,
    ):
        try:
            yield Running(folder, process)
        finally:
            process.terminate()


def in_a_shell(*arguments: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """`broker tail` in a process of its own: where the server ends it, the library leaves its socket open till then.

    prelude: what to do before, for tests that are in a hurry.
    """
    command = [sys.executable, "-c", f"{prelude}\nfrom cli.main import main; main()", "tail", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


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


def test_a_broker_that_stops_is_told_with_what_to_do(tmp_path: Path) -> None:
    with running(tmp_path) as live, live.tailing() as tail:
        live.process.terminate()
        _, err = tail.communicate()
    assert tail.returncode == 1
    assert "1001" in err
    assert "reconnect" in err


@pytest.mark.parametrize(
    ("token", "told"), [("nonsense", ["4002", "bring another token"]), (None, ["4001", "bring a token"])]
)
def test_a_token_that_does_not_do_is_told_with_its_code_and_what_to_do(
    token: str | None, told: list[str], live: Running
) -> None:
    tail = in_a_shell("--url", live.url, *(["--token", token] if token else []))
    assert (tail.returncode, tail.stdout) == (1, "")
    assert tail.stderr.count("\n") == 1
    assert all(part in tail.stderr for part in told)


def test_a_subscription_that_is_refused_is_told(live: Running) -> None:
    tail = in_a_shell("--url", live.url, "--config", live.config, "a", "b", "c")
    assert (tail.returncode, tail.stdout) == (1, "")
    assert "(too_many_subscriptions)" in tail.stderr


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
        tail = in_a_shell("--url", fake.url, "--token", "t")
        assert (tail.returncode, tail.stdout) == (1, "")
        assert f"{fake.url} refused: {told}" in tail.stderr
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
        prelude = "import cli.tail; cli.tail.CONNECT_TIMEOUT = 0.1"
        tail = in_a_shell("--url", url, "--token", "t", prelude=prelude)
    assert (tail.returncode, tail.stderr) == (1, f"no broker answers at {url}; is it running?\n")


def test_a_server_that_only_pretends_to_shake_hands_is_told() -> None:
    with saying(b"HTTP/1.1 101 Switching Protocols\r\n\r\n") as url:
        tail = in_a_shell("--url", url, "--token", "t")
    assert (tail.returncode, tail.stderr) == (1, f"no broker answers at {url}; is it running?\n")
