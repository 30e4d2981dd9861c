"""A broker that is killed again and again, the moments at which that happens, and a book about all that was sent.

The actors are in `kills_publishers.py` and `kills_subscribers.py`; `kills_judge.py` says whether all went well.
"""

from __future__ import annotations

import random
import socket
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import trio

from tests.system.harness import BROKER, Broker, Brokers, environ, eventually, unique

POLICY = """\
default = "nobody"

[relations.group]
set   = "groups.<groupId>.{created,updated}"
key   = "<groupId>"
users = "data.members"
clear = "groups.<groupId>.deleted"

[relations.game]
add    = "games.<gameId>.members.<userId>.created"
remove = "games.<gameId>.members.<userId>.deleted"
key    = "<gameId>"
users  = "<userId>"

[[rules]]
events     = "news.**"
visible_to = "everyone"

[[rules]]
events     = "groups.<groupId>.**"
visible_to = { any = [{ relation = "group", key = "<groupId>" }, { claim = "roles", contains = "auditor" }] }

[[rules]]
events     = "games.<gameId>.members.**"
visible_to = "everyone"

[[rules]]
events     = "games.<gameId>.messages.<messageId>"
visible_to = { any = [{ relation = "game", key = "<gameId>" }, { claim = "roles", contains = "auditor" }] }

[[rules]]
events     = "users.<userId>.inbox.<messageId>"
visible_to = { any = [{ users = "<userId>" }, { claim = "roles", contains = "auditor" }] }
"""
AUDITOR = "auditor"
END = "news.end"  # the last event; everybody may see it

# At so many steps of a kind, at the most, the next kill comes.
MOMENTS = {
    "sent": 150,  # requests that are on their way and have no answer
    "answered": 150,
    "confirmed": 300,  # by RabbitMQ
    "learned": 40,  # of the answered those that changed who is a member of what
    "witnessed": 600,
    "resuming": 12,
    "replayed": 600,  # events that were heard again, or late
    "resumed": 12,
}
BEGINNINGS = ("log.opened", "relations.recalled", "broker.serving")  # what it logs before anybody can connect
BEGINNER = 0.2  # the share of those that are killed as early as that
BETWEEN_STEPS = 0.005  # seconds
WINDOW = 50  # events of one publisher on their way: everybody keeps up, and kills find some there
PATIENCE = 30.0  # seconds without any event, though some are on their way: only a fault makes anybody wait that long

# Below what Linux gives to outgoing connections: while a broker is dead, nobody gets its port by chance.
_PORTS = range(10_000, 32_768)


@dataclass(frozen=True, slots=True)
class Sent:
    """An event as its publisher sent it; `number` is in its payload, and no other event's.

    id: None where the publisher leaves that to the broker.
    """

    number: str
    name: str
    data: Mapping[str, Any]
    id: str | None

    @property
    def teller(self) -> str:
        """Who published it."""
        return self.number.rpartition("-")[0]

    @property
    def hidden(self) -> bool:
        """Whether nobody at all may see it."""
        return self.name.startswith("secret.")


class Progress:
    """Counts steps by their kind, and lets others wait for them."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self._waiting: defaultdict[str, list[tuple[float, trio.Event]]] = defaultdict(list)
        self._ended = False

    def step(self, kind: str) -> None:
        self.steps[kind] += 1
        taken = self.steps[kind]
        for target, reached in self._waiting[kind]:
            if taken >= target:
                reached.set()

    async def more(self, kind: str, number: float) -> None:
        """Wait for so many more steps, or for the end."""
        waits = self.steps[kind] + number, trio.Event()
        self._waiting[kind].append(waits)
        if self._ended:
            waits[1].set()
        await waits[1].wait()
        self._waiting[kind].remove(waits)

    def end(self) -> None:
        """Nobody is to wait any longer."""
        self._ended = True
        for waiting in self._waiting.values():
            for _, reached in waiting:
                reached.set()


class Ledger:
    """What was sent, what became of it, and how much of it nobody has seen yet."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.answered: set[str] = set()
        self.given_up: list[Sequence[Sent]] = []  # requests without an answer that were not repeated
        self._ids: dict[str, str] = {}
        self._open: defaultdict[str, set[str]] = defaultdict(set)  # by their teller
        self._room = trio.Event()

    def send(self, event: Sent) -> None:
        self.sent[event.number] = event
        if not event.hidden:
            self._open[event.teller].add(event.number)

    def answer(self, events: Sequence[Sent], ids: Sequence[str]) -> None:
        """The publisher was told that the broker, or RabbitMQ, has them."""
        assert len(ids) == len(events)
        for event, event_id in zip(events, ids, strict=True):
            self.check_id(event, event_id)
            self.answered.add(event.number)

    def give_up(self, events: Sequence[Sent]) -> None:
        """There was no answer, and the publisher does not try again."""
        self.given_up.append(events)
        self._close(events)

    def witness(self, event: Sent) -> None:
        """The one who sees everything has seen it."""
        self._close([event])

    def check_id(self, event: Sent, event_id: str) -> None:
        """An event has one id, its own where it brought one, whoever is told."""
        assert event_id == self._ids.setdefault(event.number, event.id or event_id), event

    def id_of(self, number: str) -> str:
        """The id of an event that was answered or heard."""
        return self._ids[number]

    async def room(self, teller: str) -> None:
        """Wait until not too much of one publisher's is on its way."""
        while len(self._open[teller]) >= WINDOW:
            await self._wait_seen()

    async def settled(self) -> None:
        """Wait until the one who sees everything has seen it all."""
        while any(self._open.values()):
            await self._wait_seen()

    async def _wait_seen(self) -> None:
        if self._room.is_set():
            self._room = trio.Event()
        with trio.move_on_after(PATIENCE) as patience:
            await self._room.wait()
        lost = sorted(chain.from_iterable(self._open.values()))
        assert not patience.cancelled_caught, f"these never came: {lost[:20]}"

    def _close(self, events: Iterable[Sent]) -> None:
        for event in events:
            self._open[event.teller].discard(event.number)
        self._room.set()


