"""Standard input, an event a line: the good lines with their numbers; the others are told, each with what is wrong."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broker.core.errors import PublisherError
from broker.core.event import Event, check_publishable
from cli.errors import refuse
from connectors.decode import decode_event
from connectors.stdin import LineReader

SOURCE = "publish"
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Line:
    """A good line: its number, counted from 1, and its event, which has an id."""

    number: int
    event: Event


class Lines:
    """Makes lines of chunks of bytes.

    complain: told of each line that holds no event, by its number, and why.
    """

    def __init__(self, complain: Callable[[int, str], None]) -> None:
        self._reader = LineReader()
        self._complain = complain

    def of(self, chunk: bytes) -> Iterator[Line]:
        """The good lines that end in this chunk; an empty chunk is the end of them all."""
        for number, text in self._reader.feed(chunk) if chunk else self._reader.end():
            if text is None:
                self._complain(number, "the line is too long")
            elif text.strip():
                try:
                    event = decode_event(text, SOURCE)
                    check_publishable(event)
                except PublisherError as error:
                    self._complain(number, str(error))
                else:
                    yield Line(number, with_id(event))


def read_chunk() -> bytes:
    """Wait for more of standard input, and return what has come; nothing is its end."""
    try:
        return os.read(sys.stdin.fileno(), _READ_BYTES)
    except OSError as error:
        raise refuse(f"can't read standard input: {error.strerror}") from None


def with_id(event: Event) -> Event:
    """The event with an id, so that it may be sent again after a lost connection, and is delivered once."""
    return event if event.id is not None else event._replace(id=uuid.uuid4().hex)
