"""The values that configuration is made of, each with the rule it must keep: ports, sizes, seconds, patterns, secrets.

A rule stands in the type (`Annotated[int, Range(1)]`), so that the reader can report all broken ones at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs

from broker.core.errors import BadName, BadPattern
from broker.core.event import check_name
from broker.core.patterns import parse_pattern

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+")
_LABEL = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_URL_PATH = re.compile(r"/[^\s?#]*")


class RuleError(ValueError):
    """A value that breaks its rule: what is wrong, and what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Range:
    """A number from `least` to `most`, both included; with `above`, greater than `least`."""

    least: float
    most: float = math.inf
    above: bool = False

    def __call__(self, value: float) -> None:
        """Raise RuleError if `value` lies outside."""
        if value < self.least or value > self.most or (self.above and value == self.least):
            raise RuleError(f"must be {self._words()}, not {value}")

    def _words(self) -> str:
        if self.most != math.inf:
            return f"from {self.least:g} to {self.most:g}"
        return f"greater than {self.least:g}" if self.above else f"{self.least:g} or more"


@dataclass(frozen=True)
class Rule:
    """Any other rule: a function that raises RuleError."""

    check: Callable[[Any], None]

    def __call__(self, value: Any) -> None:
        """Raise RuleError if `value` breaks the rule."""
        self.check(value)


def _not_empty(value: str) -> None:
    if not value.strip():
        raise RuleError("must not be empty")


def _label(value: str) -> None:
    if _LABEL.fullmatch(value) is None:
        raise RuleError("must be made of letters, digits, _ and -", 'for example "main"')


def _amqp_argument(value: Any) -> None:
    if not isinstance(value, str | int | float | bool):
        raise RuleError("must be a text, a number, true or false", 'for example { "x-queue-type" = "quorum" }')


def _url_path(value: str) -> None:
    if _URL_PATH.fullmatch(value) is None:
        raise RuleError('must begin with "/" and have no white space, "?" or "#"', 'for example "/ws"')


def _origin(value: str) -> None:
    if value not in ("*", "null") and _ORIGIN.fullmatch(value) is None:
        raise RuleError(
            "is no origin", 'write scheme and host without a path, such as "https://app.example.org", or "*"'
        )


def _subprotocol(value: str) -> None:
    if _TOKEN.fullmatch(value) is None:
        raise RuleError("is no name of a subprotocol", 'letters, digits, ".", "-" and "_", such as "v1.events"')


def _event_pattern(value: str) -> None:
    try:
        parse_pattern(value)
    except BadPattern as error:
        raise RuleError(str(error), 'for example "games.**"') from None


def _user_event(value: str) -> None:
    try:
        check_name(".".join("x" if segment == "<userId>" else segment for segment in value.split(".")))
    except BadName as error:
        raise RuleError(f"is no event name: {error}", 'for example "users.<userId>.online"') from None
    if value.split(".").count("<userId>") != 1:
        raise RuleError("must have <userId> as one of its segments", 'for example "users.<userId>.online"')


Port = Annotated[int, Range(0, 65_535)]
Count = Annotated[int, Range(1)]
Bytes = Annotated[int, Range(1)]
BytesOrNone = Annotated[int, Range(0)]
QueueBytes = Annotated[int, Range(1024)]
WholeSeconds = Annotated[int, Range(1)]
Seconds = Annotated[float, Range(0)]
PositiveSeconds = Annotated[float, Range(0, above=True)]
Prefetch = Annotated[int, Range(1, 65_535)]

Text = Annotated[str, Rule(_not_empty)]
Label = Annotated[str, Rule(_label)]
UrlPath = Annotated[str, Rule(_url_path)]
Origin = Annotated[str, Rule(_origin)]
Subprotocol = Annotated[str, Rule(_subprotocol)]
AmqpArgument = Annotated[Any, Rule(_amqp_argument)]
EventPattern = Annotated[str, Rule(_event_pattern)]
UserEvent = Annotated[str, Rule(_user_event)]

CloudEventsName = Literal["type", "subject"]
Algorithm = Literal[
    "HS256", "HS384", "HS512",
    "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512",
    "EdDSA",
]  # fmt: skip


@dataclass(frozen=True)
class LiteralAllowed:
    """Marks a secret that may also stand in the file itself, such as a URL that need not hold a password."""


@dataclass(frozen=True)
class OneAllowed:
    """Marks a list that may also be written as its only item, without brackets."""


@attrs.frozen(kw_only=True)
class SecretSource:
    """Where a secret or a key is kept. It is not the secret: it may be printed.

    file: a file that holds it.
    generate: whether to make that file, with a fresh random secret, when there is none.
    env: the environment variable that holds it.
    literal: the value itself, only where the configuration allows one; never in a `repr`.
    """

    file: Path | None = None
    generate: bool = False
    env: Text | None = None
    literal: str | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        if self.file is not None:
            return f"the file {self.file}"
        return f"the environment variable {self.env}" if self.env is not None else "a literal value"


SecretOrLiteral = Annotated[SecretSource, LiteralAllowed()]
Secrets = Annotated[tuple[SecretSource, ...], OneAllowed()]