class Mortal:
    """A broker with one folder and one port, and as many lives as it takes."""

    def __init__(self, brokers: Brokers, config: str) -> None:
        self.port = next(port for port in random.sample(_PORTS, len(_PORTS)) if _is_free(port))
        self.deaths = 0
        self._brokers = brokers
        self._folder = brokers.folder / unique("mortal")
        self._folder.mkdir()
        (self._folder / "config.toml").write_text(config)
        (self._folder / "policy.toml").write_text(POLICY)
        self._broker: Broker | None = None
        self._serving = trio.Event()

    @property
    def broker(self) -> Broker:
        assert self._broker is not None, "it has never lived"
        return self._broker

    async def serving(self) -> Broker:
        """Wait until clients can connect."""
        await self._serving.wait()
        return self.broker

    async def start(self) -> None:
        """Let it live, and wait until it serves."""
        self._launch()
        await trio.to_thread.run_sync(self.broker.wait_ready)
        self._serving.set()

    async def start_until(self, logged: str) -> None:
        """Let it live until it logs this."""
        self._launch()
        said = f'"{logged}"'
        await trio.to_thread.run_sync(eventually, lambda: said in self.broker.errors(), f"log entry {logged}")

    def kill(self) -> None:
        """SIGKILL, at this very moment; it must not have complained of anything before."""
        self._brokers.kill(self.broker)
        if self._serving.is_set():
            self._serving = trio.Event()
        self.deaths += 1
        assert "Traceback" not in self.broker.errors(), self.broker.errors()

    def _launch(self) -> None:
        ready = self._folder / "ready.json"
        ready.unlink(missing_ok=True)
        with (self._folder / "stdout").open("wb") as output, (self._folder / "stderr").open("wb") as errors:
            process = subprocess.Popen(
                [*BROKER, "run", "--ready-file", ready.name],
                cwd=self._folder,
                env=environ(BROKER_SERVER__PORT=str(self.port)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
            )
        self._broker = Broker(self._folder, process)
        self._brokers.running.append(self._broker)


async def kill_again_and_again(mortal: Mortal, progress: Progress, chance: random.Random, kills: int) -> None:
    """End so many of its lives; in the end it lives."""
    while mortal.deaths < kills:
        kind = chance.choice(list(MOMENTS))
        await progress.more(kind, chance.randint(1, MOMENTS[kind]))
        await trio.sleep(chance.uniform(0, BETWEEN_STEPS))  # there is nothing to wait for between two steps
        mortal.kill()
        while mortal.deaths < kills and chance.random() < BEGINNER:
            await mortal.start_until(chance.choice(BEGINNINGS))
            mortal.kill()
        await mortal.start()


@dataclass(frozen=True)
class Stage:
    """What all actors share."""

    mortal: Mortal
    ledger: Ledger
    progress: Progress
    enough: trio.Event  # from here on nothing new is sent
    seed: int

    def chance(self, name: str) -> random.Random:
        """Chance for one actor, which does not depend on what the others do."""
        return random.Random(f"{self.seed} {name}")


def _is_free(port: int) -> bool:
    with socket.socket() as listener, suppress(OSError):
        listener.bind(("127.0.0.1", port))
        return True
    return False
