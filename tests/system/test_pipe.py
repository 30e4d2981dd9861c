"""`broker run --stdin`: events from a real pipe."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from contextlib import suppress

import pytest
import trio

from tests.system.client import connected
from tests.system.harness import Broker, Brokers, eventually
from tests.system.raw import CLOSE, frame, raw_websocket

pytestmark = pytest.mark.system


def start(brokers: Brokers, config: str = "") -> Broker:
    return brokers.start(config, arguments=["--stdin"], stdin=subprocess.PIPE)


def write(broker: Broker, text: bytes) -> None:
    pipe = broker.process.stdin
    assert pipe is not None
    pipe.write(text)
    pipe.flush()


def close(broker: Broker) -> None:
    assert broker.process.stdin is not None
    broker.process.stdin.close()


async def test_each_line_is_an_event(brokers: Brokers) -> None:
    broker = start(brokers)
    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        write(broker, b'{"event":"a.1","data":{"n":1}}\n\n  \n{"event":"a.2"}\r\n')
        assert [await client.frame(), await client.frame()] == [
            {"event": "a.1", "data": {"n": 1}},
            {"event": "a.2", "data": None},
        ]


async def test_a_line_in_pieces_is_one_line_and_the_last_needs_no_end(brokers: Brokers) -> None:
    broker = start(brokers)
    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        for piece in (b'{"event":', b'"a.1","da', b'ta":1}\n{"event":"a.2","data":2}'):
            write(broker, piece)
            await trio.sleep(0.02)
        assert (await client.frame())["data"] == 1
        close(broker)
        assert (await client.frame())["data"] == 2


async def test_bad_lines_are_reported_with_their_numbers_and_skipped(brokers: Brokers) -> None:
    broker = start(brokers)
    lines = [
        b'{"event":"a.1","data":1}',
        b"no json at all",
        b"",
        b'{"event":"a..b"}',
        b'{"event":"broker.x"}',
        b'{"event":"a.1","data":NaN}',
        b'{"event":"a.1","data":"\xff"}',
        b'{"event":"a.1","data":"%b"}' % (b"x" * 1_100_000),
        b'{"event":"a.1","data":2}',
    ]
    async with connected(broker, "ada") as client:
        await client.subscribe("**")
        await trio.to_thread.run_sync(write, broker, b"\n".join(lines) + b"\n")
        assert [(await client.frame())["data"], (await client.frame())["data"]] == [1, 2]
    reports = broker.logged("stdin.refused")
    assert [report["line"] for report in reports] == [2, 4, 5, 6, 7, 8]
    assert all(report["reason"] for report in reports)


async def test_when_the_pipe_ends_the_broker_serves_on(brokers: Brokers) -> None:
    broker = start(brokers)
    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        write(broker, b'{"event":"a.1"}\n')
        close(broker)
        assert broker.wait_logged("stdin.ended")["published"] == 1
        broker.publish("a.2")
        assert await client.names() == ["a.1", "a.2"]


async def test_a_flood_through_the_pipe_arrives_complete_and_in_order(brokers: Brokers) -> None:
    events = 50_000
    broker = start(brokers, "[websocket]\nqueue_size = 100000\nqueue_bytes = 100000000\n")
    flood = b"".join(b'{"event":"flood","data":%d}\n' % number for number in range(events))
    async with raw_websocket(broker, "ada", "flood") as raw, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, write, broker, flood)
        for number in range(events):
            assert json.loads(await raw.text())["data"] == number
    close(broker)
    assert broker.wait_logged("stdin.ended")["published"] == events


async def test_a_broker_that_is_busy_leaves_the_pipe_full(brokers: Brokers) -> None:
    """Back pressure is a pipe that is not read: a stopped broker's writer waits, and loses nothing."""
    broker = start(brokers)
    assert broker.process.stdin is not None
    pipe = broker.process.stdin.fileno()
    line = b'{"event":"a.1","data":"%b"}\n' % (b"x" * 4050)
    async with raw_websocket(broker, "ada", "a.1") as raw:
        broker.signal(signal.SIGSTOP)
        fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_NONBLOCK)
        written = 0
        with suppress(BlockingIOError):
            while True:
                written += os.write(pipe, line)
        broker.signal(signal.SIGCONT)
        for _ in range(written // len(line)):
            assert b"a.1" in await raw.text()
        await raw.send(frame(CLOSE, b"\x03\xe8"))
        assert await raw.close_code() == 1000


async def test_a_pipe_that_stays_open_does_not_hold_up_the_end(brokers: Brokers) -> None:
    broker = start(brokers)
    write(broker, b'{"event":"half')
    broker.signal(signal.SIGTERM)
    assert broker.wait_ended() == 0


async def test_what_was_read_from_the_pipe_is_delivered_before_the_end(brokers: Brokers) -> None:
    broker = start(brokers)
    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        write(broker, b"".join(b'{"event":"a.%d"}\n' % number for number in range(100)))
        eventually(lambda: broker.metric("broker_events_total") == 100, "end of the lines")
        broker.signal(signal.SIGTERM)
        assert [(await client.frame())["event"] for _ in range(100)] == [f"a.{number}" for number in range(100)]
        assert await client.closed() == 1001
    assert broker.wait_ended() == 0
