"""Who has signed a request: Standard Webhooks, and GitHub's `X-Hub-Signature-256`. The only module that knows the
`standardwebhooks` library.

A signature is over the body's bytes, so that they are read before anybody knows whose they are, and nothing is made of
them until the signature holds. No secret is ever part of a message.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from standardwebhooks import Webhook, WebhookVerificationError

from broker.core.errors import InvalidSignature, OperatorError
from broker.core.http import Request
from broker.core.permissions import Permission

Kind = Literal["standard-webhooks", "github"]
Key = bytes
Headers = Mapping[str, str]
Complaint = Callable[[Headers, bytes], str | None]  # what is wrong with a request, by one key; None: it is good

MAX_SIGNATURES = 16  # in one request: old and new keys of a sender that changes them

_SIGNATURE_HEADERS: Mapping[Kind, str] = {"standard-webhooks": "webhook-signature", "github": "x-hub-signature-256"}
# What a header must look like before anything is made of it.
_FORMS: Mapping[Kind, Mapping[str, re.Pattern[str]]] = {
    "standard-webhooks": {
        "webhook-id": re.compile(r"[!-~]{1,255}"),
        "webhook-timestamp": re.compile(r"[1-9][0-9]{0,11}"),
        "webhook-signature": re.compile(rf"\S+(?: \S+){{0,{MAX_SIGNATURES - 1}}}"),
    },
    "github": {"x-hub-signature-256": re.compile(r"sha256=[0-9a-fA-F]{64}")},
}
_MISMATCH = "no secret that is known here made it of this body"


@dataclass(frozen=True, slots=True)
class Source:
    """A publisher that signs: how, with which keys (any of them will do), and what it may publish."""

    name: str
    kind: Kind
    keys: Sequence[Key] = field(repr=False)
    permission: Permission

    @property
    def label(self) -> str:
        """What logs and counters call it."""
        return f"webhook.{self.name}"


class Signatures:
    """Tells which of its sources has signed a request.

    Raises OperatorError where two sources of one kind have a secret in common: whose a request is would be a guess.
    """

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self._sources: dict[Kind, list[tuple[Source, Complaint]]] = {}
        owners: dict[tuple[Kind, bytes], str] = {}
        for source in sources:
            for key in source.keys:
                owner = owners.setdefault((source.kind, _identity(key)), source.name)
                if owner != source.name:
                    raise OperatorError(_shared(owner, source.name))
                self._sources.setdefault(source.kind, []).append((source, _COMPLAINTS[source.kind](key)))

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of signatures that one of the sources makes."""
        return frozenset(self._sources)

    def source_of(self, kind: Kind, headers: Headers, body: bytes) -> Source:
        """The source that has signed this body; `headers` are those of `headers_of`.

        Raises InvalidSignature.
        """
        complaint: str | None = _MISMATCH
        for source, complaint_of in self._sources.get(kind, ()):
            complaint = complaint_of(headers, body)
            if complaint is None:
                return source
        raise InvalidSignature(f"the signature does not hold: {complaint}")


def kinds_of(request: Request) -> list[Kind]:
    """The kinds of signatures that a request has; none, in general."""
    return [kind for kind, header in _SIGNATURE_HEADERS.items() if request.header_values(header)]


def headers_of(request: Request, kind: Kind) -> Headers:
    """The headers that belong to a signature of this kind, each of them once and well-formed.

    Raises InvalidSignature.
    """
    return {name: _only(request, name, form) for name, form in _FORMS[kind].items()}


def read_keys(kind: Kind, secret: bytes, config_key: str) -> list[Key]:
    """The keys in a secret's text: GitHub's one a line, those of Standard Webhooks in base64 with white space between.

    config_key: what the configuration calls it, for messages.

    Raises OperatorError for what is no base64, or where there are none.
    """
    if kind == "standard-webhooks":
        keys = [_whsec(word, config_key) for word in secret.split()]
    else:
        keys = [line for line in secret.splitlines() if line.strip()]
    if not keys:
        raise OperatorError(f"{config_key}: there is no secret in it (put one there, or several, one a line)")
    return keys


def _only(request: Request, name: str, form: re.Pattern[str]) -> str:
    values = request.header_values(name)
    if len(values) != 1:
        raise InvalidSignature(f"a signed request has the header {name} once, this one has it {len(values)} times")
    if form.fullmatch(values[0]) is None:
        raise InvalidSignature(f"the signature can't be checked: the header {name} is malformed")
    return values[0]


def _whsec(secret: bytes, config_key: str) -> Key:
    """A key as the Standard Webhooks specification writes it ("Signature scheme"); its padding may be missing."""
    encoded = secret.removeprefix(b"whsec_")
    try:
        key = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise OperatorError(f'{config_key}: a secret in it is no base64 (write it as the sender shows it: "whsec_…")')
    return key


def _identity(key: Key) -> bytes:
    """The same for two keys exactly if they make the same signatures; HMAC knows some keys under two names."""
    return hmac.digest(key, b"", "sha256")


def _shared(one: str, other: str) -> str:
    sources = f"connectors.webhook.sources.{one} and connectors.webhook.sources.{other}"
    return f"{sources} have a secret in common (give each its own: it tells whose a request is)"


def _standard_webhooks(key: Key) -> Complaint:
    """Standard Webhooks 1.0: HMAC-SHA256 over id, timestamp and body, not older or newer than five minutes."""
    webhook = Webhook(key)

    def complaint(headers: Headers, body: bytes) -> str | None:
        try:
            webhook.verify(body, dict(headers), json_parse=False)
        except WebhookVerificationError as error:
            return str(error)
        except Exception:  # it takes commas, base64 and UTF-8 for granted; whatever comes of it, the answer is no
            return "it is malformed, or the body is not UTF-8"
        return None

    return complaint


def _github(key: Key) -> Complaint:
    """GitHub's: HMAC-SHA256 over the body."""

    def complaint(headers: Headers, body: bytes) -> str | None:
        signature = bytes.fromhex(headers["x-hub-signature-256"].removeprefix("sha256="))
        return None if hmac.compare_digest(hmac.digest(key, body, "sha256"), signature) else _MISMATCH

    return complaint


_COMPLAINTS: Mapping[Kind, Callable[[Key], Complaint]] = {"standard-webhooks": _standard_webhooks, "github": _github}
