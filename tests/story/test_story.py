"""The whole story in one test: events come in, and everybody sees what is theirs. A good place to begin to read.

Nothing is pretended here but two things: tokens are plain words (`Tokens`), and the events come from a connector that
this file holds in its hands (`Hand`), where there would be a message queue or a webhook.
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from broker.app import Address, Broker, Parts
from broker.config import Config, ServerConfig
from broker.core.event import Event
from broker.core.policy_file import parse_policy
from broker.core.ports import Identity, Publisher
from broker.edge.memory_log import MemoryLog
from tests.fakes import Tokens

# Who may see what. It is declared, and none of the code below knows anything of it.
POLICY = """
default = "nobody"

# Who is in a group is learned from the groups' own events.
[relations.group]
set   = "groups.<groupId>.{created,updated}"
key   = "<groupId>"
users = "data.members"
clear = "groups.<groupId>.deleted"

# Everybody may know who is online.
[[rules]]
events     = "users.<userId>.{online,offline}"
visible_to = "everyone"

# A group is for those in it, and so is what they say to one another.
[[rules]]
events     = "groups.<groupId>.{created,updated,deleted}"
visible_to = { users = "data.members" }

[[rules]]
events     = "groups.<groupId>.messages.<messageId>.created"
visible_to = { relation = "group", key = "<groupId>" }
"""

PEOPLE = Tokens({name: Identity(name) for name in ("ada", "bob", "eve")})


async def test_everybody_sees_what_is_theirs() -> None:
    hand = Hand()
    async with (
        serving(hand) as port,
        client(port, "ada") as ada,
        client(port, "bob") as bob,
        client(port, "eve") as eve,
    ):
        # Ada and Bob ask for everything there is. Eve is connected, and asks for nothing.
        await subscribe(ada, "**")
        await subscribe(bob, "**")

        # Bob is there, and everybody may know it.
        await hand.publish("users.bob.online", None)
        assert await next_event(ada) == ("users.bob.online", None)
        assert await next_event(bob) == ("users.bob.online", None)

        # Ada opens a group of her own and talks to herself. Bob asked for everything, and sees nothing of it:
        # what comes next to him is the event after.
        await hand.publish("groups.1.created", {"members": ["ada"]})
        await hand.publish("groups.1.messages.1.created", {"text": "Is anybody here?"})
        assert await next_event(ada) == ("groups.1.created", {"members": ["ada"]})
        assert await next_event(ada) == ("groups.1.messages.1.created", {"text": "Is anybody here?"})

        # She takes Bob in. From now on he sees what is said; the message itself does not say for whom it is.
        await hand.publish("groups.1.updated", {"members": ["ada", "bob"]})
        await hand.publish("groups.1.messages.2.created", {"text": "Hello, Bob!"})
        for person in (ada, bob):
            assert await next_event(person) == ("groups.1.updated", {"members": ["ada", "bob"]})
            assert await next_event(person) == ("groups.1.messages.2.created", {"text": "Hello, Bob!"})

        # Bob has heard enough of messages: he asks for groups only. The pattern that he gives back is the one he had.
        await subscribe(bob, "groups.*")
        await subscribe(bob, "groups.*.deleted")
        await unsubscribe(bob, "**")
        await hand.publish("groups.1.messages.3.created", {"text": "Still there?"})
        await hand.publish("groups.1.deleted", {"members": ["ada", "bob"]})
        assert await next_event(ada) == ("groups.1.messages.3.created", {"text": "Still there?"})
        for person in (ada, bob):
            assert await next_event(person) == ("groups.1.deleted", {"members": ["ada", "bob"]})

        # An event for which there is no rule is seen by nobody, whatever they ask for.
        await hand.publish("secrets.launch", {"code": 0})

        # The broker is told to stop. Everybody is told so too, and Eve has never heard anything else.
        signal.raise_signal(signal.SIGTERM)
        for person in (ada, bob, eve):
            assert await the_end(person) == (1001, "the server is stopping")


class Hand:
    """A connector: something that runs beside the broker and brings events in by `publish`."""

    name = "hand"
    counters: Mapping[str, int] = {}

    def __init__(self) -> None:
        self._give, self._take = trio.open_memory_channel[Event](0)

    async def publish(self, name: str, data: Any) -> None:
        await self._give.send(Event(name, json.dumps(data).encode(), source=self.name))

    async def run(self, publisher: Publisher, ready: Callable[[], None]) -> None:
        ready()
        async for event in self._take:
            await publisher.publish([event])


@asynccontextmanager
async def serving(connector: Hand) -> AsyncIterator[int]:
    """A broker that serves on some free port; gives the port, and waits in the end until it has stopped."""
    addresses: list[Address] = []
    started = trio.Event()

    def note(address: Address) -> None:
        addresses.append(address)
        started.set()

    broker = Broker(
        Config(server=ServerConfig(port=0)),
        Parts(parse_policy(POLICY, "policy.toml"), PEOPLE, MemoryLog(), connectors=[connector]),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.run, note)
        await started.wait()
        yield addresses[0].port


@asynccontextmanager
async def client(port: int, token: str) -> AsyncIterator[WebSocketConnection]:
    """Somebody's browser."""
    headers = [(b"authorization", f"Bearer {token}".encode())]
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, "127.0.0.1", "/ws", extra_headers=headers)


async def subscribe(socket: WebSocketConnection, pattern: str) -> None:
    await _command(socket, "subscribe", pattern)


async def unsubscribe(socket: WebSocketConnection, pattern: str) -> None:
    await _command(socket, "unsubscribe", pattern)


async def _command(socket: WebSocketConnection, command: str, pattern: str) -> None:
    # A command with an id is answered; who needs no answer leaves the id out.
    await socket.send_message(json.dumps({"event": command, "data": pattern, "id": "now"}))
    assert json.loads(await socket.get_message()) == {"reply": "now", "data": {"pattern": pattern}}


async def next_event(socket: WebSocketConnection) -> tuple[str, Any]:
    message = json.loads(await socket.get_message())
    assert set(message) == {"event", "data"}
    return message["event"], message["data"]


async def the_end(socket: WebSocketConnection) -> tuple[int, str | None]:
    """Code and reason with which the broker closes; nothing may come before."""
    with pytest.raises(ConnectionClosed) as caught:
        await socket.get_message()
    reason = caught.value.reason
    assert reason is not None
    return int(reason.code), reason.reason
