"""Those who have agreed to compression beside those who have not: all get the same, and an event is compressed once."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.event import Event, Record
from broker.core.forms import PLAIN, DeflatedForm, Form
from broker.runtime.routing import MAX_BUNDLE_BYTES
from tests.runtime.house import ByTheWire, House, house
from tests.runtime.sockets import Socket
from tests.runtime.test_dispatcher_straight import OFFERS, watching

KIBIBYTE = 1024  # to compress one counts as an offer
TEXT = "There is little in this text that has not been in this text before. "


class Counting(DeflatedForm):
    """Counts the events that it has written."""

    def __init__(self, threshold: int, with_ids: Form | None = None) -> None:
        super().__init__(threshold, with_ids)
        self.written: list[str] = []

    def event(self, record: Record) -> bytes:
        self.written.append(record.event.name)
        return super().event(record)


def counting(threshold: int = 100) -> tuple[Counting, Counting]:
    """A form, and the same with ids."""
    with_ids = Counting(threshold)
    return Counting(threshold, with_ids), with_ids


class Inflating(ByTheWire):
    """A client that can read compressed frames, at the other end of a socket."""

    def __init__(self) -> None:
        super().__init__(Socket())

    def frames(self) -> list[tuple[bool, Any]]:
        return read(self.socket.got)

    def json(self) -> list[Any]:
        return [value for _, value in self.frames()]


async def join(home: House, form: Form) -> Inflating:
    client = Inflating()
    await home.join_by_wire(None, "**", client=client)
    client.connection.form = form
    return client


def read(data: bytes) -> list[tuple[bool, Any]]:
    """The text frames: whether each was compressed, and its JSON."""
    found = []
    while data:
        length, begin = data[1], 2
        if length > 125:
            begin = 4 if length == 126 else 10
            length = int.from_bytes(data[2:begin], "big")
        payload, compressed = data[begin : begin + length], data[0] == 0xC1
        if compressed:
            payload = zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
        found.append((compressed, json.loads(payload)))
        data = data[begin + length :]
    return found


async def test_a_mixed_crowd_gets_the_same_and_each_event_is_compressed_once() -> None:
    form, _ = counting()
    async with house() as home:
        crowd = [await join(home, form if number % 2 else PLAIN) for number in range(20)]
        await home.publish(("long", TEXT * 10), ("short", 1), ("long.again", TEXT * 20))
        expected = [
            {"event": "long", "data": TEXT * 10},
            {"event": "short", "data": 1},
            {"event": "long.again", "data": TEXT * 20},
        ]
        for number, client in enumerate(crowd):
            agreed = bool(number % 2)
            compressed = [agreed, False, agreed]
            assert client.frames() == list(zip(compressed, expected, strict=True))
    assert form.written == ["long", "short", "long.again"]


async def test_who_resumes_goes_on_getting_compressed_events_with_their_ids() -> None:
    form, with_ids = counting()
    async with house() as home:
        early, late = [await join(home, form) for _ in range(2)]
        await early.say({"event": "resume", "data": None})
        assert (early.connection.form, late.connection.form) == (with_ids, form)
        (event_id,) = await home.publish(("a", TEXT * 10))
        assert early.frames() == [(True, {"event": "a", "data": TEXT * 10, "id": event_id})]
        assert late.frames() == [(True, {"event": "a", "data": TEXT * 10})]


async def test_what_was_missed_comes_compressed_too() -> None:
    form, with_ids = counting()
    async with house() as home:
        (first,) = await home.publish(("a", 1))
        missed = await home.publish(("b", TEXT * 10), ("c", TEXT * 20))
        clients = [await join(home, form) for _ in range(3)]
        for client in clients:
            await client.say({"event": "resume", "data": first})
            assert [(compressed, event["id"]) for compressed, event in client.frames()] == [
                (True, id_) for id_ in missed
            ]
    assert with_ids.written == ["b", "c"]


async def test_long_answers_are_compressed() -> None:
    form, _ = counting()
    async with house() as home:
        client = await join(home, form)
        await client.say(*({"event": "subscribe", "data": "a" * size, "id": size} for size in (1, 250)))
        assert [(compressed, reply["reply"]) for compressed, reply in client.frames()] == [(False, 1), (True, 250)]


bursts = st.lists(
    st.tuples(st.integers(0, 300), st.booleans(), st.lists(st.sampled_from([1, 90, 110, 500]), min_size=1, max_size=4)),
    min_size=1,
    max_size=8,
)


@given(bursts)
async def test_frames_are_whole_however_much_the_socket_takes_at_once(
    bursts: list[tuple[int, bool, list[int]]],
) -> None:
    form, with_ids = counting()
    async with house() as home:
        crowd = [await join(home, each) for each in (form, with_ids, PLAIN, form)]
        expected: list[str] = []
        for room, blocked, sizes in bursts:
            for client in crowd:
                client.socket.room = room
                (client.socket.block if blocked and client.socket.open.is_set() else client.socket.open.set)()
            texts = [(TEXT * 10)[:size] for size in sizes]
            expected += texts
            await home.publish(*(("e", text) for text in texts))
        for client in crowd:
            client.socket.open.set()
        await home.publish()
        assert [[event["data"] for event in client.json()] for client in crowd] == [expected] * len(crowd)


# Everybody has a turn.


@pytest.mark.parametrize("size", [1_024, 16_384, 65_536, 300_000])
async def test_large_events_do_not_keep_the_others_from_running(size: int) -> None:
    form, _ = counting()
    async with house() as home:
        crowd = [await join(home, form) for _ in range(2)]
        data = b'"%b"' % (TEXT.encode() * (size // len(TEXT) + 1))[: size - 2]
        with watching(lambda: len(form.written) * size) as strides:
            await home.ingest.publish([Event("e", data)] * 200)
            await home.publish()
        assert [len(client.json()) for client in crowd] == [200, 200]
        assert strides.longest <= OFFERS * KIBIBYTE + max(size, MAX_BUNDLE_BYTES)
