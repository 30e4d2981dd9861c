"""docs/handlers.md, followed: its code is written down, its commands are pasted, and what it says comes is what comes.

Blocks are marked behind the language: `app` is put below what the module has already, `tour` runs in a shell, `ada`,
`bob` and `carol` are what they start and what they see, `broker` what the broker is started with and prints.
"""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.reference import with_reference
from tests.system.harness import PATIENCE, REPOSITORY, environ

pytestmark = pytest.mark.system

PAGE = (REPOSITORY / "docs" / "handlers.md").read_text()
BLOCKS: list[tuple[str, str, str]] = re.findall(r"^```(\w+) (\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PEOPLE = ("ada", "bob", "carol")


class Terminal:
    """A shell that runs some commands; its lines are kept as they come."""

    def __init__(self, commands: str, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "-c", commands],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def take(self, number: int) -> list[str]:
        """Wait for so many lines, and take all there are."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._lines) >= number, PATIENCE), (number, self._lines)
            taken, self._lines = self._lines, []
            return taken

    def wait_for(self, text: str) -> None:
        """Wait for a line with this text, and take all up to there."""

        def found() -> int | None:
            return next((at for at, line in enumerate(self._lines, 1) if text in line), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, PATIENCE), (text, self._lines)
            self._lines = self._lines[found() :]

    def close(self) -> None:
        """Press Ctrl-C; nothing happens to what has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 2)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Desk:
    """Who follows the page: the folder, and the terminals by name."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._port = _free_port()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = environ(PATH=path, BROKER_SERVER__PORT=str(self._port))
        self._terminals: dict[str, Terminal] = {}

    @property
    def _app(self) -> Path:
        """The folder of the application, once it is there."""
        made = self._folder / "app"
        return made if made.exists() else self._folder

    def paste(self, text: str) -> str:
        """What commands print that end by themselves."""
        # The first block enters the folder, for good.
        done = subprocess.run(
            ["bash", "-c", self._here(text)],
            cwd=self._app,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self._let_it_start_anew("config.toml" in text)
        return done.stdout

    def write(self, name: str, text: str) -> None:
        """Put this below what the file has already."""
        file = self._app / name
        before = f"{file.read_text()}\n\n" if file.exists() else ""
        file.write_text(self._here(before + text))
        self._let_it_start_anew(name.endswith(".py"))

    def start(self, who: str, text: str) -> None:
        """Run these commands in the terminal of that name, after Ctrl-C where something runs there."""
        if who in self._terminals:
            self.interrupt(who)
        terminal = self._terminals[who] = Terminal(self._here(text), self._app, self._environment)
        self._stack.callback(terminal.close)
        if who == "broker":
            terminal.wait_for("broker: serving")

    def interrupt(self, who: str) -> None:
        self._terminals[who].close()

    def sees(self, who: str, text: str) -> None:
        """Check that exactly this has come since one looked last; of what the broker says, that this is among it."""
        lines = text.splitlines()
        if who == "broker":
            self._terminals[who].wait_for(lines[0])
        else:
            assert self._terminals[who].take(len(lines)) == lines

    def _here(self, text: str) -> str:
        return text.replace("127.0.0.1:8080", f"127.0.0.1:{self._port}")

    def _let_it_start_anew(self, changed: bool) -> None:
        if changed and "broker" in self._terminals:
            self._terminals["broker"].wait_for("starting anew")
            self._terminals["broker"].wait_for("broker: serving")


def _free_port() -> int:
    """Below what Linux gives to outgoing connections: while a broker starts anew, nobody gets its port by chance."""
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with ExitStack() as stack:
        yield Desk(tmp_path, stack)


def test_who_follows_the_tutorial_gets_what_it_says(desk: Desk) -> None:
    printed = ""
    for language, mark, text in BLOCKS:
        if language == "python":
            desk.write({"app": "greet.py", "talk": "talk.py", "test": "test_greet.py"}[mark], text)
        elif mark == "tour":
            printed = desk.paste(text)
        elif mark == "output":
            assert printed == text
        elif mark == "policy":
            assert " ".join(text.split()) in " ".join(desk.paste("cat policy.toml").split())
        elif language == "sh":
            desk.start(mark, text)
        elif text == "^C\n":
            desk.interrupt(mark)
        else:
            desk.sees(mark, text)
    assert "2 passed" in desk.paste("python -m pytest --quiet test_greet.py")


def test_the_tutorial_is_typed_throughout(tmp_path: Path) -> None:
    code = "\n\n".join(text for language, mark, text in BLOCKS if (language, mark) == ("python", "app"))
    (tmp_path / "greet.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "/dev/null", "greet.py"]
    ran = subprocess.run(command, cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout


def test_the_reference_is_that_of_the_code() -> None:
    assert with_reference(PAGE) == PAGE, "python -m tests.reference writes it anew"
