"""The outbox when nothing waits: frames go straight to the socket; and what they leave undone goes before all else."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.runtime.outbox import WRITE_TIMEOUT, Fate, Outbox, OutboxStatistics, Overflow, QueueLimits
from tests.runtime.sockets import Socket, joined, send_now

every_way = pytest.mark.parametrize("overflow", list(Overflow))


WAYS: dict[str, Callable[[Outbox, bytes], object]] = {
    "event": lambda out, frame: send_now(out, joined(frame)),
    "answer": Outbox.answer,
    "control": Outbox.control,
}
whatever = pytest.mark.parametrize("say", WAYS.values(), ids=WAYS.keys())


def outbox(overflow: Overflow = Overflow.DISCONNECT, *, frames: int = 3, size: int = 1000) -> Outbox:
    return Outbox(QueueLimits(frames, size, overflow))


@asynccontextmanager
async def writing(out: Outbox) -> AsyncIterator[Socket]:
    """A writer at work on `out`, which may write without waiting too, as long as the block lasts."""
    socket = Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write, socket)
        await wait_all_tasks_blocked()
        yield socket
        nursery.cancel_scope.cancel()


# When events go straight.


@every_way
async def test_events_go_straight_to_the_socket_of_an_idle_writer(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        assert send_now(out, joined(b"aa", b"bb")) == 2
        assert send_now(out, joined(b"cc")) == 1
        assert socket.got == b"aabbcc"
        await wait_all_tasks_blocked()
        assert socket.writes == []
        assert out.statistics() == OutboxStatistics(0, 0, 0)


@every_way
@whatever
async def test_whatever_goes_straight_wakes_nobody(overflow: Overflow, say: Callable[[Outbox, bytes], object]) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        for number in range(10):
            say(out, b"%d" % number)
        assert socket.straight == [b"%d" % number for number in range(10)]
        await wait_all_tasks_blocked()
        assert socket.writes == []
        assert out.statistics() == OutboxStatistics(0, 0, 0)


@every_way
async def test_an_answer_that_goes_straight_counts_as_queued(overflow: Overflow) -> None:
    out = outbox(overflow, frames=1, size=1)
    async with writing(out) as socket:
        assert [out.answer(b"12"), out.answer(b"34")] == [Fate.QUEUED] * 2
        assert socket.got == b"1234"


@every_way
async def test_more_than_may_wait_goes_straight_where_the_socket_takes_it(overflow: Overflow) -> None:
    out = outbox(overflow, frames=1, size=1)
    async with writing(out) as socket:
        assert send_now(out, joined(*[b"aa"] * 10)) == 10
        assert socket.got == b"aa" * 10


async def test_nothing_goes_straight_before_there_is_a_writer() -> None:
    out = outbox()
    assert send_now(out, joined(b"a")) == 0
    out.control(b"p")
    assert out.answer(b"1") is Fate.QUEUED
    async with writing(out) as socket:
        await wait_all_tasks_blocked()
    assert (socket.straight, socket.writes) == ([], [b"p1"])


async def test_nothing_goes_straight_where_the_writer_is_all_there_is() -> None:
    out, socket = outbox(), Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write)
        await wait_all_tasks_blocked()
        assert send_now(out, joined(b"a")) == 0
        out.control(b"p")
        out.answer(b"1")
        await wait_all_tasks_blocked()
        assert socket.writes == [b"p1"]
        nursery.cancel_scope.cancel()


BEFORE: dict[str, Callable[[Outbox], object]] = {
    "an event": lambda out: out.offer(b"-", "n"),
    "the end": lambda out: out.finish(b"-", discard=False),
    "the end at once": lambda out: out.finish(b"-", discard=True),
    "a rest": lambda out: send_now(out, joined(b"--")),
    "the rest of an answer": lambda out: out.answer(b"--"),
    "the rest of a ping": lambda out: out.control(b"--"),
}


@every_way
@whatever
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
async def test_nothing_goes_straight_past_what_came_before(
    overflow: Overflow, say: Callable[[Outbox, bytes], object], before: Callable[[Outbox], object]
) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.room = 1
        before(out)
        begun = list(socket.straight)
        socket.room = math.inf
        say(out, b"x")
        assert socket.straight == begun
        await wait_all_tasks_blocked()
        assert socket.straight == begun


@every_way
@whatever
async def test_nothing_goes_straight_past_what_could_not(
    overflow: Overflow, say: Callable[[Outbox, bytes], object]
) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.failure = BlockingIOError()
        out.answer(b"1")
        out.control(b"p")
        socket.failure = None
        say(out, b"x")
        assert socket.straight == []
        await wait_all_tasks_blocked()
        assert socket.got in (b"p1", b"px1", b"p1x")


@every_way
@whatever
async def test_nothing_goes_straight_into_the_middle_of_a_write(
    overflow: Overflow, say: Callable[[Outbox, bytes], object]
) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.block()
        out.offer(b"1", "n")
        await wait_all_tasks_blocked()
        say(out, b"2")
        assert socket.straight == []
        socket.open.set()
        await wait_all_tasks_blocked()
        assert socket.got in (b"1", b"12")


@every_way
async def test_events_go_straight_again_once_the_writer_has_written_all(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        out.offer(b"1", "n")
        out.control(b"p")
        await wait_all_tasks_blocked()
        assert send_now(out, joined(b"2")) == 1
        assert (socket.got, socket.straight) == (b"p12", [b"2"])


DURING: dict[str, Callable[[Outbox], object]] = {
    "an event": lambda out: out.offer(b"x", "n"),
    "an answer": lambda out: out.answer(b"x"),
    "a ping": lambda out: out.control(b"x"),
    "the end": lambda out: out.finish(b"x", discard=True),
}


@every_way
@pytest.mark.parametrize("say", DURING.values(), ids=DURING.keys())
async def test_what_comes_during_a_write_is_written_before_anything_goes_straight(
    overflow: Overflow, say: Callable[[Outbox], object]
) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.block()
        out.offer(b"1", "n")
        await wait_all_tasks_blocked()
        say(out)
        socket.open.set()
        while len(socket.writes) < 2:
            assert send_now(out, joined(b"2")) == 0
            await trio.lowlevel.checkpoint()
        assert socket.writes == [b"1", b"x"]


@every_way
@pytest.mark.parametrize("failure", [BlockingIOError(), BrokenPipeError(), ConnectionResetError(), OSError(9, "bad")])
async def test_a_socket_that_fails_has_taken_nothing(overflow: Overflow, failure: OSError) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.failure = failure
        assert send_now(out, joined(b"aa", b"bb")) == 0
        assert [out.offer(b"aa", "n"), out.answer(b"1")] == [Fate.QUEUED] * 2
        out.control(b"p")
        await wait_all_tasks_blocked()
        assert socket.writes == [b"paa1"]


# A socket that takes a part only.


@every_way
@pytest.mark.parametrize("room", range(1, 9))
async def test_the_frame_that_was_begun_is_written_to_its_end_and_counts_as_gone(overflow: Overflow, room: int) -> None:
    out = outbox(overflow)
    frames = [b"aaa", b"bb", b"cccc"]
    async with writing(out) as socket:
        socket.room = room
        begun = send_now(out, joined(*frames))
        assert begun == (1 if room <= 3 else 2 if room <= 5 else 3)
        assert out.statistics().waiting_frames == 0
        await wait_all_tasks_blocked()
        assert socket.got == b"".join(frames[:begun])


@every_way
async def test_a_socket_that_took_whole_frames_leaves_the_writer_nothing_to_write(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.room = 2
        assert send_now(out, joined(b"aa", b"bb")) == 1
        await wait_all_tasks_blocked()
        assert socket.writes == []
        assert not out.broken


@every_way
async def test_the_rest_of_a_frame_goes_before_pings_answers_and_later_events(overflow: Overflow) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.room = 1
        assert send_now(out, joined(b"aa", b"bb")) == 1
        out.offer(b"bb", "n")
        out.answer(b"1")
        out.control(b"p")
        await wait_all_tasks_blocked()
        assert socket.got == b"aapbb1"
        assert socket.writes == [b"apbb1"]


@every_way
@pytest.mark.parametrize("say", [Outbox.answer, Outbox.control], ids=["answer", "control"])
async def test_the_rest_of_an_answer_or_a_ping_goes_first_too(
    overflow: Overflow, say: Callable[[Outbox, bytes], object]
) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.room = 2
        say(out, b"12345")
        out.answer(b"6")
        out.control(b"p")
        await wait_all_tasks_blocked()
        assert (socket.straight, socket.writes) == ([b"12"], [b"345p6"])


@every_way
async def test_no_overflow_drops_the_rest_of_a_frame(overflow: Overflow) -> None:
    out = outbox(overflow, frames=1, size=4)
    async with writing(out) as socket:
        socket.room = 1
        send_now(out, joined(b"aaaaaaaaaa"))
        fates = [out.offer(b"bbbb", "n"), out.offer(b"cccc", "m"), out.offer(b"ddddd", "n")]
        assert fates != [Fate.QUEUED] * 3
        out.answer(b"1")
        await wait_all_tasks_blocked()
        assert socket.got.startswith(b"aaaaaaaaaa")


@every_way
async def test_the_rest_of_a_frame_takes_no_room_from_what_waits(overflow: Overflow) -> None:
    out = outbox(overflow, frames=2, size=2)
    async with writing(out) as socket:
        socket.room = 1
        send_now(out, joined(b"aaaaaaaaaa"))
        assert [out.offer(b"b", "b"), out.offer(b"c", "c")] == [Fate.QUEUED] * 2
        assert out.statistics() == OutboxStatistics(waiting_frames=2, waiting_bytes=2, dropped=0)
        await wait_all_tasks_blocked()
        assert socket.got == b"aaaaaaaaaabc"


@every_way
@pytest.mark.parametrize("discard", [True, False])
async def test_the_close_frame_comes_after_the_rest_of_a_frame(overflow: Overflow, discard: bool) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        socket.room = 1
        send_now(out, joined(b"aaa"))
        out.offer(b"b", "n")
        out.finish(b"END", discard=discard)
        await out.finished.wait()
    assert socket.got == (b"aaaEND" if discard else b"aaabEND")
    assert out.statistics().dropped == discard
    assert not out.broken


# The end.


def say_all(out: Outbox) -> None:
    """Say everything that there is to say to an outbox that has ended."""
    assert send_now(out, joined(b"a")) == 0
    assert out.answer(b"1") is Fate.CLOSED
    out.control(b"p")


@every_way
@pytest.mark.parametrize("discard", [True, False])
async def test_nothing_goes_straight_after_the_end(overflow: Overflow, discard: bool) -> None:
    out = outbox(overflow)
    async with writing(out) as socket:
        out.finish(b"END", discard=discard)
        say_all(out)
        await out.finished.wait()
        say_all(out)
    say_all(out)
    assert socket.got == b"END"


async def test_nothing_goes_straight_once_the_writer_was_cancelled() -> None:
    out = outbox()
    async with writing(out) as socket:
        assert send_now(out, joined(b"a")) == 1
    assert out.finished.is_set()
    say_all(out)
    assert socket.got == b"a"


@pytest.mark.parametrize("failure", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_nothing_goes_straight_once_the_writer_has_failed(failure: type[Exception]) -> None:
    out, socket = outbox(), Socket()

    async def write(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise failure

    out.offer(b"a", "n")
    await out.run(write, socket)
    say_all(out)
    assert socket.got == b""


async def test_nothing_goes_straight_once_a_write_took_too_long(autojump_clock: MockClock) -> None:
    out = outbox()
    async with writing(out) as socket:
        socket.block()
        out.offer(b"a", "n")
        began = trio.current_time()
        await out.finished.wait()
        assert trio.current_time() - began == WRITE_TIMEOUT
        say_all(out)
    assert socket.got == b""


@whatever
async def test_a_writer_cancelled_before_it_wrote_the_rest_of_a_frame_leaves_the_outbox_broken(
    say: Callable[[Outbox, bytes], object],
) -> None:
    out, socket = outbox(), Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write, socket)
        await wait_all_tasks_blocked()
        socket.room = 1
        say(out, b"aa")
        nursery.cancel_scope.cancel()
    assert (socket.got, out.broken) == (b"a", True)


@whatever
async def test_a_writer_that_is_being_cancelled_still_keeps_frames_whole(
    say: Callable[[Outbox, bytes], object],
) -> None:
    out, socket = outbox(), Socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write, socket)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()  # it shall hear of it when it runs next
        say(out, b"aa")
        socket.room = 1
        say(out, b"bb")
        say(out, b"cc")
    assert (socket.got, out.broken) == (b"aab", True)
