"""The way to a node: real sockets of this machine, TLS, and why there is none."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from connectors.amqp.errors import ConnectionFailed
from connectors.amqp.stream import open_stream
from connectors.amqp.url import Address, Tls
from tests.system.certificates import Certificates

ADDRESS = Address("127.0.0.1", 0, "ada", "hunter2")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("tls") / "certificates")
    made.make("client")
    return made


@asynccontextmanager
async def node(certificates: Certificates | None = None, *, mutual: bool = False) -> AsyncIterator[Address]:
    """Echoes what is said, behind TLS where there are certificates. mutual: clients must have one as well."""
    listeners: list[trio.SocketListener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    context = None
    if certificates is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
        context.load_cert_chain(certificates.server, certificates.server_key)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE

    async def echo(stream: trio.abc.Stream) -> None:
        spoken = trio.SSLStream(stream, context, server_side=True) if context is not None else stream
        try:
            while data := await spoken.receive_some():
                await spoken.send_all(data)
        except trio.BrokenResourceError:
            pass  # the client did not like what it saw

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        yield replace(ADDRESS, port=listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def echoed(address: Address) -> bytes | bytearray:
    async with await open_stream(address) as stream:
        await stream.send_all(b"hello")
        return await stream.receive_some()


async def refusal(address: Address) -> str:
    with pytest.raises(ConnectionFailed) as caught:
        await open_stream(address)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


async def test_without_tls_it_is_tcp() -> None:
    async with node() as address:
        assert await echoed(address) == b"hello"


async def test_nobody_there_is_told() -> None:
    async with node() as address:
        pass
    assert f"amqp://127.0.0.1:{address.port} " in await refusal(address)
    assert ": Connection refused; is RabbitMQ running there?" in await refusal(address)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "b\u00fccher.invalid", "\u2603.invalid", "a" * 300])
async def test_a_host_that_is_none_is_told(host: str) -> None:
    assert "is RabbitMQ running there?" in await refusal(replace(ADDRESS, host=host, port=5672))


async def test_tls_is_spoken_with_who_is_vouched_for(certificates: Certificates) -> None:
    async with node(certificates) as address:
        assert await echoed(replace(address, tls=Tls(ca=certificates.ca))) == b"hello"
        assert await echoed(replace(address, host="localhost", tls=Tls(ca=certificates.ca))) == b"hello"


async def test_our_own_certificate_is_shown(certificates: Certificates) -> None:
    tls = Tls(certificates.ca, certificates.client, certificates.client_key)
    async with node(certificates, mutual=True) as address:
        assert await echoed(replace(address, tls=tls)) == b"hello"


@pytest.mark.parametrize("name", [None, "another.example"])
async def test_a_server_that_nobody_vouches_for_is_told(certificates: Certificates, name: str | None) -> None:
    tls = Tls(ca=certificates.ca if name else None, server_name=name)
    async with node(certificates) as address:
        message = await refusal(replace(address, tls=tls))
    assert "the server's certificate is not trusted: " in message
    assert "by cacertfile=, or the host that it is made out to by server_name_indication=" in message


async def test_the_name_to_vouch_for_may_be_another_than_the_host_s(certificates: Certificates) -> None:
    async with node(certificates) as address:
        assert await echoed(replace(address, tls=Tls(ca=certificates.ca, server_name="localhost"))) == b"hello"


async def test_who_does_not_care_may_say_so(certificates: Certificates) -> None:
    async with node(certificates) as address:
        assert await echoed(replace(address, tls=Tls(verify=False, server_name="another.example"))) == b"hello"


async def test_tls_to_a_port_that_has_none_is_told(certificates: Certificates) -> None:
    async with node() as address:
        assert "TLS failed: " in (message := await refusal(replace(address, tls=Tls(ca=certificates.ca))))
    assert "is this RabbitMQ's TLS port?" in message


async def test_a_peer_that_hangs_up_on_tls_is_told(certificates: Certificates) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = replace(ADDRESS, port=listeners[0].socket.getsockname()[1], tls=Tls(ca=certificates.ca))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, hang_up, listeners)
        assert "TLS failed: " in await refusal(address)
        nursery.cancel_scope.cancel()


async def test_files_that_can_not_be_used_are_told(certificates: Certificates, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    for tls, named in (
        (Tls(ca=missing), missing),
        (Tls(ca=empty), empty),
        (Tls(certificate=missing, key=certificates.client_key), missing),
        (Tls(certificate=certificates.client, key=certificates.server_key), certificates.client),
    ):
        assert f"the TLS file {named} (or its key) can't be used: " in await refusal(replace(ADDRESS, tls=tls))


async def test_a_way_that_is_given_up_leaves_nothing_open(certificates: Certificates) -> None:
    """Of a stream that is left open there would be a warning, and warnings are errors."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = replace(ADDRESS, port=listeners[0].socket.getsockname()[1], tls=Tls(ca=certificates.ca))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_stream, address)
        peer = await listeners[0].accept()
        await peer.receive_some()
        nursery.cancel_scope.cancel()
    assert await peer.receive_some() == b""
    await peer.aclose()
    await listeners[0].aclose()
