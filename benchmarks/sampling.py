"""`python -m benchmarks.sampling run …` is `broker run …`, looked at again and again while it works.

Each time a tick of processor time has passed, the functions on the stack are noted, which costs next to nothing and,
unlike tracing, the same everywhere. SIGUSR1: forget what was seen. SIGUSR2: write it to the file that SAMPLES names, as
a JSON list of `[[[file, function], …], times]`, the innermost function first.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

from cli.main import main

_INTERVAL = 0.001  # seconds; the kernel makes it one of its ticks, which may be ten times as long


class Samples:
    """What was seen so far. Its methods are handlers of signals."""

    def __init__(self) -> None:
        self._stacks: Counter[tuple[tuple[str, str], ...]] = Counter()

    def take(self, _signal: int, frame: FrameType | None) -> None:
        """Note who is at work."""
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename, frame.f_code.co_qualname))
            frame = frame.f_back
        self._stacks[tuple(stack)] += 1

    def clear(self, _signal: int, _frame: FrameType | None) -> None:
        """Forget what was seen."""
        self._stacks.clear()

    def write(self, _signal: int, _frame: FrameType | None) -> None:
        """Write what was seen, in one piece."""
        path = Path(os.environ["SAMPLES"])
        part = path.with_suffix(".part")
        part.write_text(json.dumps(list(self._stacks.items())))
        part.replace(path)


if __name__ == "__main__":
    samples = Samples()
    signal.signal(signal.SIGPROF, samples.take)
    signal.signal(signal.SIGUSR1, samples.clear)
    signal.signal(signal.SIGUSR2, samples.write)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)
    main()
