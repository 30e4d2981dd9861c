"""Tokens as a publisher or a client would bring them, and one who looks at them at a moment that stands still."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import jwt

from broker.config import AuthConfig
from broker.edge.keys import Key, hmac_key
from broker.edge.tokens import TokenAuthenticator

NOW = 1_700_000_000.0
SECRET = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"


class Clock:
    """Shows the time that it is set to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def authenticator(keys: list[Key] | None = None, clock: Clock | None = None, **auth: Any) -> TokenAuthenticator:
    config = AuthConfig(**auth)
    return TokenAuthenticator(config, keys or [hmac_key(SECRET, config.algorithms, "auth.secret")], clock or Clock())


def token(_key: Any = SECRET, _algorithm: str = "HS256", _headers: dict[str, Any] | None = None, **claims: Any) -> str:
    return jwt.encode(claims, _key, algorithm=_algorithm, headers=_headers)


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def signed(payload: bytes, header: bytes = b'{"alg":"HS256"}') -> str:
    """A token whose parts are any bytes at all, with a good signature."""
    text = f"{encoded(header)}.{encoded(payload)}"
    return f"{text}.{encoded(hmac.digest(SECRET, text.encode(), hashlib.sha256))}"
