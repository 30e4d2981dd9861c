"""Listening sockets, plain or TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import trio

from broker.core.errors import OperatorError

Listeners = list[trio.abc.Listener[trio.abc.Stream]]


async def open_listeners(host: str, port: int, tls: tuple[Path, Path] | None = None) -> tuple[Listeners, int]:
    """Listen on `host` (a name may have several addresses) and `port` (0: any free one); also returns the port.

    tls: the files of the certificate chain and of the private key, both PEM.

    Raises OperatorError where the address can't be had or the files can't be used.
    """
    context = _tls_context(*tls) if tls is not None else None
    try:
        listeners = await _open(host, port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OperatorError(
            f"can't listen on {host}:{port}: {reason}. Is another program there? "
            "Change server.host or server.port, or set BROKER_SERVER__PORT"
        ) from None
    bound: int = listeners[0].socket.getsockname()[1]
    if context is None:
        return [*listeners], bound
    return [trio.SSLListener(listener, context, https_compatible=True) for listener in listeners], bound


async def _open(host: str, port: int) -> list[trio.SocketListener]:
    listeners = await trio.open_tcp_listeners(port, host=host)
    if port != 0 or len(listeners) == 1:
        return listeners
    # Each address was given a free port of its own; what is free on the first is to serve them all.
    chosen: int = listeners[0].socket.getsockname()[1]
    for listener in listeners:
        await listener.aclose()
    return await trio.open_tcp_listeners(chosen, host=host)


def _tls_context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, private_key)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or error
        raise OperatorError(f"server.tls: can't use {certificate} with {private_key}: {reason}") from None
    return context
