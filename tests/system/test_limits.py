"""What one client may use, and what happens beyond: a full queue, silence, too many connections."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from tests.system.client import connected
from tests.system.floods import QUEUE, config, deaf_websocket
from tests.system.harness import Broker, Brokers, unique
from tests.system.raw import CLOSE, PING, PONG, TEXT, dial, frame, raw_websocket, upgrade

pytestmark = pytest.mark.system


async def test_a_full_queue_disconnects_with_4008(brokers: Brokers) -> None:
    broker = brokers.start(config("disconnect"))
    async with deaf_websocket(broker) as raw:
        broker.publish("flood.late", 1)
        code, texts = await raw.until_close()
        assert code == 4008
        assert not any(b"flood.late" in text for text in texts)
    assert broker.wait_logged("connection.closed")["code"] == 4008


async def test_more_different_events_than_the_queue_holds_disconnect_where_only_the_newest_waits(
    brokers: Brokers,
) -> None:
    broker = brokers.start(config("latest"))
    async with deaf_websocket(broker) as raw:
        for number in range(QUEUE + 1):
            broker.publish(f"flood.{number}", number)
        assert (await raw.until_close())[0] == 4008


async def test_a_queue_is_bounded_in_bytes_as_well(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nqueue_size = 100000\nqueue_bytes = 100000\n")
    async with deaf_websocket(broker) as raw:
        assert (await raw.until_close())[0] == 4008


@pytest.fixture(scope="module")
def impatient_broker(shared_brokers: Brokers) -> Broker:
    return shared_brokers.start("[websocket]\nheartbeat = 0.3\nheartbeat_timeout = 0.3\n")


@pytest.fixture(scope="module")
def bilingual_broker(shared_brokers: Brokers) -> Broker:
    return shared_brokers.start('[websocket]\nsubprotocols = ["events.v2", "events.v1"]\n')


async def test_whoever_does_not_answer_pings_is_ended_with_4009(impatient_broker: Broker) -> None:
    async with raw_websocket(impatient_broker) as raw:
        assert await raw.frame() == (PING, b"")
        assert await raw.close_code() == 4009


@pytest.mark.parametrize("sign_of_life", [frame(PONG), frame(PING), frame(TEXT, b"{}")], ids=["pong", "ping", "text"])
async def test_whoever_gives_a_sign_of_life_stays(impatient_broker: Broker, sign_of_life: bytes) -> None:
    async with raw_websocket(impatient_broker) as raw:
        for _ in range(4):
            while (await raw.frame())[0] != PING:
                pass
            await raw.send(sign_of_life)
        await raw.send(frame(CLOSE, b"\x03\xe8"))
        assert await raw.close_code() == 1000


async def test_an_ordinary_client_answers_pings_by_itself(impatient_broker: Broker) -> None:
    async with connected(impatient_broker, "ada") as client:
        await trio.sleep(1.5)
        await client.subscribe("**")


async def test_a_heartbeat_of_zero_is_none(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nheartbeat = 0\nheartbeat_timeout = 0.1\n")
    async with raw_websocket(broker) as raw:
        with trio.move_on_after(0.7) as silence:
            await raw.frame()
        assert silence.cancelled_caught


async def test_beyond_the_most_connections_a_handshake_is_answered_503(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nmax_connections = 2\n")
    handshake = upgrade(Authorization=f"Bearer {broker.token('cleo')}")
    async with connected(broker, "ada") as ada:
        async with connected(broker, "bob"):
            async with dial(broker) as raw:
                await raw.send(handshake)
                head, _ = await raw.answer()
                assert head.status == 503
                assert int(head.headers["retry-after"]) > 0
            await ada.subscribe("**")
            broker.publish("still.served")
            assert "still.served" in await ada.names()
        while await handshake_status(broker, handshake) != 101:  # there is room again, as soon as bob has gone
            await trio.sleep(0.01)


async def handshake_status(broker: Broker, handshake: bytes) -> int:
    async with dial(broker) as raw:
        await raw.send(handshake)
        return (await raw.head()).status


async def test_beyond_the_most_connections_of_a_user_the_newest_is_ended_with_1008(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nmax_connections_per_user = 2\n")
    async with AsyncExitStack() as stack:
        first, _ = [await stack.enter_async_context(connected(broker, "ada")) for _ in range(2)]
        async with connected(broker, "ada") as third:
            assert await third.closed() == 1008
        async with connected(broker, "bob") as other:
            await other.subscribe("**")
        await first.subscribe("**")
        assert broker.metric("broker_connections") == 2


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["events.v2"], "events.v2"),
        (["unknown", "events.v1"], "events.v1"),
        (["unknown"], None),
        (["EVENTS.V1"], None),
        ([], None),
    ],
)
async def test_a_subprotocol_that_both_speak_is_chosen(
    bilingual_broker: Broker, offered: list[str], chosen: str | None
) -> None:
    async with connected(bilingual_broker, "ada", subprotocols=offered) as client:
        assert client.socket.subprotocol == chosen
        await client.subscribe(unique("pattern"))
