"""The forms in which a client gets what goes to it: WebSocket frames without or with ids, or server-sent events.

An event has the same bytes for everybody who gets it in one form (a server's frames carry no mask), so these are made
once, and shared. Forms are told apart by identity: there is one object for each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, Protocol

from broker.core.deflate import deflate
from broker.core.errors import Close
from broker.core.event import Record
from broker.core.frames import BINARY, COMPRESSED, FINAL, PING, TEXT, close_frame, frame, frame_head, json_text

REMEMBERED_NAMES = 16_384
_REMEMBERED_LENGTHS = 4096


class Form(Protocol):
    """How to write what goes to one kind of client."""

    @property
    def ping(self) -> bytes:
        """What keeps the connection alive."""
        ...

    @property
    def listens_only(self) -> bool:
        """Whether nothing comes from the client: no commands, and no signs of life."""
        ...

    @property
    def with_ids(self) -> Form:
        """The same, but every event carries its id; itself, if they do."""
        ...

    def event(self, record: Record) -> bytes:
        """An event."""
        ...

    def events(self, records: Iterable[Record]) -> bytes:
        """Several, one behind the other, for all who get just these: cheaper than each by itself."""
        ...

    def message(self, value: Any) -> bytes:
        """Anything else, as JSON."""
        ...

    def text(self, data: bytes) -> bytes:
        """A text of the application's, in UTF-8."""
        ...

    def binary(self, data: bytes) -> bytes:
        """Bytes of the application's; nothing where there is no way to send them."""
        ...

    def position(self, place: str) -> bytes:
        """From where to resume; nothing where that is the reply to a command."""
        ...

    def close(self, code: int, reason: str) -> bytes:
        """The last that it gets."""
        ...


class WebSocketForm:
    """Text frames with `{"event": NAME, "data": PAYLOAD}`, the payload's bytes as they came.

    with_ids: see `Form`; None: this is the one with ids, which stand behind the payload.
    """

    ping = PING
    listens_only = False

    def __init__(self, with_ids: Form | None = None) -> None:
        self._identified = with_ids is None
        self.with_ids: Form = with_ids or self

    def event(self, record: Record) -> bytes:
        """See `Form`."""
        return self.frame(event_json(record, identified=self._identified))

    def events(self, records: Iterable[Record]) -> bytes:
        """See `Form`."""
        return b"".join(map(self.event, records))

    def message(self, value: Any) -> bytes:
        """See `Form`."""
        return self.frame(json_text(value))

    def frame(self, payload: bytes, opcode: int = TEXT) -> bytes:
        """Any message."""
        return frame(FINAL | opcode, payload)

    def text(self, data: bytes) -> bytes:
        """See `Form`."""
        return self.frame(data)

    def binary(self, data: bytes) -> bytes:
        """See `Form`."""
        return self.frame(data, BINARY)

    def position(self, place: str) -> bytes:  # noqa: ARG002
        """See `Form`."""
        return b""

    def close(self, code: int, reason: str) -> bytes:
        """See `Form`."""
        return close_frame(code, reason)


class PlainForm(WebSocketForm):
    """The form of most clients: no ids, no compression."""

    def event(self, record: Record) -> bytes:
        """See `Form`."""
        return self.events((record,))

    def events(self, records: Iterable[Record]) -> bytes:
        """See `Form`."""
        parts: list[bytes] = []
        for (name, data, _, _), _, _ in records:
            before = _before_data(name)
            parts += (_text_head(len(before) + len(data) + 1), before, data, b"}")
        return b"".join(parts)


class DeflatedForm(WebSocketForm):
    """Frames for those who have agreed to compression: of at least `threshold` bytes, and if it makes them smaller."""

    def __init__(self, threshold: int, with_ids: Form | None = None) -> None:
        super().__init__(with_ids)
        self._threshold = threshold

    def frame(self, payload: bytes, opcode: int = TEXT) -> bytes:
        """See `WebSocketForm`."""
        if len(payload) >= self._threshold:
            deflated = deflate(payload)
            if len(deflated) < len(payload):
                return frame(FINAL | COMPRESSED | opcode, deflated)
        return frame(FINAL | opcode, payload)


class ServerSentForm:
    """Server-sent events in the chunks of an HTTP/1.1 body (RFC 9112 section 7.1), JSON of the same form in `data`.

    Source: HTML, section 9.2 (server-sent events).
    """

    ping = b"2\r\n:\n\r\n"  # a comment
    listens_only = True

    @property
    def with_ids(self) -> Form:
        """See `Form`."""
        return self

    def retry(self, milliseconds: int) -> bytes:
        """After how long to come back when the connection has ended."""
        return _chunk(b"retry: %d\n\n" % milliseconds)

    def event(self, record: Record) -> bytes:
        """See `Form`."""
        # A payload may be written over several lines, which JSON does not mind and this format does.
        lines = _LINE_ENDS.split(event_json(record, identified=False))
        return _chunk(b"id: %b\ndata: %b\n\n" % (record.id.encode(), b"\ndata: ".join(lines)))

    def events(self, records: Iterable[Record]) -> bytes:
        """See `Form`."""
        return b"".join(map(self.event, records))

    def message(self, value: Any) -> bytes:
        """See `Form`."""
        return self.text(json_text(value))

    def text(self, data: bytes) -> bytes:
        """See `Form`."""
        return _chunk(b"data: %b\n\n" % b"\ndata: ".join(_LINE_ENDS.split(data)))

    def binary(self, data: bytes) -> bytes:  # noqa: ARG002
        """Nothing: the format has texts only."""
        return b""

    def position(self, place: str) -> bytes:
        """An id without an event (`dispatch the event`, step 2): the client notes it, and hears nothing."""
        return _chunk(b"id: %b\n\n" % place.encode())

    def close(self, code: int, reason: str) -> bytes:
        """Why, where there is something to say, and the end of the body."""
        said = self.message({"error": reason, "code": _CLOSE_CODES.get(code, "closed")}) if reason else b""
        return said + b"0\r\n\r\n"


def event_json(record: Record, *, identified: bool) -> bytes:
    """An event as JSON."""
    name, data = record.event.name, record.event.data
    if identified:
        return b'%b%b,"id":%b}' % (_before_data(name), data, _json(record.id))
    return _before_data(name) + data + b"}"


@lru_cache(_REMEMBERED_LENGTHS)
def _text_head(length: int) -> bytes:
    return frame_head(FINAL | TEXT, length)


@lru_cache(REMEMBERED_NAMES)
def _before_data(name: str) -> bytes:
    # It has no control characters (`core/event.py`).
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return b'{"event":"%b","data":' % quoted.encode()


def _json(text: str) -> bytes:
    return b'"%b"' % text.encode() if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_CLOSE_CODES = {close.value: close.name.lower() for close in Close}
_LINE_ENDS = re.compile(rb"\r\n|\r|\n")
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]+")

IDENTIFIED: Final = WebSocketForm()
PLAIN: Final = PlainForm(with_ids=IDENTIFIED)
SERVER_SENT: Final = ServerSentForm()
