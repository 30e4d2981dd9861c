"""Chromium, driven by its DevTools protocol over a pair of pipes: it has no port, and ends when we do.

Every browser has a private profile in a temporary folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import trio

from tests.system.harness import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
)

# Chromium reads commands from its file 3 and writes answers to its file 4.
_LAUNCHER = 'commands=$1 answers=$2; shift 2; exec "$@" 3<&"$commands" 4>&"$answers"'


class PageFailed(Exception):
    """A script in a page has failed."""


def why_not() -> str | None:
    """Say why there can be no Chromium on this machine; None if there can."""
    if not any(map(shutil.which, NAMES)):
        return "Chromium is not installed (on Debian: apt-get install chromium)"
    return None


class Tab:
    """One page."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self.complaints: list[str] = []

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression, which may have `await` in it, as JSON.

        Raises PageFailed.
        """
        ran = await self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, replMode=True
        )
        if "exceptionDetails" in ran:
            details = ran["exceptionDetails"]
            raise PageFailed(details.get("exception", {}).get("description", details["text"]))
        return ran["result"].get("value")

    async def until(self, condition: str) -> Any:
        """Wait until the condition is true; what it is then.

        Raises PageFailed when it takes too long.
        """
        with trio.move_on_after(PATIENCE):
            while not (value := await self.evaluate(condition)):
                await trio.sleep(0.01)
            return value
        raise PageFailed(f"in {PATIENCE} seconds it did not happen that {condition}; {self.complaints}")

    async def open(self, url: str) -> None:
        """Go to a page, and wait until it and what it imports are there."""
        await self.command("Page.navigate", url=url)
        await self.until(f'location.href.startsWith({json.dumps(url)}) && document.readyState === "complete"')

    async def command(self, method: str, **parameters: object) -> Any:
        return await self._browser.command(method, self._session, **parameters)


class Chromium:
    """A browser that runs; its commands and answers are JSON, each with a zero byte behind it."""

    def __init__(self, commands: trio.lowlevel.FdStream, answers: trio.lowlevel.FdStream) -> None:
        self._commands = commands
        self._answers = answers
        self._numbers = count(1)
        self._waiting: dict[int, Callable[[dict[str, Any]], None]] = {}
        self._tabs: dict[str, Tab] = {}

    async def tab(self, url: str) -> Tab:
        """A new tab with this page in it."""
        made = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        tab = self._tabs[attached["sessionId"]] = Tab(self, attached["sessionId"])
        await tab.command("Runtime.enable")
        await tab.open(url)
        return tab

    async def command(self, method: str, session: str | None = None, **parameters: object) -> Any:
        """Give a command, and wait for its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        answered = trio.Event()
        answers: list[dict[str, Any]] = []

        def answer(given: dict[str, Any]) -> None:
            answers.append(given)
            answered.set()

        self._waiting[number] = answer
        await self._commands.send_all(json.dumps(message).encode() + b"\0")
        with trio.fail_after(PATIENCE):
            await answered.wait()
        assert "error" not in answers[0], answers[0]
        return answers[0]["result"]

    async def read(self) -> None:
        """Take what the browser says."""
        part = b""
        async for data in self._answers:
            *messages, part = (part + bytes(data)).split(b"\0")
            for message in messages:
                self._take(json.loads(message))
        raise PageFailed("Chromium has ended by itself")

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._waiting.pop(message["id"])(message)
        elif message["method"] == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            self._complain(message, details.get("exception", {}).get("description", details["text"]))
        elif message["method"] == "Runtime.consoleAPICalled" and message["params"]["type"] in ("warning", "error"):
            self._complain(message, " ".join(str(given.get("value")) for given in message["params"]["args"]))

    def _complain(self, message: dict[str, Any], text: str) -> None:
        self._tabs[message["sessionId"]].complaints.append(text)


@asynccontextmanager
async def open_chromium() -> AsyncIterator[Chromium]:
    """A browser for the length of the block."""
    their_commands, our_commands = os.pipe()
    our_answers, their_answers = os.pipe()
    commands, answers = trio.lowlevel.FdStream(our_commands), trio.lowlevel.FdStream(our_answers)
    # What it leaves behind may still be written when it has ended: that is no fault.
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = _launch(profile, their_commands, their_answers)
        os.close(their_commands)
        os.close(their_answers)
        try:
            async with commands, answers, trio.open_nursery() as nursery:
                chromium = Chromium(commands, answers)
                nursery.start_soon(chromium.read)
                yield chromium
                nursery.cancel_scope.cancel()
        finally:
            _end(process)


def _launch(profile: str, commands: int, answers: int) -> subprocess.Popen[bytes]:
    program = next(filter(None, map(shutil.which, NAMES)))
    flags = [*FLAGS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.getuid() == 0 else [])]
    return subprocess.Popen(
        ["bash", "-c", _LAUNCHER, "bash", str(commands), str(answers), program, *flags, "about:blank"],
        pass_fds=(commands, answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """It ends by itself when its pipes are closed; its helpers are in its process group, and end with it."""
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
