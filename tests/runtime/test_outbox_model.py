"""The outbox against a slow model: a list, walked through whenever something has to be found, counted or dropped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pytest
import trio
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from broker.core.delivery import Joined
from broker.core.forms import PLAIN
from broker.runtime.outbox import MAX_CONTROL_FRAMES, Fate, Outbox, OutboxStatistics, Overflow, QueueLimits
from tests.runtime.sockets import Piece, memory, send_now

ANSWER = ""
DROPPING = (Overflow.DROP_OLDEST, Overflow.DROP_NEWEST)
END = b"\xff"

Step = tuple[Any, ...]

LARGEST = 7

sizes = st.integers(1, LARGEST)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from("abc"), sizes),
        st.tuples(st.just("dispatch"), st.lists(st.tuples(st.sampled_from("abc"), sizes), min_size=1, max_size=4)),
        st.tuples(st.just("answer"), sizes),
        st.tuples(st.sampled_from(["control", "block", "open"])),
        st.tuples(st.just("room"), st.integers(0, 16)),
    ),
    max_size=40,
)
BEYOND_THREE_BYTES: list[Step] = [
    *[("block",), ("answer", 1), ("offer", "a", 2), ("offer", "b", 2), ("offer", "b", 5), ("answer", 1), ("open",)],
    *[("block",), ("answer", 1), ("offer", "a", 5), ("offer", "b", 1), ("answer", 6), ("offer", "a", 6), ("open",)],
]
ends: st.SearchStrategy[list[Step]] = st.sampled_from([[], [("finish", False)], [("finish", True)]])
limits = st.builds(QueueLimits, st.integers(1, 5), st.integers(1, 20), st.sampled_from(Overflow))


@dataclass
class Model:
    """What an outbox, its writer and its socket do, said slowly."""

    limits: QueueLimits
    waiting: list[tuple[str, bytes]] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)
    rest: bytes = b""
    written: list[bytes] = field(default_factory=list)
    dropped: int = 0
    room: int = 0
    idle: bool = True
    blocked: bool = False
    stuck: bool = False
    finished: bool = False
    ended: bool = False

    def straight(self, frames: Sequence[bytes]) -> int:
        taken = b"".join(frames)[: self.room]
        if not self.idle or not taken:
            return 0
        self.written.append(taken)
        begun = next(count for count in range(len(frames) + 1) if len(b"".join(frames[:count])) >= len(taken))
        self.rest = b"".join(frames[:begun])[len(taken) :]
        self.idle = taken == b"".join(frames)
        return begun

    def offer(self, frame: bytes, name: str) -> Fate:
        if self.finished:
            return Fate.CLOSED
        older = [entry for entry in self.waiting if entry[0] == name]
        if self.limits.overflow is Overflow.LATEST:
            self._remove(older)
        else:
            older = []
        if self._put(frame, name):
            return Fate.REPLACED if older else Fate.QUEUED
        if self.limits.overflow is Overflow.DROP_OLDEST and self._make_room(frame, name):
            return Fate.DROPPED_OLDEST
        if self.limits.overflow in DROPPING:
            self.dropped += 1
            return Fate.DROPPED_NEWEST
        return Fate.OVERFLOWED

    def answer(self, frame: bytes) -> Fate:
        if self.finished:
            return Fate.CLOSED
        if self.straight([frame]) or self._put(frame, ANSWER):
            return Fate.QUEUED
        if self.limits.overflow in DROPPING and self._make_room(frame, ANSWER):
            return Fate.DROPPED_OLDEST
        return Fate.OVERFLOWED

    def send_control(self, frame: bytes) -> None:
        if not self.finished and not self.straight([frame]):
            self.control.append(frame)
            self.idle = False

    def finish(self, *, discard: bool) -> None:
        self.finished, self.idle = True, False
        if discard:
            self._remove(list(self.waiting))

    def settle(self) -> None:
        """The writer runs until it has nothing to do, or is stuck."""
        if not self.blocked:
            self.stuck = False
        if not self.stuck and not self.ended:
            frames = [self.rest, *self.control[-MAX_CONTROL_FRAMES:], *(frame for _, frame in self.waiting)]
            data = b"".join([*frames, END] if self.finished else frames)
            if data:
                self.written.append(data)
                self.stuck = self.blocked
            self.waiting, self.control, self.rest = [], [], b""
            self.ended = self.finished
        self.idle = not self.stuck and not self.ended

    def statistics(self) -> OutboxStatistics:
        return OutboxStatistics(len(self.waiting), sum(len(frame) for _, frame in self.waiting), self.dropped)

    def _put(self, frame: bytes, name: str) -> bool:
        waiting_bytes = sum(len(each) for _, each in [*self.waiting, (name, frame)])
        fits = len(self.waiting) < self.limits.frames and (waiting_bytes <= self.limits.bytes or not self.waiting)
        if fits:
            self.waiting.append((name, frame))
            self.idle = False
        return fits

    def _make_room(self, frame: bytes, name: str) -> bool:
        while not self._put(frame, name):
            events = [entry for entry in self.waiting if entry[0] != ANSWER]
            if not events:
                return False
            self._remove(events[:1])
        return True

    def _remove(self, entries: list[tuple[str, bytes]]) -> None:
        for entry in entries:
            self.waiting.remove(entry)
            self.dropped += 1


class Socket:
    """Takes each write of the writer when it begins, lets it end when it is open, and takes `room` bytes at once."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.room = 0
        self.open = trio.Event()
        self.open.set()

    async def write(self, data: bytes) -> None:
        self.begun.append(data)
        await self.open.wait()

    def send(self, data: bytes, /) -> int:
        if not self.room:
            raise BlockingIOError
        self.begun.append(data[: self.room])
        return min(self.room, len(data))

    def send_from(self, descriptor: int, place: int, size: int, /) -> int:
        return self.send(os.pread(descriptor, size, place))


