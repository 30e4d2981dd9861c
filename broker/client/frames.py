"""The protocol as a client sees it: what comes is an event, a reply, a complaint or a message; commands are texts.

A payload stays the bytes that it is until somebody looks into it, and so does a message.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeAlias

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


@dataclass(frozen=True, slots=True)
class Message:
    """What an application has sent, as it came. name: where it may be an event without its id, that event's."""

    raw: str | bytes
    name: str | None = None

    @property
    def value(self) -> Any:
        """What its JSON says; the text itself where it is none, or none that Python can hold; or bytes."""
        if isinstance(self.raw, bytes):
            return self.raw
        try:
            return json.loads(self.raw, parse_constant=_no_number, parse_int=_number)
        except (ValueError, RecursionError):
            return self.raw


Frame: TypeAlias = Event | Reply | Problem | Message


class _Fields(msgspec.Struct):
    event: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: str | None = None
    reply: int | None = None
    error: str | None = None
    code: str | None = None


_decoder = msgspec.json.Decoder(_Fields)


def read_frame(content: str | bytes) -> Frame:
    """What has come. Whatever has not the form of the broker's own frames is a message."""
    if isinstance(content, bytes):
        return Message(content)
    try:
        fields = _decoder.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return Message(content)
    if fields.error is not None and (fields.reply is not None or fields.code is not None):
        return Problem(fields.reply, fields.error, fields.code or "")
    if fields.reply is not None:
        data = read(bytes(fields.data))
        return Reply(fields.reply, None if data is MISSING else data)
    if fields.event is not None and fields.id is not None:
        return Event(fields.event, bytes(fields.data), fields.id)
    return Message(content, fields.event)


def command_frame(event: str, data: Any, command_id: int | None = None) -> str:
    """A command.

    Raises TypeError or ValueError for data that is no JSON.
    """
    named = {} if command_id is None else {"id": command_id}
    return json.dumps({"event": event, "data": data, **named}, allow_nan=False, separators=(",", ":"))


def _number(digits: str) -> int | float:
    """An integer; one of thousands of digits, which Python refuses, is infinite, as it is in a payload."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
