"""An event broker: events come in, and each connection receives those that match and that its user may see.

What applications import is here, loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broker.core.errors import BadEvent, ClientError, LogUnavailable, Stopping
    from broker.core.http import Request
    from broker.handlers.admitting import Accepted
    from broker.handlers.channel import Channel
    from broker.handlers.connection import Connection
    from broker.handlers.declaring import Handlers
    from broker.handlers.errors import Refused
    from broker.handlers.hooks import Received, Sent, log_error, log_received

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "BadEvent",
    "Channel",
    "ClientError",
    "Connection",
    "Handlers",
    "LogUnavailable",
    "Received",
    "Refused",
    "Request",
    "Sent",
    "Stopping",
    "log_error",
    "log_received",
]

_HOMES = {
    "Accepted": "broker.handlers.admitting",
    "BadEvent": "broker.core.errors",
    "Channel": "broker.handlers.channel",
    "ClientError": "broker.core.errors",
    "Connection": "broker.handlers.connection",
    "Handlers": "broker.handlers.declaring",
    "LogUnavailable": "broker.core.errors",
    "Received": "broker.handlers.hooks",
    "Refused": "broker.handlers.errors",
    "Request": "broker.core.http",
    "Sent": "broker.handlers.hooks",
    "Stopping": "broker.core.errors",
    "log_error": "broker.handlers.hooks",
    "log_received": "broker.handlers.hooks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
