"""What there is at which path, and which pages' scripts may have it (Fetch standard: CORS)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus

import trio

from broker.core.errors import BrokerError
from broker.core.http import Request, Response, Route, Takeover, error_response
from broker.core.origins import origin_allowed
from broker.edge.http import BadRequest

logger = logging.getLogger(__name__)

_PREFLIGHT_SECONDS = 600  # for so long a browser need not ask again
_HEADERS = "Authorization, Content-Type, Last-Event-ID"
_EXPOSED = "Retry-After"


class Site:
    """Answers requests by its routes.

    websocket_path: where there is a WebSocket, for the complaint of those who ask for something else there.
    """

    def __init__(self, routes: Iterable[Route], allowed_origins: Sequence[str], websocket_path: str) -> None:
        self._routes = _table(routes)
        self._allowed_origins = allowed_origins
        self._websocket_path = websocket_path

    async def answer(self, request: Request) -> Response | Takeover:
        """Answer a request, whatever it is."""
        origin = request.header("origin")
        try:
            answer = await self._answer(request, origin)
        except BadRequest as error:
            answer = refusal(error)
        if origin is None:
            return answer
        if isinstance(answer, Takeover):
            return replace(answer, head=self._with_leave(answer.head, request, origin))
        return self._with_leave(answer, request, origin)

    def check_origin(self, request: Request) -> None:
        """Refuse what the script of a page asks that may not.

        Raises BadRequest.
        """
        if not self._may(request, request.header("origin")):
            raise BadRequest(HTTPStatus.FORBIDDEN, "pages of this origin may not connect (`server.allowed_origins`)")

    async def _answer(self, request: Request, origin: str | None) -> Response | Takeover:
        methods = self._methods(request.path)
        if request.method == "OPTIONS" and origin is not None:
            self.check_origin(request)
            return _preflight(methods)
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            wrong = BadRequest(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {allowed} only")
            return refusal(wrong, Allow=allowed)
        if not route.public:
            self.check_origin(request)
        try:
            return await route.handler(request)
        except (BadRequest, trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception:
            logger.exception("request.failed", extra={"path": request.path})
            return replace(error_response(500, BrokerError("the fault is ours, and is in our log")), close=True)

    def _methods(self, path: str) -> Mapping[str, Route]:
        methods = self._routes.get(path)
        if methods is None:
            if path == self._websocket_path:
                raise BadRequest(HTTPStatus.UPGRADE_REQUIRED, "this path speaks WebSocket only")
            raise BadRequest(HTTPStatus.NOT_FOUND, f"there is nothing at {path}")
        return methods

    def _may(self, request: Request, origin: str | None) -> bool:
        return origin_allowed(origin, request.header("host"), self._allowed_origins)

    def _with_leave(self, answer: Response, request: Request, origin: str) -> Response:
        """Let the page that asks see the answer, where it may."""
        public = any(route.public for route in self._routes.get(request.path, {}).values())
        if not public and not self._may(request, origin):
            return answer
        leave = {"Access-Control-Allow-Origin": "*" if public else origin, "Access-Control-Expose-Headers": _EXPOSED}
        return replace(answer, headers={**answer.headers, **leave, "Vary": "Origin"})


def refusal(error: BadRequest, **headers: str) -> Response:
    """The answer to a request that is not served; nothing can follow it on its connection."""
    response = error_response(error.status, error)
    return replace(response, headers={**response.headers, **headers}, close=True)


def _preflight(methods: Iterable[str]) -> Response:
    leave = {
        "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
        "Access-Control-Allow-Headers": _HEADERS,
        "Access-Control-Max-Age": str(_PREFLIGHT_SECONDS),
    }
    return Response(HTTPStatus.NO_CONTENT, headers=leave)


def _table(routes: Iterable[Route]) -> Mapping[str, Mapping[str, Route]]:
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        table.setdefault(route.path, {})[route.method] = route
    return table
