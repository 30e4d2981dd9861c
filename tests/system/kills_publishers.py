"""Those who publish while the broker is killed: they send again, under the same ids, whatever got no answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, Protocol

from connectors.amqp.channel import Channel
from connectors.amqp.codec import Basic
from connectors.amqp.confirms import Publication
from tests.system.amqp import PERSISTENT, publishing
from tests.system.kills import Sent, Stage
from tests.system.kills_lines import Gone, HttpLine

GROUPS = ("red", "blue", "green")
GAMES = ("chess", "go")
STEADY = ("ada", "dan")  # always members of the group `red`
FICKLE = ("bob", "cid", "dan", "eve")  # come and go everywhere else; those of `STEADY` not in `red`
OUTSIDER = "fay"  # never a member of anything
BIG = "x" * 30_000
FLOOD = 250  # more than the dispatcher gives out in one turn

Say = tuple[str, dict[str, Any]]


class Story:
    """What one publisher has to say: of every kind of event some, by chance."""

    def __init__(self, teller: str, chance: random.Random, *, own_ids: bool = True) -> None:
        self._teller = teller
        self._chance = chance
        self._own_ids = own_ids
        self._numbers = count(1)

    def next(self) -> Sent:
        number = f"{self._teller}-{next(self._numbers)}"
        (kind,) = self._chance.choices(list(_KINDS), list(_KINDS.values()))
        name, data = kind(self._chance, number)
        return Sent(number, name, {"number": number, **data}, f"id of {number}" if self._own_ids else None)

    def some(self, most: int) -> list[Sent]:
        """So many at the most, but now and then a flood, if it is more than one at all."""
        if most > 1 and self._chance.random() < 0.05:
            most = FLOOD
        return [self.next() for _ in range(self._chance.randint(1, most))]


def _news(chance: random.Random, number: str) -> Say:
    return f"news.{chance.choice(['sport', 'weather'])}.{number}", {}


def _big_news(chance: random.Random, number: str) -> Say:
    return f"news.long.{number}", {"text": BIG}


def _group_message(chance: random.Random, number: str) -> Say:
    return f"groups.{chance.choice(GROUPS)}.messages.{number}.created", {}


def _group_members(chance: random.Random, number: str) -> Say:
    group = chance.choice(GROUPS)
    some = chance.sample(FICKLE, chance.randint(0, len(FICKLE)))
    members = {*some, *STEADY} if group == "red" else {*some}
    return f"groups.{group}.{chance.choice(['created', 'updated'])}", {"members": sorted(members)}


def _group_end(chance: random.Random, number: str) -> Say:
    return "groups.green.deleted", {}


def _game_message(chance: random.Random, number: str) -> Say:
    return f"games.{chance.choice(GAMES)}.messages.{number}", {}


def _game_members(chance: random.Random, number: str) -> Say:
    return f"games.{chance.choice(GAMES)}.members.{chance.choice(FICKLE)}.{chance.choice(['created', 'deleted'])}", {}


def _private(chance: random.Random, number: str) -> Say:
    return f"users.{chance.choice([*FICKLE, OUTSIDER])}.inbox.{number}", {}


def _secret(chance: random.Random, number: str) -> Say:
    return f"secret.{number}", {}


_KINDS: dict[Callable[[random.Random, str], Say], int] = {
    _news: 20,
    _big_news: 4,
    _group_message: 25,
    _group_members: 6,
    _group_end: 1,
    _game_message: 20,
    _game_members: 12,
    _private: 12,
    _secret: 2,
}


def teaches(event: Sent) -> bool:
    """Whether it changes who is a member of what."""
    return ".messages." not in event.name and event.name.startswith(("groups.", "games."))


def as_one(events: Sequence[Sent]) -> tuple[bytes, str]:
    (event,) = events
    return _json(event), "application/json"


def as_array(events: Sequence[Sent]) -> tuple[bytes, str]:
    return b"[" + b",".join(map(_json, events)) + b"]", "application/json"


def as_lines(events: Sequence[Sent]) -> tuple[bytes, str]:
    return b"\n".join(map(_json, events)), "application/x-ndjson"


Write = Callable[[Sequence[Sent]], tuple[bytes, str]]


class Publisher(Protocol):
    """Publishes until it is enough, and nothing waits for an answer any more."""

    async def run(self) -> None: ...


class HttpPublisher:
    """Sends `most` events at a time, again and again until they are answered; now and then one by one then."""

    def __init__(self, stage: Stage, name: str, write: Write, most: int = 1) -> None:
        self._stage = stage
        self._name = name
        self._chance = stage.chance(name)
        self._story = Story(name, self._chance)
        self._write = write
        self._most = most

    async def run(self) -> None:
        async with HttpLine(self._stage.mortal.port) as line:
            while not self._stage.enough.is_set():
                await self._stage.ledger.room(self._name)
                await self.publish(line, self._story.some(self._most))

    async def publish(self, line: HttpLine, events: Sequence[Sent]) -> None:
        """Go on until they are answered."""
        for event in events:
            self._stage.ledger.send(event)
        parts = [events]
        while parts:
            try:
                ids = await post(self._stage, line, *self._write(parts[0]))
            except Gone:
                self._stage.progress.step("repeated")
                if self._chance.random() < 0.3:
                    parts = [[event] for part in parts for event in part]
            else:
                answered(self._stage, parts.pop(0), ids)


class CarelessPublisher:
    """Sends several events at a time without ids, and what is not answered never again."""

    def __init__(self, stage: Stage, name: str, most: int) -> None:
        self._stage = stage
        self._name = name
        self._story = Story(name, stage.chance(name), own_ids=False)
        self._most = most

    async def run(self) -> None:
        async with HttpLine(self._stage.mortal.port) as line:
            while not self._stage.enough.is_set():
                await self._stage.ledger.room(self._name)
                await self._publish(line, self._story.some(self._most))

    async def _publish(self, line: HttpLine, events: Sequence[Sent]) -> None:
        for event in events:
            self._stage.ledger.send(event)
        try:
            answered(self._stage, events, await post(self._stage, line, *as_array(events)))
        except Gone:
            self._stage.ledger.give_up(events)


class AmqpPublisher:
    """Puts events into RabbitMQ, some of them twice, as one does who is not sure."""

    def __init__(self, stage: Stage, name: str, url: str, queue: str) -> None:
        self._stage = stage
        self._name = name
        self._chance = stage.chance(name)
        self._story = Story(name, self._chance)
        self._url = url
        self._queue = queue

    async def run(self) -> None:
        async with publishing(self._url) as channel:
            while not self._stage.enough.is_set():
                await self._stage.ledger.room(self._name)
                await self._publish(channel, self._story.some(20))

    async def _publish(self, channel: Channel, events: Sequence[Sent]) -> None:
        for event in events:
            self._stage.ledger.send(event)
        publications = [(event, await self._one(channel, event)) for event in self._doubled(events)]
        for event, publication in publications:
            await publication.wait_confirmed()
            self._stage.ledger.answer([event], [event.id or ""])
            self._stage.progress.step("confirmed")

    def _doubled(self, events: Sequence[Sent]) -> Iterator[Sent]:
        for event in events:
            yield event
            if self._chance.random() < 0.05:
                yield event

    async def _one(self, channel: Channel, event: Sent) -> Publication:
        properties = Basic.Properties(message_id=event.id, delivery_mode=PERSISTENT)
        body = json.dumps({"event": event.name, "data": event.data}).encode()
        return await channel.publish("", self._queue, body, properties)


async def post(stage: Stage, line: HttpLine, body: bytes, content_type: str) -> Sequence[str]:
    """Send a request, and wait for the ids.

    Raises Gone: nobody knows whether the broker has taken it.
    """
    broker = await stage.mortal.serving()
    await line.send(body, content_type, broker.token(publish=["**"]))
    stage.progress.step("sent")
    return await line.ids()


def answered(stage: Stage, events: Sequence[Sent], ids: Sequence[str]) -> None:
    """Note that a request has its answer."""
    stage.ledger.answer(events, ids)
    stage.progress.step("answered")
    if any(map(teaches, events)):
        stage.progress.step("learned")


def _json(event: Sent) -> bytes:
    with_id = {} if event.id is None else {"id": event.id}
    return json.dumps({"event": event.name, "data": event.data, **with_id}).encode()
