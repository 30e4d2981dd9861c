"""Publishing over HTTP, by httpx. The only module that knows it; its errors end here.

Every event has an id before it is sent. So it may be sent again when nobody knows whether it arrived: an event whose
id the broker's log holds is answered and not delivered again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx
import trio

from broker.client.address import Address, parse_address
from broker.client.errors import ClientClosed, PublishFailed
from broker.client.options import Options, with_tls
from broker.client.retrying import may_pass, new_backoff
from broker.client.tokens import Token, Tokens
from broker.core.event import check_id, check_name

CONNECTIONS = 10
_MAX_ANSWER_BYTES = 1_048_576
_MAX_RETRY_AFTER = 3600.0


@asynccontextmanager
async def open_publisher(url: str, token: Token = None, *, options: Options | None = None) -> AsyncIterator[Publisher]:
    """A client that only publishes, and needs no WebSocket.

    url: the broker's. token: one with a `publish` claim, or a function that gives one. options: of these, `tls`,
    `events_path` and `connect_timeout` matter.
    """
    address = parse_address(url)
    publisher = Publisher(address, Tokens(token), with_tls(options or Options(), wanted=address.tls))
    async with publisher.serving():
        yield publisher


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one request; status 0: nothing."""

    status: int
    text: str
    code: str | None = None
    retry_after: float = 0.0
    ids: tuple[str, ...] = ()


class Publisher:
    """Publishes events to one broker; `open_publisher` makes it."""

    def __init__(self, address: Address, tokens: Tokens, options: Options) -> None:
        self._url = f"{address}{options.events_path}"
        self._tokens = tokens
        self._tls = options.tls
        self._connect_timeout = options.connect_timeout
        self._http: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Publish inside this block only: it closes the connections."""
        timeout = httpx.Timeout(None, connect=self._connect_timeout)  # the rest is bounded by that of `publish`
        limits = httpx.Limits(max_connections=CONNECTIONS)
        # No proxies from the environment, since the WebSocket does not know them either.
        async with httpx.AsyncClient(
            verify=self._tls or False, timeout=timeout, limits=limits, trust_env=False
        ) as http:
            self._http = http
            try:
                yield
            finally:
                self._http = None

    async def publish(self, name: str, data: Any = None, id: str | None = None, *, timeout: float = 30.0) -> str:  # noqa: A002
        """Publish an event, again and again until there is an answer; its id.

        id: equal ids are one event; None: a random one. timeout: seconds for everything.

        Raises PublishFailed; TypeError or ValueError for data that is no JSON; BadName or PublisherError of
        `broker.core.errors` for a name or id that is against the rules; TokenUnavailable.
        """
        check_name(name)
        event_id = str(uuid4()) if id is None else id
        check_id(event_id)
        body = json.dumps({"event": name, "data": data, "id": event_id}, allow_nan=False).encode()
        answer = _Answer(0, "there was no time")
        with trio.move_on_after(timeout):
            backoff = new_backoff()
            while True:
                answer = await self._try(body)
                if not (answer.status == 0 or may_pass(answer.status)):
                    break
                await trio.sleep(max(answer.retry_after, backoff.next_pause()))
        if answer.status == HTTPStatus.ACCEPTED and answer.ids:
            return answer.ids[0]
        raise PublishFailed(f"{name!r} was not published: {answer.text}", answer.status or None, answer.code)

    async def _try(self, body: bytes) -> _Answer:
        answer = await self._post(body, await self._tokens.current())
        if answer.status == HTTPStatus.UNAUTHORIZED and self._tokens.renewable:
            answer = await self._post(body, await self._tokens.fresh())
        return answer

    async def _post(self, body: bytes, token: str | None) -> _Answer:
        if self._http is None:
            raise ClientClosed("the client is closed")
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        request = self._http.build_request("POST", self._url, content=body, headers=headers)
        request.stream = _Body(body)
        try:
            response = await self._http.send(request, stream=True)
            async with aclosing(response):
                return _read(response, await _body(response))
        except httpx.HTTPError as error:
            return _Answer(0, str(error) or type(error).__name__)


class _Body(httpx.AsyncByteStream):
    """The body of a request. That of httpx is a generator, which is left unfinished where the connection breaks."""

    def __init__(self, body: bytes) -> None:
        self._left = [body]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _body(response: httpx.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body = (body + chunk)[:_MAX_ANSWER_BYTES]  # to the end, within the time of `publish`, but kept only so far
    return body


def _read(response: httpx.Response, body: bytes) -> _Answer:
    status = response.status_code
    retry_after = response.headers.get("Retry-After", "")
    pause = min(float(retry_after), _MAX_RETRY_AFTER) if retry_after.isdecimal() else 0.0
    try:
        said = json.loads(body)
        if status == HTTPStatus.ACCEPTED:
            return _Answer(status, "", ids=tuple(str(event_id) for event_id in said["ids"]))
        return _Answer(status, f"HTTP {status} {said['error']}", str(said["code"]), pause)
    except (ValueError, LookupError, TypeError, RecursionError):
        return _Answer(status, f"HTTP {status}, and no answer of a broker's", retry_after=pause)
