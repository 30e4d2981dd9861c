"""Where a request may carry its token, and what to make of more than one."""

from __future__ import annotations

from collections.abc import Iterator

from broker.core.errors import InvalidToken
from broker.core.http import Request

QUERY_PARAMETERS = ("authHeader", "authToken", "token", "access_token")
_SCHEME = "bearer"


def token_of(request: Request) -> str | None:
    """The token of a request: in `Authorization: Bearer`, or in one of the query parameters; None: there is none.

    Raises InvalidToken for a header of another scheme, and where a request carries two different tokens: which of
    them would count must not depend on who reads them.
    """
    headers = request.header_values("authorization")
    if len(headers) == 1 and not request.query:
        return _bearer(headers[0])
    tokens = {*map(_bearer, headers), *_from_query(request)}
    if len(tokens) > 1:
        raise InvalidToken("the request carries two different tokens")
    return next(iter(tokens), None)


def _bearer(value: str) -> str:
    scheme, _, token = value.partition(" ")
    token = token.strip()
    if scheme.lower() != _SCHEME or not token:
        raise InvalidToken("the Authorization header must be `Bearer <token>`")
    return token


def _from_query(request: Request) -> Iterator[str]:
    for parameter in QUERY_PARAMETERS if request.query else ():
        for value in request.query.get(parameter, ()):
            scheme, _, token = value.strip().partition(" ")
            found = token.strip() if scheme.lower() == _SCHEME else value.strip()
            if found:
                yield found
