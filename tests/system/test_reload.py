"""`broker run --reload`: what changes counts, what breaks is told and mended, and nothing of it outlives its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection

from tests.system.application import Applications, socket
from tests.system.harness import Broker, command, environ, eventually

pytestmark = pytest.mark.system

PYTHON = (sys.executable, "-P")  # what is in the current folder is not to be imported, as with the script `broker`
RELOAD = ("run", "--reload", "--ready-file", "ready.json")
POLICY = 'default = "everyone"\n'
MODULE = """
from broker import Handlers

app = Handlers()


@app.on("version")
async def version():
    return {}
"""

# Its `on_disconnect` leaves traces: a file when it begins, another one when it has come to its end.
TRACING = """
from pathlib import Path

import trio
from broker import Handlers

app = Handlers()


@app.on("version")
async def version():
    return 1


@app.on_disconnect
async def gone():
    Path("begun").touch()
    await trio.sleep(SECONDS)
    Path("finished").touch()
"""
BRIEF, ENDLESS = TRACING.replace("SECONDS", "0.5"), TRACING.replace("SECONDS", "1000")
PATIENT = "handlers.timeout = 1000\nserver.shutdown_grace = 1000\n"

CTRL_C = b"\x03"
# Makes standard input, which is a terminal, that of a session of its own: there Ctrl-C comes to all that runs in front.
IN_FRONT = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
HASTY = "import cli.main, cli.reload; cli.reload.STOP_SECONDS = 0.5; cli.main.main()"


class Developer(Broker):
    """Somebody who changes files while the broker runs."""

    def change(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def left(self, name: str) -> bool:
        """Whether `on_disconnect` has left this trace."""
        return (self.folder / name).exists()

    def wait_left(self, name: str) -> None:
        eventually(lambda: self.left(name), f"trace {name}: {self.errors()}")

    def wait_told(self, text: str, times: int = 1) -> None:
        eventually(lambda: self.errors().count(text) >= times, f"line with {text!r}: {self.errors()}")

    def answer(self) -> str | None:
        """What the handler says now; None while there is nobody to ask."""
        try:
            with socket(self) as client:
                client.send('{"event": "version", "id": 1}')
                return str(client.recv(timeout=5))
        except (OSError, ValueError, WebSocketException):
            return None

    def wait_answer(self, version: int) -> None:
        eventually(lambda: self.answer() == f'{{"reply":1,"data":{version}}}', f"answer {version}: {self.errors()}")

    def serves(self) -> int | None:
        """The process that serves; None if that has ended."""
        with suppress(OSError, ValueError):
            pid = int(json.loads(self.ready_file.read_text())["pid"])
            if Path(f"/proc/{pid}/cwd").samefile(self.folder):  # else it is somebody else's by now
                return pid
        return None

    def wait_gone(self) -> None:
        eventually(lambda: self.serves() is None, f"end of the child: {self.errors()}")


class Terminal:
    """Our end of a terminal, and theirs."""

    def __init__(self) -> None:
        self.ours, self.theirs = (os.fdopen(end, "r+b", buffering=0) for end in os.openpty())

    def press(self, key: bytes) -> None:
        self.ours.write(key)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()

    def said(self) -> str:
        """What they said, who have ended."""
        self.theirs.close()
        said = b""
        with suppress(OSError):  # at the end
            while some := self.ours.read(65536):
                said += some
        return said.decode()


@dataclass
class Developers:
    """Lets developers run brokers, and sees to it that nothing of them is left."""

    applications: Applications
    started: list[Developer] = field(default_factory=list)

    def start(
        self,
        module: str = MODULE.format(1),
        config: str = "",
        *,
        run: Sequence[str] = (*PYTHON, "-m", "cli", *RELOAD),
        files: Mapping[str, str] | None = None,
    ) -> Developer:
        """Start one, and wait until the broker serves."""
        folder = self._place(module, config, files or {})
        with (folder / "stdout").open("wb") as output, (folder / "stderr").open("wb") as errors:
            return self._run(folder, run, subprocess.DEVNULL, output.fileno(), errors.fileno())

    def start_in_terminal(self, terminal: Terminal, module: str, config: str = "") -> Developer:
        """Start one in front of a terminal, to which all goes that it says."""
        theirs = terminal.theirs.fileno()
        folder = self._place(module, config, {"stderr": "see the terminal"})
        run = [*PYTHON, "-c", IN_FRONT, *PYTHON, "-m", "cli", *RELOAD]
        return self._run(folder, run, theirs, theirs, theirs)

    def _place(self, module: str, config: str, files: Mapping[str, str]) -> Path:
        files = {"greeting.py": module, **files}
        return self.applications.place(f'handlers.modules = ["greeting"]\n{config}', POLICY, files)

    def _run(self, folder: Path, run: Sequence[str], stdin: int, stdout: int, stderr: int) -> Developer:
        environment = environ(PYTHONDONTWRITEBYTECODE="")  # as nearly everybody has it
        process = subprocess.Popen(run, cwd=folder, env=environment, stdin=stdin, stdout=stdout, stderr=stderr)
        developer = Developer(folder, process)
        self.started.append(developer)
        developer.wait_ready()
        return developer

    def stop(self) -> None:
        try:
            for developer in self.started:
                if developer.process.poll() is None:
                    developer.signal(signal.SIGINT)
                    assert developer.wait_ended() == 0, developer.errors()
                developer.wait_gone()
        finally:
            for developer in self.started:
                developer.process.kill()
                developer.process.wait()
                if (pid := developer.serves()) is not None:
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def developers(tmp_path: Path) -> Iterator[Developers]:
    developers = Developers(Applications(tmp_path))
    yield developers
    developers.stop()


@pytest.fixture
def developer(developers: Developers) -> Developer:
    return developers.start()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def code_of(client: ClientConnection) -> int | None:
    with suppress(ConnectionClosed):
        client.recv(timeout=20)
    return client.close_code


# -- what changes


def test_a_changed_module_counts(developer: Developer) -> None:
    developer.wait_answer(1)
    developer.change("greeting.py", MODULE.format(2))
    developer.wait_told("greeting.py changed: starting anew")
    developer.wait_answer(2)


def test_a_broken_module_is_told_and_mended_by_the_next_change(developer: Developer) -> None:
    developer.change("greeting.py", "from nowhere import nothing\n")
    developer.wait_told("No module named 'nowhere'")
    developer.wait_told("the broker has ended; it starts anew with the next change")
    developer.change("greeting.py", MODULE.format(3))
    developer.wait_answer(3)


def test_a_broken_policy_is_told_and_mended_by_the_next_change(developer: Developer) -> None:
    developer.change("policy.toml", "default = 7\n")
    developer.wait_told("the broker has ended")
    developer.change("policy.toml", POLICY)
    developer.wait_told("policy.toml changed: starting anew", 2)
    developer.wait_answer(1)


def test_a_changed_policy_and_a_changed_configuration_count(developer: Developer) -> None:
    developer.change("policy.toml", POLICY + "# changed\n")
    developer.wait_told("policy.toml changed: starting anew")
    developer.wait_answer(1)
    developer.change("other.py", MODULE.format(4))
    developer.change("config.toml", 'handlers.modules = ["other"]\n')
    developer.wait_answer(4)


def test_what_is_no_source_is_left_alone(developer: Developer) -> None:
    developer.change("notes.txt", "nothing to do with it")
    developer.change("greeting.py", MODULE.format(5))
    developer.wait_answer(5)
    assert "notes.txt" not in developer.errors()


def test_a_file_written_in_two_steps_counts_as_it_is_in_the_end(developer: Developer) -> None:
    for version in range(2, 6):
        with (developer.folder / "greeting.py").open("w") as file:
            file.write("from broker import Handlers\napp = Handlers()\n")  # that would do, without its handler
            file.flush()
            if version % 2:
                developer.wait_told("greeting.py changed: starting anew", version - 1)
            file.write(MODULE.format(version))
        developer.wait_answer(version)


def test_a_file_changed_within_a_second_and_as_long_as_before_counts(developer: Developer) -> None:
    """Bytecode is held for that of a source by the source's size and second."""
    for version in (2, 3):
        half = developer.folder / "half"
        half.write_text(MODULE.format(version))
        os.utime(half, (1_000_000_000, 1_000_000_000))
        half.replace(developer.folder / "greeting.py")
        developer.wait_answer(version)


