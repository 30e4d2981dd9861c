"""Rooms: groups of connections under a name. A room is there for as long as somebody is in it."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

from broker.core.errors import ClientError

M = TypeVar("M", bound=Hashable)

MAX_ROOMS = 1000  # that one connection may be in
MAX_ROOM_BYTES = 255


class BadRoom(ClientError):
    """A name that no room can have, or one room more than a connection may be in."""

    code = "bad_room"


class Rooms(Generic[M]):
    """Who is in which room. The cost of everything grows with the room, or with the rooms of one member."""

    def __init__(self) -> None:
        self._members: dict[str, dict[M, None]] = {}
        self._rooms: dict[M, dict[str, None]] = {}

    def __len__(self) -> int:
        """How many rooms there are."""
        return len(self._members)

    def join(self, member: M, room: str) -> None:
        """Let `member` into `room`; nothing happens if it is there.

        Raises BadRoom.
        """
        if not isinstance(room, str) or not 0 < len(room.encode(errors="replace")) <= MAX_ROOM_BYTES:
            raise BadRoom(f"a room's name is a text of 1 to {MAX_ROOM_BYTES} bytes")
        rooms = self._rooms.setdefault(member, {})
        if room not in rooms and len(rooms) >= MAX_ROOMS:
            raise BadRoom(f"a connection can be in at most {MAX_ROOMS} rooms")
        rooms[room] = None
        self._members.setdefault(room, {})[member] = None

    def leave(self, member: M, room: str) -> None:
        """Take `member` out of `room`; nothing happens if it is not there."""
        rooms, members = self._rooms.get(member, {}), self._members.get(room, {})
        rooms.pop(room, None)
        members.pop(member, None)
        if not rooms:
            self._rooms.pop(member, None)
        if not members:
            self._members.pop(room, None)

    def leave_all(self, member: M) -> None:
        """Take `member` out of all rooms."""
        for room in list(self._rooms.get(member, ())):
            self.leave(member, room)

    def of(self, member: M) -> Collection[str]:
        """The rooms that `member` is in, in the order of joining; its own, so only read them."""
        return self._rooms.get(member, {}).keys()

    def members(self, room: str) -> Collection[M]:
        """Who is in `room`, in the order of joining; the room's own, so only read them."""
        return self._members.get(room, {}).keys()

    def members_of(self, rooms: Iterable[str]) -> Collection[M]:
        """Who is in any of the rooms, each once."""
        return list(dict.fromkeys(member for room in rooms for member in self.members(room)))
