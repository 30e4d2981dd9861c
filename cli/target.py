"""Which broker a command speaks to, and as whom: told by options or the environment, else by the configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

import typer

from broker.app import address_of
from broker.config import Config, load_config
from broker.edge.tokens import issue_token
from cli.errors import USED_WRONGLY, refuse, tell

_TOKEN_SECONDS = 3600
_NOT_IN_TOKENS = re.compile(r"[^\x21-\x7e]")
_NOT_IN_HOSTS = re.compile(r"[\x00-\x20\x7f]")

UrlOption = Annotated[
    str | None, typer.Option(envvar="BROKER_URL", help="The broker, if not the configured one.", metavar="URL")
]
TokenOption = Annotated[
    str | None, typer.Option(envvar="BROKER_TOKEN", help="The token, if not one of our own making.", metavar="TOKEN")
]
ConfigOption = Annotated[Path, typer.Option(help="Where address and key are read.", metavar="FILE")]
DEFAULT_CONFIG = Path("config.toml")


@dataclass(frozen=True, slots=True)
class Target:
    """A broker's address (scheme `http` or `https`) and the paths it uses, and a token or None."""

    url: SplitResult
    token: str | None = field(repr=False)
    events_path: str = "/events"
    websocket_path: str = "/ws"


def find_target(url: str | None, token: str | None, config: Path, claims: Mapping[str, Any]) -> Target:
    """Put together what options, environment and configuration say.

    claims: those of the token that is made with the configured secret where none is given; `sub` stands for the
        configured user claim.

    Raises OperatorError for a faulty configuration, typer.Exit where something is missing.
    """
    if token is not None and _NOT_IN_TOKENS.search(token):
        raise refuse("the token (--token or BROKER_TOKEN) has characters that no token has", USED_WRONGLY)
    if url is not None and (token is not None or not config.exists()):
        return Target(_checked(url), token)
    loaded = load_config(config, os.environ)
    split = _checked(url) if url is not None else _configured(loaded)
    token = token or _issued(loaded, claims)
    return Target(split, token, loaded.connectors.webhook.path, loaded.websocket.path)


def _issued(config: Config, claims: Mapping[str, Any]) -> str | None:
    if config.auth.mode == "none":
        return None
    named = {config.auth.user_claim if name == "sub" else name: value for name, value in claims.items()}
    return issue_token(config.auth, named, _TOKEN_SECONDS, os.environ, tell)


def _configured(config: Config) -> SplitResult:
    server = config.server
    if server.port == 0:
        raise refuse(
            "server.port is 0, so its address is not known here: give --url (the broker prints it)", USED_WRONGLY
        )
    return urlsplit(address_of(server, server.port).url)


def _checked(url: str) -> SplitResult:
    try:
        split = urlsplit(url)
        host, port = split.hostname or "", split.port
        host.encode("idna")
    except ValueError:
        raise refuse(f"{url!r} is no URL; it looks like http://127.0.0.1:8080", USED_WRONGLY) from None
    schemes = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
    if split.scheme not in schemes or not host or _NOT_IN_HOSTS.search(host) or port == 0:
        raise refuse(f"{url!r} is no URL of a broker; it looks like http://127.0.0.1:8080", USED_WRONGLY)
    return split._replace(scheme=schemes[split.scheme])
