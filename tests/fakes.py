"""Stand-ins that tests of several parts use: who knows tokens, and the client's end of a connection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.errors import AuthenticationError, InvalidToken, MissingToken
from broker.core.ports import Authenticator, Identity
from broker.runtime.connection import Connection
from broker.runtime.party import Ending, Party, PeerGone
from broker.runtime.presence import Presence
from broker.runtime.registry import Member, Registry
from broker.runtime.services import Resumed, Resumer, Services

M = TypeVar("M", bound=Member)

PING, TEXT, CLOSE = 0x9, 0x1, 0x8


class Tokens:
    """An authenticator for which a token is a word, and who it stands for is written down beside it."""

    def __init__(self, known: dict[str, Identity | AuthenticationError] | None = None) -> None:
        self.known = known or {}

    def identify(self, token: str | None) -> Identity:
        if token is None:
            raise MissingToken("there is no token")
        found = self.known.get(token, InvalidToken("nobody knows this token"))
        if isinstance(found, AuthenticationError):
            raise found
        return found

    def publisher(self, token: str | None) -> Identity:
        return self.identify(token)


class NobodyResumes:
    """Knows of nothing that anybody could have missed."""

    def start(self, connection: Connection, place: str | None, resumed: Resumed) -> trio.CancelScope:
        raise NotImplementedError

    def refresh(self, connection: Connection) -> None:
        """There is nothing to be told."""


async def nothing_to_say(news: Mapping[str, bool]) -> None:
    """Nobody wants to know who comes and goes."""


def services(
    registry: Registry[Connection], tokens: Authenticator | None = None, resumer: Resumer | None = None
) -> Services:
    """What connections need, with stand-ins for what is not given."""
    return Services(registry, tokens or Tokens(), resumer or NobodyResumes(), Presence(0, nothing_to_say))


class Client:
    """The other end of one connection: says what a client says, and keeps what it hears."""

    def __init__(self) -> None:
        self._say, self._said = trio.open_memory_channel[str | bytes](1000)
        self.heard: list[tuple[int, bytes]] = []
        self.ending: Ending | None = None
        self.party: Party | None = None

    async def say(self, *messages: str | bytes | dict[str, Any]) -> list[Any]:
        """Say something, and return the JSON that comes in answer."""
        known = len(self.json())
        self.say_soon(*messages)
        await wait_all_tasks_blocked()
        return self.json()[known:]

    def say_soon(self, *messages: str | bytes | dict[str, Any]) -> None:
        """Say something, without waiting for what comes of it."""
        for message in messages:
            self._say.send_nowait(json.dumps(message) if isinstance(message, dict) else message)

    def hang_up(self) -> None:
        """Say nothing more."""
        self._say.close()

    def json(self) -> list[Any]:
        """What was heard in text frames so far."""
        return [json.loads(payload) for opcode, payload in self.heard if opcode == TEXT]

    def close_code(self) -> int | None:
        """The code of the close frame, if one has come."""
        return next((int.from_bytes(payload[:2], "big") for opcode, payload in self.heard if opcode == CLOSE), None)

    async def follow(self, party: Party) -> None:
        self.party = party
        self.ending = await party.run(self._receive)

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.heard += frames_in(data)

    async def _receive(self) -> str | bytes:
        try:
            return await self._said.receive()
        except trio.EndOfChannel:
            raise PeerGone(1000, "bye") from None


@contextmanager
def attached(registry: Registry[M], connection: M) -> Iterator[None]:
    """The connection is in the registry for the length of the block."""
    registry.attach(connection)
    try:
        yield
    finally:
        registry.detach(connection)


@asynccontextmanager
async def talking(party: Party) -> AsyncIterator[Client]:
    """A client that talks to `party` for the length of the block."""
    client = Client()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(party.outbox.run, client.write)
        nursery.start_soon(client.follow, party)
        await wait_all_tasks_blocked()
        yield client
        client.hang_up()


def frames_in(data: bytes) -> list[tuple[int, bytes]]:
    """The unmasked frames in `data`: opcode and payload of each."""
    found = []
    while data:
        length, begin = data[1], 2
        if length > 125:
            begin = 4 if length == 126 else 10
            length = int.from_bytes(data[2:begin], "big")
        found.append((data[0] & 0x0F, data[begin : begin + length]))
        data = data[begin + length :]
    return found
