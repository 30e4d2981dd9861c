"""AMQP URLs as RabbitMQ documents them: where, as whom, into which vhost, with which TLS files.

Source: RabbitMQ's URI specification and URI query parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from broker.core.errors import OperatorError

_PORTS = {"amqp": 5672, "amqps": 5671}
_LOOKS_LIKE = "it looks like amqp://user:password@host:5672/vhost"
_ENCODE = "write / ? # @ in a user, password or vhost as %2F %3F %23 %40"
_FILES = ("cacertfile", "certfile", "keyfile")
_PARAMETERS = frozenset(
    (*_FILES, "verify", "server_name_indication", "auth_mechanism", "heartbeat", "connection_timeout")
)
MAX_HEARTBEAT = 3600.0  # seconds
MAX_TIMEOUT = 3_600_000.0  # milliseconds, which is what RabbitMQ counts a connection_timeout in
MAX_ADDRESSES = 32


class BadUrl(OperatorError):
    """A URL that names no RabbitMQ. The message never contains the password."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How to trust the server, and how to be known to it; the files are PEM.

    ca: whom to trust instead of the system's authorities. certificate, key: our own. server_name: whom the server's
    certificate must name, if not the URL's host. verify: whether to check it at all.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Address:
    """One RabbitMQ node, and as whom to speak to it.

    heartbeat: seconds after which either side must have said something; 0 for none.
    connection_timeout: seconds until a connection must stand, handshake included.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str = "/"
    tls: Tls | None = None
    mechanism: Literal["PLAIN", "EXTERNAL"] = "PLAIN"
    heartbeat: float = 20.0
    connection_timeout: float = 10.0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'amqps' if self.tls else 'amqp'}://{host}:{self.port} (user {self.user!r}, vhost {self.vhost!r})"


def parse_urls(text: str, folder: Path = Path()) -> Sequence[Address]:
    """The addresses in `text`, one or more with white space or commas between them, in order.

    folder: where relative file names begin.

    Raises BadUrl.
    """
    urls = text.replace(",", " ").split()
    if not urls:
        raise BadUrl(f"there is no AMQP URL; {_LOOKS_LIKE}")
    if len(urls) > MAX_ADDRESSES:
        raise BadUrl(f"these are {len(urls)} AMQP URLs; at most {MAX_ADDRESSES} are tried in turn")
    return [parse_url(url, folder) for url in urls]


def parse_url(text: str, folder: Path = Path()) -> Address:
    """Read one URL; see `parse_urls`.

    Raises BadUrl.
    """
    split, port = _split(text)
    parameters = _parameters(split.query)
    external = parameters.get("auth_mechanism", "plain").lower() == "external"
    return Address(
        host=_host(split),
        port=port,
        user=_unquoted("guest" if split.username is None else split.username),
        password=_unquoted("guest" if split.password is None else split.password),
        vhost=_vhost(split.path),
        tls=_tls(split.scheme, parameters, folder),
        mechanism="EXTERNAL" if external else "PLAIN",
        heartbeat=_number(parameters, "heartbeat", 20.0, "seconds", MAX_HEARTBEAT),
        connection_timeout=_number(parameters, "connection_timeout", 0.0, "milliseconds", MAX_TIMEOUT) / 1000 or 10.0,
    )


def _split(text: str) -> tuple[SplitResult, int]:
    try:
        split = urlsplit(text)
        port = split.port
    except ValueError:
        raise BadUrl(f"this is no AMQP URL; {_LOOKS_LIKE}") from None
    if split.scheme not in _PORTS:
        raise BadUrl(f"an AMQP URL begins with amqp:// or amqps://; {_LOOKS_LIKE}")
    if "@" in f"{split.path}{split.query}{split.fragment}":  # then what stands there may be part of a password
        raise BadUrl(f"the AMQP URL has an '@' behind its host; {_ENCODE}")
    if not split.hostname or port == 0 or split.fragment:
        raise BadUrl(f"the AMQP URL has no host, port 0, or a '#' that is not written as %23; {_LOOKS_LIKE}")
    return split, port or _PORTS[split.scheme]


def _host(split: SplitResult) -> str:
    host = _unquoted(split.hostname or "")
    try:
        host.encode("idna")
    except UnicodeError:
        host = ""
    if not host.isprintable() or not host or " " in host:
        raise BadUrl(f"the host in the AMQP URL can't be one; {_LOOKS_LIKE}")
    return host


def _unquoted(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise BadUrl("user, password, host or vhost of the AMQP URL is no UTF-8 behind its % signs") from None


def _vhost(path: str) -> str:
    """The first and only segment; without one it is RabbitMQ's own default, `/`."""
    name = path.removeprefix("/")
    if "/" in name:
        raise BadUrl(f"the AMQP URL has more than one '/' behind its host; {_ENCODE}")
    return _unquoted(name) or "/"


def _parameters(query: str) -> dict[str, str]:
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    for name in parameters:
        if name not in _PARAMETERS:
            known = ", ".join(sorted(_PARAMETERS))
            raise BadUrl(f"the AMQP URL has an unknown parameter {name!r}; there are {known}")
    _check_choice(parameters, "auth_mechanism", ("plain", "external"))
    _check_choice(parameters, "verify", ("verify_peer", "verify_none"))
    return parameters


def _check_choice(parameters: dict[str, str], name: str, choices: Sequence[str]) -> None:
    value = parameters.get(name, choices[0])
    if value.lower() not in choices:
        raise BadUrl(f"{name} in the AMQP URL is {' or '.join(choices)}, not {value!r}")


def _tls(scheme: str, parameters: dict[str, str], folder: Path) -> Tls | None:
    if scheme == "amqp":
        misplaced = [name for name in (*_FILES, "verify", "server_name_indication") if name in parameters]
        if misplaced:
            raise BadUrl(f"{misplaced[0]} in the AMQP URL needs TLS: write amqps:// and the TLS port, often 5671")
        return None
    if bool(parameters.get("certfile")) != bool(parameters.get("keyfile")):
        raise BadUrl("certfile and keyfile in the AMQP URL go together")

    def place(name: str) -> Path | None:
        return folder / parameters[name] if parameters.get(name) else None

    return Tls(
        ca=place("cacertfile"),
        certificate=place("certfile"),
        key=place("keyfile"),
        server_name=parameters.get("server_name_indication"),
        verify=parameters.get("verify", "verify_peer").lower() == "verify_peer",
    )


def _number(parameters: dict[str, str], name: str, default: float, unit: str, most: float) -> float:
    text = parameters.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise BadUrl(f"{name} in the AMQP URL is a number of {unit} from 0 to {most:.0f}, not {text!r}")
    return number
