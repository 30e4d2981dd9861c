"""The outbox against a slow model: a list, walked through whenever something has to be found, counted or dropped."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from broker.runtime.outbox import MAX_CONTROL_FRAMES, Fate, Outbox, OutboxStatistics, Overflow, QueueLimits

ANSWER = ""
DROPPING = (Overflow.DROP_OLDEST, Overflow.DROP_NEWEST)

sizes = st.integers(1, 7)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from("abc"), sizes),
        st.tuples(st.just("answer"), st.just(ANSWER), sizes),
        st.tuples(st.sampled_from(["control", "block", "open"]), st.just(ANSWER), st.just(1)),
    ),
    max_size=40,
)
limits = st.builds(QueueLimits, st.integers(1, 5), st.integers(1, 20), st.sampled_from(Overflow))


@dataclass
class Model:
    """What an outbox and its writer do, said slowly."""

    limits: QueueLimits
    waiting: list[tuple[str, bytes]] = field(default_factory=list)
    control: list[bytes] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    dropped: int = 0
    blocked: bool = False
    stuck: bool = False

    def offer(self, frame: bytes, name: str) -> Fate:
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
        if self._put(frame, ANSWER):
            return Fate.QUEUED
        if self.limits.overflow in DROPPING and self._make_room(frame, ANSWER):
            return Fate.DROPPED_OLDEST
        return Fate.OVERFLOWED

    def settle(self) -> None:
        if not self.blocked:
            self.stuck = False
        if not self.stuck and (self.waiting or self.control):
            frames = [*self.control[-MAX_CONTROL_FRAMES:], *(frame for _, frame in self.waiting)]
            self.written.append(b"".join(frames))
            self.waiting, self.control = [], []
            self.stuck = self.blocked

    def statistics(self) -> OutboxStatistics:
        return OutboxStatistics(len(self.waiting), sum(len(frame) for _, frame in self.waiting), self.dropped)

    def _put(self, frame: bytes, name: str) -> bool:
        before = self.statistics()
        fits = before.waiting_frames < self.limits.frames and before.waiting_bytes + len(frame) <= self.limits.bytes
        if fits:
            self.waiting.append((name, frame))
        return fits

    def _make_room(self, frame: bytes, name: str) -> bool:
        if len(frame) > self.limits.bytes:
            return False
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
    """Takes each write when it begins, and lets it end when it is open."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.open = trio.Event()
        self.open.set()

    async def write(self, data: bytes) -> None:
        self.begun.append(data)
        await self.open.wait()


@given(limits, steps)
async def test_it_does_what_the_slow_model_does(limits: QueueLimits, sequence: list[tuple[str, str, int]]) -> None:
    out, socket, model = Outbox(limits), Socket(), Model(limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write)
        await wait_all_tasks_blocked()
        for number, (step, name, size) in enumerate(sequence):
            frame = bytes([number]) * size
            if step == "offer":
                assert out.offer(frame, name) is model.offer(frame, name)
            elif step == "answer":
                assert out.answer(frame) is model.answer(frame)
            elif step == "control":
                out.control(frame)
                model.control.append(frame)
            else:
                if step == "open":
                    socket.open.set()
                elif socket.open.is_set():
                    socket.open = trio.Event()
                model.blocked = step == "block"
            await wait_all_tasks_blocked()
            model.settle()
            assert socket.begun == model.written
            assert out.statistics() == model.statistics()
        nursery.cancel_scope.cancel()


@given(limits, steps)
async def test_answers_are_written_in_order_and_events_too_however_the_writer_is_scheduled(
    limits: QueueLimits, sequence: list[tuple[str, str, int]]
) -> None:
    out, socket = Outbox(limits), Socket()
    answers: list[int] = []
    events: list[int] = []
    refused: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.run, socket.write)
        for number, (step, name, size) in enumerate(sequence):
            frame = bytes([number]) * size
            if step == "offer":
                fate = out.offer(frame, name)
                (refused if fate in (Fate.OVERFLOWED, Fate.DROPPED_NEWEST) else events).append(number)
            elif step == "answer":
                (refused if out.answer(frame) is Fate.OVERFLOWED else answers).append(number)
            else:
                await trio.lowlevel.checkpoint()  # the writer may have taken a frame by then, or not
            assert out.statistics().waiting_frames <= limits.frames
            assert out.statistics().waiting_bytes <= limits.bytes
        out.finish(b"\xff", discard=False)
    written = list(dict.fromkeys(b"".join(socket.begun)))
    assert [number for number in written if number in answers] == answers
    assert [number for number in written if number in events] == sorted(set(written) & set(events))
    assert not set(written) & set(refused)
    assert written[-1] == 0xFF
