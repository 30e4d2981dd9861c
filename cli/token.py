"""`broker token`: a token for a user or a publisher, signed with the configured secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.config import load_config
from broker.core.errors import BadPattern
from broker.core.patterns import parse_pattern
from broker.edge.tokens import issue_token
from cli.durations import parse_duration
from cli.errors import reporting, tell

_RESERVED = {
    "sub": "--user",
    "publish": "--publish",
    "exp": "--ttl",
    "iat": "the clock",
    "nbf": "the clock",
    "iss": "auth.issuer in the configuration",
    "aud": "auth.audience in the configuration",
}


@reporting()
def token(
    user: Annotated[str | None, typer.Option(help="The user to whom it belongs.", metavar="USER")] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(help="A further claim, k=v; v is JSON if it parses, else text.", metavar="K=V"),
    ] = None,
    publish: Annotated[
        list[str] | None, typer.Option(help="A pattern of events that it may publish.", metavar="PATTERN")
    ] = None,
    ttl: Annotated[str, typer.Option(help="How long it lasts: 90s, 15m, 1h, 7d.", metavar="DURATION")] = "1h",
    config: Annotated[Path, typer.Option(help="The configuration file.", metavar="FILE")] = Path("config.toml"),
) -> None:
    """Print a token, signed with the secret of the configuration. Nothing else goes to standard output.

    Examples:

      broker token --user ada

      broker token --user ada --claim roles='["admin"]' --ttl 15m

      broker token --publish 'games.**' --ttl 7d
    """
    if user is None and not publish:
        raise typer.BadParameter("say for whom (--user), or what it may publish (--publish)")
    claims = _claims(claim or [])
    claims |= _publish_claim(publish or [])
    seconds = _seconds(ttl)
    auth = load_config(config, os.environ).auth
    if auth.user_claim in claims:
        raise typer.BadParameter(f"--claim {auth.user_claim}: this claim comes from --user")
    if user is not None:
        claims[auth.user_claim] = user
    typer.echo(issue_token(auth, claims, seconds, os.environ, tell))


def _claims(pairs: list[str]) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--claim {pair}: write it as name=value")
        if name in _RESERVED:
            raise typer.BadParameter(f"--claim {name}: this claim comes from {_RESERVED[name]}")
        if name in claims:
            raise typer.BadParameter(f"--claim {name}: given twice; a list is written as {name}='[…]'")
        claims[name] = _value(value)
    return claims


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _publish_claim(patterns: list[str]) -> dict[str, list[str]]:
    try:
        parsed = [parse_pattern(pattern) for pattern in patterns]
    except BadPattern as error:
        raise typer.BadParameter(f"--publish: {error}") from None
    return {"publish": parsed} if parsed else {}


def _seconds(ttl: str) -> int:
    try:
        return parse_duration(ttl)
    except ValueError as error:
        raise typer.BadParameter(f"--ttl: {error}") from None
