"""Those who listen while the broker is killed: they come back, and resume where they were (`docs/protocol.md`)."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from tests.system.harness import Broker
from tests.system.kills import END, Stage
from tests.system.kills_judge import Listener, Return
from tests.system.kills_lines import CUT, TOO_SLOW, Gone, ServerSentLine, WebSocketLine, server_sent, websocket

EVERYTHING = ("**",)
RESUME = "resume"
FAR_BACK = 1000  # events
NAP = 300  # events that the witness hears meanwhile
SMALL_BUFFER = 4096  # bytes, for one who naps


@dataclass(frozen=True, slots=True)
class Habits:
    """How one behaves besides listening; each number is the most events between two times that it does so.

    cuts: its connection breaks, without a goodbye. naps: it reads no more until others have heard a good deal.
    asks: it asks for a fresh position.
    """

    cuts: int | None = None
    naps: int | None = None
    asks: int | None = None


class Ear:
    """What a subscriber does with what it hears, over whatever it hears it."""

    def __init__(self, stage: Stage, listener: Listener, witness: Listener | None = None) -> None:
        self.listener = listener
        self.place: str | None = None  # from where it is to resume
        self.ended = False
        self._stage = stage
        self._witness = witness or listener
        self._return: Return | None = None
        self._waits = False  # for the answer to a `resume`

    @property
    def away(self) -> bool:
        """Whether it has asked for what it missed, and not got all of it."""
        return self._return is not None

    def may_ask(self) -> bool:
        """Note that it asks where the log is now, unless it waits for an answer already."""
        if self._waits:
            return False
        self._waits = True
        return True

    def come_back(self) -> None:
        """It asks for what it has missed."""
        self._waits = True
        self._return = Return(len(self.listener.heard), len(self._witness.heard))
        self.listener.returns.append(self._return)
        self._stage.progress.step("resuming")

    def arrive(self, place: str) -> None:
        """It is told that what came before `place` has been sent."""
        self.place = place
        self._waits = False
        if self._return is not None:
            self._return.live = len(self.listener.heard)
            self._return.sent = len(self._stage.ledger.sent)
            self._return = None
            self._stage.progress.step("resumed")

    @contextmanager
    def staying(self) -> Iterator[None]:
        """For as long as it has a connection, which may end as it does when the broker is killed, or when one naps."""
        try:
            yield
        except Gone as gone:
            if gone.code not in (CUT, TOO_SLOW):
                raise
            self._stage.progress.step(f"ended with {gone.code}")
        self._waits = False
        self._return = None

    def hear(self, name: str, data: Any, event_id: str) -> None:
        self.place = event_id
        ledger, progress = self._stage.ledger, self._stage.progress
        sent = ledger.sent.get(data["number"])
        assert sent is not None, f"nobody published {name}: {data}"
        assert (name, data) == (sent.name, sent.data), f"{name}: {data} was published as {sent}"
        ledger.check_id(sent, event_id)
        self.listener.heard.append(sent.number)
        if self.listener is self._witness:
            ledger.witness(sent)
            progress.step("witnessed")
        if self.away:
            progress.step("replayed")
        self.ended = name == END


class Subscriber(Protocol):
    """Listens until it has heard the end."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None: ...


