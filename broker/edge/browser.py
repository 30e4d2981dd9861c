"""The JavaScript client, for pages to import: `GET /client.js`, and its types at `GET /client.d.ts`."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Final

from broker.core.http import Request, Response, Route

FILES: Final = Path(__file__).parent.parent / "browser"

_TYPES = {"client.js": "text/javascript; charset=utf-8", "client.d.ts": "text/plain; charset=utf-8"}


def browser_routes() -> list[Route]:
    """What the front end is to send here; pages of every origin may have it, since it says nothing about anybody."""
    return [_route(name, content_type) for name, content_type in _TYPES.items()]


def _route(name: str, content_type: str) -> Route:
    body = (FILES / name).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    # To be asked for each time: whoever brings a new broker brings a new client.
    headers = {"ETag": tag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}

    async def answer(request: Request) -> Response:
        if _knows(request, tag):
            return Response(HTTPStatus.NOT_MODIFIED, headers=headers, content_type=content_type)
        return Response(HTTPStatus.OK, body, content_type, headers)

    return Route("GET", f"/{name}", answer, public=True)


def _knows(request: Request, tag: str) -> bool:
    """Whether the client has it already (RFC 9110 section 13.1.2)."""
    known = request.header_tokens("if-none-match")
    return "*" in known or tag in {entry.removeprefix("w/") for entry in known}
