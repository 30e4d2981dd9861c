"""Events by HTTP: `POST /events` takes one event, an array of them, or NDJSON; all of a request or none of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus

import trio

from broker.core.credentials import token_of
from broker.core.errors import (
    AuthenticationError,
    BadEvent,
    LogUnavailable,
    NotPermitted,
    Overloaded,
    PublisherError,
)
from broker.core.event import Event, check_publishable
from broker.core.http import BodyTooLarge, Request, Response, Route, error_response, json_response
from broker.core.index import PatternIndex
from broker.core.permissions import publish_patterns
from broker.core.ports import Authenticator, Publisher
from connectors.decode import decode_json, decode_ndjson

SOURCE = "webhook"
PATIENCE = 5.0  # seconds that a request waits for room before it is told to come again
_BODIES_AT_ONCE = 64  # bounds the memory for bodies: this many times `max_body`
_NDJSON = frozenset(("application/x-ndjson", "application/ndjson", "application/jsonl"))


class UnsupportedMediaType(PublisherError):
    """The body is of a type that no decoder here reads."""

    code = "unsupported_media_type"


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
            permitted = self._permitted(request)
            media_type = _media_type(request)
            with trio.fail_after(PATIENCE):
                await self._bodies.acquire()
            try:
                body = await request.read_body(self._max_body)
                events = decode_ndjson(body, SOURCE) if media_type in _NDJSON else decode_json(body, SOURCE)
                _check_permitted(events, permitted)
                ids = await publisher.publish(events, timeout=PATIENCE)
            finally:
                self._bodies.release()
        except trio.TooSlowError:
            return _come_again(Overloaded())
        except (Overloaded, LogUnavailable) as error:
            return _come_again(error)
        except NotPermitted as error:
            place = {} if error.index is None else {"index": error.index}
            return error_response(HTTPStatus.FORBIDDEN, error, **place)
        except BadEvent as error:
            return error_response(HTTPStatus.BAD_REQUEST, error, index=error.index)
        except AuthenticationError as error:
            return error_response(HTTPStatus.UNAUTHORIZED, error)
        except (BodyTooLarge, PublisherError) as error:
            return error_response(_status(error), error)
        return json_response(HTTPStatus.ACCEPTED, {"ids": ids})

    def _permitted(self, request: Request) -> PatternIndex[str]:
        """The patterns that the publisher may publish.

        Raises AuthenticationError, or NotPermitted for a token without the right to publish anything.
        """
        identity = self._authenticator.publisher(token_of(request) if self._authenticate else None)
        patterns = publish_patterns(identity.claims)
        if not patterns:
            raise NotPermitted(None, "this token may not publish: it has no `publish` claim with a list of patterns")
        permitted: PatternIndex[str] = PatternIndex()
        for pattern in patterns:
            permitted.add(pattern, pattern)
        return permitted


def _check_permitted(events: Sequence[Event], permitted: PatternIndex[str]) -> None:
    for index, event in enumerate(events):
        if permitted.match(event.name):
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


def _status(error: BodyTooLarge | PublisherError) -> HTTPStatus:
    if isinstance(error, BodyTooLarge):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return HTTPStatus.UNSUPPORTED_MEDIA_TYPE if isinstance(error, UnsupportedMediaType) else HTTPStatus.BAD_REQUEST


def _come_again(error: Overloaded | LogUnavailable) -> Response:
    retry_after = error.retry_after if isinstance(error, Overloaded) else 1
    return replace(error_response(HTTPStatus.SERVICE_UNAVAILABLE, error), headers={"Retry-After": str(retry_after)})