class WebSocketSubscriber:
    """Comes back until it has heard the end."""

    def __init__(self, stage: Stage, ear: Ear, habits: Habits | None = None) -> None:
        self._stage = stage
        self._ear = ear
        self._habits = habits or Habits()
        self._chance = stage.chance(ear.listener.user)
        self._buffer = None if self._habits.naps is None else SMALL_BUFFER

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen; started when it does not miss anything any more."""
        while not self._ear.ended:
            with self._ear.staying():
                async with connected(self._stage, self._ear.listener, self._buffer) as line:
                    await (begin if self._ear.place is None else come_back)(line, self._ear)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await self._listen(line)

    async def _listen(self, line: WebSocketLine) -> None:
        """Until the end, or until it is time for a cut."""
        habits = self._habits
        cut, nap, ask = (self._next(most) for most in (habits.cuts, habits.naps, habits.asks))
        frames = 0
        while not self._ear.ended and frames < cut:
            take(self._ear, await line.frame())
            frames += 1
            if frames >= nap:
                await self._stage.progress.more("witnessed", NAP)
                nap = frames + self._next(habits.naps)
            if frames >= ask and self._ear.may_ask():
                await line.command("resume", id=RESUME)
                ask = frames + self._next(habits.asks)

    def _next(self, most: int | None) -> float:
        return math.inf if most is None else self._chance.randint(1, most)


class ServerSentSubscriber:
    """The same over server-sent events; its connection breaks after `cuts` events at the most."""

    def __init__(self, stage: Stage, ear: Ear, cuts: int) -> None:
        self._stage = stage
        self._ear = ear
        self._cuts = cuts
        self._chance = stage.chance(ear.listener.user)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen; started when it does not miss anything any more."""
        ear, listener = self._ear, self._ear.listener
        while not ear.ended:
            with ear.staying():
                token = token_of(await self._stage.mortal.serving(), listener)
                if ear.place is not None:
                    ear.come_back()
                async with server_sent(self._stage.mortal.port, token, listener.patterns, ear.place) as line:
                    take(ear, await line.frame())
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await self._listen(line)

    async def _listen(self, line: ServerSentLine) -> None:
        for _ in range(self._chance.randint(1, self._cuts)):
            if self._ear.ended:
                break
            take(self._ear, await line.frame())


@asynccontextmanager
async def connected(stage: Stage, listener: Listener, buffer: int | None = None) -> AsyncIterator[WebSocketLine]:
    """A WebSocket, as soon as somebody serves.

    Raises Gone.
    """
    token = token_of(await stage.mortal.serving(), listener)
    async with websocket(stage.mortal.port, token, receive_buffer=buffer) as line:
        yield line


def token_of(broker: Broker, listener: Listener) -> str:
    return broker.token(listener.user, roles=[*listener.roles])


async def begin(line: WebSocketLine, ear: Ear) -> None:
    """Hear everything from here on, with ids."""
    await line.command("resume", id=RESUME)
    take(ear, await line.frame())
    for pattern in ear.listener.patterns:
        await line.command("subscribe", pattern, id=pattern)
        assert (await line.frame())["reply"] == pattern


async def come_back(line: WebSocketLine, ear: Ear) -> None:
    """Ask for what came meanwhile."""
    for pattern in ear.listener.patterns:
        await line.command("subscribe", pattern)
    ear.come_back()
    await line.command("resume", ear.place, id=RESUME)


def take(ear: Ear, frame: Mapping[str, Any]) -> None:
    """Do with a frame what a client does."""
    if "event" not in frame:
        assert "data" in frame, f"{ear.listener.user} was told {frame}"
        ear.arrive(frame["data"]["id"])
    elif "id" in frame:
        ear.hear(frame["event"], frame["data"], frame["id"])
    else:  # slipped in before the resume: it comes again
        assert ear.away, f"{ear.listener.user} got this without an id: {frame}"


class Wanderers:
    """One after the other comes with the id of some event, whichever life of the broker it is from, hears what came
    after it, and leaves.
    """

    def __init__(self, stage: Stage, users: Sequence[str], witness: Listener) -> None:
        self.listeners: list[Listener] = []
        self._stage = stage
        self._users = users
        self._witness = witness
        self._chance = stage.chance("wanderers")

    async def run(self) -> None:
        """Until it is enough."""
        stage = self._stage
        await stage.progress.more("witnessed", 1)
        while not stage.enough.is_set():
            after = self._chance.choice(self._witness.heard[-FAR_BACK:])
            listener = Listener(self._chance.choice(self._users), EVERYTHING, after=after, stayed=False)
            self.listeners.append(listener)
            ear = Ear(stage, listener, self._witness)
            with ear.staying():
                await look_back(stage, ear, stage.ledger.id_of(after))
            await stage.progress.more("witnessed", self._chance.randint(1, FAR_BACK // 4))


async def look_back(stage: Stage, ear: Ear, place: str) -> None:
    """Hear all that came after `place`, at once."""
    ear.place = place
    async with connected(stage, ear.listener) as line:
        await come_back(line, ear)
        while ear.away:
            take(ear, await line.frame())