# -- what is in the folder


def test_files_named_like_modules_of_ours_or_of_python_harm_nothing(developers: Developers) -> None:
    names = ("broker", "cli", "connectors", "logging", "token")
    wrong = 'raise SystemExit("this is the wrong one")\n'
    developer = developers.start(files={f"{name}.py": wrong for name in names})
    developer.wait_answer(1)
    assert "wrong one" not in developer.errors()


# -- the end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_in_order(developers: Developers, number: signal.Signals) -> None:
    developer = developers.start(BRIEF)
    with socket(developer) as client:
        developer.signal(number)
        assert developer.wait_ended() == 0
        assert developer.left("finished"), developer.errors()
        assert code_of(client) == 1001
    assert developer.logged("broker.stopped")


def test_ctrl_c_ends_it_in_order(developers: Developers, terminal: Terminal) -> None:
    developer = developers.start_in_terminal(terminal, BRIEF)
    with socket(developer):
        terminal.press(CTRL_C)
        assert developer.wait_ended() == 0
    assert developer.left("finished"), terminal.said()


def test_a_second_ctrl_c_ends_it_at_once(developers: Developers, terminal: Terminal) -> None:
    developer = developers.start_in_terminal(terminal, ENDLESS, PATIENT)
    with socket(developer):
        terminal.press(CTRL_C)
        developer.wait_left("begun")
        terminal.press(CTRL_C)
        assert developer.wait_ended() == 0
    assert "broker.stopped_at_once" in terminal.said()


