"""Which pages' scripts may connect (RFC 6454, RFC 6455 section 10.2).

A browser says in `Origin` which page a request comes from; a program sends none. Without this check any page that a
user visits could use the user's own network position against the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """Whether a request with this `Origin` and `Host` header may be served.

    allowed: origins such as `https://app.example`, or `*` for any; none at all means the same host only.
    """
    if origin is None or "*" in allowed:
        return True
    if allowed:
        return origin.lower().rstrip("/") in {entry.lower().rstrip("/") for entry in allowed}
    return host is not None and _same_host(origin, host)


def _same_host(origin: str, host: str) -> bool:
    try:
        ours, theirs = urlsplit(f"//{host}"), urlsplit(origin)
        if not theirs.hostname or theirs.hostname != ours.hostname:
            return False
        ports = theirs.port, ours.port
    except ValueError:
        return False
    # A proxy that ends TLS hides our scheme from us: a Host without a port is on the default one, whichever it is.
    default = _DEFAULT_PORTS.get(theirs.scheme)
    return (ports[0] or default) == (ports[1] or default)
