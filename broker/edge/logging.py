"""The broker's own log, by structlog: one line an entry on standard error, for people at a terminal, else JSON.

The rest of the broker writes with the standard library's `logging`: the event as the message, the facts as `extra`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_OWN_LOGGERS = ("broker", "connectors", "cli")


def configure_logging(level: int = logging.INFO) -> None:
    """Send what the broker logs to standard error; other libraries are heard from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _render,
            ],
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)


def _render(logger: Any, name: str, entry: MutableMapping[str, Any]) -> str:
    if sys.stderr.isatty():
        return structlog.dev.ConsoleRenderer()(logger, name, entry)
    rendered = structlog.processors.JSONRenderer(default=str)(logger, name, entry)
    return rendered if isinstance(rendered, str) else rendered.decode()
