"""The broker's memory is bounded by what its configuration says, however many events a client leaves unread."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from threading import Condition

import pytest
import trio

from tests.system.harness import Broker, Brokers, eventually
from tests.system.raw import raw_websocket

pytestmark = pytest.mark.system

EVENTS = 100_000
BATCH = 1000
PAYLOAD = b"x" * 500
MEBIBYTE = 1_048_576

# What may grow, at most: for each of the two clients a queue of 1 MiB (websocket.queue_bytes), as much again in the
# write that is under way, and twice that for a moment while it is put together: 2 x 4 MiB. One request: its body of
# 0.6 MiB as it comes, whole, cut into lines and as 1,000 events: 4 MiB. The log, of which 1,000 entries of about
# 0.5 KiB are held: 0.5 MiB. Together 12.5 MiB.
# An event that is kept costs 0.5 KiB of payload and about as much in objects: 100,000 would be 100 MiB.
BOUND = 13 * MEBIBYTE


class FastReader:
    """A healthy client that does no more than read: what came is looked at afterwards."""

    def __init__(self, read: socket.socket) -> None:
        self._socket = read
        self._received = bytearray()
        self._grown = Condition()

    def read(self, wanted: int) -> None:
        """Read until `wanted` bytes have come."""
        while len(self._received) < wanted:
            data = self._socket.recv(1_048_576)
            assert data, "the broker ended the connection of a healthy client"
            with self._grown:
                self._received += data
                self._grown.notify()

    def wait_for(self, length: int) -> None:
        """Wait until so many bytes have come."""
        with self._grown:
            assert self._grown.wait_for(lambda: len(self._received) >= length, timeout=10)

    def texts(self) -> Iterator[bytes]:
        """The payloads of the frames; all of ours are of 126 to 65,535 bytes."""
        at = 0
        while at < len(self._received):
            assert self._received[at : at + 2] == b"\x81\x7e"
            length = int.from_bytes(self._received[at + 2 : at + 4], "big")
            yield bytes(self._received[at + 4 : at + 4 + length])
            at += 4 + length


def event(number: int) -> bytes:
    return b'{"event":"flood","data":["%07d","%b"]}' % (number, PAYLOAD)


FRAME = 4 + len(event(0))


def publish_all(broker: Broker, reader: FastReader, first: int, last: int) -> None:
    """Publish in batches, each when the healthy client has all but the latest two."""
    token = broker.token(publish=["flood"])
    for begin in range(first, last, BATCH):
        body = b"\n".join(event(number) for number in range(begin, begin + BATCH))
        assert broker.post(body, "application/x-ndjson", token).status == 202
        reader.wait_for((begin - BATCH) * FRAME)


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest"])
async def test_a_client_that_stops_reading_takes_no_more_than_its_share(brokers: Brokers, overflow: str) -> None:
    broker = brokers.start(f'[log]\nretain_events = 1000\n[websocket]\noverflow = "{overflow}"\n')
    async with (
        raw_websocket(broker, "mallory", "flood", receive_buffer=4096),
        raw_websocket(broker, "healthy", "flood") as healthy,
    ):
        plain = socket.socket(fileno=healthy.stream.socket.fileno())
        plain.settimeout(5)
        reader = FastReader(plain)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, reader.read, EVENTS * FRAME)
                await trio.to_thread.run_sync(publish_all, broker, reader, 0, 5 * BATCH)
                before = broker.resident_bytes()
                await trio.to_thread.run_sync(publish_all, broker, reader, 5 * BATCH, EVENTS)
        finally:
            plain.detach()
        assert broker.resident_bytes() - before < BOUND
        assert [int(json.loads(text)["data"][0]) for text in reader.texts()] == list(range(EVENTS))
        assert broker.metric("broker_log_events") == 1000
        held_back = {"disconnect": "overflowed", "drop_oldest": "dropped_oldest", "drop_newest": "dropped_newest"}
        assert broker.metric(f"broker_deliveries_{held_back[overflow]}_total") > 0
    eventually(lambda: broker.metric("broker_connections") == 0, "end of the connections")
