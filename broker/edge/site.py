"""What there is at which path, and which pages' scripts may have it (Fetch standard: CORS)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import trio

from broker.core.errors import BrokerError
from broker.core.http import Request, Response, Route, Takeover, error_response
from broker.core.origins import origin_allowed
from broker.edge.http import BadRequest
from broker.edge.paths import Paths

logger = logging.getLogger(__name__)

PREFLIGHT_SECONDS: Final = 600  # for so long a browser need not ask again

_VARY = {"Vary": "Origin"}  # for caches
_EXPOSED = {"Access-Control-Expose-Headers": "Retry-After"}
_FOR_EVERYBODY = {"Access-Control-Allow-Origin": "*", **_EXPOSED}
_HEADERS = "Authorization, Content-Type, Last-Event-ID, *"  # the star stands for all but the first; some do not know it


class Site:
    """Answers requests by its routes.

    websockets: where there are some, for the complaint of those who ask for something else there.
    """

    def __init__(self, routes: Iterable[Route], allowed_origins: Sequence[str], websockets: Paths[Any]) -> None:
        table = _table(routes)
        self._routes = Paths(table)
        self._public = {path for path, found in table.items() if any(route.public for route in found.values())}
        self._allowed_origins = allowed_origins
        self._websockets = websockets

    async def answer(self, request: Request) -> Response | Takeover:
        """Answer a request, whatever it is."""
        origin = request.header("origin")
        try:
            answer = await self._answer(request, origin)
        except BadRequest as error:
            answer = refusal(error)
        leave = self._leave(request, origin)
        if not leave:
            return answer
        if isinstance(answer, Takeover):
            return replace(answer, head=_with(answer.head, leave))
        return _with(answer, leave)

    def check_origin(self, request: Request) -> None:
        """Refuse what the script of a page asks that may not.

        Raises BadRequest.
        """
        if not self._may(request, request.header("origin")):
            raise BadRequest(HTTPStatus.FORBIDDEN, "pages of this origin may not connect (`server.allowed_origins`)")

    async def _answer(self, request: Request, origin: str | None) -> Response | Takeover:
        methods, params = self._methods(request.path)
        if request.method == "OPTIONS" and origin is not None:
            if request.path not in self._public:
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
            return await route.handler(replace(request, params=params) if params else request)
        except (BadRequest, trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception:
            logger.exception("request.failed", extra={"path": request.path})
            return error_response(500, BrokerError("the fault is ours, and is in our log"))._replace(close=True)

    def _methods(self, path: str) -> tuple[Mapping[str, Route], Mapping[str, str]]:
        """The routes of a path by their methods, and what stands for the placeholders in it."""
        found = self._routes.find(path)
        if found is None and self._websockets.find(path) is not None:
            raise BadRequest(HTTPStatus.UPGRADE_REQUIRED, "this path speaks WebSocket only")
        if found is None:
            raise BadRequest(HTTPStatus.NOT_FOUND, f"there is nothing at {path}")
        return found

    def _may(self, request: Request, origin: str | None) -> bool:
        if origin is None or "*" in self._allowed_origins:
            return True
        # What is not ASCII no browser sends, and no header could hold it that gives leave.
        return origin.isascii() and origin_allowed(origin, request.header("host"), self._allowed_origins)

    def _leave(self, request: Request, origin: str | None) -> Mapping[str, str]:
        """The headers that let the page which asks see the answer, where it may."""
        if request.path in self._public or "*" in self._allowed_origins:
            return _FOR_EVERYBODY  # also where no page asks: a cache may pass the answer on to one
        if origin is None:
            return {}
        if not self._may(request, origin):
            return _VARY
        return {"Access-Control-Allow-Origin": origin, **_EXPOSED, **_VARY}


def refusal(error: BadRequest, **headers: str) -> Response:
    """The answer to a request that is not served; nothing can follow it on its connection."""
    response = error_response(error.status, error)
    return response._replace(headers={**response.headers, **headers}, close=True)


def _with(answer: Response, headers: Mapping[str, str]) -> Response:
    return answer._replace(headers={**answer.headers, **headers})


def _preflight(methods: Iterable[str]) -> Response:
    leave = {
        "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
        "Access-Control-Allow-Headers": _HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    return Response(HTTPStatus.NO_CONTENT, headers=leave)


def _table(routes: Iterable[Route]) -> Mapping[str, Mapping[str, Route]]:
    table: dict[str, dict[str, Route]] = {}
    for route in routes:
        table.setdefault(route.path, {})[route.method] = route
    return table
