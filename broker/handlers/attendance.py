"""Users who come and go, told to everybody by events and to the application by its hooks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import trio

from broker.core.errors import BadName
from broker.core.event import Event, check_publishable
from broker.core.happening import Placeholder
from broker.core.payload import encode
from broker.core.ports import Publisher
from broker.core.relations import Action, Relation, Step
from broker.core.shapes import parse_shape
from broker.handlers.declaring import Handlers
from broker.handlers.signature import Signature
from broker.runtime.calls import Calls

logger = logging.getLogger(__name__)

SOURCE: Final = "presence"
RELATION: Final = "broker.presence"  # no relation of a policy can be called so
PLACEHOLDER: Final = "userId"
HOOK_TIMEOUT: Final = 10.0  # seconds for `on_online` and `on_offline`


class Attendance:
    """Announces who has come and who has gone.

    online, offline: shapes of the events' names, with `<userId>` in them.
    """

    def __init__(self, publisher: Publisher, online: str, offline: str) -> None:
        self._publisher = publisher
        self._shapes = {True: online, False: offline}

    @property
    def relation(self) -> Relation:
        """Who was last said to be online, learned from the events themselves: so it outlives the broker."""
        steps = [(Action.ADD, self._shapes[True]), (Action.REMOVE, self._shapes[False])]
        return Relation(RELATION, tuple(_step(action, text) for action, text in steps))

    async def publish(self, news: Mapping[str, bool]) -> None:
        """Publish an event for each user, as one batch. Whoever has a name that no event can have is left out.

        Raises Overloaded, LogUnavailable.
        """
        events = [event for user, online in news.items() if (event := self._event(user, online=online)) is not None]
        await self._publisher.publish(events)

    def _event(self, user: str, *, online: bool) -> Event | None:
        name = self._shapes[online].replace(f"<{PLACEHOLDER}>", user)
        try:
            check_publishable(event := Event(name, b"", None, SOURCE))
        except BadName:
            return None
        return event._replace(data=encode({PLACEHOLDER: user})) if "." not in user else None


class Witness:
    """Tells the application who has come and who has gone, by its hooks: of one user one thing after the other.

    For each user takes "online" and "offline" by turns. What was not told yet when the next comes is void with it.
    """

    def __init__(self, handlers: Sequence[Handlers], calls: Calls) -> None:
        self._handlers = handlers
        self._calls = calls
        self._news: dict[str, bool] = {}
        self._waiting: set[str] = set()

    def tell(self, news: Mapping[str, bool]) -> None:
        """Let the hooks be called."""
        for user, online in news.items():
            if self._news.pop(user, None) is not None:
                continue
            self._news[user] = online
            if user not in self._waiting:
                self._waiting.add(user)
                self._calls.put(("presence", user), partial(self._tell, user), always=True)

    async def _tell(self, user: str) -> None:
        self._waiting.discard(user)
        online = self._news.pop(user, None)
        for one in self._handlers:
            hook = one.comes_online if online else one.goes_offline
            if online is not None and hook is not None:
                await _call(hook, user)


async def _call(hook: Signature, user: str) -> None:
    try:
        with trio.fail_after(HOOK_TIMEOUT):
            await hook.call({"user": user})
    except Exception:
        logger.exception("presence.hook_failed", extra={"hook": hook.name, "user": user})


def _step(action: Action, text: str) -> Step:
    shape = parse_shape(text)
    user = Placeholder(PLACEHOLDER, shape.placeholders[PLACEHOLDER])
    return Step(RELATION, action, shape, user, user)
