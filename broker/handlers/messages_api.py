"""Sending over HTTP, for applications in other languages: `POST /users/<user>/messages`, `POST /rooms/<room>/messages`.

The body is the message: JSON, text/plain or application/octet-stream. The right comes from the `publish` claim of the
token: a pattern that matches `users.<user>.messages` or `rooms.<room>.messages`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any, Final

import trio

from broker.core.credentials import token_of
from broker.core.errors import AuthenticationError, BadPayload, BadShape, NotPermitted, UnsupportedMediaType
from broker.core.http import BodyTooLarge, Request, Response, Route, error_response, json_response
from broker.core.message import Message
from broker.core.payload import check_text
from broker.core.permissions import permission_of
from broker.core.ports import Authenticator
from broker.handlers.house import House
from broker.runtime.connection import Connection as Client

BODIES_AT_ONCE: Final = 64  # bounds the memory for those that are being read

_JSON: Final = "application/json"
_TEXT: Final = "text/plain"
_BYTES: Final = "application/octet-stream"


class MessagesApi:
    """The routes.

    max_body: bytes. authenticate: whether a token is needed.
    """

    def __init__(self, house: House, authenticator: Authenticator, max_body: int, *, authenticate: bool) -> None:
        self._house = house
        self._authenticator = authenticator
        self._max_body = max_body
        self._authenticate = authenticate
        self._bodies = trio.CapacityLimiter(BODIES_AT_ONCE)

    def routes(self) -> Sequence[Route]:
        """What the front end is to send here."""
        return [
            Route("POST", "/users/<user>/messages", self._to_user),
            Route("GET", "/users/<user>", self._look_at_user),
            Route("POST", "/rooms/<room>/messages", self._to_room),
        ]

    async def _to_user(self, request: Request) -> Response:
        user = request.params["user"]
        return await self._send(request, f"users.{user}.messages", lambda: self._house.of_users([user]))

    async def _to_room(self, request: Request) -> Response:
        room = request.params["room"]
        return await self._send(request, f"rooms.{room}.messages", lambda: list(self._house.rooms.members(room)))

    async def _look_at_user(self, request: Request) -> Response:
        user = request.params["user"]
        refused = self._refusal(request, f"users.{user}.messages")
        if refused is not None:
            return refused
        connections = len(self._house.of_users([user]))
        online = self._house.presence.is_online(user)
        return json_response(HTTPStatus.OK, {"user": user, "online": online, "connections": connections})

    async def _send(self, request: Request, right: str, members: Any) -> Response:
        refused = self._refusal(request, right)
        if refused is not None:
            return refused
        kind = (request.header("content-type") or _JSON).partition(";")[0].strip().lower()
        if kind not in (_JSON, _TEXT, _BYTES):
            wrong = UnsupportedMediaType(f"a message is {_JSON}, {_TEXT} or {_BYTES}, not {kind[:100]!r}")
            return error_response(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, wrong)
        try:
            async with self._bodies:
                content = _content(kind, await request.read_body(self._max_body))
        except BodyTooLarge as error:
            return error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error)
        except (BadShape, BadPayload) as error:
            return error_response(HTTPStatus.BAD_REQUEST, error)
        clients: Collection[Client] = members()
        return json_response(HTTPStatus.ACCEPTED, {"connections": await self._house.send(content, clients)})

    def _refusal(self, request: Request, right: str) -> Response | None:
        """What answers a request whose token does not carry the right."""
        try:
            identity = self._authenticator.publisher(token_of(request) if self._authenticate else None)
        except AuthenticationError as error:
            return error_response(HTTPStatus.UNAUTHORIZED, error)
        permission = permission_of(identity.claims) if self._authenticate else None
        if self._authenticate and (permission is None or not permission.covers(right)):
            return error_response(HTTPStatus.FORBIDDEN, NotPermitted(None, f"this token may not publish {right!r}"))
        return None


def _content(kind: str, body: bytes) -> Any:
    """What the body says.

    Raises BadShape or BadPayload.
    """
    if kind == _BYTES:
        return body
    try:
        text = body.decode()
        if kind == _TEXT:
            return text
        check_text(body)
        content = json.loads(text)
        Message(content)  # NaN, for one, is read and can't be written
    except RecursionError:
        raise BadShape("this JSON is nested too deep") from None
    except UnicodeDecodeError as error:
        raise BadShape(f"the body is no UTF-8: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise BadShape(f"the body is no JSON: {error}") from None
    return content
