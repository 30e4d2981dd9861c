"""HTTP/1.1 on one connection: heads and bodies within bounds, and answers. What they say is `heads.py`'s business."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import trio

from broker.core.http import BodyTooLarge, Request, Response
from broker.edge.heads import CONTINUE, MAX_HEAD_BYTES, BadRequest, Head, LastHead, Message, answer_head
from broker.edge.line import Line

__all__ = ["MAX_HEAD_BYTES", "BadRequest", "HttpConnection"]

HEAD_TIMEOUT: Final = 10.0
IDLE_TIMEOUT: Final = 60.0  # between two requests on one connection
BODY_TIMEOUT: Final = 30.0
_WITHOUT_CONTENT = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)  # RFC 9110 section 8.6


class HttpConnection:
    """The server's side of one HTTP/1.1 connection.

    Whoever made it calls `glance` each second: by these calls it counts how long nothing has come.
    """

    def __init__(self, stream: trio.abc.Stream, address: str = "") -> None:
        self._stream = stream
        self._line = Line(stream)
        self._address = address
        self._unread = b""
        self._last_head = LastHead()
        self._head: Head | None = None  # of the present request
        self._request: Request | None = None  # the present or the last one
        self._chunks: Message | None = None  # its body, where that is chunked
        self._body_left = False  # there is one, and it is not read to its end
        self._body_read = False
        self._first = True
        self._stopped = False
        self._waiting = trio.CancelScope()
        self._patience: float | None = None  # seconds, while a request is waited for that need not be cancelled
        self._silent = 0  # how many of them have passed
        self._late = False

    async def next_request(self) -> Request | None:
        """Wait for the next request's head; None when the client is done, or idle for too long, or we stop.

        Raises BadRequest for what can't be served, and for a head that takes longer than 10 seconds.
        """
        self._forget_request()
        first, self._first = self._first, False
        begun = trio.current_time() if first else None
        if not await self._something_comes(HEAD_TIMEOUT if first else IDLE_TIMEOUT):
            if first and self._late and not self._stopped:
                raise _too_slow("head", HEAD_TIMEOUT)
            return None
        head = self._same_head() or await self._read_head(begun)
        if head is None:
            return None
        self._head = head
        self._body_left = head.chunked or head.length > 0
        if self._request is None or self._request.headers is not head.headers:
            self._request = self._request_of(head)
        return self._request

    def let_go(self) -> None:
        """No further request comes. The last one and we know of each other, which is not to wait for the collector."""
        self._request = None

    def stop(self) -> None:
        """Take no further request: where one is waited for, wait no longer."""
        self._stopped = True
        self._waiting.cancel()
        if self._patience is not None:
            self._line.wake()

    def glance(self) -> None:
        """A second has passed."""
        self._silent += 1
        if self._patience is not None and self._silent > self._patience:
            self._late = True
            self._line.wake()

    async def read_body(self, limit: int) -> bytes:
        """The whole body of the present request.

        Raises BodyTooLarge beyond `limit` bytes (before reading where the head says so), BadRequest where it is broken
        or slower than 30 seconds.
        """
        head = self._head
        if head is None or self._body_read:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "the body ended before its end")
        if head.length > limit:
            raise BodyTooLarge(limit)
        if head.expects:
            await self._line.send(CONTINUE)
        if self._chunks is not None:
            body = await self._read_chunks(self._chunks, limit)
        else:
            body = await self._read_length(head.length)
        self._body_left, self._body_read = False, True
        return body

    async def respond(self, response: Response) -> bool:
        """Answer the present request; True if another may follow on this connection."""
        headers = list(response.headers.items())
        if response.status not in _WITHOUT_CONTENT:
            headers += [("content-type", response.content_type), ("content-length", str(len(response.body)))]
        head = self._head
        last = response.close or self._more_is_coming() or (head is not None and not head.lasting)
        if last:
            headers.append(("connection", "close"))
        body = b"" if head is not None and head.method == "HEAD" else response.body
        await self._line.send(answer_head(response.status, *headers) + body)
        return not last

    def begin(self, response: Response) -> bytes:
        """The head of an answer whose body somebody else writes, in chunks; the end of HTTP here."""
        headers = [("content-type", response.content_type), ("transfer-encoding", "chunked"), ("connection", "close")]
        return answer_head(response.status, *headers, *response.headers.items())

    def unread(self) -> bytes:
        """What the client has sent beyond the present request's head: for whoever takes the connection over."""
        return self._unread if self._chunks is None else self._chunks.rest()

    def _request_of(self, head: Head) -> Request:
        return Request(
            head.method, head.path, head.query, head.headers, head.http_version, self.read_body, self._address
        )

    def _forget_request(self) -> None:
        if self._chunks is not None:
            self._unread = self._chunks.rest()
        self._head = self._chunks = None
        self._body_left = self._body_read = False

    async def _something_comes(self, patience: float) -> bool:
        if self._stopped:
            return False
        if self._unread:
            await trio.lowlevel.checkpoint()  # who asks without waiting for answers is not to keep others waiting
            return True
        if self._line.wakes:
            self._patience, self._silent = patience, 0
            self._unread = await self._line.receive()
            self._patience = None
        else:
            with trio.CancelScope(deadline=trio.current_time() + patience) as self._waiting:
                self._unread = await self._line.receive()
            self._late = self._waiting.cancelled_caught
        return bool(self._unread)

    def _same_head(self) -> Head | None:
        """The next request's head, where it is the same as that of the last one."""
        found = self._last_head.recall(self._unread)
        if found is None:
            return None
        head, end = found
        self._unread = self._unread[end:]
        return head

    async def _read_head(self, begun: float | None) -> Head | None:
        """The next request's head; None at the stop. begun: when it was first waited for, if that is to count."""
        deadline = (trio.current_time() if begun is None else begun) + HEAD_TIMEOUT
        message, parts = Message(), [self._unread]
        message.feed(self._unread)
        with trio.CancelScope(deadline=deadline) as self._waiting:
            while (head := message.head()) is None:
                parts.append(await self._line.receive())
                message.feed(parts[-1])
        if head is None:
            if self._stopped:
                return None
            raise _too_slow("head", HEAD_TIMEOUT)
        if head.chunked:
            self._chunks = message
        else:
            self._unread = message.rest()
            came = b"".join(parts)
            self._last_head.keep(came[: len(came) - len(self._unread)], head)
        return head

    async def _read_length(self, length: int) -> bytes:
        if len(self._unread) < length:
            self._unread += await self._hear_all(length - len(self._unread))
        body, self._unread = self._unread[:length], self._unread[length:]
        return body

    async def _hear_all(self, missing: int) -> bytes:
        """At least so many bytes more."""
        deadline = trio.current_time() + BODY_TIMEOUT
        parts: list[bytes] = []
        while missing > 0:
            data = await self._hear(deadline)
            if not data:
                raise BadRequest(HTTPStatus.BAD_REQUEST, f"the client closed {missing} bytes before the end")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    async def _read_chunks(self, chunks: Message, limit: int) -> bytes:
        deadline = trio.current_time() + BODY_TIMEOUT
        parts: list[bytes] = []
        length = 0
        while chunk := await self._chunk(chunks, deadline):
            parts.append(chunk)
            length += len(chunk)
            if length > limit:
                raise BodyTooLarge(limit)
        return b"".join(parts)

    async def _chunk(self, chunks: Message, deadline: float) -> bytes:
        while (chunk := chunks.chunk()) is None:
            chunks.feed(await self._hear(deadline))
        return chunk

    async def _hear(self, deadline: float) -> bytes:
        with trio.move_on_at(deadline):
            return await self._line.receive()
        raise _too_slow("body", BODY_TIMEOUT)

    def _more_is_coming(self) -> bool:
        """Whether the client is still sending what we will not read: then nothing can follow on this connection."""
        if not self._body_left or self._chunks is None:
            return self._body_left
        try:
            return self._chunks.chunk() != b""
        except BadRequest:
            return True


def _too_slow(what: str, seconds: float) -> BadRequest:
    return BadRequest(HTTPStatus.REQUEST_TIMEOUT, f"the {what} took longer than {seconds:g} seconds")
