"""Health: alive as long as it answers; ready as long as nothing speaks against it."""

from __future__ import annotations

import json

from broker.core.health import health_routes
from broker.core.http import Request, Response

SOURCES = {"amqp_main": "waiting", "stdin": "running"}


async def no_body(limit: int) -> bytes:
    return b""


async def answer(path: str, reason: str | None) -> Response:
    [route] = [route for route in health_routes(lambda: reason, lambda: SOURCES) if route.path == path]
    response = await route.handler(Request(route.method, path, {}, [], b"1.1", no_body))
    assert isinstance(response, Response)
    return response


async def test_it_is_alive_even_when_it_is_not_ready() -> None:
    response = await answer("/healthz", "stopping")
    assert (response.status, json.loads(response.body)) == (200, {"status": "ok"})


async def test_it_is_ready_when_nothing_speaks_against_it_and_tells_how_its_sources_are() -> None:
    response = await answer("/readyz", None)
    assert (response.status, json.loads(response.body)) == (200, {"status": "ready", "connectors": SOURCES})


async def test_it_says_why_it_is_not_ready() -> None:
    response = await answer("/readyz", "stopping")
    assert (response.status, json.loads(response.body)) == (503, {"status": "not ready", "reason": "stopping"})
