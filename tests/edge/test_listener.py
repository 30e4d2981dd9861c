"""Listening sockets: free ports, taken ones, and TLS."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.core.errors import OperatorError
from broker.edge.listener import open_listeners

Tls = tuple[Path, Path]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "chain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "chain.pem", folder / "key.pem"


@asynccontextmanager
async def echoing(host: str, tls: Tls | None = None) -> AsyncIterator[tuple[int, list[Any]]]:
    """Echoes what is said on a free port."""
    listeners, port = await open_listeners(host, 0, tls)

    async def echo(stream: trio.abc.Stream) -> None:
        await stream.send_all(await stream.receive_some())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        sockets = [getattr(listener, "transport_listener", listener) for listener in listeners]
        yield port, sockets
        nursery.cancel_scope.cancel()


async def test_port_0_is_a_free_one_and_is_told() -> None:
    async with echoing("127.0.0.1") as (port, _), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"


class TwoAddresses(trio.abc.HostnameResolver):
    """Every name has two addresses, both of this host."""

    async def getaddrinfo(self, host: Any, port: Any, *_: int, **__: int) -> Any:
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_a_name_of_several_addresses_has_one_port_on_all_of_them() -> None:
    trio.socket.set_custom_hostname_resolver(TwoAddresses())
    async with echoing("broker.example") as (port, listeners):
        assert [listener.socket.getsockname() for listener in listeners] == [("127.0.0.1", port), ("127.0.0.2", port)]


async def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    async with echoing("127.0.0.1") as (port, _):
        with pytest.raises(OperatorError, match=rf"127\.0\.0\.1:{port}: .*in use.*server\.port"):
            await open_listeners("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("no.such.host.invalid", 0), ("192.0.2.1", 0)])
async def test_an_address_that_is_none_of_ours_is_told(host: str, port: int) -> None:
    with pytest.raises(OperatorError, match="can't listen on"):
        await open_listeners(host, port)


async def test_tls_is_spoken_with_the_certificate_given(tls: Tls) -> None:
    context = ssl.create_default_context(cafile=tls[0])
    async with echoing("127.0.0.1", tls) as (port, _):
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context, https_compatible=True)
        async with stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"


async def test_files_that_are_no_certificate_and_key_are_told(tls: Tls, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    for files in [(tmp_path / "missing.pem", tls[1]), (tls[0], tmp_path / "empty.pem"), (tls[1], tls[0])]:
        with pytest.raises(OperatorError, match=r"server\.tls: can't use"):
            await open_listeners("127.0.0.1", 0, files)
