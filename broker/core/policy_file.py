"""Reading a policy file: TOML to a `Policy`, or every fault of it at once."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker.core.conditions import Condition
from broker.core.errors import Fault, FaultyFile
from broker.core.faults import Faults, kind
from broker.core.happening import DataPath
from broker.core.policy import Policy, Rule
from broker.core.relations import Action, Relation, Step
from broker.core.shapes import Shape, ShapeError, parse_shape
from broker.core.toml import Path, parse
from broker.core.visible_to import ConditionReader, read_source

_NO_EVENTS: Final = Shape("", (), {})
_ACTIONS: Final[Mapping[str, Action]] = {action.name.lower(): action for action in Action}
_RELATION_KEYS: Final = (*_ACTIONS, "key", "users")


def load_policy(path: pathlib.Path) -> Policy:
    """Read the policy file at `path`.

    Raises FaultyFile with every fault, also where there is no such file or it is no text.
    """
    try:
        return parse_policy(path.read_bytes().decode(), str(path))
    except OSError as error:
        raise FaultyFile(str(path), [Fault("", f"can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise FaultyFile(str(path), [Fault("", f"is not UTF-8: {error.reason} at byte {error.start}")]) from None


def parse_policy(text: str, file: str) -> Policy:
    """Read the policy in `text`; `file` is the name that errors show.

    Raises FaultyFile with every fault.
    """
    document = parse(text, file)
    faults = Faults(document)
    faults.check_keys((), document.data, ("default", "relations", "rules"))
    relations = _relations(document.data.get("relations", {}), faults)
    reader = ConditionReader(faults, relations)
    rules = _rules(document.data.get("rules", []), reader, faults)
    default = reader.read(document.data.get("default", "nobody"), ("default",), _NO_EVENTS)
    faults.raise_if_any()
    return Policy(relations, rules, default)


def _relations(tables: Any, faults: Faults) -> Mapping[str, Relation]:
    if not isinstance(tables, dict):
        faults.add(("relations",), f"tables are expected, [relations.NAME], not {kind(tables)}")
        return {}
    return {name: _relation(name, table, faults) for name, table in tables.items()}


def _relation(name: str, table: Any, faults: Faults) -> Relation:
    path: Path = ("relations", name)
    if not isinstance(table, dict):
        faults.add(path, f"a table is expected, not {kind(table)}")
        return Relation(name, ())
    faults.check_keys(path, table, _RELATION_KEYS)
    for key, why in (("key", 'of what is it? such as key = "<groupId>"'), ("users", "who are the members?")):
        if key not in table:
            faults.add(path, f"`{key}` is missing: {why}")
    if "set" not in table and "add" not in table:
        faults.add(path, "`set` or `add` is missing: which events tell who is a member?")
    steps = [_step(name, word, table, path, faults) for word in _ACTIONS if word in table]
    return Relation(name, tuple(step for step in steps if step is not None))


def _step(name: str, word: str, table: Mapping[str, Any], path: Path, faults: Faults) -> Step | None:
    action = _ACTIONS[word]
    shape = _shape(table[word], (*path, word), faults)
    key = read_source(faults, table["key"], (*path, "key"), shape) if "key" in table else None
    if isinstance(key, DataPath):
        faults.add((*path, "key"), "a relation's key is a <placeholder> of its events")
        return None
    users = None
    if action is not Action.CLEAR and "users" in table:
        users = read_source(faults, table["users"], (*path, "users"), shape)
    return Step(name, action, shape, key, users) if shape and key else None


def _rules(tables: Any, reader: ConditionReader, faults: Faults) -> Sequence[Rule]:
    if not isinstance(tables, list):
        faults.add(("rules",), f"rules are tables of their own, [[rules]], not {kind(tables)}")
        return ()
    rules: list[Rule] = []
    taken: dict[str, Path] = {}
    for index, table in enumerate(tables):
        shape, visible_to = _rule(table, ("rules", index), reader, faults)
        if shape is not None:
            _check_unique(shape, ("rules", index, "events"), taken, faults)
            rules.append(Rule(shape, visible_to, faults.line(("rules", index))))
    return rules


def _rule(table: Any, path: Path, reader: ConditionReader, faults: Faults) -> tuple[Shape | None, Condition]:
    nobody = reader.read("nobody", path, None)
    if not isinstance(table, dict):
        faults.add(path, f"a table is expected, not {kind(table)}")
        return None, nobody
    faults.check_keys(path, table, ("events", "visible_to"))
    for key in ("events", "visible_to"):
        if key not in table:
            faults.add(path, f"`{key}` is missing")
    shape = _shape(table["events"], (*path, "events"), faults) if "events" in table else None
    if "visible_to" not in table:
        return shape, nobody
    return shape, reader.read(table["visible_to"], (*path, "visible_to"), shape)


def _shape(text: Any, path: Path, faults: Faults) -> Shape | None:
    if not isinstance(text, str):
        faults.add(path, f'a name such as "groups.<groupId>.created" is expected, not {kind(text)}')
        return None
    try:
        return parse_shape(text)
    except ShapeError as error:
        faults.add(path, f"{text!r}: {error}")
        return None


def _check_unique(shape: Shape, path: Path, taken: dict[str, Path], faults: Faults) -> None:
    for pattern in shape.patterns:
        other = taken.setdefault(pattern, path)
        if other is not path:
            where = f"the rule on line {faults.line(other)}"
            faults.add(path, f"{where} has the same shape, {pattern!r}", "make one of them more specific, or join them")
            return
