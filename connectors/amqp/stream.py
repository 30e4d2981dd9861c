"""The way to a RabbitMQ node: TCP, and TLS on it where the address says so."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from connectors.amqp.errors import ConnectionFailed
from connectors.amqp.url import Address, Tls


async def open_stream(address: Address) -> trio.abc.Stream:
    """Connect.

    Raises ConnectionFailed, with what to do about it.
    """
    with _failures_of(address):
        context = _context(address.tls) if address.tls is not None else None
        stream: trio.abc.Stream = await trio.open_tcp_stream(address.host, address.port)
        if context is None or address.tls is None:
            return stream
        secured = trio.SSLStream(stream, context, server_hostname=address.tls.server_name or address.host)
        try:
            await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured


@contextmanager
def _failures_of(address: Address) -> Iterator[None]:
    try:
        yield
    except trio.BrokenResourceError as error:
        raise _tls_failure(address, error.__cause__ or error) from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a host whose name can't be one
        raise ConnectionFailed(f"{address}: {_reason(error)}; is RabbitMQ running there?") from error


def _tls_failure(address: Address, cause: BaseException) -> ConnectionFailed:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConnectionFailed(
            f"{address}: the server's certificate is not trusted: {cause.verify_message}; name the authority that "
            "signed it by cacertfile=, or the host that it is made out to by server_name_indication="
        )
    reason = getattr(cause, "reason", None) or cause
    return ConnectionFailed(f"{address}: TLS failed: {reason}; is this RabbitMQ's TLS port?")


def _context(tls: Tls) -> ssl.SSLContext:
    """What to trust and to show.

    Raises ConnectionFailed for a file that can't be used.
    """
    name = tls.ca
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        name = tls.certificate
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ValueError) as error:
        raise ConnectionFailed(f"the TLS file {name} (or its key) can't be used: {_reason(error)}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: Exception) -> str:
    cause = error.__cause__  # Trio gathers what went wrong with each of a host's addresses
    if isinstance(cause, ExceptionGroup):
        return "; ".join(dict.fromkeys(map(_reason, cause.exceptions)))
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