@pytest.mark.parametrize("shared", [False, True])
@given(limits, steps, ends)
@example(QueueLimits(5, 3, Overflow.DISCONNECT), BEYOND_THREE_BYTES, [])
@example(QueueLimits(5, 3, Overflow.DROP_OLDEST), BEYOND_THREE_BYTES, [])
@example(QueueLimits(5, 3, Overflow.DROP_NEWEST), BEYOND_THREE_BYTES, [])
@example(QueueLimits(5, 3, Overflow.LATEST), BEYOND_THREE_BYTES, [])
async def test_it_does_what_the_slow_model_does(
    shared: bool, limits: QueueLimits, sequence: list[Step], end: list[Step]
) -> None:
    out, socket, model = Outbox(limits), Socket(), Model(limits)
    with memory(used=shared) as file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.run, socket.write, socket)
            await wait_all_tasks_blocked()
            for number, step in enumerate([*sequence, *end, ("open",)]):
                await take(step, number, out, socket, model, file)
                await settle(model)
                assert socket.begun == model.written
                assert out.statistics() == model.statistics()
                assert out.finished.is_set() == (model.ended and not model.stuck)
            nursery.cancel_scope.cancel()
    event(f"{len(socket.begun)} writes")


async def settle(model: Model) -> None:
    """Let the writer run, of which the model is sure only then what it holds in its hands."""
    await wait_all_tasks_blocked()
    model.settle()


async def take(step: Step, number: int, out: Outbox, socket: Socket, model: Model, file: int | None) -> None:
    """Take one step, and hold the answers of the outbox against the model's."""
    match step:
        case ("offer", name, size):
            assert out.offer(bytes([number]) * size, name) is model.offer(bytes([number]) * size, name)
        case ("dispatch", events):
            pieces = [Piece(bytes([number]) * size, name) for name, size in events]
            gone = send_now(out, Joined(pieces, PLAIN), file)
            assert gone == model.straight([piece.frame for piece in pieces])
            for piece, (name, _) in list(zip(pieces, events, strict=True))[gone:]:
                await settle(model)
                assert out.offer(piece.frame, name) is model.offer(piece.frame, name)
        case ("answer", size):
            assert out.answer(bytes([number]) * size) is model.answer(bytes([number]) * size)
        case ("control",):
            out.control(bytes([number]))
            model.send_control(bytes([number]))
        case ("finish", discard):
            out.finish(END, discard=discard)
            model.finish(discard=discard)
        case (of_the_socket, *room):
            change(of_the_socket, room, socket, model)


def change(what: str, room: list[int], socket: Socket, model: Model) -> None:
    """Let something happen to the socket."""
    if room:
        [socket.room] = [model.room] = room
        return
    model.blocked = what == "block"
    if what == "open":
        socket.open.set()
    elif socket.open.is_set():
        socket.open = trio.Event()


# The same without waiting for the writer: what it has in its hands nobody knows, but some things hold all the same.


@dataclass
class Slow:
    """A socket that takes each write in pieces, other tasks running in between, and some bytes at once; or breaks."""

    breaks_at: int | None
    room: int = 1
    got: bytes = b""
    busy: bool = False

    async def write(self, data: bytes) -> None:
        assert data
        self.busy = True
        for at in range(0, len(data), 3):
            await trio.lowlevel.checkpoint()
            if self.breaks_at is not None and len(self.got) >= self.breaks_at:
                raise trio.BrokenResourceError
            self.got += data[at : at + 3]
        self.busy = False

    def send(self, data: bytes, /) -> int:
        assert not self.busy
        if not self.room:
            raise BlockingIOError
        self.got += data[: self.room]
        return min(self.room, len(data))

    def send_from(self, descriptor: int, place: int, size: int, /) -> int:
        return self.send(os.pread(descriptor, size, place))


@dataclass
class Story:
    """What was handed to an outbox, by kinds; each frame is known by its byte."""

    sizes: dict[int, int] = field(default_factory=dict)
    straight: list[int] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    controls: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def frame(self, size: int) -> bytes:
        number = len(self.sizes)
        self.sizes[number] = size
        return bytes([number]) * size

    def offered(self, number: int, fate: Fate) -> None:
        kind = {Fate.OVERFLOWED: self.refused, Fate.CLOSED: self.refused, Fate.DROPPED_NEWEST: self.dropped}
        kind.get(fate, self.events).append(number)

    def answered(self, number: int, fate: Fate) -> None:
        (self.refused if fate in (Fate.OVERFLOWED, Fate.CLOSED) else self.answers).append(number)


