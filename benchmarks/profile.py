"""Where the time of an event and of a delivery goes, step by step, in the broker as `broker run` starts it.

The broker is looked at while it works (`sampling.py`); the share of looks that met a step is the step's share of the
processor time. Two numbers of subscribers tell what an event costs, however many get it, from what each delivery adds.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.broadcast import session
from benchmarks.load.session import Session
from benchmarks.peers.ours import Ours
from benchmarks.processes import allow_many_files
from benchmarks.report import Report, Value
from benchmarks.scale import IN_FLIGHT, Scale

SCALE = Scale((100, 1_000), 1, 10.0)
PATIENCE = 10.0
_ROOT = str(Path(__file__).parent.parent) + os.sep
_TRIO = "Trio: tasks and waiting"
_OTHER = "anything else"

# Which step a function belongs to, by how its file and name begin. Of a stack the innermost function that
# is found counts, and of beginnings the longest.
STEPS: Mapping[str, Sequence[str]] = {
    "HTTP": (
        "broker/edge/http",
        "broker/edge/heads",
        "broker/edge/line",
        "broker/edge/front",
        "broker/edge/site",
        "broker/core/http",
        "connectors/webhook",
    ),
    "token and permission": ("broker/edge/tokens", "broker/core/permissions", "broker/core/credentials"),
    "decode and check": ("connectors/", "broker/core/payload", "broker/core/event"),
    "hand over": ("broker/runtime/ingest",),
    "log": ("broker/edge/memory_log", "broker/runtime/dispatcher.py:Dispatcher._append"),
    "policy": ("broker/core/policy", "broker/core/relations", "broker/core/happening", "broker/core/conditions"),
    "match and group": (
        "broker/core/index",
        "broker/runtime/registry",
        "broker/runtime/routing",
        "broker/core/audience",
    ),
    "encode and join frames": (
        "broker/core/frames",
        "broker/core/forms",
        "broker/core/deflate",
        "broker/core/delivery",
    ),
    "write to the sockets": ("broker/runtime/dispatcher.py:Dispatcher._offer", "broker/runtime/shared_file"),
    "queues and their writers": ("broker/runtime/outbox", "broker/runtime/waiting", "broker/runtime/connection"),
    "dispatch": ("broker/runtime/dispatcher",),
}

_BEGINNINGS = {beginning: step for step, beginnings in STEPS.items() for beginning in beginnings}

Costs = Counter[str]  # microseconds of an event by step


def profile(scale: Scale = SCALE) -> Report:
    """With many events in flight, and with one."""
    allow_many_files()
    few, many = (_measured(subscribers, scale.seconds) for subscribers in scale.connections)
    columns: dict[str, Mapping[str, float]] = {}
    for in_flight, how in ((IN_FLIGHT, f"one of {IN_FLIGHT}"), (1, "alone")):
        a_delivery, an_event = _split(few[in_flight], many[in_flight], scale.connections)
        columns |= {f"event {how}: µs": an_event, f"event {how}: %": _shares(an_event)}
        columns |= {f"delivery {how}: µs": a_delivery, f"delivery {how}: %": _shares(a_delivery)}
    steps = [*STEPS, _TRIO, _OTHER]
    rows: list[Sequence[Value]] = [(step, *(column.get(step, 0.0) for column in columns.values())) for step in steps]
    rows.append(("all", *(sum(column.values()) for column in columns.values())))
    title = f"the cost of an event and of a delivery, from {' and '.join(map(str, scale.connections))} subscribers"
    return Report("profile", title, ("step", *columns), rows)


def _measured(subscribers: int, seconds: float) -> Mapping[int, Costs]:
    with tempfile.TemporaryDirectory(prefix="broker-profile-") as folder:
        samples = Path(folder) / "samples.json"
        sampled = Ours(program="benchmarks.sampling", environ={"SAMPLES": str(samples)})
        with session(sampled, subscribers) as each:
            each.saturate(IN_FLIGHT, seconds / 10)
            return {in_flight: _costs(each, in_flight, seconds, samples) for in_flight in (IN_FLIGHT, 1)}


def _costs(session: Session, in_flight: int, seconds: float, samples: Path) -> Costs:
    os.kill(session.pid, signal.SIGUSR1)
    outcome = session.saturate(in_flight, seconds)
    samples.unlink(missing_ok=True)
    os.kill(session.pid, signal.SIGUSR2)
    end = time.monotonic() + PATIENCE
    while not samples.exists():
        if time.monotonic() > end:
            raise TimeoutError("the broker does not write its samples")
        time.sleep(0.02)
    seen: Counter[str] = Counter()
    for stack, times in json.loads(samples.read_text()):
        seen[step_of(stack)] += times
    microseconds = 1_000_000 * outcome.cpu_per_event / max(seen.total(), 1)
    return Counter({step: times * microseconds for step, times in seen.items()})


def step_of(stack: Sequence[tuple[str, str]]) -> str:
    """The step that a stack of functions, the innermost first, is seen in."""
    for file, function in stack:
        place = f"{file.removeprefix(_ROOT)}:{function}"
        found = max(filter(place.startswith, _BEGINNINGS), key=len, default=None)
        if found is not None:
            return _BEGINNINGS[found]
    return _TRIO if any("/trio/" in file for file, _ in stack) else _OTHER


def _shares(costs: Mapping[str, float]) -> Mapping[str, float]:
    return {step: 100 * cost / (sum(costs.values()) or 1) for step, cost in costs.items()}


def _split(few: Costs, many: Costs, subscribers: Sequence[int]) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """What a delivery costs, and what is the event's own: a line through two points."""
    low, high = subscribers
    steps = {*few, *many}
    a_delivery = {step: max((many[step] - few[step]) / (high - low), 0.0) for step in steps}
    an_event = {step: max(few[step] - low * a_delivery[step], 0.0) for step in steps}
    return a_delivery, an_event