def test_a_closed_terminal_ends_it_in_order(developers: Developers, terminal: Terminal) -> None:
    developer = developers.start_in_terminal(terminal, BRIEF)
    with socket(developer):
        terminal.close()
        assert developer.wait_ended() == 0
    assert developer.left("finished")


def test_other_signals_again_do_not_hasten_it(developers: Developers) -> None:
    developer = developers.start(BRIEF)
    with socket(developer):
        developer.signal(signal.SIGHUP)
        developer.wait_left("begun")
        developer.signal(signal.SIGTERM)
        developer.signal(signal.SIGHUP)
        assert developer.wait_ended() == 0
    assert developer.left("finished"), developer.errors()


def test_the_child_of_a_killed_watcher_ends_in_order(developers: Developers) -> None:
    developer = developers.start(BRIEF)
    with socket(developer) as client:
        developer.signal(signal.SIGKILL)
        assert code_of(client) == 1001
    developer.wait_gone()
    assert developer.left("finished"), developer.errors()


def test_a_child_that_does_not_end_is_killed(developers: Developers) -> None:
    developer = developers.start(ENDLESS, PATIENT, run=[*PYTHON, "-c", HASTY, *RELOAD])
    with socket(developer):
        developer.signal(signal.SIGTERM)
        assert developer.wait_ended() == 0
    developer.wait_told("has not ended in 0.5 seconds: killed")
    assert not developer.left("finished")


def test_it_ends_while_the_child_is_broken(developer: Developer) -> None:
    developer.change("greeting.py", "async def")
    developer.wait_told("the broker has ended")
    developer.signal(signal.SIGINT)
    assert developer.wait_ended() == 0


def test_with_nohup_it_outlives_its_terminal(developers: Developers) -> None:
    developer = developers.start(run=["nohup", *PYTHON, "-m", "cli", *RELOAD])
    developer.signal(signal.SIGHUP)
    developer.change("greeting.py", MODULE.format(2))
    developer.wait_answer(2)


# -- what is refused


def test_with_standard_input_it_is_refused(tmp_path: Path) -> None:
    folder = Applications(tmp_path).place("", POLICY, {})
    ended = command("run", "--reload", "--stdin", folder=folder)
    assert ended.returncode == 2
    assert b"exclude each other" in ended.stderr


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    ended = command("run", "--reload", "--config", "nowhere/config.toml", folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"can't watch "), ended.stderr
