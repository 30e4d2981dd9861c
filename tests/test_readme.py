"""The tour in README.md, pasted into a shell: a real broker, the commands as they stand there, the output shown.

Blocks are marked behind the language: `tour` runs in one shell, `ada` and `bob` are what they start and what they
see, `output` is what the commands before it print, `browser` goes into a browser's console.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser.pages import BUILTIN_WEBSOCKET, environ, flags, node_version, why_no_page, why_no_ws
from tests.needing import needed

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATIENCE = 30.0
RUN = ".venv/bin/broker run --config config.toml --welcome"
USERS = ("ada", "bob")
SEEN_BY_BOTH = ["games.43.created", "games.42.deleted", *(f"users.guest-{number}.online" for number in (1, 2, 3))]
PID = "\"$(pgrep -f 'broker run')\""


@dataclass(frozen=True)
class Block:
    """A fenced block: its mark, and what is in it."""

    language: str
    mark: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]


class Terminal:
    """A process whose output is kept line by line as it comes, and that is gone at the end."""

    def __init__(self, command: str, folder: Path, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
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

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def take_until(self, text: str) -> list[str]:
        """Wait for a line with this text; the lines before it that were not taken yet."""

        def found() -> int | None:
            return next((at for at, line in enumerate(self._lines) if text in line), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, PATIENCE), (text, self._lines)
            at = found() or 0
            taken, self._lines = self._lines[:at], self._lines[at + 1 :]
            return taken

    def take(self, number: int) -> list[str]:
        """Wait for so many lines, and take all there are."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._lines) >= number, PATIENCE), (number, self._lines)
            taken, self._lines = self._lines, []
            return taken

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class Desk:
    """Where somebody has just run `make run`: the folder, and their terminals."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        for name in ("config.toml", "policy.toml", "policy.test.toml"):
            shutil.copy(ROOT / name, folder)
        (folder / ".venv").symlink_to(sys.prefix)
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
        self._environ["BROKER_SERVER__PORT"] = "0"
        self.broker = self.terminal(f"{RUN} --ready-file ready.json")
        self.broker.take_until("README.md has the tour")  # it is said last
        told = json.loads((folder / "ready.json").read_text())
        self.port, self._pid = told["port"], told["pid"]
        self._environ["BROKER_SERVER__PORT"] = str(self.port)
        self.service = self.terminal("bash")
        self._pasted = 0

    def terminal(self, command: str, **environ: str) -> Terminal:
        terminal = Terminal(command, self._folder, {**self._environ, **environ})
        self._stack.callback(terminal.close)
        return terminal

    def here(self, text: str) -> str:
        """The text with this broker's port and process in it."""
        return text.replace(":8080", f":{self.port}").replace(PID, str(self._pid))

    def paste(self, text: str) -> list[str]:
        """Paste into the service's terminal; what it prints."""
        self._pasted += 1
        done = f"block {self._pasted} is done"
        self.service.write(f"{self.here(text)}\necho {done}\n")
        return self.service.take_until(done)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with ExitStack() as stack:
        yield Desk(tmp_path, stack)


def blocks(mark: str) -> list[str]:
    return [block.text for block in BLOCKS if block.mark == mark]


def without_ids(lines: list[str]) -> list[str]:
    return [re.sub(r"\b[0-9a-f]{24,32}\b", "ID", line) for line in lines]


def test_the_tour_prints_what_the_readme_says(desk: Desk) -> None:
    viewers = {}
    printed: list[str] = []
    for block in BLOCKS:
        if block.mark in USERS and block.language == "sh":
            viewers[block.mark] = desk.terminal(block.text.strip())
            viewers[block.mark].take_until("subscribed to **")
        elif block.mark in USERS:
            expected = block.text.splitlines()
            assert viewers[block.mark].take(len(expected)) == expected
        elif block.mark == "tour":
            printed = desk.paste(block.text)
        elif block.mark == "output":
            assert without_ids(printed) == without_ids(block.text.splitlines())
    for viewer in viewers.values():
        lines = viewer.take_until('{"event":"news.today","data":{"headline": "it works"}}')
        assert [json.loads(line)["event"] for line in lines] == SEEN_BY_BOTH


def test_the_browser_gets_what_the_user_may_see(desk: Desk) -> None:
    needed(why_no_page() or (why_no_ws() if node_version() < BUILTIN_WEBSOCKET else None))
    (token,) = desk.paste(". .venv/bin/activate; broker token --user ada")
    desk.paste(f"curl -s http://127.0.0.1:{desk.port}/client.js > client.mjs")
    (snippet,) = blocks("browser")
    script = snippet.replace('"…"', json.dumps(token))
    # What Node lacks of a browser: an address of its own, and in old versions a WebSocket.
    script = script.replace('import("/client.js")', 'import("./client.mjs")')
    script = script.replace("connect({", f'connect("http://127.0.0.1:{desk.port}", {{')
    assert all(part in script for part in (token, "./client.mjs", str(desk.port)))
    preload = 'globalThis.WebSocket ??= (await import("node:module")).createRequire("/")("ws");\n'
    node = shlex.join(["node", *flags(), "--input-type=module", "-e", preload + script])
    browser = desk.terminal(node, NODE_PATH=environ()["NODE_PATH"])
    desk.paste(
        f"until curl -s http://127.0.0.1:{desk.port}/metrics | grep -q '^broker_subscriptions 1'; do sleep 0.05; done"
    )
    desk.paste('broker publish groups.1.created \'{"members": ["ada"]}\'; broker publish games.1.created')
    assert browser.take(1) == ["games.1.created null"]


def test_make_run_is_what_the_tour_starts() -> None:
    assert f"\t@$(BIN)/{RUN.removeprefix('.venv/bin/')}\n" in (ROOT / "Makefile").read_text()


def test_the_rules_shown_first_are_those_of_the_policy_shipped() -> None:
    (excerpt,) = [block.text for block in BLOCKS if block.language == "toml"]
    shown, shipped = tomllib.loads(excerpt), tomllib.loads((ROOT / "policy.toml").read_text())
    assert shown["default"] == shipped["default"]
    assert shown["relations"].items() <= shipped["relations"].items()
    assert all(rule in shipped["rules"] for rule in shown["rules"])
