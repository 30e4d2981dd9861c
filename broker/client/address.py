"""Where the broker is: one URL becomes the addresses of its WebSocket and of its webhook."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from broker.client.errors import BadUrl

_TLS = {"ws": False, "http": False, "wss": True, "https": True}
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f]")
_LOOKS_LIKE = "it looks like https://events.example"


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's address. `host` is ready for the network, `target` is what the handshake asks for."""

    host: str
    port: int
    tls: bool
    target: str = "/ws"

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as a URL and the header `Host` have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(tls=self.tls) else f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read a URL of scheme ws, wss, http or https.

    Raises BadUrl.
    """
    try:
        split = urlsplit(url)
        host, port = (split.hostname or "").encode("idna").decode(), split.port
        target = f"{split.path}?{split.query}" if split.query else split.path
        target.encode("ascii")
    except ValueError:
        raise BadUrl(f"this is no URL; {_LOOKS_LIKE}") from None
    if split.scheme not in _TLS or not host or port == 0 or _NOT_IN_URLS.search(url):
        raise BadUrl(f"this is no URL of a broker; {_LOOKS_LIKE}")
    if split.username is not None:
        raise BadUrl("a broker's URL has no user and password: give the token as `token`")
    tls = _TLS[split.scheme]
    if split.path in ("", "/"):
        target = f"/ws{target[1:] if split.path else target}"
    return Address(host, port or _default_port(tls=tls), tls, target)


def _default_port(*, tls: bool) -> int:
    return 443 if tls else 80
