"""Events by HTTP: `POST /events` takes one event, an array of them, or NDJSON; all of a request or none of it."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import trio

from broker.core.credentials import token_of
from broker.core.errors import (
    AuthenticationError,
    BadEvent,
    BrokerError,
    EventRefused,
    LogUnavailable,
    NotPermitted,
    Overloaded,
    PublisherError,
)
from broker.core.event import Event, check_publishable
from broker.core.http import BodyTooLarge, Request, Response, Route, error_response, json_response
from broker.core.permissions import Permission, permission_of
from broker.core.ports import Authenticator, Publisher
from connectors.decode import decode_json, decode_ndjson

SOURCE = "webhook"
PATIENCE = 5.0  # seconds that a request waits for room before it is told to come again
_BODIES_AT_ONCE = 64  # bounds the memory for bodies: this many times `max_body`
_NDJSON = frozenset(("application/x-ndjson", "application/ndjson", "application/jsonl"))


class UnsupportedMediaType(PublisherError):
    """The body is of a type that no decoder here reads."""

    code = "unsupported_media_type"


# The first that fits counts.
_STATUSES: Sequence[tuple[type[BrokerError], HTTPStatus]] = (
    (NotPermitted, HTTPStatus.FORBIDDEN),
    (UnsupportedMediaType, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (PublisherError, HTTPStatus.BAD_REQUEST),
    (AuthenticationError, HTTPStatus.UNAUTHORIZED),
    (BodyTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (BrokerError, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Webhook:
    """Answers `POST` on `path`.

    max_body: bytes that a request's body may have.
    authenticate: whether publishers need a token; False only where the broker serves without users at all.
    """

    def __init__(self, authenticator: Authenticator, *, path: str, max_body: int, authenticate: bool = True) -> None:
        self._authenticator = authenticator
        self._path = path
        self._max_body = max_body
        self._authenticate = authenticate
        self._bodies = trio.CapacityLimiter(_BODIES_AT_ONCE)

    def routes(self, publisher: Publisher) -> Sequence[Route]:
        """What the front end is to send here."""

        async def receive(request: Request) -> Response:
            return await self._receive(request, publisher)

        return [Route("POST", self._path, receive)]

    async def _receive(self, request: Request, publisher: Publisher) -> Response:
        try:
            permission = self._permission(request)
            media_type = _media_type(request)
            with trio.fail_after(PATIENCE):
                await self._bodies.acquire()
            try:
                body = await request.read_body(self._max_body)
                events = decode_ndjson(body, SOURCE) if media_type in _NDJSON else decode_json(body, SOURCE)
                _check_permitted(events, permission)
                ids = await publisher.publish(events, timeout=PATIENCE)
            finally:
                self._bodies.release()
        except trio.TooSlowError:
            return _refusal(Overloaded())
        except (PublisherError, AuthenticationError, BodyTooLarge, Overloaded, LogUnavailable) as error:
            return _refusal(error)
        return json_response(HTTPStatus.ACCEPTED, {"ids": ids})

    def _permission(self, request: Request) -> Permission:
        """What the publisher may publish.

        Raises AuthenticationError, or NotPermitted for a token without the right to publish anything.
        """
        identity = self._authenticator.publisher(token_of(request) if self._authenticate else None)
        permission = permission_of(identity.claims)
        if permission is None:
            raise NotPermitted(None, "this token may not publish: it has no `publish` claim with a list of patterns")
        return permission


def _check_permitted(events: Sequence[Event], permission: Permission) -> None:
    for index, event in enumerate(events):
        if permission.covers(event.name):
            continue
        try:
            check_publishable(event)
        except PublisherError as error:
            raise BadEvent(index, str(error)) from error
        raise NotPermitted(index, f"this token may not publish {event.name!r}")


def _media_type(request: Request) -> str:
    """The request's media type in lower case.

    Raises UnsupportedMediaType.
    """
    media_type, _, parameters = (request.header("content-type") or "").lower().partition(";")
    media_type = media_type.strip()
    if media_type != "application/json" and media_type not in _NDJSON:
        shown = f"not {media_type!r}" if media_type else "and the request has none"
        raise UnsupportedMediaType(f"the Content-Type must be application/json or application/x-ndjson, {shown}")
    charset = parameters.partition("charset=")[2].strip(' "')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType(f"JSON is UTF-8 here, not {charset!r}")
    if request.header("content-encoding") not in (None, "identity"):
        raise UnsupportedMediaType("the body must come without a Content-Encoding")
    return media_type


def _refusal(error: BrokerError) -> Response:
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    index = error.index if isinstance(error, EventRefused) else None
    return error_response(status, error, **({} if index is None else {"index": index}))
