"""Events by HTTP: `POST /events` takes one event, an array of them, NDJSON or CloudEvents; all of a request or none.

A publisher shows who it is by a token, which is looked at before a byte of the body is read, or by a signature over the
body (`connectors/signatures.py`). Either says what it may publish.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec
import trio

from broker.core.credentials import token_of
from broker.core.errors import (
    AuthenticationError,
    BadEvent,
    BrokerError,
    EventRefused,
    InvalidSignature,
    InvalidToken,
    LogUnavailable,
    NotPermitted,
    Overloaded,
    PublisherError,
    UnsupportedMediaType,
)
from broker.core.event import Event, check_publishable
from broker.core.http import BodyTooLarge, Request, Response, Route, error_response
from broker.core.permissions import Permission, permission_of
from broker.core.ports import Authenticator, Publisher
from connectors.bodies import decode_body, form_of
from connectors.cloudevents import NameFrom
from connectors.decode import Parts
from connectors.signatures import Kind, Signatures, headers_of, kinds_of
from connectors.signed_bodies import decode_signed, identified, signed_form_of

__all__ = ["PATIENCE", "SOURCE", "Webhook"]

SOURCE = "webhook"
PATIENCE = 5.0  # seconds that a request waits for room before it is told to come again
_encode = msgspec.json.Encoder().encode
_BODIES_AT_ONCE = 64  # bounds the memory for bodies: this many times `max_body`
_UNPROVEN_AT_ONCE = 16  # and as many again of those that anybody may send, so that they take no room from the others

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
    authenticate: whether publishers need a token or a signature; False only where the broker serves without users.
    signatures: who may sign instead of bringing a token.
    cloudevents_name: which attribute of a CloudEvent names the event.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        path: str,
        max_body: int,
        authenticate: bool = True,
        signatures: Signatures | None = None,
        cloudevents_name: NameFrom = "type",
    ) -> None:
        self._authenticator = authenticator
        self._path = path
        self._max_body = max_body
        self._authenticate = authenticate
        self._signatures = signatures or Signatures()
        self._name_from: NameFrom = cloudevents_name
        self._bodies = _Room(_BODIES_AT_ONCE)
        self._unproven = _Room(_UNPROVEN_AT_ONCE)

    def routes(self, publisher: Publisher) -> Sequence[Route]:
        """What the front end is to send here."""

        async def receive(request: Request) -> Response:
            return await self._receive(request, publisher)

        return [Route("POST", self._path, receive)]

    async def _receive(self, request: Request, publisher: Publisher) -> Response:
        try:
            kind = self._signature_kind(request)
            if kind is None:
                ids = await self._take(request, publisher)
            else:
                ids = await self._take_signed(request, kind, publisher)
        except trio.TooSlowError:
            return _refusal(Overloaded())
        except (PublisherError, AuthenticationError, BodyTooLarge, Overloaded, LogUnavailable) as error:
            return _refusal(error)
        return Response(HTTPStatus.ACCEPTED, b'{"ids": [%b]}\n' % b", ".join(map(_encode, ids)))

    async def _take(self, request: Request, publisher: Publisher) -> list[str]:
        """Publish what a request brings by the right of its token."""
        permission = self._permission(request)
        form = form_of(request)
        async with self._bodies:
            body = await request.read_body(self._max_body)
            events = await _all_of(decode_body(request, form, body, SOURCE, self._name_from))
            _check_permitted(events, permission, "this token")
            return await publisher.publish(events, timeout=PATIENCE)

    async def _take_signed(self, request: Request, kind: Kind, publisher: Publisher) -> list[str]:
        """Publish what a request brings by the right of the source that has signed it."""
        headers = headers_of(request, kind)
        form = signed_form_of(request)
        async with self._unproven:
            body = await request.read_body(self._max_body)
            source = self._signatures.source_of(kind, headers, body)
            read = await _all_of(decode_signed(request, form, body, source, self._name_from))
            events = identified(request, read, source)
            _check_permitted(events, source.permission, f"the source {source.name!r}")
            return await publisher.publish(events, timeout=PATIENCE)

    def _signature_kind(self, request: Request) -> Kind | None:
        """How the request is signed; None: it is not, or that does not matter, since nobody needs to show anything.

        Raises InvalidToken for more than one credential: which of them would count must not depend on who reads them;
        InvalidSignature where nobody signs like that.
        """
        kinds = kinds_of(request)
        if not self._authenticate:
            kinds = [kind for kind in kinds if kind in self._signatures.kinds]
        if not kinds:
            return None
        if len(kinds) > 1:
            raise InvalidToken("the request carries two different signatures: send the one that counts")
        if self._authenticate and token_of(request) is not None:
            raise InvalidToken("the request carries both a token and a signature: send the one that counts")
        if kinds[0] not in self._signatures.kinds:
            raise InvalidSignature(
                f"no source here has the signature {kinds[0]}: bring a token, or configure the source"
            )
        return kinds[0]

    def _permission(self, request: Request) -> Permission:
        """What the publisher may publish.

        Raises AuthenticationError, or NotPermitted for a token without the right to publish anything.
        """
        identity = self._authenticator.publisher(token_of(request) if self._authenticate else None)
        permission = permission_of(identity.claims)
        if permission is None:
            raise NotPermitted(None, "this token may not publish: it has no `publish` claim with a list of patterns")
        return permission


class _Room:
    """Places for bodies, of which each block has one.

    Raises trio.TooSlowError where there is none in time.
    """

    __slots__ = ("_places",)

    def __init__(self, places: int) -> None:
        self._places = trio.Semaphore(places)

    async def __aenter__(self) -> None:
        try:
            self._places.acquire_nowait()
        except trio.WouldBlock:
            with trio.fail_after(PATIENCE):
                await self._places.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._places.release()


async def _all_of(parts: Parts) -> list[Event]:
    """All events, between whose parts the others have their turn."""
    events = next(parts, [])
    for part in parts:
        await trio.lowlevel.checkpoint()
        events += part
    return events


def _check_permitted(events: Sequence[Event], permission: Permission, publisher: str) -> None:
    covered: set[str] = set()  # events of one request are often of one name
    for index, event in enumerate(events):
        if event.name in covered:
            continue
        if permission.covers(event.name):
            covered.add(event.name)
            continue
        try:
            check_publishable(event)
        except PublisherError as error:
            raise BadEvent(index, str(error)) from error
        raise NotPermitted(index, f"{publisher} may not publish {event.name!r}")


def _refusal(error: BrokerError) -> Response:
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    index = error.index if isinstance(error, EventRefused) else None
    return error_response(status, error, **({} if index is None else {"index": index}))
