"""The paths that the application's handlers make, each with its bounds and its heartbeat."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from broker.core.heartbeat import Heartbeat
from broker.handlers.admitting import admit_by
from broker.handlers.application import Application
from broker.handlers.declaring import Handlers
from broker.handlers.errors import BadHandler
from broker.handlers.house import House
from broker.runtime.calls import Calls
from broker.runtime.services import Admit, ConnectionLimits, Endpoint

_PLACEHOLDER = re.compile(r"<\w+>")


def build_endpoints(
    handlers: Iterable[Handlers], first: tuple[str, Endpoint], house: House, calls: Calls, timeout: float
) -> Mapping[str, Endpoint]:
    """The endpoints by path. first: the path of those that name none, and what holds for all that say nothing else.

    Raises BadHandler where handlers of one path contradict each other.
    """
    path, usual = first
    by_path: dict[str, list[Handlers]] = {}
    for one in handlers:
        by_path.setdefault(one.path or path, []).append(one)
    _check_apart(by_path)
    return {path: usual} | {
        where: replace(
            usual,
            limits=_limits(usual.limits, where, together),
            compression=_one_of(where, "compression", [one.compression for one in together]) is not False,
            application=Application(together, house, calls, timeout),
            admit=_admit(where, together),
        )
        for where, together in by_path.items()
    }


def _check_apart(paths: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(_PLACEHOLDER.sub("<>", path), path)
        if other != path:
            raise BadHandler(f"{other} and {path} are the same paths: call their placeholders alike")


def _limits(usual: ConnectionLimits, path: str, handlers: Sequence[Handlers]) -> ConnectionLimits:
    interval = _one_of(path, "heartbeat", [one.heartbeat for one in handlers])
    timeout = _one_of(path, "heartbeat_timeout", [one.heartbeat_timeout for one in handlers])
    beat = usual.heartbeat
    heartbeat = Heartbeat(beat.interval if interval is None else interval, beat.timeout if timeout is None else timeout)
    if heartbeat.interval > 0 and heartbeat.timeout <= 0:
        raise BadHandler(f"{path}: heartbeat_timeout must be greater than 0 while there is a heartbeat")
    return replace(usual, heartbeat=heartbeat)


def _admit(path: str, handlers: Sequence[Handlers]) -> Admit | None:
    found = [one.authenticates for one in handlers if one.authenticates is not None]
    if len(found) > 1:
        raise BadHandler(f"{path}: {' and '.join(each.name for each in found)}: a path has one `authenticate`")
    return admit_by(found[0]) if found else None


def _one_of(path: str, name: str, values: Sequence[float | None]) -> float | None:
    said = {value for value in values if value is not None}
    if len(said) > 1:
        raise BadHandler(f"{path}: {name} is {' and '.join(map(str, sorted(said)))}: say one")
    return said.pop() if said else None
