"""`broker run --reload`: run the broker as a child, and anew whenever one of its files has changed.

A terminal sends Ctrl-C to all that runs in front: the child would hear it from there and from us, and a second one is
"at once" to a broker. So the child has a session of its own, and is told by us alone: once to stop, and again for each
further Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from watchfiles import Change, DefaultFilter, watch

from cli.errors import refuse, tell

DEBOUNCE: Final = 300  # milliseconds that changes which come together may take
STEP: Final = 50  # milliseconds between two looks: at the files, the child and the signals
STOP_SECONDS: Final = 12.0  # for the child to end in order, somewhat longer than `shutdown_grace` is by default


def run_and_reload(config: Path, arguments: Sequence[str]) -> None:
    """Run `broker run` with these arguments until Ctrl-C, SIGTERM or SIGHUP.

    config: what is beside it, or below, is watched. Raises typer.Exit when that can't be done.
    """
    folder = config.absolute().parent
    orders = _Orders()
    child = _Child(arguments, orders)
    try:
        for changes in _changes(folder, orders):
            if not child.started:  # not before all is watched: a change while it reads the files must not be missed
                tell(f"watching {folder} for changes")
                child.start()
            elif changes:
                tell(f"{', '.join(sorted(changes))} changed: starting anew")
                child.end()
                child.start()
            else:
                child.look()
    finally:
        child.end()


def end_with(watcher: int) -> None:
    """Have this process told to stop, once, when its watcher has ended in whatever way.

    watcher: a descriptor, the end of a pipe that the watcher never writes to. The signal that Linux sends when a parent
    dies would come once for each of its threads, and a second SIGTERM is "at once" to a broker.
    """

    def wait() -> None:
        os.read(watcher, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="watcher", daemon=True).start()


class _Sources(DefaultFilter):
    """The application's modules, the policy and the configuration."""

    def __call__(self, change: Change, path: str) -> bool:
        return path.endswith((".py", ".toml")) and super().__call__(change, path)


class _Orders:
    """What signals have told us: the first one to stop, and each Ctrl-C after it to hurry."""

    def __init__(self) -> None:
        self._stop = self._hurry = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Whoever has us ignore SIGHUP, as nohup does, wants us to outlive the terminal.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._hear)

    def is_set(self) -> bool:
        """Whether to stop; `watch` asks by this name."""
        return self._stop

    def hurry(self) -> bool:
        """Whether there was another Ctrl-C since this was asked."""
        hurry, self._hurry = self._hurry, False
        return hurry

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        # SIGTERM and SIGHUP may come twice without any impatience: from a shell that ends, and from its terminal.
        self._hurry |= self._stop and number == signal.SIGINT
        self._stop = True


class _Child:
    """The broker: one process after the other."""

    def __init__(self, arguments: Sequence[str], orders: _Orders) -> None:
        # -P: a `cli.py` in the current folder is the application's. -B: bytecode would be taken for that of a file
        # which was changed within the same second and is as long as before.
        python = [sys.executable, "-P", "-B", "-m", "cli"]
        self._ends_with_us, self._ours = os.pipe()
        self._command = [*python, "run", "--watched-by", str(self._ends_with_us), *arguments]
        self._orders = orders
        self._process: subprocess.Popen[bytes] | None = None
        self._seen_ended = False

    @property
    def started(self) -> bool:
        """Whether there was one already."""
        return self._process is not None

    def start(self) -> None:
        """Start one, if it is not time to stop; the last one has ended."""
        if not self._orders.is_set():
            self._process = subprocess.Popen(  # noqa: S603 -- ourselves
                self._command, start_new_session=True, pass_fds=[self._ends_with_us]
            )
            self._seen_ended = False

    def look(self) -> None:
        """Tell, once, if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None and not self._seen_ended:
            self._seen_ended = True
            tell("the broker has ended; it starts anew with the next change")

    def end(self) -> None:
        """Have it stop in order; kill it when that takes too long."""
        process = self._process
        if process is None:
            return
        process.terminate()  # of no effect if it has ended
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self._orders.hurry():
                process.send_signal(signal.SIGINT)
            time.sleep(STEP / 1000)
        if process.poll() is None:
            process.kill()
            process.wait()
            tell(f"the broker has not ended in {STOP_SECONDS:g} seconds: killed")


def _changes(folder: Path, orders: _Orders) -> Iterator[set[str]]:
    """The names of what has changed, every STEP, mostly none, until it is time to stop.

    Raises typer.Exit when the folder can't be watched.
    """
    seen = watch(
        folder,
        watch_filter=_Sources(),
        debounce=DEBOUNCE,
        step=STEP,
        rust_timeout=STEP,
        yield_on_timeout=True,
        stop_event=orders,
    )
    try:
        for changes in seen:
            yield {Path(path).name for _, path in changes}
    except OSError as error:
        raise refuse(f"can't watch {folder}: {error}") from None
