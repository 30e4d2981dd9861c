"""Two questions that supervisors ask: is the process alive, and should it be given work?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from broker.core.http import Request, Response, Route, json_response


def health_routes(why_not_ready: Callable[[], str | None], sources: Callable[[], Mapping[str, str]]) -> list[Route]:
    """`/healthz` answers as long as the process does; `/readyz` is 503 while it should get no work, and says why.

    A source that is away makes nobody unready, since clients are served all the same; `sources` tells how each one is.
    """

    async def healthz(_request: Request) -> Response:
        return json_response(HTTPStatus.OK, {"status": "ok"})

    async def readyz(_request: Request) -> Response:
        reason = why_not_ready()
        if reason is None:
            return json_response(HTTPStatus.OK, {"status": "ready", "connectors": dict(sources())})
        return json_response(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not ready", "reason": reason})

    return [Route("GET", "/healthz", healthz), Route("GET", "/readyz", readyz)]
