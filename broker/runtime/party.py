"""What the edge talks to on behalf of one client: a connection, or the refusal of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, Protocol

import trio

from broker.core.forms import PLAIN
from broker.runtime.outbox import Outbox, QueueLimits

Receive = Callable[[], Awaitable[str | bytes]]
Ending = tuple[int, str]

ids: Final = count(1)  # of connections, and of refusals of one


class PeerGone(Exception):
    """The client has ended the connection, or broken the protocol in a way that ends it; carries code and reason."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Party(Protocol):
    """What the edge talks to on behalf of one client: a connection, or the refusal of one."""

    @property
    def outbox(self) -> Outbox:
        """Where all that goes to the client goes."""
        ...

    def heard(self) -> None:
        """Something came from the client."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """End it, soon."""
        ...

    async def run(self, receive: Receive) -> Ending:
        """Serve the client to the end, and return how it ended."""
        ...


class Refusal:
    """Stands where a connection would, says why there is none, and ends."""

    def __init__(self, code: int, reason: str) -> None:
        self.id = next(ids)
        self.outbox = Outbox(QueueLimits(frames=1))
        self._ending = (code, reason)

    def heard(self) -> None:
        """Nobody waits for a sign of life."""

    def close(self, code: int, reason: str = "") -> None:
        """It ends anyway."""

    async def run(self, receive: Receive) -> Ending:  # noqa: ARG002
        """Send the close frame, and return its code and reason."""
        await trio.lowlevel.checkpoint()
        self.outbox.finish(PLAIN.close(*self._ending), discard=True)
        return self._ending