def tell(step: Step, out: Outbox, story: Story) -> None:
    match step:
        case ("offer", name, size):
            frame = story.frame(size)
            story.offered(frame[0], out.offer(frame, name))
        case ("dispatch", events):
            pieces = [Piece(story.frame(size), name) for name, size in events]
            gone = send_now(out, Joined(pieces, PLAIN))
            story.straight += [piece.frame[0] for piece in pieces[:gone]]
            for piece, (name, _) in list(zip(pieces, events, strict=True))[gone:]:
                story.offered(piece.frame[0], out.offer(piece.frame, name))
        case ("answer", size):
            frame = story.frame(size)
            story.answered(frame[0], out.answer(frame))
        case ("control",):
            frame = story.frame(2)
            out.control(frame)
            story.controls.append(frame[0])


passing = st.tuples(st.just("pass"), st.integers(1, 4))
untimed_steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from("abc"), sizes),
        st.tuples(st.just("dispatch"), st.lists(st.tuples(st.sampled_from("abc"), sizes), min_size=1, max_size=4)),
        st.tuples(st.just("answer"), sizes),
        st.tuples(st.just("control")),
        st.tuples(st.just("room"), st.integers(0, 16)),
        st.tuples(st.just("settle")),
        passing,
    ),
    max_size=30,
)
endings = st.sampled_from(["finish", "discard", "cancel", "break"])


@given(limits, untimed_steps, endings, st.integers(0, 60))
@settings(max_examples=300)
async def test_frames_go_whole_and_in_a_legal_order_however_the_writer_is_scheduled(
    limits: QueueLimits, sequence: list[Step], ending: str, breaks_at: int
) -> None:
    out, story, socket = Outbox(limits), Story(), Slow(breaks_at if ending == "break" else None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write, socket)
        for step in sequence:
            await pass_by(step, socket)
            tell(step, out, story)
            waiting = out.statistics()
            assert 0 <= waiting.waiting_frames <= limits.frames
            assert (
                0
                <= waiting.waiting_bytes
                <= (limits.bytes if waiting.waiting_frames > 1 else max(limits.bytes, LARGEST))
            )
        if ending == "cancel":
            nursery.cancel_scope.cancel()
            tell(("dispatch", [("a", 3), ("b", 3)]), out, story)  # it may hear of its end only after this
        else:
            out.finish(END, discard=ending == "discard")
            assert out.statistics().waiting_frames >= 0
        while ending != "cancel" and not out.finished.is_set():
            say_everything_in_vain(out)
            await trio.lowlevel.checkpoint()
    before = socket.got
    say_everything_in_vain(out)
    assert socket.got == before
    check(out, story, socket, whole=ending in ("finish", "discard"))
    if ending == "finish":
        assert set(story.answers) <= set(socket.got)


async def pass_by(step: Step, socket: Slow) -> None:
    """Let time pass, or something happen to the socket."""
    match step:
        case ("pass", steps):
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        case ("settle",):
            await wait_all_tasks_blocked()
        case ("room", room):
            socket.room = room


def say_everything_in_vain(out: Outbox) -> None:
    """What comes after the end is not taken: to the story this adds nothing."""
    assert send_now(out, Joined([Piece(b"\xfe")], PLAIN)) == 0
    assert out.offer(b"\xfe", "a") is Fate.CLOSED
    assert out.answer(b"\xfe") is Fate.CLOSED
    out.control(b"\xfe")


def check(out: Outbox, story: Story, socket: Slow, *, whole: bool) -> None:
    """What the socket got is whole frames, but for the last one of a broken outbox, and in a legal order."""
    runs = [(number, len(list(run))) for number, run in groupby(socket.got)]
    sizes = {**story.sizes, END[0]: 1}
    cut = [number for number, size in runs if size != sizes[number]]
    assert cut == [] or (out.broken and not whole and cut == [runs[-1][0]])
    assert END[0] not in [number for number, _ in runs[:-1]]
    written = [number for number, _ in runs if number != END[0]]
    check_order(story, written)
    if whole:
        assert runs[-1][0] == END[0]
        assert not out.broken
        check_counts(out, story, written)


def check_order(story: Story, written: list[int]) -> None:
    """Pings in order, and before all that came later; everything else in order."""
    controls = [number for number in written if number in story.controls]
    others = [number for number in written if number not in story.controls]
    assert controls == sorted(set(controls))
    assert others == sorted(set(others))
    assert all(max(written[: written.index(number) + 1]) == number for number in controls)
    assert not set(written) & {*story.refused, *story.dropped}


def check_counts(out: Outbox, story: Story, written: list[int]) -> None:
    """Each event and each answer was written, or counts as dropped; and what had begun was written in any case."""
    lost = {*story.events, *story.answers} - set(written)
    assert out.statistics() == OutboxStatistics(0, 0, len(lost) + len(story.dropped))
    assert set(story.straight) <= set(written)
