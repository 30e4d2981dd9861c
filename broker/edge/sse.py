"""Server-sent events: a connection whose commands are in its request, and which only listens.

Source: HTML, section 9.2. The body is chunked (RFC 9112 section 7.1), so its end can be told from a cut.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import trio

from broker.core.commands import MAX_ID_LENGTH
from broker.core.errors import BadShape, Close, TooManySubscriptions
from broker.core.forms import SERVER_SENT
from broker.core.http import Request, Response
from broker.core.patterns import parse_pattern
from broker.edge.http import BadRequest
from broker.edge.writing import write_out
from broker.runtime.connection import Connection
from broker.runtime.party import Ending, PeerGone

EVENTS_PATH: Final = "/events"
CLOSE_TIMEOUT: Final = 10.0  # for the last words to leave
HEAD_TIMEOUT: Final = 10.0  # for an answer without a body
UNASKED_BYTES: Final = 65_536  # that a client may say, though nobody listens
UNACKNOWLEDGED_SECONDS: Final = 30  # for which nothing of what was sent arrives: then the client is gone
# Milliseconds after which a client comes back, at random: after a restart all of them do.
SHORTEST_RETRY: Final = 1000
LONGEST_RETRY: Final = 3000

HEAD: Final = Response(
    HTTPStatus.OK,
    content_type="text/event-stream",
    # Who passes it on is not to collect it: neither to compress it, nor, as nginx does, to fill its buffers.
    headers={"cache-control": "no-store, no-transform", "x-accel-buffering": "no"},
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants to hear: these patterns, and what came after `place`, if it was there before."""

    patterns: tuple[str, ...]
    place: str | None


def read_wish(request: Request, max_subscriptions: int) -> Wish:
    """Read `?pattern=…&pattern=…` and `Last-Event-ID` (in the query `last_event_id`, where no header can be set).

    Raises BadRequest, BadPattern, BadShape, TooManySubscriptions.
    """
    if request.http_version != b"1.1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "server-sent events need HTTP/1.1 here")
    patterns = tuple(dict.fromkeys(parse_pattern(pattern) for pattern in request.query.get("pattern", ())))
    if not patterns:
        raise BadShape(f"say what you want to hear: {EVENTS_PATH}?pattern=…&pattern=…")
    if len(patterns) > max_subscriptions:
        raise TooManySubscriptions(f"a connection holds at most {max_subscriptions} subscriptions")
    place = _last_event_id(request)
    if place is not None and len(place) > MAX_ID_LENGTH:
        raise BadShape(f"an id has at most {MAX_ID_LENGTH} characters")
    return Wish(patterns, place)


async def send_head(head: bytes, stream: trio.abc.Stream) -> bool:
    """Answer somebody who only wants to know whether it could hear anything; returns whether that has arrived."""
    with trio.move_on_after(HEAD_TIMEOUT) as deadline:
        await stream.send_all(head)
    return not deadline.cancelled_caught


async def tell_events(wish: Wish, connection: Connection, head: bytes, stream: trio.abc.Stream) -> Ending:
    """Let `connection` hear what it wishes until one side ends it. `head` of the response goes first.

    Returns code and reason of the end. The stream stays open: it is the caller's to close.
    """
    _give_up_the_vanished(stream)
    commands = _opening(connection, wish)
    outbox = connection.outbox

    async def receive() -> str:
        for command in commands:
            await trio.lowlevel.checkpoint()
            return command
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            unasked = UNASKED_BYTES
            while unasked > 0 and (said := await stream.receive_some(UNASKED_BYTES)):
                unasked -= len(said)
        raise PeerGone(Close.GOING_AWAY)

    retry = random.randint(SHORTEST_RETRY, LONGEST_RETRY)  # noqa: S311 - no secret
    # Not by the queue: it goes before all else, whatever becomes of the queue until then.
    outbox.control(head + SERVER_SENT.retry(retry))
    async with trio.open_nursery() as writing:
        writing.start_soon(write_out, connection, stream)
        ending = await connection.run(receive)
        with trio.move_on_after(CLOSE_TIMEOUT):
            await outbox.finished.wait()
        writing.cancel_scope.cancel()
    return ending


def _opening(connection: Connection, wish: Wish) -> Iterator[str]:
    """What it says as soon as it is there."""
    if wish.place is not None:
        connection.hold()  # before it subscribes: what happens until it resumes is then part of what it has missed
    for pattern in wish.patterns:
        yield json.dumps({"event": "subscribe", "data": pattern})
    yield json.dumps({"event": "resume", "data": wish.place})


def _last_event_id(request: Request) -> str | None:
    """The header, which a browser keeps up to date, else the query, which is what the page began with."""
    # Browsers send the id as UTF-8, and headers are read as Latin-1.
    header = (request.header("last-event-id") or "").encode("latin-1").decode(errors="replace")
    return header or next((value for value in request.query.get("last_event_id", ()) if value), None)


def _give_up_the_vanished(stream: trio.abc.Stream) -> None:
    """Let the kernel end a connection on which nothing arrives any more.

    Nobody answers the comments that go out as signs of life; and left to itself the kernel would try for a quarter of
    an hour.
    """
    plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if isinstance(plain, trio.SocketStream) and plain.socket.family in (socket.AF_INET, socket.AF_INET6):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_SECONDS * 1000)
