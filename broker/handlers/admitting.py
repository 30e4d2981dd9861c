"""Authentication by the application: what its `authenticate` returns, as the front end understands it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from broker.core.errors import Close
from broker.core.http import Request
from broker.core.ports import Identity
from broker.handlers.errors import Refused
from broker.handlers.signature import Signature
from broker.runtime.party import Refusal
from broker.runtime.services import Admit, Admitted

logger = logging.getLogger(__name__)

TIMEOUT: Final = 10.0  # seconds that `authenticate` may take


@dataclass(frozen=True, slots=True)
class Accepted:
    """Who asks gets in: as this user or, with None, as nobody in particular.

    user: is that user everywhere, for sends, presence and the policy, as if a token had named it.
    data: kept as `connection.data`. claims: as if they had stood in a token; the policy can ask for them.
    expires_at: Unix time in seconds, as a token's `exp`; the connection is closed then with 4003. None: never.
    """

    user: str | None = None
    data: Any = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    expires_at: float | None = None


def admit_by(signature: Signature) -> Admit:
    """What the front end asks, by the application's `authenticate`."""

    async def admit(request: Request) -> Admitted | Refusal:
        try:
            with trio.fail_after(TIMEOUT):
                return _understood(await signature.call({"request": request}))
        except Refused as refused:
            return Refusal(refused.code, refused.reason)
        except Exception:
            logger.exception("authenticate.failed", extra={"handler": signature.name})
            return Refusal(Close.INTERNAL_ERROR, "authenticate failed")

    return admit


def _understood(answer: Any) -> Admitted | Refusal:
    match answer:
        case Refused():
            return Refusal(answer.code, answer.reason)
        case False:
            return Refusal(Close.INVALID_TOKEN, "not accepted")
        case None | True:
            return Admitted(Identity())
        case str() if answer:
            return Admitted(Identity(answer))
        case Accepted():
            return _accepted(answer)
    raise TypeError(f"authenticate returns a user, None, True, False, Accepted or Refused, not {answer!r}")


def _accepted(answer: Accepted) -> Admitted:
    user, claims, expires_at = answer.user, answer.claims, answer.expires_at
    if not (user is None or (isinstance(user, str) and user)):
        raise TypeError(f"the user of Accepted is a text that is not empty, or None, not {user!r}")
    if not isinstance(claims, Mapping):
        raise TypeError(f"the claims of Accepted are a mapping, not {claims!r}")
    if expires_at is not None:
        if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
            raise TypeError(f"Accepted expires at a Unix time in seconds, or None, not {expires_at!r}")
        if not math.isfinite(expires_at):
            raise ValueError(f"Accepted expires at some time, or None for never, not {expires_at!r}")
    return Admitted(Identity(user, claims, expires_at), answer.data)
