"""The front end: one port for everything. Reads a connection's first head, and hands it to whom it concerns.

Nothing that one client does reaches another: each connection has its own task, its own bounds and its own end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus

import trio

from broker.core.credentials import token_of
from broker.core.errors import CLOSE_FOR_AUTHENTICATION, AuthenticationError, BrokerError, Close
from broker.core.http import Handler, Request, Response, Route, error_response
from broker.core.origins import origin_allowed
from broker.edge.http import BadRequest, HttpConnection
from broker.edge.websocket import Handshake, check_upgrade, choose_subprotocol, converse, wants_upgrade
from broker.runtime.connection import Connection, ConnectionLimits, Refusal, Services

logger = logging.getLogger(__name__)

_LINGER_TIMEOUT = 2.0
_LINGER_BYTES = 1_048_576
_TLS_TIMEOUT = 10.0
_ORDINARY = frozenset((Close.NORMAL, Close.GOING_AWAY, 1005, 1006))
_HTTP_RESERVE = 1000  # connections that may be open beyond the WebSockets, for publishers and probes


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What the front end needs to know; the names are those of the configuration."""

    websocket_path: str = "/ws"
    subprotocols: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    max_connections: int = 20_000
    max_message_size: int = 65_536
    authenticate: bool = True
    reject_unauthenticated: bool = False
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)


class Front:
    """Serves whoever connects: WebSockets on one path, HTTP on all others."""

    def __init__(
        self,
        settings: FrontSettings,
        services: Services,
        routes: Iterable[Route],
    ) -> None:
        self._settings = settings
        self._services = services
        self._routes = _table(routes)
        self._open = 0
        self._conversations = 0
        self._idle: set[trio.CancelScope] = set()
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

    def stop(self) -> None:
        """Take no further requests: connections that wait for one end now, others after the answer in progress."""
        self._stopping = True
        for scope in self._idle:
            scope.cancel()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        if isinstance(stream, trio.SSLStream):
            with trio.move_on_after(_TLS_TIMEOUT) as deadline:
                await stream.do_handshake()
            if deadline.cancelled_caught:
                return
        upgrade = await self._talk_http(stream)
        if upgrade is None or await self._converse(stream, *upgrade):
            await _linger(stream)

    async def _talk_http(self, stream: trio.abc.Stream) -> tuple[Handshake, Connection | Refusal] | None:
        """Answer requests until the client is done, or asks for a WebSocket and may have one.

        A function of its own, so that what HTTP needed is gone while the WebSocket lasts.
        """
        connection = HttpConnection(stream)
        try:
            while (request := await self._next(connection)) is not None:
                if wants_upgrade(request):
                    return self._admit(request, connection.unread()), self._party(request)
                if not await connection.respond(await self._answer(request)) or self._stopping:
                    break
        except BadRequest as error:
            await connection.respond(_refused(error))
        return None

    async def _next(self, connection: HttpConnection) -> Request | None:
        with trio.CancelScope() as waiting:
            self._idle.add(waiting)
            try:
                return None if self._stopping else await connection.next_request()
            finally:
                self._idle.discard(waiting)
        return None

    def _admit(self, request: Request, early: bytes) -> Handshake:
        """Check everything about an upgrade but the user.

        Raises BadRequest.
        """
        settings = self._settings
        key = check_upgrade(request)
        if request.path != settings.websocket_path:
            raise BadRequest(HTTPStatus.NOT_FOUND, f"there is no WebSocket here, but at {settings.websocket_path}")
        _check_origin(request, settings.allowed_origins)
        if self._conversations >= settings.max_connections:
            raise BadRequest(HTTPStatus.SERVICE_UNAVAILABLE, "as many connections are open as may be")
        return Handshake(key, choose_subprotocol(request, settings.subprotocols), early)

    async def _converse(self, stream: trio.abc.Stream, handshake: Handshake, party: Connection | Refusal) -> bool:
        """Serve a WebSocket; True if its stream is still fit for a decent end."""
        self._conversations += 1
        try:
            code, reason = await converse(stream, handshake, party, self._settings.max_message_size)
        finally:
            self._conversations -= 1
        level = logging.DEBUG if code in _ORDINARY else logging.INFO
        logger.log(level, "connection.closed", extra={"connection": party.id, "code": int(code), "reason": reason})
        return not party.outbox.broken

    def _party(self, request: Request) -> Connection | Refusal:
        settings = self._settings
        try:
            identity = self._services.authenticator.identify(token_of(request) if settings.authenticate else None)
        except AuthenticationError as error:
            if settings.reject_unauthenticated:
                raise BadRequest(HTTPStatus.UNAUTHORIZED, str(error)) from None
            return Refusal(CLOSE_FOR_AUTHENTICATION[type(error)], str(error))
        return Connection(identity, self._services, settings.limits)

    async def _answer(self, request: Request) -> Response:
        methods = self._routes.get(request.path)
        if methods is None:
            if request.path == self._settings.websocket_path:
                return _refused(BadRequest(HTTPStatus.UPGRADE_REQUIRED, "this path speaks WebSocket only"))
            return _refused(BadRequest(HTTPStatus.NOT_FOUND, f"there is nothing at {request.path}"))
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join(sorted(methods))
            return _refused(BadRequest(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {allowed} only"), Allow=allowed)
        try:
            _check_origin(request, self._settings.allowed_origins)
            return await handler(request)
        except BadRequest as error:
            return _refused(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception:
            logger.exception("request.failed", extra={"path": request.path})
            return replace(error_response(500, BrokerError("the fault is ours, and is in our log")), close=True)


def _table(routes: Iterable[Route]) -> Mapping[str, Mapping[str, Handler]]:
    table: dict[str, dict[str, Handler]] = {}
    for route in routes:
        table.setdefault(route.path, {})[route.method] = route.handler
    return table


def _check_origin(request: Request, allowed: Sequence[str]) -> None:
    if not origin_allowed(request.header("origin"), request.header("host"), allowed):
        raise BadRequest(HTTPStatus.FORBIDDEN, "pages of this origin may not connect (`server.allowed_origins`)")


def _refused(error: BadRequest, **headers: str) -> Response:
    response = error_response(error.status, error)
    return replace(response, headers={**response.headers, **headers}, close=True)


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
