"""HTTP/1.1 on one connection, by h11: heads and bodies within bounds, and answers. The only module that knows h11."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from broker.core.errors import BrokerError
from broker.core.http import BodyTooLarge, Request, Response

MAX_HEAD_BYTES = 16_384
HEAD_TIMEOUT = 10.0
IDLE_TIMEOUT = 60.0  # between two requests on one connection
BODY_TIMEOUT = 30.0
WRITE_TIMEOUT = 30.0
MAX_QUERY_FIELDS = 100
_RECEIVE_BYTES = 65_536
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")


class BadRequest(BrokerError):
    """The client sent what is no HTTP request, or one that is refused before anybody looks at it."""

    code = "bad_request"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HttpConnection:
    """The server's side of one HTTP/1.1 connection."""

    def __init__(self, stream: trio.abc.Stream, address: str = "") -> None:
        self._stream = stream
        self._address = address
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._first = True
        self._method = b""
        self._announced = 0  # the length of the body, where the head tells it

    async def next_request(self) -> Request | None:
        """Wait for the next request's head; None when the client is done, or was idle for too long.

        Raises BadRequest for what can't be served, and for a head that takes longer than 10 seconds.
        """
        if not self._first and not await self._something_comes():
            return None
        self._first = False
        self._method = b""
        with _translated("head", HEAD_TIMEOUT):
            event = await self._next_event(trio.current_time() + HEAD_TIMEOUT)
            return self._request(event) if isinstance(event, h11.Request) else None

    async def read_body(self, limit: int) -> bytes:
        """The whole body of the present request.

        Raises BodyTooLarge beyond `limit` bytes (before reading where the head says so), BadRequest where it is broken
        or slower than 30 seconds.
        """
        if self._announced > limit:
            raise BodyTooLarge(limit)
        parts: list[bytes] = []
        length = 0
        deadline = trio.current_time() + BODY_TIMEOUT
        with _translated("body", BODY_TIMEOUT):
            if self._h11.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            while isinstance(event := await self._next_event(deadline), h11.Data):
                parts.append(bytes(event.data))
                length += len(event.data)
                if length > limit:
                    raise BodyTooLarge(limit)
            if isinstance(event, h11.EndOfMessage):
                return b"".join(parts)
            raise BadRequest(HTTPStatus.BAD_REQUEST, "the body ended before its end")

    async def respond(self, response: Response) -> bool:
        """Answer the present request; True if another may follow on this connection."""
        headers = list(response.headers.items())
        if response.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):  # RFC 9110 section 8.6
            headers += [("content-type", response.content_type), ("content-length", str(len(response.body)))]
        last = response.close or self._more_is_coming()
        if last:
            headers.append(("connection", "close"))
        body = response.body if self._method != b"HEAD" else b""
        head = h11.Response(status_code=response.status, headers=headers, reason=_phrase(response.status))
        await self._write(head, h11.Data(data=body), h11.EndOfMessage())
        if last or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def begin(self, response: Response) -> bytes:
        """The head of an answer whose body somebody else writes, in chunks; the end of HTTP here."""
        headers = [("content-type", response.content_type), ("transfer-encoding", "chunked"), ("connection", "close")]
        headers += response.headers.items()
        head = h11.Response(status_code=response.status, headers=headers, reason=_phrase(response.status))
        return self._h11.send(head) or b""

    def unread(self) -> bytes:
        """What the client has sent beyond the present request's head: for whoever takes the connection over."""
        return bytes(self._h11.trailing_data[0])

    def _request(self, head: h11.Request) -> Request:
        self._method = head.method
        headers = list(head.headers)
        if _size(head) > MAX_HEAD_BYTES:  # h11 measures only a head that comes in more than one read
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a head has at most {MAX_HEAD_BYTES} bytes")
        names = {name for name, _ in headers}
        if {b"content-length", b"transfer-encoding"} <= names:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "Content-Length and Transfer-Encoding together are ambiguous")
        self._announced = next((int(value) for name, value in headers if name == b"content-length"), 0)
        try:
            path, query = _target(head.target.decode("ascii"))
        except ValueError:
            raise BadRequest(
                HTTPStatus.BAD_REQUEST,
                f"the request's target is no URL that we can read, or has more than {MAX_QUERY_FIELDS} parameters",
            ) from None
        method = head.method.decode("ascii")
        return Request(method, path, query, headers, head.http_version, self.read_body, self._address)

    def _more_is_coming(self) -> bool:
        """Whether the client is still sending what we will not read: then nothing can follow on this connection."""
        if self._h11.their_state is not h11.SEND_BODY:
            return self._h11.their_state is h11.ERROR
        try:
            return not isinstance(self._h11.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            return True

    async def _something_comes(self) -> bool:
        if self._h11.trailing_data[0]:
            return True
        with trio.move_on_after(IDLE_TIMEOUT):
            return await self._feed()
        return False

    async def _feed(self) -> bool:
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self._h11.receive_data(bytes(data))
        return bool(data)

    async def _next_event(self, deadline: float) -> object:
        """What comes next; most often it has come already, and nobody waits.

        Raises trio.TooSlowError.
        """
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            with trio.fail_at(deadline):
                await self._feed()
        return event

    async def _write(self, *events: h11.Event) -> None:
        data = b"".join(self._h11.send(event) or b"" for event in events)
        with trio.move_on_after(WRITE_TIMEOUT) as deadline:
            await self._stream.send_all(data)
        if deadline.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read its answer")


@contextmanager
def _translated(what: str, seconds: float) -> Iterator[None]:
    try:
        yield
    except trio.TooSlowError:
        raise BadRequest(HTTPStatus.REQUEST_TIMEOUT, f"the {what} took longer than {seconds:g} seconds") from None
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


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()
