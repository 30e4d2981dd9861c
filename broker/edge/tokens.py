"""JSON Web Tokens: who is at the other end. The only module that knows PyJWT.

PyJWT verifies the signature. What a token must look like before, and what its claims must say after, is decided here:
RFC 7519 leaves much open and the library is lenient, while a mistake at this place opens every door behind it. No
message contains any part of a token.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import jwt

from broker.config import AuthConfig
from broker.core.errors import BrokerError, ExpiredToken, InvalidToken, MissingToken
from broker.core.event import utf8_length
from broker.core.ports import Authenticator, Identity
from broker.edge.keys import Key, hmac_key, jwks_keys, pem_key
from broker.edge.secret_file import SecretError, Warn, generate_if_missing, read_secret, readable_by_others

__all__ = [
    "Anonymous",
    "Authenticator",
    "IssueError",
    "SecretError",
    "TokenAuthenticator",
    "build_authenticator",
    "check_keys",
    "issue_token",
]

MAX_TOKEN_BYTES = 8192
MAX_USER_BYTES = 255
_REMEMBERED = 1024  # tokens whose signature is known to be good: at most this many times MAX_TOKEN_BYTES
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_log = logging.getLogger(__name__)


class IssueError(BrokerError):
    """No token can be made with this configuration, which need not be faulty for that."""

    code = "can_not_issue"


class Anonymous:
    """Mode "none": everybody may connect, as nobody, and publish everything."""

    def identify(self, token: str | None) -> Identity:  # noqa: ARG002 - the port has it
        """Nobody in particular."""
        return Identity()

    def publisher(self, token: str | None) -> Identity:  # noqa: ARG002 - the port has it
        """A publisher of everything."""
        return Identity(claims={"publish": ["**"]})


@dataclass(frozen=True, slots=True)
class _Credential:
    """What a token says: who somebody is, until when, and from when on (Unix time, seconds)."""

    identity: Identity
    begin: float


class TokenAuthenticator:
    """Mode "jwt": an identity is what a signed token says.

    keys: what may verify; clock: Unix time in seconds.
    """

    def __init__(self, auth: AuthConfig, keys: Sequence[Key], clock: Callable[[], float] = time.time) -> None:
        self._auth = auth
        self._keys = tuple(keys)
        self._clock = clock
        self._signatures = jwt.PyJWS(algorithms=list(auth.algorithms))
        # A publisher brings the same token with each request, and its signature does not change; the time does.
        self._credential_of = lru_cache(_REMEMBERED)(self._read)
        self._audiences = frozenset([auth.audience] if isinstance(auth.audience, str) else auth.audience or ())

    def identify(self, token: str | None) -> Identity:
        """Who may connect with this token (None: there was none).

        Raises MissingToken, InvalidToken or ExpiredToken.
        """
        identity = self.publisher(token)
        if identity.user is None:
            raise InvalidToken("the token names no user")
        return identity

    def publisher(self, token: str | None) -> Identity:
        """Who publishes with this token: as `identify`, but a user is not required."""
        if not token:
            raise MissingToken("a token is needed")
        credential = self._credential_of(token)
        now = self._clock()
        if now < credential.begin:
            raise InvalidToken("the token is not valid yet")
        # The end comes last: only an otherwise good token has expired.
        if credential.identity.expires_at is not None and now >= credential.identity.expires_at:
            raise ExpiredToken("the token has expired")
        return credential.identity

    def _read(self, token: str) -> _Credential:
        """What a token says, as far as that does not depend on the time."""
        claims = _json_object(self._verified(token))
        self._check_parties(claims)
        user = _user(claims.get(self._auth.user_claim))
        not_before, issued_at, expiry = (_time(claims, name) for name in ("nbf", "iat", "exp"))
        leeway = self._auth.leeway
        begin = max(not_before or 0.0, issued_at or 0.0) - leeway
        return _Credential(Identity(user, claims, None if expiry is None else expiry + leeway), begin)

    def _verified(self, token: str) -> bytes:
        """The payload, if a key of ours made the signature."""
        if len(token) > MAX_TOKEN_BYTES or _COMPACT.fullmatch(token) is None:
            raise InvalidToken("the token is malformed")
        header = _json_object(_decoded(token.partition(".")[0]))
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._auth.algorithms:
            raise InvalidToken("the token's algorithm is not accepted")
        if "crit" in header or "b64" in header:
            raise InvalidToken("the token needs an extension that is not supported")
        if kid is not None and not isinstance(kid, str):
            raise InvalidToken("the token is malformed")
        for key in self._keys:
            if key.serves(algorithm, kid) and (payload := self._payload(token, key, algorithm)) is not None:
                return payload
        raise InvalidToken("the token is not signed by a key that is known here")

    def _payload(self, token: str, key: Key, algorithm: str) -> bytes | None:
        try:
            payload = self._signatures.decode(token, key=key.material, algorithms=[algorithm])
        except Exception:  # whatever the libraries beneath make of hostile bytes, the answer is no
            return None
        return payload if isinstance(payload, bytes) else None

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        if self._auth.issuer is not None and claims.get("iss") != self._auth.issuer:
            raise InvalidToken("the token is from another issuer")
        if not self._audiences and "aud" not in claims:
            return
        named = claims.get("aud")
        meant = [named] if isinstance(named, str) else named
        if not isinstance(meant, list) or not any(isinstance(one, str) and one in self._audiences for one in meant):
            raise InvalidToken("the token is for another audience")


def build_authenticator(
    auth: AuthConfig, environ: Mapping[str, str] | None = None, warn: Warn = _log.warning
) -> Authenticator:
    """The authenticator that the configuration asks for; makes the secret's file if that is to be generated.

    Raises SecretError, an OperatorError, that names the key and the remedy.
    """
    if auth.mode == "none":
        return Anonymous()
    if _symmetric(auth):
        generate_if_missing(auth.secret, "auth.secret")
    return TokenAuthenticator(auth, _load_keys(auth, os.environ if environ is None else environ, warn))


def check_keys(auth: AuthConfig, environ: Mapping[str, str], warn: Warn) -> None:
    """Check that every key can be read and used, without making any.

    Raises SecretError.
    """
    if auth.mode == "jwt":
        _load_keys(auth, environ, warn, missing_is_fine=auth.secret.generate)


def issue_token(
    auth: AuthConfig,
    claims: Mapping[str, Any],
    ttl_seconds: float,
    environ: Mapping[str, str] | None = None,
    warn: Warn = _log.warning,
) -> str:
    """A token with these claims that ends in `ttl_seconds`, signed with the configured secret.

    Raises IssueError where this configuration signs no tokens, SecretError where the secret can't be used, and
    InvalidToken if it would not accept the token itself.
    """
    if auth.mode == "none":
        raise IssueError(
            'auth.mode is "none": this broker has no users and takes no tokens (set mode = "jwt" for that)'
        )
    algorithms = _symmetric(auth)
    if not algorithms:
        names = ", ".join(auth.algorithms)
        raise IssueError(f"{names} tokens are signed with a private key that is not here: have its holder make one")
    authenticator = build_authenticator(auth, environ, warn)
    secret = read_secret(auth.secret, "auth.secret", os.environ if environ is None else environ)
    token = jwt.encode({**_standard_claims(auth, ttl_seconds), **claims}, secret, algorithm=algorithms[0])
    authenticator.publisher(token)
    return token


def _standard_claims(auth: AuthConfig, ttl_seconds: float) -> dict[str, Any]:
    now = int(time.time())
    claims: dict[str, Any] = {"iat": now, "exp": now + ttl_seconds}
    if auth.issuer is not None:
        claims["iss"] = auth.issuer
    if auth.audience is not None:
        claims["aud"] = auth.audience if isinstance(auth.audience, str) else auth.audience[0]
    return claims


def _symmetric(auth: AuthConfig) -> list[str]:
    return [name for name in auth.algorithms if name.startswith("HS")]


def _load_keys(auth: AuthConfig, environ: Mapping[str, str], warn: Warn, *, missing_is_fine: bool = False) -> list[Key]:
    keys: list[Key] = []
    symmetric = _symmetric(auth)
    file = auth.secret.file
    if symmetric and not (missing_is_fine and file is not None and not file.exists()):
        keys.append(hmac_key(read_secret(auth.secret, "auth.secret", environ), symmetric, "auth.secret"))
        if readable_by_others(auth.secret):
            warn(f"auth.secret: other users may read {file} (chmod 600 it)")
    if auth.public_key is not None:
        keys.append(pem_key(read_secret(auth.public_key, "auth.public_key", environ), "auth.public_key"))
    if auth.jwks is not None:
        keys += jwks_keys(read_secret(auth.jwks, "auth.jwks", environ), "auth.jwks")
    served = frozenset[str]().union(*(key.algorithms for key in keys))
    for algorithm in auth.algorithms:
        if algorithm not in served and algorithm not in symmetric:
            raise SecretError("auth.algorithms", f"no key serves {algorithm}", "take it out, or add a key of its kind")
    return keys


def _decoded(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise InvalidToken("the token is malformed") from None


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidToken("the token is malformed")
    return value


def _no_constant(_: str) -> NoReturn:
    raise ValueError


def _user(value: Any) -> str | None:
    if value is None:
        return None
    length = utf8_length(value) if isinstance(value, str) else None
    if length is None or not 0 < length <= MAX_USER_BYTES or _CONTROL.search(value):
        raise InvalidToken(f"the token's user is no text of 1 to {MAX_USER_BYTES} bytes without control characters")
    return str(value)


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidToken(f"the token's {name} is no finite number")
    return number
