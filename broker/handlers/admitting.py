"""Authentication by the application: what its `authenticate` returns, as the front end understands it."""

from __future__ import annotations

import logging
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

    data: kept as `connection.data`. claims: as if they had stood in a token; the policy can ask for them.
    """

    user: str | None = None
    data: Any = None
    claims: Mapping[str, Any] = field(default_factory=dict)


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
        case Accepted() if (answer.user is None or (isinstance(answer.user, str) and answer.user)) and isinstance(
            answer.claims, Mapping
        ):
            return Admitted(Identity(answer.user, answer.claims), answer.data)
    raise TypeError(f"authenticate returns a user, None, True, False, Accepted or Refused, not {answer!r}")
