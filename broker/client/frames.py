"""The protocol as a client sees it: text frames become events, replies and complaints, commands become text frames.

A payload stays the bytes that it is until somebody looks into it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import msgspec

from broker.core.payload import MISSING, read


@dataclass(frozen=True)
class Event:
    """Something that happened: its name, its payload as JSON text in UTF-8, and its id."""

    name: str
    raw: bytes
    id: str

    @cached_property
    def data(self) -> Any:
        """The payload's value.

        Raises ValueError where Python can't hold it.
        """
        value = read(self.raw)
        if value is MISSING:
            raise ValueError(f"the payload of {self.name!r} can't be decoded")
        return value


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a command that went well."""

    id: int
    data: Any


@dataclass(frozen=True, slots=True)
class Problem:
    """The answer to a command that did not; without an id it is about one that had none."""

    id: int | None
    text: str
    code: str


Frame: TypeAlias = Event | Reply | Problem


class _Fields(msgspec.Struct):
    event: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: str | None = None
    reply: int | None = None
    error: str | None = None
    code: str = ""


_decoder = msgspec.json.Decoder(_Fields)


def read_frame(text: str) -> Frame | None:
    """What a text frame says; None where it is nothing for us, such as an event without an id."""
    try:
        fields = _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return None
    if fields.error is not None:
        return Problem(fields.reply, fields.error, fields.code)
    if fields.reply is not None:
        data = read(bytes(fields.data))
        return Reply(fields.reply, None if data is MISSING else data)
    if fields.event is not None and fields.id is not None:
        return Event(fields.event, bytes(fields.data), fields.id)
    return None


def command_frame(event: str, data: Any, command_id: int | None = None) -> str:
    """A command.

    Raises TypeError or ValueError for data that is no JSON.
    """
    named = {} if command_id is None else {"id": command_id}
    return json.dumps({"event": event, "data": data, **named}, allow_nan=False, separators=(",", ":"))
