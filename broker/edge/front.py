"""The front end: one port for everything. Reads a connection's first head, and hands it to whom it concerns.

Nothing that one client does reaches another: each connection has its own task, its own bounds and its own end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus

import trio

from broker.core.credentials import token_of
from broker.core.errors import CLOSE_FOR_AUTHENTICATION, AuthenticationError, ClientError, Close
from broker.core.forms import PLAIN, SERVER_SENT, DeflatedForm, Form
from broker.core.http import Request, Response, Route, Takeover, error_response
from broker.core.ports import Identity
from broker.edge.http import BadRequest, HttpConnection
from broker.edge.paths import Paths
from broker.edge.site import Site, refusal
from broker.edge.sse import EVENTS_PATH, HEAD, Wish, read_wish, send_head, tell_events
from broker.edge.websocket import (
    Handshake,
    check_upgrade,
    choose_extension,
    choose_subprotocol,
    converse,
    wants_upgrade,
)
from broker.runtime.connection import Connection
from broker.runtime.party import Ending, Refusal
from broker.runtime.registry import TooManyConnections
from broker.runtime.services import Admitted, Arrival, ConnectionLimits, Endpoint, Services

logger = logging.getLogger(__name__)

Talk = Callable[[trio.abc.Stream], Awaitable[Ending]]
Converse = Callable[[trio.abc.Stream], Awaitable[bool]]

_LINGER_TIMEOUT = 2.0
_LINGER_BYTES = 1_048_576
_TLS_TIMEOUT = 10.0
_GLANCE = 1.0  # seconds; `HttpConnection.glance` counts by it
_ORDINARY = frozenset((Close.NORMAL, Close.GOING_AWAY, 1005, 1006))
_HTTP_RESERVE = 1000  # connections that may be open beyond the WebSockets, for publishers and probes


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What the front end needs to know; the names are those of the configuration.

    compression_threshold: None where there is no compression.
    """

    websocket_path: str = "/ws"
    subprotocols: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    max_connections: int = 20_000
    max_message_size: int = 65_536
    compression_threshold: int | None = 1024
    authenticate: bool = True
    reject_unauthenticated: bool = False
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)  # besides the one of `websocket_path`, or instead


