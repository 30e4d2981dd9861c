"""Resume, held against a slow model: random histories, comings and goings, slow sockets, small logs, restarts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from broker.core.event import Event, Record
from broker.core.policy_file import parse_policy
from broker.core.ports import Log
from broker.core.relations import Learned
from broker.edge.memory_log import MemoryLog
from broker.edge.retention import Retention
from broker.edge.sqlite_log import SqliteLog
from broker.runtime import lookback, resuming, routing
from broker.runtime.outbox import QueueLimits
from tests.edge.sqlite_house import put_back, saved
from tests.runtime.house import ByTheWire, House
from tests.runtime.resumes_model import POLICY, Happened, History, Place, Session, check
from tests.runtime.sockets import Slow, Socket

RULES = parse_policy(POLICY, "policy.toml")


@pytest.fixture(autouse=True, scope="module")
def little_at_once() -> Iterator[None]:
    """A few events are many, so that short histories have all that long ones have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookback, "AT_ONCE", 3)
        patch.setattr(lookback, "MOST_PREPARED", 7)
        patch.setattr(resuming, "LAST_EVENTS", 4)
        patch.setattr(routing, "EVENTS_PER_TURN", 3)
        yield


class Watched:
    """A log at whose work one can wait, and which tells what its positions stand for."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._working = 0
        self._rests = trio.Event()
        self.named: dict[str, int] = {}

    async def settled(self) -> None:
        """Wait until everybody waits for something to happen."""
        await wait_all_tasks_blocked()
        while self._working:
            self._rests = trio.Event()
            await self._rests.wait()
            await wait_all_tasks_blocked()

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            self._rests.set()

    async def append(self, events: Sequence[Event]) -> Sequence[Record | str]:
        async with self._at_work():
            return await self._log.append(events)

    def learn(self, learned: Learned) -> None:
        self._log.learn(learned)

    async def recall(self) -> tuple[Learned, Sequence[Record]]:
        return await self._log.recall()

    def position(self, after: int | None = None) -> str:
        text = self._log.position(after)
        self.named[text] = self._log.statistics()["next_offset"] - 1 if after is None else after
        return text

    async def locate(self, place: str) -> int | None:
        async with self._at_work():
            return await self._log.locate(place)

    async def read(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        async with self._at_work():
            return await self._log.read(after, most, max_bytes)

    def recent(self, after: int, most: int, max_bytes: int) -> Sequence[Record] | None:
        return self._log.recent(after, most, max_bytes)

    def statistics(self) -> Mapping[str, int]:
        return self._log.statistics()

    def close(self) -> None:
        self._log.close()


class World:
    """A broker, those who come and go, and all that has happened."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.places = [Place(None), Place("nobody gave this", -1)]
        self.sessions: list[tuple[Session, ByTheWire]] = []

    @asynccontextmanager
    async def living(self, log: Log) -> AsyncIterator[None]:
        """The broker runs, for the length of the block."""
        self.log = Watched(log)
        async with trio.open_nursery() as nursery:
            self.home = House(nursery, RULES, self.log)
            await self.home.dispatcher.recall()
            yield
            await self.log.settled()
            while self.sessions:
                self._end(0)
            nursery.cancel_scope.cancel()

    async def do(self, what: str, *details: Any) -> None:
        """What a step says."""
        await getattr(self, f"_{what}")(*details)

    async def settle(self) -> None:
        """Let all come to rest."""
        await self.log.settled()
        for session, client in self.sessions:
            if session.place is not None and not session.settled:
                session.settled = len(self.history)
            self._listen(session, client)

    async def end_well(self) -> None:
        """Let everybody read all that there is, and check that this is all that there should be."""
        for _, client in self.sessions:
            if isinstance(client.socket, Slow):
                client.socket.let_all()
        await self.settle()
        for session, client in self.sessions:
            check(self.history, session, whole=client.close_code() is None)

    async def _publish(self, events: Sequence[Happened]) -> None:
        known = {event.id for event in self.history.held()}
        offset = len(self.history)
        batch = []
        fresh = []
        for event in events:
            fresh.append(not (event.own_id and event.id in known))
            known.add(event.id)
            offset += fresh[-1]
            data = json.dumps(event.data(offset)).encode()
            batch.append(Event(event.name, data, event.id if event.own_id else None))
        ids = await self.home.ingest.publish(batch)
        for event, event_id, is_fresh in zip(events, ids, fresh, strict=True):
            if is_fresh:
                self.history.add(Happened(event.kind, event.of, event.users, event_id, event.own_id))
                self.places.append(Place(event_id, len(self.history), event.own_id))

    async def _come(self, user: str | None, patterns: frozenset[str], socket: str, place: int | None) -> None:
        await self.log.settled()
        client = ByTheWire(Socket() if socket == "fast" else Slow())
        queue = QueueLimits(frames=3, bytes=600) if socket == "narrow" else None
        await self.home.join_by_wire(user, *patterns, client=client, queue=queue)
        await self.log.settled()
        self.sessions.append((Session(user, patterns, joined=len(self.history)), client))
        if place is not None:
            await self._resume(-1, place)

    async def _resume(self, number: int, place: int) -> None:
        if self.sessions:
            session, client = self.sessions[number % len(self.sessions)]
            if session.place is None and client.ending is None:
                session.place = self._now(self.places[place % len(self.places)])
                session.asked = self.home.dispatcher.position
                session.taken = len(self.history)
                client.say_soon({"event": "resume", "data": session.place.text, "id": "resume"})
                if session.place.own_id:  # before it becomes that of another event
                    await self.settle()

    async def _read(self, number: int, writes: int) -> None:
        if self.sessions:
            session, client = self.sessions[number % len(self.sessions)]
            if isinstance(client.socket, Slow):
                await client.socket.let(writes)
            self._listen(session, client)
            check(self.history, session, whole=False)

    async def _go(self, number: int) -> None:
        if self.sessions:
            await self.settle()
            self._end(number % len(self.sessions))

    def _end(self, number: int) -> None:
        session, client = self.sessions.pop(number)
        self._listen(session, client)
        check(self.history, session, whole=False)
        client.hang_up()

    def _now(self, place: Place) -> Place:
        """What this place stands for now: an id that a publisher chose may be that of another event by now."""
        offsets = [offset for offset, event in enumerate(self.history.events, start=1) if event.id == place.text]
        return Place(place.text, offsets[-1], own_id=True) if place.own_id else place

    def _listen(self, session: Session, client: ByTheWire) -> None:
        """Sort what it has heard."""
        session.plain, session.replayed, session.live = [], [], []
        session.answer = None
        for message in client.json():
            if "event" not in message:
                assert message.get("code", "resume_gap") == "resume_gap"
                session.answer = "gap" if "code" in message else "ok"
                if session.answer == "ok":
                    text = message["data"]["id"]
                    session.position = self.log.named[text]
                    self._note(Place(text, session.position))
                continue
            offset = message["data"]["n"]
            event = self.history.events[offset - 1]
            assert message["event"] == event.name
            assert message.get("id", event.id) == event.id
            part = session.live if session.answer else session.replayed
            (part if "id" in message else session.plain).append(offset)

    def _note(self, place: Place) -> None:
        if place not in self.places:
            self.places.append(place)


