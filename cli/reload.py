"""`broker run --reload`: run the broker as a child, and anew whenever one of its files has changed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from watchfiles import Change, DefaultFilter, run_process

from cli.errors import tell

DEBOUNCE: Final = 300  # milliseconds that changes which come together may take
STOP_SECONDS: Final = 12  # for the child to end in order, somewhat longer than `shutdown_grace` is by default


class _Sources(DefaultFilter):
    """The application's modules, the policy and the configuration."""

    def __call__(self, change: Change, path: str) -> bool:
        return path.endswith((".py", ".toml")) and super().__call__(change, path)


def run_and_reload(config: Path, arguments: Sequence[str]) -> None:
    """Run `broker run` with these arguments until Ctrl-C or SIGTERM; what is beside `config`, or below, is watched."""
    folder = config.absolute().parent
    command = shlex.join([sys.executable, "-m", "cli", "run", *arguments])
    tell(f"watching {folder} for changes")

    def changed(changes: set[tuple[Change, str]]) -> None:
        names = sorted({Path(path).name for _, path in changes})
        tell(f"{', '.join(names)} changed: starting anew")

    run_process(
        folder,
        target=command,
        target_type="command",
        callback=changed,
        watch_filter=_Sources(),
        debounce=DEBOUNCE,
        sigint_timeout=STOP_SECONDS,
    )
