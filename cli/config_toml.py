"""The configuration as TOML text that reads back as the same configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from broker.config import Config, SecretSource

_HIDDEN = "<hidden>"


def render(config: Config) -> str:
    """The whole of `config`, every key that has a value. Secrets appear as their source only."""
    return "\n".join(_table((), config)).lstrip("\n") + "\n"


def _table(path: tuple[str, ...], value: Any) -> Iterator[str]:
    fields = [(name, item) for name, item in _items(value) if item is not None]
    plain = [f"{_key(name)} = {_inline(item)}" for name, item in fields if not _is_table(item)]
    if path and plain:
        yield f"\n[{'.'.join(map(_key, path))}]"
    yield from plain
    for name, item in fields:
        if _is_table(item):
            yield from _table((*path, name), item)


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return [(field.name, getattr(value, field.name)) for field in attrs.fields(type(value))]


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (attrs.has(type(value)) and not isinstance(value, SecretSource))


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        return _text(str(value))
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, SecretSource):
        return _secret(value)
    if _is_table(value):
        return (
            "{ "
            + ", ".join(f"{_key(name)} = {_inline(item)}" for name, item in _items(value) if item is not None)
            + " }"
        )
    return repr(value)


def _secret(source: SecretSource) -> str:
    if source.literal is not None:
        return _text(_HIDDEN)
    if source.env is not None:
        return f"{{ env = {_text(source.env)} }}"
    return f"{{ file = {_text(str(source.file))}{', generate = true' if source.generate else ''} }}"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("-", "").replace("_", "").isalnum() else _text(name)