USERS = st.sampled_from(["ada", "bob"])
GROUPS = st.sampled_from(["1", "1", "1", "2"])
SOME = st.frozensets(USERS)
KINDS = st.sampled_from(
    [*["news"] * 5, *["others"] * 6, *["add"] * 3, *["remove"] * 3, *["set"] * 2, "clear", "faulty", "users", "public"]
)


@st.composite
def some_event(draw: st.DrawFn) -> Happened:
    kind = draw(KINDS)
    if kind == "users":
        return Happened(kind, draw(USERS))
    if kind == "public":
        return Happened(kind, "x", id=draw(st.sampled_from("xyz")), own_id=True)
    if kind == "faulty":
        return Happened(draw(st.sampled_from(["set", "add", "remove"])), draw(GROUPS))
    return Happened(kind, draw(GROUPS), draw(SOME) if kind in ("add", "remove", "set") else None)


BATCH = st.lists(some_event(), min_size=3, max_size=12)
PATTERNS = st.just(frozenset(["**"])) | st.frozensets(
    st.sampled_from(["groups.**", "news.*", "others.*", "users.*", "public.*"]), min_size=2
)
SOCKETS = st.sampled_from(["fast", "slow", "slow", "narrow"])
NUMBER = st.integers(0, 3)
PLACE = st.integers(-20, 1)  # the newest of those that there are; null; one that never was
STEPS = st.one_of(
    st.tuples(st.just("publish"), BATCH),
    st.tuples(st.just("come"), USERS | st.none(), PATTERNS, SOCKETS, PLACE | st.none()),
    st.tuples(st.just("read"), NUMBER, st.integers(1, 3)),
    st.tuples(st.just("resume"), NUMBER, PLACE),
    st.tuples(st.just("go"), NUMBER),
)
LIFE = st.lists(st.tuples(STEPS, st.booleans()), min_size=12, max_size=30)
RETAIN = st.sampled_from([10, 20, 1000])


async def live(world: World, steps: Sequence[tuple[tuple[Any, ...], bool]]) -> None:
    for step, settle in steps:
        await world.do(*step)
        if settle:
            await world.settle()
    await world.settle()


@given(RETAIN, LIFE)
async def test_what_is_heard_is_what_the_slow_model_says(retain: int, steps: list[Any]) -> None:
    world = World(History(retain))
    async with world.living(MemoryLog(Retention(events=retain))):
        await live(world, steps)
        await world.end_well()


@settings(max_examples=40)
@given(RETAIN, st.lists(st.tuples(LIFE, st.booleans()), min_size=1, max_size=3), st.sampled_from([0, 2000, 1_000_000]))
async def test_the_same_from_a_disk_and_over_restarts(retain: int, lives: list[Any], recent_bytes: int) -> None:
    world = World(History(retain))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        for steps, killed in lives:
            log = SqliteLog(path, Retention(events=retain), recent_bytes=recent_bytes)
            async with world.living(log):
                await live(world, steps)
                await world.end_well()
                files = saved(path)
            log.close()
            if killed:
                put_back(path, files)
