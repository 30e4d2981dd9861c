"""`broker run --reload`: what changes counts, what breaks is told and mended, and it ends as it should."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import WebSocketException

from tests.system.application import Applications, socket
from tests.system.harness import BROKER, Broker, command, environ, eventually

pytestmark = pytest.mark.system

MODULE = """
from broker import Handlers

app = Handlers()


@app.on("version")
async def version():
    return {}
"""
POLICY = 'default = "everyone"\n'


class Developer(Broker):
    """Somebody who changes files while the broker runs."""

    def change(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

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


@pytest.fixture
def developer(tmp_path: Path) -> Iterator[Developer]:
    files = {"greeting.py": MODULE.format(1)}
    folder = Applications(tmp_path).place('handlers.modules = ["greeting"]\n', POLICY, files)
    run = [*BROKER, "run", "--reload", "--ready-file", "ready.json"]
    with (folder / "stdout").open("wb") as output, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(run, cwd=folder, env=environ(), stdout=output, stderr=errors)
    developer = Developer(folder, process)
    developer.wait_ready()
    developer.wait_answer(1)
    time.sleep(0.5)  # until the folder is watched, which nobody tells
    yield developer
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(20) in (0, 130), developer.errors()
    finally:
        process.kill()
        process.wait()
    eventually(lambda: developer.answer() is None, "end of the child")


def test_a_changed_module_counts(developer: Developer) -> None:
    developer.change("greeting.py", MODULE.format(2))
    developer.wait_told("greeting.py changed: starting anew")
    developer.wait_answer(2)


def test_a_broken_module_is_told_and_mended_by_the_next_change(developer: Developer) -> None:
    developer.change("greeting.py", "from nowhere import nothing\n")
    developer.wait_told("No module named 'nowhere'")
    developer.change("greeting.py", MODULE.format(3))
    developer.wait_answer(3)


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


def test_with_standard_input_it_is_refused(tmp_path: Path) -> None:
    folder = Applications(tmp_path).place("", POLICY, {})
    ended = command("run", "--reload", "--stdin", folder=folder)
    assert ended.returncode == 2
    assert b"exclude each other" in ended.stderr
