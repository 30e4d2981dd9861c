"""Events by a pipe: lines of any length in chunks of any size, and a pipe that is not read while there is no room."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import struct
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from broker.core.errors import Stopping
from broker.core.event import Event, check_batch
from connectors.stdin import MAX_LINE_BYTES, LineReader, Stdin

Lines = list[tuple[int, bytes | None]]


# --- Lines -----------------------------------------------------------------------------------------------------------


def cut(*chunks: bytes, max_line: int = 10) -> Lines:
    """The lines of a text that comes in these chunks."""
    reader = LineReader(max_line)
    return [line for chunk in chunks for line in reader.feed(chunk)] + list(reader.end())


@given(st.lists(st.text("ab\n", max_size=6)))
def test_lines_are_the_same_in_chunks_of_any_size(parts: list[str]) -> None:
    chunks = [part.encode() for part in parts]
    whole = b"".join(chunks)
    lines = whole.split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert cut(*chunks, max_line=100) == list(enumerate(lines, start=1))


@given(st.text("a\n"), st.lists(st.integers(0, 30), max_size=5))
def test_a_line_beyond_the_bound_is_so_in_chunks_of_any_size(text: str, places: list[int]) -> None:
    whole = text.encode()
    starts = [0, *sorted(places)]
    chunks = [whole[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    assert cut(*chunks, max_line=3) == cut(whole, max_line=3)


def test_a_line_may_be_as_long_as_the_bound() -> None:
    assert cut(b"x" * 10) == cut(b"x" * 10 + b"\n") == [(1, b"x" * 10)]


def test_a_line_beyond_the_bound_is_numbered_and_the_next_is_whole() -> None:
    assert cut(b"a\n", *[b"x"] * 50, b"\nb\n") == [(1, b"a"), (2, None), (3, b"b")]


def test_a_last_line_beyond_the_bound_is_not_lost_count_of() -> None:
    assert cut(*[b"x" * 11] * 3) == [(1, None)]


def test_a_line_without_end_takes_no_memory() -> None:
    reader = LineReader(10)
    for _ in range(100):
        assert list(reader.feed(b"x" * 8)) == []
        assert len(reader._rest) <= 10


def test_an_empty_text_has_no_lines() -> None:
    assert cut(b"") == []


# --- The pipe --------------------------------------------------------------------------------------------------------


class Door:
    """Takes events while it is open; notes each batch."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Event]] = []
        self.knocked = trio.Event()
        self.opened = trio.Event()

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        assert timeout is None
        check_batch(events)
        self.knocked.set()
        await self.opened.wait()
        self.batches.append(events)
        return ["id"] * len(events)

    def names(self) -> list[str]:
        return [event.name for batch in self.batches for event in batch]


@dataclass
class Pipe:
    """Both ends of a pipe, by number."""

    read: int
    write: int
    ended: bool = False

    def say(self, *lines: str) -> None:
        os.write(self.write, "".join(lines).encode())

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            os.close(self.write)

    def unread(self) -> int:
        """How many bytes are in the pipe."""
        (number,) = struct.unpack("i", fcntl.ioctl(self.read, termios.FIONREAD, b"\0" * 4))
        assert isinstance(number, int)
        return number


def socket_pair() -> tuple[int, int]:
    """As a pipe, to the eye; but what is read as a pipe is one."""
    one, other = socket.socketpair()
    return one.detach(), other.detach()


@pytest.fixture(params=[os.pipe, socket_pair], ids=["pipe", "something else"])
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    pipe = Pipe(*request.param())
    yield pipe
    pipe.end()
    os.close(pipe.read)


@pytest.fixture
def door() -> Door:
    door = Door()
    door.opened.set()
    return door


def ready() -> None:
    """Nobody waits for it here."""


def event(name: str) -> str:
    return f'{{"event":"{name}"}}\n'


async def test_each_line_is_an_event(pipe: Pipe, door: Door) -> None:
    pipe.say('{"event":"a","data":{"n": 1},"id":"i"}\n', "\n", ' {"event":"b"}\r\n')
    pipe.end()
    stdin = Stdin(pipe.read)
    await stdin.run(door, ready)
    assert door.batches == [[Event("a", b'{"n": 1}', "i", "stdin"), Event("b", b"null", None, "stdin")]]
    assert stdin.counters == {"published": 2, "refused": 0}


async def test_what_has_come_is_published_without_waiting_for_more(pipe: Pipe, door: Door) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stdin(pipe.read).run, door, ready)
        pipe.say(event("a"), event("b")[:5])
        await door.knocked.wait()
        await wait_all_tasks_blocked()
        assert door.names() == ["a"]
        pipe.say(event("b")[5:])
        pipe.end()
    assert door.names() == ["a", "b"]


async def test_the_last_line_need_not_end_in_a_newline(pipe: Pipe, door: Door) -> None:
    pipe.say(event("a").rstrip())
    pipe.end()
    await Stdin(pipe.read).run(door, ready)
    assert door.names() == ["a"]


async def test_an_empty_pipe_publishes_nothing(pipe: Pipe, door: Door) -> None:
    pipe.end()
    await Stdin(pipe.read).run(door, ready)
    assert door.batches == []


