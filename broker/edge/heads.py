"""Heads of requests and of answers, and chunked bodies, as h11 has them. The only module that knows h11."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

import h11

from broker.core.errors import BrokerError
from broker.core.http import HeaderTable

MAX_HEAD_BYTES: Final = 16_384
MAX_QUERY_FIELDS: Final = 100
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_MOST_KEPT = MAX_HEAD_BYTES // 2  # a head may be kept as long as its connection
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r?\n(?![ \t])", re.IGNORECASE)
_DIGITS = re.compile(rb"[0-9]{1,15}")
_ANSWERS = 256  # heads of answers that are remembered
_ASKED = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"  # to be answered; what was really asked is not h11's concern


class BadRequest(BrokerError):
    """The client sent what is no HTTP request, or one that is refused before anybody looks at it."""

    code = "bad_request"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    """The head of a request.

    length: of the body, as far as the head tells; 0 where it is chunked. expects: it waits to be asked for its body.
    lasting: another request may follow on its connection.
    """

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: HeaderTable
    http_version: bytes
    length: int
    chunked: bool
    expects: bool
    lasting: bool


class Message:
    """One request as h11 reads it: its head, and its body where that is chunked."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    def feed(self, data: bytes) -> None:
        """What has come; nothing: no more will."""
        self._h11.receive_data(data)

    def head(self) -> Head | None:
        """The head; None: it is not all there yet.

        Raises BadRequest for what can't be served.
        """
        with _translated():
            event = self._h11.next_event()
        return self._head(event) if isinstance(event, h11.Request) else None

    def chunk(self) -> bytes | None:
        """More of the body: b"" at its end; None: nothing of it has come.

        Raises BadRequest where it is broken.
        """
        with _translated():
            event = self._h11.next_event()
        if event is h11.NEED_DATA:
            return None
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    def rest(self) -> bytes:
        """What has come beyond what was read."""
        return bytes(self._h11.trailing_data[0])

    def _head(self, head: h11.Request) -> Head:
        headers = HeaderTable(list(head.headers))
        if _size(head) > MAX_HEAD_BYTES:  # h11 measures only a head that comes in more than one read
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head has at most {MAX_HEAD_BYTES} bytes")
        values = dict(headers)
        if {b"content-length", b"transfer-encoding"} <= values.keys():
            raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length and Transfer-Encoding together are ambiguous")
        try:
            path, query = _target(head.target.decode("ascii"))
        except ValueError:
            raise BadRequest(
                HTTPStatus.BAD_REQUEST,
                f"the request's target is no URL that we can read, or has more than {MAX_QUERY_FIELDS} parameters",
            ) from None
        return Head(
            head.method.decode("ascii"),
            path,
            query,
            headers,
            head.http_version,
            length=int(values.get(b"content-length", 0)),
            chunked=b"transfer-encoding" in values,
            expects=self._h11.they_are_waiting_for_100_continue,
            lasting=_lasting(head),
        )


class LastHead:
    """The head that came last on a connection, so that the same bytes need not be understood again.

    Theory. A publisher says the same with each request, but for the length of the body. What a head means depends on
    its bytes alone, and where it ends on nothing behind it: so what begins with the bytes of a whole head has this
    head. And where `Content-Length` is named once, with plain digits, other digits mean another length and change
    nothing else, as long as they are not so many that somebody counts them.
    """

    def __init__(self) -> None:
        self._head: Head | None = None
        self._before = self._digits = self._after = b""

    def keep(self, text: bytes, head: Head) -> None:
        """Remember what these bytes mean, if that is worth it."""
        if head.chunked or len(text) > _MOST_KEPT:
            self._head = None
            return
        self._head = head
        self._before, self._digits, self._after = text, b"", b""
        found = _LENGTH.search(text)
        if found is not None and text.lower().count(b"content-length") == 1:
            begin, end = found.span(1)
            self._before, self._digits, self._after = text[:begin], text[begin:end], text[end:]

    def recall(self, data: bytes) -> tuple[Head, int] | None:
        """The head with which `data` begins, and where it ends there, if it is the same but for the length."""
        head = self._head
        if head is None or not data.startswith(self._before):
            return None
        begin = len(self._before)
        if not self._digits:
            return head, begin
        found = _DIGITS.match(data, begin)
        if found is None or not data.startswith(self._after, found.end()):
            return None
        if found[0] != self._digits:
            head = self._head = _with_length(head, found[0])
            self._digits = found[0]
        return head, found.end() + len(self._after)


def answer_head(status: int, *headers: tuple[str, str]) -> bytes:
    """The head of an answer, as a server that speaks HTTP/1.1 writes it."""
    return _answer_head(status, headers)


@lru_cache(_ANSWERS)
def _answer_head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    answering = h11.Connection(h11.SERVER)
    answering.receive_data(_ASKED)
    answering.next_event()
    kind = h11.InformationalResponse if status == HTTPStatus.CONTINUE else h11.Response
    reason = b"" if status == HTTPStatus.CONTINUE else HTTPStatus(status).phrase.encode()
    return answering.send(kind(status_code=status, headers=list(headers), reason=reason)) or b""


CONTINUE: Final = answer_head(HTTPStatus.CONTINUE)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except h11.RemoteProtocolError as error:
        raise BadRequest(error.error_status_hint, f"this is no HTTP that we speak: {error}") from None


def _target(text: str) -> tuple[str, dict[str, list[str]]]:
    """Path and query; publishers send nothing but a path, with each request."""
    if _PLAIN_PATH.fullmatch(text) is not None:
        return text, {}
    target = urlsplit(text)
    return target.path, parse_qs(target.query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)


def _size(head: h11.Request) -> int:
    """The bytes of a head in its shortest writing."""
    lines = sum(len(name) + len(value) + len(": \r\n") for name, value in head.headers)
    return len(head.method) + len(head.target) + len("  HTTP/1.1\r\n\r\n") + lines


def _lasting(head: h11.Request) -> bool:
    """Whether the client may ask again on its connection (RFC 9112 section 9.3; with HTTP/1.0 it never may here)."""
    options = b",".join(value for name, value in head.headers if name == b"connection").lower().split(b",")
    return head.http_version >= b"1.1" and b"close" not in [option.strip() for option in options]


def _with_length(head: Head, digits: bytes) -> Head:
    return head._replace(headers=head.headers.replaced(b"content-length", digits), length=int(digits))
