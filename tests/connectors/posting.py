"""Requests to the webhook, and what stands around it: who may publish with which word, and the door to the broker."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import standardwebhooks
import trio

from broker.core.errors import BrokerError, ExpiredToken, InvalidToken, MissingToken
from broker.core.event import Event, check_batch
from broker.core.http import BodyTooLarge, ReadBody, Request, Response
from broker.core.ports import Identity
from connectors.webhook import Webhook

MAX_BODY = 1000
JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENT = b'{"event":"games.1.created","data":{"a":1}}'


class Words:
    """Knows what may be published with a word."""

    def identify(self, token: str | None) -> Identity:
        raise NotImplementedError

    def publisher(self, token: str | None) -> Identity:
        match token:
            case None:
                raise MissingToken("no token")
            case "games":
                return Identity(claims={"publish": ["games.**", "other"]})
            case "all":
                return Identity(claims={"publish": "**"})
            case "reader":
                return Identity("ada")
            case "broken":
                return Identity(claims={"publish": ["games.**", "a..b"]})
            case "old":
                raise ExpiredToken("that was yesterday")
            case _:
                raise InvalidToken("an unknown token")


class Anybody:
    """Serves without users: everybody may publish."""

    def identify(self, token: str | None) -> Identity:
        raise NotImplementedError

    def publisher(self, token: str | None) -> Identity:
        assert token is None
        return Identity(claims={"publish": ["**"]})


class Door:
    """Takes events as `publish()` does, or refuses them all for one reason."""

    def __init__(self, error: BrokerError | None = None) -> None:
        self.events: list[Event] = []
        self.timeout: float | None = None
        self._error = error

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.timeout = timeout
        check_batch(events)
        if self._error is not None:
            raise self._error
        self.events += events
        return [event.id or f"id {index}" for index, event in enumerate(events)]


def reading(body: bytes) -> ReadBody:
    async def read(limit: int) -> bytes:
        await trio.lowlevel.checkpoint()
        if len(body) > limit:
            raise BodyTooLarge(limit)
        return body

    return read


async def never(limit: int) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


async def unread(limit: int) -> bytes:
    raise AssertionError("the body was read of a publisher who was to be refused by the head")


def post(
    body: bytes | ReadBody = EVENT, media_type: str | None = JSON, token: str | None = "games", **headers: str
) -> Request:
    present = {"content-type": media_type, "authorization": f"Bearer {token}" if token else None}
    present |= {name.replace("_", "-"): value for name, value in headers.items()}
    found = [(name.encode(), value.encode("latin-1")) for name, value in present.items() if value is not None]
    return Request("POST", "/in", {}, found, b"1.1", reading(body) if isinstance(body, bytes) else body)


async def answer(request: Request, door: Door | None = None, webhook: Webhook | None = None) -> Response:
    webhook = webhook or Webhook(Words(), path="/in", max_body=MAX_BODY)
    (route,) = webhook.routes(door or Door())
    response = await route.handler(request)
    assert isinstance(response, Response)
    return response


def said(response: Response) -> Any:
    return json.loads(response.body)


def signed_by_standard_webhooks(key: bytes, body: bytes, seconds: int = 0, message: str = "msg_1") -> dict[str, str]:
    """The headers of a message that was signed so many seconds from now, by the library's own hand."""
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(key).sign(message, when, body.decode()),
    }


def signed_by_github(key: bytes, body: bytes) -> dict[str, str]:
    """The header that GitHub would send with this body."""
    return {"x-hub-signature-256": f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"}
