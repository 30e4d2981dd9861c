"""What an application sends without being asked: who wants it, and the handle by which they take it."""

from __future__ import annotations

from typing import Any

from broker.client.frames import Message
from broker.client.inbox import Handle, Inbox

MOST_EARLY = 1024  # messages that are kept while nobody can ask for them


class Messages(Handle[Message]):
    """Messages as they come: iterate over it. `Client.messages` makes them; they begin at once.

    As a context manager they end with the block.
    """

    async def __aenter__(self) -> Messages:
        return self

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> Any:
        """The value of the next message: what its JSON says, a text that is none, or bytes.

        Raises Disconnected, or whatever else ended the client; ClientClosed when its block has been left.
        """
        return (await self._inbox.take()).value


class Hearers:
    """Those who want the messages, each with an inbox of its own; where nobody does, messages are dropped.

    An application may greet a connection before its user can ask for anything. So the first messages are kept until
    `begin`, and go to the first who asks. size_bytes: of those.
    """

    def __init__(self, size_bytes: int) -> None:
        self._inboxes: dict[Inbox[Message], None] = {}
        self._early: list[Message] = []
        self._size_bytes = size_bytes
        self._begun = False

    def __len__(self) -> int:
        return len(self._inboxes)

    @property
    def full(self) -> bool:
        """Whether one of them is full, so that nothing is read."""
        return any(inbox.full for inbox in self._inboxes)

    @property
    def buffered(self) -> int:
        """How many messages wait for who asked for them."""
        return sum(len(inbox) for inbox in self._inboxes)

    def begin(self) -> None:
        """From here on who wants messages has asked for them."""
        self._begun = True

    def add(self, inbox: Inbox[Message]) -> None:
        """Somebody wants the messages from here on, and the early ones where nobody has them yet."""
        early, self._early = self._early, []
        for message in early:
            inbox.add(message)
        self._inboxes[inbox] = None

    def remove(self, inbox: Inbox[Message]) -> None:
        """Somebody wants no more of them; more than once is no error."""
        inbox.close()
        self._inboxes.pop(inbox, None)

    async def put(self, message: Message) -> None:
        """Give it to each; waits for room."""
        if not self._begun:
            self._keep(message)
        for inbox in list(self._inboxes):
            await inbox.put(message)

    def end(self, error: Exception) -> None:
        """Nothing more will come."""
        for inbox in self._inboxes:
            inbox.end(error)

    def _keep(self, message: Message) -> None:
        # Nobody can make room, so what is too much is dropped.
        room = self._size_bytes - sum(len(each.raw) for each in self._early)
        if len(self._early) < MOST_EARLY and len(message.raw) <= room:
            self._early.append(message)
