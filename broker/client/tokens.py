"""Where tokens come from: a fixed one, or a function that gives fresh ones."""

from __future__ import annotations

import base64
import inspect
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from broker.client.errors import TokenUnavailable

Token: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]] | None

_NOT_IN_TOKENS = re.compile(r"[^\x21-\x7e]")
_LATEST = 1e11  # Unix time, about the year 5138: no token lives that long, and sums with it are harmless


class Tokens:
    """The token of one client, and how to get another."""

    def __init__(self, token: Token) -> None:
        self._provider = token if callable(token) else None
        self._token = None if token is None or callable(token) else _checked(token)

    @property
    def renewable(self) -> bool:
        """Whether there is a function to ask."""
        return self._provider is not None

    @property
    def expires_at(self) -> float | None:
        """When the present token expires, in Unix time, as far as can be seen from here."""
        return None if self._token is None else expiry(self._token)

    async def fresh(self) -> str | None:
        """The token for a new connection; a function is asked for it.

        Raises TokenUnavailable.
        """
        if self._provider is not None:
            try:
                given = self._provider()
                self._token = _checked(await given if inspect.isawaitable(given) else given)
            except TokenUnavailable:
                raise
            except Exception as error:
                raise TokenUnavailable(f"the function that gives tokens failed: {type(error).__name__}") from error
        return self._token

    async def current(self) -> str | None:
        """The present token, or a fresh one where it has run out.

        Raises TokenUnavailable.
        """
        if self._token is None or (self.expires_at or _LATEST) <= time.time():
            return await self.fresh()
        return self._token


def expiry(token: str) -> float | None:
    """The `exp` of a JSON Web Token; None where there is none to be seen. Nothing is verified."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expires_at = float(claims["exp"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
    return expires_at if 0 < expires_at < _LATEST else None


def _checked(token: object) -> str:
    if not isinstance(token, str) or not token or _NOT_IN_TOKENS.search(token):
        raise TokenUnavailable("this is no token: it is empty, or has characters that no token has")
    return token