class Front:
    """Serves whoever connects: WebSockets on one path, HTTP on all others, some of which become event streams."""

    def __init__(self, settings: FrontSettings, services: Services, routes: Iterable[Route]) -> None:
        self._settings = settings
        self._services = services
        own = Route("GET", EVENTS_PATH, self._open_event_stream)
        first = Endpoint(settings.limits, settings.subprotocols)
        self._endpoints = Paths({settings.websocket_path: first, **settings.endpoints})
        self._site = Site([own, *routes], settings.allowed_origins, self._endpoints)
        self._deflated = _deflated(settings.compression_threshold)
        self._open = 0
        self._conversations = 0
        self._talking: set[HttpConnection] = set()
        self._stopping = False

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one accepted TCP (or TLS) connection to its end, and close it. Raises nothing but cancellation."""
        self._open += 1
        try:
            if self._open <= self._settings.max_connections + _HTTP_RESERVE:
                await self._serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Exception:
            logger.exception("front.failed")
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)

    async def watch(self) -> None:
        """Look after those who talk HTTP, for ever: so none of them needs a timer for each of its requests."""
        while True:
            await trio.sleep(_GLANCE)
            for connection in self._talking:
                connection.glance()

    def stop(self) -> None:
        """Take no further requests: connections that wait for one end now, others after the answer in progress."""
        self._stopping = True
        for connection in self._talking:
            connection.stop()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        if isinstance(stream, trio.SSLStream):
            with trio.move_on_after(_TLS_TIMEOUT) as deadline:
                await stream.do_handshake()
            if deadline.cancelled_caught:
                return
        converse = await self._talk_http(stream)
        if converse is None or await converse(stream):
            await _linger(stream)

    async def _talk_http(self, stream: trio.abc.Stream) -> Converse | None:
        """Answer requests until the client is done, or until it is to be talked to in another way.

        A function of its own, so that what HTTP needed is gone while that lasts.
        """
        connection = HttpConnection(stream, _address(stream))
        self._talking.add(connection)
        try:
            while not self._stopping and (request := await connection.next_request()) is not None:
                if wants_upgrade(request):
                    return await self._upgrade(request, connection.unread())
                answer = await self._site.answer(request)
                if isinstance(answer, Takeover):
                    return partial(answer.serve, connection.begin(answer.head))
                if not await connection.respond(answer):
                    break
        except BadRequest as error:
            await connection.respond(refusal(error))
        finally:
            self._talking.discard(connection)
            connection.let_go()
        return None

    async def _upgrade(self, request: Request, early: bytes) -> Converse:
        """Check everything about an upgrade to a WebSocket.

        Raises BadRequest.
        """
        settings = self._settings
        key = check_upgrade(request)
        found = self._endpoints.find(request.path)
        if found is None:
            where = ", ".join(self._endpoints)
            raise BadRequest(HTTPStatus.NOT_FOUND, f"there is no WebSocket here, but at {where}")
        endpoint, params = found
        self._site.check_origin(request)
        self._check_room()
        deflated = self._deflated if endpoint.compression else None
        extension = None if deflated is None else choose_extension(request)
        party = await self._party(replace(request, params=params), endpoint, deflated if extension else None)
        if isinstance(party, Refusal):
            extension = None  # nothing that it says is worth inflating
        handshake = Handshake(key, choose_subprotocol(request, endpoint.subprotocols), extension, early)
        return partial(self._converse, party, partial(converse, handshake, party, settings.max_message_size))

    async def _open_event_stream(self, request: Request) -> Response | Takeover:
        await trio.lowlevel.checkpoint()
        self._check_room()
        try:
            wish = read_wish(request, self._settings.limits.max_subscriptions)
            identity = self._identify(request)
            self._services.registry.check_room(identity.user)
        except AuthenticationError as error:
            return error_response(HTTPStatus.UNAUTHORIZED, error)
        except TooManyConnections as error:
            return error_response(HTTPStatus.TOO_MANY_REQUESTS, error)
        except ClientError as error:
            return error_response(HTTPStatus.BAD_REQUEST, error)
        if request.method == "HEAD":
            return Takeover(HEAD, send_head)
        connection = Connection(identity, self._services, self._settings.limits, SERVER_SENT)
        return Takeover(HEAD, partial(self._tell, wish, connection))

    async def _tell(self, wish: Wish, connection: Connection, head: bytes, stream: trio.abc.Stream) -> bool:
        return await self._converse(connection, partial(tell_events, wish, connection, head), stream)

    async def _converse(self, party: Connection | Refusal, talk: Talk, stream: trio.abc.Stream) -> bool:
        """Talk to a client to the end; True if its stream is still fit for a decent one."""
        self._conversations += 1
        try:
            code, reason = await talk(stream)
        finally:
            self._conversations -= 1
        level = logging.DEBUG if code in _ORDINARY else logging.INFO
        logger.log(level, "connection.closed", extra={"connection": party.id, "code": int(code), "reason": reason})
        return not party.outbox.broken

    def _check_room(self) -> None:
        if self._stopping:
            raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE, "the broker is stopping")
        if self._conversations >= self._settings.max_connections:
            raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE, "as many connections are open as may be")

    def _identify(self, request: Request) -> Identity:
        return self._services.authenticator.identify(token_of(request) if self._settings.authenticate else None)

    async def _party(self, request: Request, endpoint: Endpoint, deflated: Form | None) -> Connection | Refusal:
        if endpoint.admit is None:
            admitted = self._admit(request)
        else:
            admitted = await endpoint.admit(request)
            self._check_room()  # as it is now
        if isinstance(admitted, Refusal):
            return admitted
        arrival = None
        if endpoint.application is not None:
            arrival = Arrival(endpoint.application, replace(request, read_body=_nothing), admitted.data)
        return Connection(admitted.identity, self._services, endpoint.limits, deflated or PLAIN, arrival)

    def _admit(self, request: Request) -> Admitted | Refusal:
        try:
            return Admitted(self._identify(request))
        except AuthenticationError as error:
            if self._settings.reject_unauthenticated:
                raise BadRequest(HTTPStatus.UNAUTHORIZED, str(error)) from None
            return Refusal(CLOSE_FOR_AUTHENTICATION[type(error)], str(error))


def _address(stream: trio.abc.Stream) -> str:
    inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(inner, trio.SocketStream):
        return ""
    try:
        name = inner.socket.getpeername()
    except OSError:  # it has gone already
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""


async def _nothing(_limit: int) -> bytes:
    """The body of a handshake."""
    return b""


def _deflated(threshold: int | None) -> Form | None:
    """The one form for all that have agreed to compression."""
    return None if threshold is None else DeflatedForm(threshold, with_ids=DeflatedForm(threshold))


async def _linger(stream: trio.abc.Stream) -> None:
    """Let the client read our last words before the connection goes.

    To close a socket while the client's bytes are still unread resets it, and a reset may overtake what we wrote.
    """
    with trio.move_on_after(_LINGER_TIMEOUT), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        if isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
        unread = _LINGER_BYTES
        while unread > 0 and (data := await stream.receive_some(65_536)):
            unread -= len(data)