async def test_bad_lines_are_skipped_counted_and_told_by_their_number(
    pipe: Pipe, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    pipe.say(event("a"), "nonsense\n", "\n", event("b c"), '{"event":"broker.x"}\n', event("d"), "{")
    pipe.end()
    stdin = Stdin(pipe.read)
    await stdin.run(door, ready)
    assert door.names() == ["a", "d"]
    assert stdin.counters == {"published": 2, "refused": 4}
    assert [vars(record)["line"] for record in caplog.records] == [2, 4, 5, 7]


async def test_a_line_of_any_length_below_the_bound_is_an_event(pipe: Pipe, door: Door) -> None:
    long = '{"event":"a","data":"%s"}' % ("x" * (MAX_LINE_BYTES - 30))
    assert await through(pipe, door, f"{long}\n{event('b')}") == {"published": 2, "refused": 0}
    assert door.names() == ["a", "b"]


async def test_a_line_beyond_the_bound_is_refused_and_the_next_is_not(
    pipe: Pipe, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    long = '{"event":"a","data":"%s"}' % ("x" * MAX_LINE_BYTES)
    assert await through(pipe, door, f"{long}\n{event('b')}") == {"published": 1, "refused": 1}
    assert door.names() == ["b"]
    assert "1048576" in vars(caplog.records[0])["reason"]


async def through(pipe: Pipe, door: Door, text: str) -> dict[str, int]:
    """Send more than a pipe holds; what was counted of it."""

    def write() -> None:
        with open(os.dup(pipe.write), "wb") as file:  # noqa: PTH123
            file.write(text.encode())
        pipe.end()

    stdin = Stdin(pipe.read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, write)
        await stdin.run(door, ready)
    return dict(stdin.counters)


async def test_a_pipe_is_not_read_while_there_is_no_room(pipe: Pipe) -> None:
    door = Door()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stdin(pipe.read).run, door, ready)
        pipe.say(event("a"))
        await door.knocked.wait()
        pipe.say(event("b"))
        pipe.end()
        await wait_all_tasks_blocked()
        assert pipe.unread() == len(event("b"))
        door.opened.set()
    assert door.names() == ["a", "b"]
    assert pipe.unread() == 0


@pytest.mark.parametrize("pipe", [os.pipe], indirect=True)
async def test_a_pipe_that_somebody_else_has_read_meanwhile_holds_nobody_up(
    pipe: Pipe, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.preadv
    stolen: list[bytes] = []

    def too_late(descriptor: int, *how: Any) -> int:
        if not stolen:
            stolen.append(os.read(descriptor, 100))
        return read(descriptor, *how)

    monkeypatch.setattr(os, "preadv", too_late)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stdin(pipe.read).run, door, ready)
        pipe.say(event("b"))
        await wait_all_tasks_blocked()
        pipe.say(event("a"))
        pipe.end()
    assert (stolen, door.names()) == ([event("b").encode()], ["a"])


@pytest.mark.parametrize("pipe", [os.pipe], indirect=True)
async def test_where_the_kernel_can_not_read_pipes_without_waiting_a_thread_does(
    pipe: Pipe, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def unsupported(descriptor: int, *_how: Any) -> int:
        refused.append(descriptor)
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "preadv", unsupported)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stdin(pipe.read).run, door, ready)
        pipe.say(event("a"))
        await door.knocked.wait()
        pipe.say(event("b"))
        pipe.end()
    assert (door.names(), refused) == (["a", "b"], [pipe.read])


async def test_what_is_said_on_a_pipe_does_not_change_how_others_read_it(pipe: Pipe, door: Door) -> None:
    pipe.say(event("a"))
    pipe.end()
    await Stdin(pipe.read).run(door, ready)
    assert os.get_blocking(pipe.read)


async def test_a_publisher_that_stops_ends_it(pipe: Pipe) -> None:
    class Closed:
        async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
            raise Stopping

    pipe.say(event("a"))
    with pytest.raises(Stopping):
        await Stdin(pipe.read).run(Closed(), ready)


async def test_it_can_be_cancelled_while_nothing_comes(pipe: Pipe, door: Door) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stdin(pipe.read).run, door, ready)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    pipe.end()


@pytest.mark.parametrize("pipe", [socket_pair], indirect=True)
async def test_what_is_read_in_a_thread_can_be_cancelled_too(
    pipe: Pipe, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, left = threading.Event(), threading.Event()

    def read(descriptor: int, most: int, read: Callable[[int, int], bytes] = os.read) -> bytes:
        entered.set()
        try:
            return read(descriptor, most)
        finally:
            left.set()

    monkeypatch.setattr(os, "read", read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Stdin(pipe.read).run, door, ready)
        await trio.to_thread.run_sync(entered.wait)
        nursery.cancel_scope.cancel()
    pipe.end()  # lets the thread that was left behind go, before its descriptor is another's
    await trio.to_thread.run_sync(left.wait)


async def test_it_says_what_it_counted_at_the_end(pipe: Pipe, door: Door, caplog: pytest.LogCaptureFixture) -> None:
    pipe.say(event("a"), "x\n")
    pipe.end()
    with caplog.at_level(logging.INFO, "connectors.stdin"):
        await Stdin(pipe.read).run(door, ready)
    last: dict[str, Any] = vars(caplog.records[-1])
    assert (last["msg"], last["published"], last["refused"]) == ("stdin.ended", 1, 1)


async def test_it_is_ready_at_once(pipe: Pipe, door: Door) -> None:
    told: list[bool] = []
    pipe.end()
    await Stdin(pipe.read).run(door, lambda: told.append(True))
    assert told == [True]


async def test_what_can_not_be_read_is_at_its_end(door: Door, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        await Stdin(folder).run(door, ready)
    finally:
        os.close(folder)
    assert door.batches == []
    unreadable: dict[str, Any] = vars(caplog.records[0])
    assert (unreadable["msg"], unreadable["reason"]) == ("stdin.unreadable", "Is a directory")
