"""Events larger than the queue of whoever gets them: they come one at a time, and only who does not read is put out."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.system.certificates import Certificates
from tests.system.client import Client, connected
from tests.system.event_source import EventSource, listening
from tests.system.harness import PATIENCE, Broker, Brokers, unique
from tests.system.raw import raw_websocket

pytestmark = pytest.mark.system

SMALL_QUEUE = "[websocket]\nqueue_size = 100000\nqueue_bytes = 1024\n"
LARGE = "x" * 100_000
VERY_LARGE = "x" * 900_000

Publish = Callable[[str, object], str]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("tls") / "certificates")
    made.make("client")
    return made


@pytest.fixture(scope="module")
def trusted(certificates: Certificates) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates.ca)


@pytest.fixture(scope="module")
def tls_broker(shared_brokers: Brokers, certificates: Certificates) -> Broker:
    tls = f'[server.tls]\ncertificate = "{certificates.server}"\nprivate_key = "{certificates.server_key}"\n'
    return shared_brokers.start(tls + SMALL_QUEUE)


@pytest.fixture
def publish(tls_broker: Broker, trusted: ssl.SSLContext) -> Publish:
    """Publish one event over TLS; returns its id."""

    def publish(name: str, data: object) -> str:
        connection = http.client.HTTPSConnection("127.0.0.1", tls_broker.port, timeout=PATIENCE, context=trusted)
        try:
            bearer = tls_broker.token(publish=["**"])
            headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
            connection.request("POST", "/events", json.dumps({"event": name, "data": data}), headers)
            answer = connection.getresponse()
            assert answer.status == 202
            return str(json.loads(answer.read())["ids"][0])
        finally:
            connection.close()

    return publish


async def next_data(client: Client | EventSource) -> Any:
    """The payload of the next event, which has to be one."""
    return (await client.frame())["data"] if isinstance(client, Client) else (await client.message()).json["data"]


async def test_a_websocket_over_tls_gets_it_and_stays(
    tls_broker: Broker, trusted: ssl.SSLContext, publish: Publish
) -> None:
    name = unique("large.")
    async with connected(tls_broker, "ada", tls=trusted) as ada:
        await ada.subscribe(name)
        for data in (LARGE, 1, LARGE, 2):
            publish(name, data)
            assert await next_data(ada) == data


async def test_a_stream_over_tls_gets_it_and_stays(
    tls_broker: Broker, trusted: ssl.SSLContext, publish: Publish
) -> None:
    name = unique("large.")
    async with listening(tls_broker, "ada", name, tls=trusted) as ada:
        await ada.place()
        for data in (LARGE, 1, LARGE, 2):
            publish(name, data)
            assert await next_data(ada) == data


async def test_a_websocket_that_resumes_over_tls_gets_it_and_stays(
    tls_broker: Broker, trusted: ssl.SSLContext, publish: Publish
) -> None:
    name = unique("large.")
    first, *_ = [publish(name, data) for data in (0, 1, LARGE, LARGE, 2)]
    async with connected(tls_broker, "ada", tls=trusted) as ada:
        await ada.subscribe(name)
        await ada.command("resume", first, id="back")
        assert [await next_data(ada) for _ in range(4)] == [1, LARGE, LARGE, 2]
        assert (await ada.frame())["reply"] == "back"
        publish(name, 3)
        assert await next_data(ada) == 3


async def test_a_stream_that_resumes_over_tls_gets_it_and_stays(
    tls_broker: Broker, trusted: ssl.SSLContext, publish: Publish
) -> None:
    name = unique("large.")
    first, *_ = [publish(name, data) for data in (0, 1, LARGE, LARGE, 2)]
    async with listening(tls_broker, "ada", name, tls=trusted, after=first) as ada:
        assert [await next_data(ada) for _ in range(4)] == [1, LARGE, LARGE, 2]
        await ada.place()
        publish(name, 3)
        assert await next_data(ada) == 3


async def test_whoever_does_not_read_is_put_out(brokers: Brokers) -> None:
    broker = brokers.start(SMALL_QUEUE)
    async with raw_websocket(broker, "mallory", "large", receive_buffer=4096) as raw:
        for _ in range(30):  # more than both kernels' buffers hold
            broker.publish("large", VERY_LARGE)
        assert (await raw.until_close())[0] == 4008


async def test_whoever_does_not_read_over_tls_is_put_out(
    tls_broker: Broker, trusted: ssl.SSLContext, publish: Publish
) -> None:
    name = unique("large.")
    async with connected(tls_broker, "ada", tls=trusted) as ada:
        await ada.subscribe(name)
        for _ in range(30):
            publish(name, VERY_LARGE)
        assert await ada.closed() == 4008


async def test_a_crowd_gets_it_byte_for_byte_while_some_of_them_read_late(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nqueue_bytes = 100000000\n")
    texts = [
        f"{number}{LARGE}" for number in range(60)
    ]  # far more than the memory that they share, and than their sockets
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(raw_websocket(broker, f"user-{each}", "large")) for each in range(20)]
        for text in texts:
            broker.publish("large", text)
        for raw in crowd:
            assert [json.loads(await raw.text())["data"] for _ in texts] == texts
