"""HTTP requests and responses as values, for those who answer them and need not know how they travel."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from broker.core.errors import BrokerError

ReadBody = Callable[[int], Awaitable[bytes]]
Headers = Sequence[tuple[bytes, bytes]]
_encode = json.JSONEncoder(ensure_ascii=False).encode


class BodyTooLarge(BrokerError):
    """The request's body has more bytes than it may; `limit` says how many are allowed."""

    code = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body has more than {limit} bytes")
        self.limit = limit


class HeaderTable(tuple[tuple[bytes, bytes], ...]):
    """Headers that are asked for by name again and again; `values` of each name in order, as `Request` gives them."""

    values: Mapping[str, list[str]]

    def __new__(cls, headers: Headers) -> Self:
        """See the class."""
        table = super().__new__(cls, headers)
        values: dict[str, list[str]] = {}
        for name, value in headers:
            # Only what HTTP calls white space: some of Latin-1's are bytes of UTF-8.
            values.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1").strip(" \t"))
        table.values = values
        return table

    def replaced(self, name: bytes, value: bytes) -> Self:
        """The same with another value of a header that is there once."""
        table = super().__new__(type(self), [(each, value if each == name else old) for each, old in self])
        table.values = {**self.values, name.decode("latin-1"): [value.decode("latin-1")]}
        return table


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request, and a way to read its body.

    headers: names in lower case. query: every value of each parameter, in order.
    read_body: reads the whole body, or raises BodyTooLarge beyond the number of bytes it is given.
    address: of the other end of the connection, where it has one. params: the `<placeholders>` of the route's path.
    """

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Headers
    http_version: bytes
    read_body: ReadBody
    address: str = ""
    params: Mapping[str, str] = field(default_factory=dict)

    def header_values(self, name: str) -> list[str]:
        """Every value of a header, in order; `name` in lower case."""
        table = self.headers if isinstance(self.headers, HeaderTable) else HeaderTable(self.headers)
        return table.values.get(name, [])

    def header(self, name: str) -> str | None:
        """The header's value, several joined by commas (RFC 9110 section 5.3), or None."""
        values = self.header_values(name)
        return ", ".join(values) if values else None

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies by name (RFC 6265 section 4.2); of two of one name the first."""
        pairs = (pair.strip().partition("=") for pair in ";".join(self.header_values("cookie")).split(";"))
        return {name: value.strip('"') for name, found, value in reversed(list(pairs)) if found}

    def header_tokens(self, name: str) -> set[str]:
        """The comma-separated tokens of a header, in lower case."""
        return {token.strip().lower() for value in self.header_values(name) for token in value.split(",")}


class Response(NamedTuple):
    """An answer. `close`: end the connection after it, because what follows on it can't be trusted."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = MappingProxyType({})
    close: bool = False


# What RFC 9110 (sections 10.2.3 and 11.6.1) and RFC 6455 (section 4.2.2) want beside these statuses.
_REQUIRED_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    426: {"Sec-WebSocket-Version": "13", "Upgrade": "websocket"},
    503: {"Retry-After": "1"},
}


@dataclass(frozen=True, slots=True)
class Takeover:
    """In the place of an answer: from here on the connection belongs to `serve`.

    head: of the answer whose body `serve` writes.
    serve: takes this head's bytes, to be sent first, and the stream; returns whether that is still fit for a decent
        end. It begins in the same step in which the handler has returned: what was checked is still so.
    """

    head: Response
    serve: Callable[[bytes, Any], Awaitable[bool]]


Handler = Callable[[Request], Awaitable[Response | Takeover]]


@dataclass(frozen=True, slots=True)
class Route:
    """Which requests a handler answers: this method (GET serves HEAD too) on exactly this path.

    In the path `<name>` stands for a segment, which the request then has among its `params`.
    public: for pages of every origin.
    """

    method: str
    path: str
    handler: Handler
    public: bool = False


def json_response(status: int, value: Any, **headers: str) -> Response:
    """A response that holds `value` as JSON; `headers` by name, with `_` for `-`."""
    body = _encode(value).encode(errors="replace") + b"\n"
    return Response(status, body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def error_response(status: int, error: BrokerError, **more: Any) -> Response:
    """An error in the form that the whole broker uses: what, and under which code."""
    value = {"error": str(error), "code": error.code, **more}
    return json_response(status, value, **_REQUIRED_HEADERS.get(status, {}))
