"""Tests of a policy, written beside it: cases in TOML that say who must, and who must not, see an event."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.core.errors import BadName, BadPayload
from broker.core.event import Event, check_name
from broker.core.explain import Explanation, explain
from broker.core.faults import Faults, kind
from broker.core.happening import Happening
from broker.core.payload import check_text
from broker.core.policy import Policy
from broker.core.ports import Identity
from broker.core.relations import Facts
from broker.core.toml import Path, parse

_EVENT_KEYS = ("event", "data", "json")
_EXPECTING = {"visible_to": True, "hidden_from": False}


@dataclass(frozen=True, slots=True)
class Expectation:
    """That `viewer` sees an event or not, and the line that says so."""

    viewer: Identity
    visible: bool
    line: int | None


@dataclass(frozen=True, slots=True)
class Case:
    """One event, what happened before it, and who should see it."""

    event: Event
    before: tuple[Event, ...]
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that the policy does not meet, and the policy's reasons."""

    case: Case
    expectation: Expectation
    explanation: Explanation


def parse_cases(text: str, file: str) -> tuple[Case, ...]:
    """Read cases; `file` is the name that errors show.

    Raises FaultyFile with every fault.
    """
    document = parse(text, file)
    faults = Faults(document)
    faults.check_keys((), document.data, ("before", "cases"))
    before = tuple(_events(document.data.get("before", []), ("before",), faults))
    tables = document.data.get("cases")
    if not isinstance(tables, list) or not tables:
        faults.add(("cases",), "there must be cases, each a table: [[cases]]")
        tables = []
    cases = [_case(table, ("cases", index), before, faults) for index, table in enumerate(tables)]
    faults.raise_if_any()
    return tuple(case for case in cases if case is not None)


def failures(policy: Policy, case: Case) -> list[Failure]:
    """The expectations of a case that `policy` does not meet."""
    facts = Facts()
    offset = learn(policy, facts, case.before)
    happening = Happening(case.event)
    facts.add(policy.changes(happening), offset)
    found = [(expected, explain(policy, happening, facts, expected.viewer)) for expected in case.expectations]
    return [Failure(case, expected, why) for expected, why in found if why.visible is not expected.visible]


def learn(policy: Policy, facts: Facts, events: Iterable[Event]) -> int:
    """Let `facts` learn from events that came before, at offsets from 0; return the next offset."""
    offset = 0
    for offset, event in enumerate(events, start=1):
        changes = policy.changes(Happening(event))
        facts.add(changes, offset - 1)
        facts.remove(changes, offset - 1)
    return offset


def _case(table: Any, path: Path, before: tuple[Event, ...], faults: Faults) -> Case | None:
    event = _event(table, path, faults, also=("before", *_EXPECTING))
    if not isinstance(table, dict):
        return None
    own = tuple(_events(table.get("before", []), (*path, "before"), faults))
    expectations = tuple(_expectations(table, path, faults))
    if not any(table.get(word) for word in _EXPECTING):
        faults.add(path, "a case expects something: `visible_to`, `hidden_from`, or both")
    return Case(event, before + own, expectations) if event else None


def _events(tables: Any, path: Path, faults: Faults) -> Iterator[Event]:
    if not isinstance(tables, list):
        faults.add(path, f"a list of events is expected, not {kind(tables)}")
        return
    for index, table in enumerate(tables):
        event = _event(table, (*path, index), faults)
        if event is not None:
            yield event


def _event(table: Any, path: Path, faults: Faults, also: Sequence[str] = ()) -> Event | None:
    if not isinstance(table, dict):
        faults.add(path, f"a table with `event` is expected, not {kind(table)}")
        return None
    faults.check_keys(path, table, (*_EVENT_KEYS, *also))
    name = table.get("event")
    if not isinstance(name, str):
        faults.add((*path, "event"), "the name of an event is expected")
        return None
    try:
        check_name(name)
    except BadName as error:
        faults.add((*path, "event"), str(error))
    return Event(name, _data(table, path, faults))


def _data(table: Mapping[str, Any], path: Path, faults: Faults) -> bytes:
    if "json" in table and "data" in table:
        faults.add(path, "`data` and `json` can't stand side by side")
    try:
        if "json" not in table:
            return json.dumps(table.get("data", {}), allow_nan=False).encode()
        raw = table["json"].encode() if isinstance(table["json"], str) else b""
        json.loads(raw)
        check_text(raw)
    except (ValueError, TypeError, RecursionError, BadPayload) as error:
        faults.add((*path, "json" if "json" in table else "data"), f"this is no JSON: {error}")
        return b"null"
    return raw


def _expectations(table: Mapping[str, Any], path: Path, faults: Faults) -> Iterator[Expectation]:
    for word, visible in _EXPECTING.items():
        viewers = table.get(word, [])
        if not isinstance(viewers, list):
            faults.add((*path, word), f"a list of viewers is expected, not {kind(viewers)}")
            continue
        for index, viewer in enumerate(viewers):
            place = (*path, word, index)
            yield Expectation(_viewer(viewer, place, faults), visible, faults.line(place))


def _viewer(value: Any, path: Path, faults: Faults) -> Identity:
    if isinstance(value, str):
        return Identity(value)
    if not isinstance(value, dict):
        faults.add(path, f"a user's id or {{ user = …, claims = … }} is expected, not {kind(value)}")
        return Identity()
    faults.check_keys(path, value, ("user", "claims"))
    user, claims = value.get("user"), value.get("claims", {})
    if user is not None and not isinstance(user, str):
        faults.add((*path, "user"), f"a user's id is a string, not {kind(user)}")
    if not isinstance(claims, dict):
        faults.add((*path, "claims"), f"a table of claims is expected, not {kind(claims)}")
        claims = {}
    return Identity(user if isinstance(user, str) else None, claims)
