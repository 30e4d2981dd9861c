"""Server-sent events: a connection whose commands are in its request, and which only listens.

Source: HTML, section 9.2. The body is chunked (RFC 9112 section 7.1), so its end can be told from a cut.
"""

from __future__ import annotations

import json
import random
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
from broker.runtime.connection import Connection, Ending, PeerGone

EVENTS_PATH: Final = "/events"
CLOSE_TIMEOUT: Final = 10.0  # for the last words to leave
RETRY: Final = (1000, 3000)  # milliseconds after which a client comes back, at random: all of them do after a restart

HEAD: Final = Response(
    HTTPStatus.OK,
    content_type="text/event-stream",
    # The last is for nginx, which would else collect what it passes on.
    headers={"cache-control": "no-store", "x-accel-buffering": "no"},
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


async def tell_events(wish: Wish, connection: Connection, stream: trio.abc.Stream) -> Ending:
    """Let `connection` hear what it wishes until one side ends it. The head of the response has been sent.

    Returns code and reason of the end. The stream stays open: it is the caller's to close.
    """
    commands = _opening(connection, wish)
    outbox = connection.outbox

    async def receive() -> str:
        for command in commands:
            await trio.lowlevel.checkpoint()
            return command
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.receive_some(1)
        raise PeerGone(Close.GOING_AWAY)  # also if it said something, which nobody asked it

    connection.send(SERVER_SENT.retry(random.randint(*RETRY)))  # noqa: S311 - no secret
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
    header = request.header("last-event-id")
    if header is not None:
        # Browsers send the id as UTF-8, and headers are read as Latin-1.
        return header.encode("latin-1").decode(errors="replace") or None
    return next((value for value in request.query.get("last_event_id", ()) if value), None)
