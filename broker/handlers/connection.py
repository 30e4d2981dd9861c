"""A client's connection, as handlers see it."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
from typing import Any

import trio

from broker.core.errors import Close
from broker.core.frames import PONG
from broker.core.http import Request
from broker.core.message import Message
from broker.handlers.data import plain
from broker.handlers.house import House
from broker.runtime.connection import Connection as Client
from broker.runtime.services import Arrival

_MAY_CLOSE_WITH = frozenset((Close.NORMAL, Close.GOING_AWAY, Close.POLICY_VIOLATION, Close.INTERNAL_ERROR))


class Done:
    """Something that has been done already: it may be awaited, and need not be."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        """There is nothing to wait for."""
        return
        yield


_DONE = Done()


class Connection:
    """One client that is connected, or just was: what is done with it then is of no effect, and no error.

    state: for the application to keep what it likes about this connection.
    """

    __slots__ = ("_client", "_house", "_peers", "state")

    def __init__(self, client: Client, house: House, peers: Collection[Client]) -> None:
        self._client = client
        self._house = house
        self._peers = peers
        self.state: dict[str, Any] = {}

    @property
    def id(self) -> int:
        """Another one for each connection of this process."""
        return self._client.id

    @property
    def user(self) -> str | None:
        """The user at the other end, or None."""
        return self._client.user

    @property
    def claims(self) -> Mapping[str, Any]:
        """The claims of the token that counts now."""
        return self._client.claims

    @property
    def request(self) -> Request:
        """The request that opened it: `headers`, `cookies`, `query`, `path`, `address`."""
        return self._arrival.request

    @property
    def data(self) -> Any:
        """What `authenticate` has returned to be kept."""
        return self._arrival.data

    @property
    def rooms(self) -> Collection[str]:
        """The rooms that it is in."""
        return tuple(self._house.rooms.of(self._client))

    @property
    def closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._client.ended

    def join(self, room: str) -> Done:
        """Enter a room; it is left by itself when the connection ends.

        Raises BadRoom.
        """
        if not self._client.ended:
            self._house.rooms.join(self._client, room)
        return _DONE

    def leave(self, room: str) -> Done:
        """Leave a room."""
        self._house.rooms.leave(self._client, room)
        return _DONE

    async def send(self, message: Any) -> None:
        """Send to this connection: str as text, bytes as binary, everything else as JSON.

        Raises TypeError or ValueError for what can't be sent.
        """
        self._client.deliver(Message(plain(message)))
        await trio.lowlevel.checkpoint()  # a handler that sends in a loop lets it go out, and others live
        await self._house.sent(message, 1)

    async def broadcast(self, message: Any, *, rooms: Iterable[str] | None = None, include_self: bool = False) -> int:
        """Send to all in these rooms, or to all connections of this path; each gets it once. Returns how many.

        Raises TypeError or ValueError for what can't be sent.
        """
        if isinstance(rooms, str):
            rooms = (rooms,)
        members = self._peers if rooms is None else self._house.rooms.members_of(rooms)
        others = [each for each in members if include_self or each is not self._client]
        return await self._house.send(message, others)

    def ping(self) -> Done:
        """Ask for a sign of life; if none comes within the time-out of the heartbeat, the connection is closed."""
        self._client.ping()
        return _DONE

    def pong(self) -> Done:
        """Say, unasked, that we live (RFC 6455 section 5.5.3)."""
        self._client.outbox.control(PONG)
        return _DONE

    def close(self, code: int = Close.NORMAL, reason: str = "") -> Done:
        """End the connection with this code and reason; what waits is sent before.

        Raises ValueError for a code that is not the application's to use.
        """
        if code not in _MAY_CLOSE_WITH and not 3000 <= code <= 4999:
            raise ValueError(f"{code}: close with 1000, 1001, 1008, 1011, or a code from 3000 to 4999")
        self._client.close(code, reason, discard=False)
        return _DONE

    @property
    def _arrival(self) -> Arrival:
        if self._client.arrival is None:
            raise RuntimeError("this connection has not come to an application")
        return self._client.arrival

    def __repr__(self) -> str:
        return f"<Connection {self.id} of {self.user!r}>"
