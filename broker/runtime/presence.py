"""Who is there: a user is online from its first connection until a while after its last one has ended.

The while is for those who load a page anew: nobody shall see them go and come. What changes is told by a task of its
own, in order, and told again where that did not work out; of a user who comes and goes faster than that only what it
comes to is told.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final

import trio

from broker.core.errors import BrokerError

logger = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 1000  # users in one announcement
RETRY_AFTER: Final = 1.0  # seconds

Announce = Callable[[Mapping[str, bool]], Awaitable[None]]


class Presence:
    """Counts the connections of users, and tells who has come and who has gone.

    grace: seconds after its last connection for which a user still counts as online.
    announce: is called with some users and whether they are online now. When it raises a BrokerError it is tried again;
        whatever else it raises is a fault of ours, which costs this one announcement.
    """

    def __init__(self, grace: float, announce: Announce) -> None:
        self._grace = grace
        self._announce = announce
        self._connections: Counter[str] = Counter()
        self._leaving: dict[str, float] = {}  # by when; in order, since all get the same time
        self._announced: set[str] = set()
        self._changed: dict[str, None] = {}
        self._news = trio.Event()

    def recall(self, users: Iterable[str]) -> None:
        """Those were online when the last broker ended: who does not come back in time has gone."""
        until = trio.current_time() + self._grace
        for user in users:
            self._announced.add(user)
            self._leaving[user] = until
        self._news.set()

    def came(self, user: str) -> None:
        """One more connection of `user`."""
        self._connections[user] += 1
        if self._connections[user] == 1:
            self._leaving.pop(user, None)
            self._note(user)

    def went(self, user: str) -> None:
        """One connection of `user` has ended."""
        self._connections[user] -= 1
        if not self._connections[user]:
            del self._connections[user]
            self._leaving[user] = trio.current_time() + self._grace
            self._news.set()

    def is_online(self, user: str) -> bool:
        """Whether `user` counts as online now."""
        self._let_go()
        return self._counts(user)

    def online(self) -> Collection[str]:
        """All who count as online now."""
        self._let_go()
        return self._connections.keys() | self._leaving.keys()

    async def run(self) -> None:
        """Tell what changes, until cancelled."""
        while True:
            self._let_go()
            if self._changed:
                await self._tell()
                continue
            with trio.move_on_at(next(iter(self._leaving.values()), math.inf)):
                await self._news.wait()
            self._news = trio.Event()

    def _counts(self, user: str) -> bool:
        return user in self._connections or user in self._leaving

    def _let_go(self) -> None:
        """Whoever's while is over has left."""
        while self._leaving:
            user, until = next(iter(self._leaving.items()))
            if until > trio.current_time():
                return
            del self._leaving[user]
            self._note(user)

    def _note(self, user: str) -> None:
        self._changed[user] = None
        self._news.set()

    async def _tell(self) -> None:
        users = [user for user, _ in zip(self._changed, range(MAX_AT_ONCE), strict=False)]
        news = {user: self._counts(user) for user in users}
        news = {user: online for user, online in news.items() if online != (user in self._announced)}
        for user in users:
            del self._changed[user]
        try:
            if news:
                await self._announce(news)
        except BrokerError as error:
            logger.warning("presence.waits", extra={"reason": str(error), "users": len(news)})
            self._changed = {**dict.fromkeys(news), **self._changed}
            await trio.sleep(RETRY_AFTER)
            return
        except Exception:
            logger.exception("presence.failed", extra={"users": len(news)})
        for user, online in news.items():
            (self._announced.add if online else self._announced.discard)(user)
        await trio.lowlevel.checkpoint()
