"""The reference in docs/handlers.md, made from the docstrings: `python -m tests.reference` writes it anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import broker

PAGE = Path(__file__).parents[1] / "docs" / "handlers.md"
HEADING = "## Reference\n"
CLASSES = ("Handlers", "Channel", "Connection", "Request", "Received", "Sent", "Accepted")
OTHERS = ("Refused", "ClientError", "log_received", "log_error")
MADE_BY_USERS = ("Handlers", "Accepted", "Refused", "log_received", "log_error")
SHOWN_OF_REQUEST = ("header", "cookies")


def reference() -> str:
    """What is to stand below the heading."""
    lines = ["\nMade from the docstrings. All of it is imported from `broker`.\n"]
    for name in (*CLASSES, *OTHERS):
        lines += _entry(name, getattr(broker, name))
    return "\n".join(lines)


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield f"### {name}\n"
    if name in MADE_BY_USERS:
        yield f"    {_signature(name, thing)}\n"
    yield _doc(thing) + "\n"
    if inspect.isclass(thing) and name in CLASSES:
        for member, value in _members(thing):
            if name != "Request" or member in SHOWN_OF_REQUEST:
                yield f"**`{_signature(member, value)}`**\n"
                yield _doc(value) + "\n"


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """What is public, in the order of the code; what channels have in common with Handlers only there."""
    seen = set()
    for each in kind.__mro__ if kind is broker.Handlers else (kind,):
        for name, value in vars(each).items():
            shown = inspect.isfunction(value) or isinstance(value, property)
            if shown and not name.startswith("_") and name not in seen and name not in ("house", "peers", "move_in"):
                seen.add(name)
                yield name, value


def _signature(name: str, thing: Any) -> str:
    if isinstance(thing, property):
        return f"{name}: {_plain(thing.fget.__annotations__['return'])}"
    signature = inspect.signature(thing)
    if "function" in signature.parameters:
        return f"@{name}"
    kept = [_shown(each) for each in signature.parameters.values() if each.name != "self"]
    signature = signature.replace(parameters=kept, return_annotation=inspect.Signature.empty)
    returned = signature.return_annotation if inspect.isclass(thing) else thing.__annotations__["return"]
    answer = f" -> {returned}" if isinstance(returned, str) and not returned.startswith(("None", "Callable")) else ""
    kind = "await " if inspect.iscoroutinefunction(thing) else "@" if "Callable" in str(returned) else ""
    return _plain(f"{kind}{name}{signature}{answer}")


def _shown(parameter: inspect.Parameter) -> inspect.Parameter:
    unset = "Unset" in str(parameter.annotation)
    return parameter.replace(annotation=parameter.empty) if unset else parameter


def _plain(text: str) -> str:
    text = re.sub(r"<Unset\.UNSET: 'unset'>", "…", text)
    text = re.sub(r"<factory>", "{}", text)
    text = re.sub(r"<Close\.\w+: (\d+)>", r"\1", text)
    return re.sub(r"(?<=[:>] )'([^']*)'", r"\1", text)


def _doc(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


def with_reference(page: str) -> str:
    """The page with the reference as it is now."""
    return page.partition(HEADING)[0] + HEADING + reference().rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_reference(PAGE.read_text()))
