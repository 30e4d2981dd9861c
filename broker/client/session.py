"""What a client knows of its conversation with the broker: frames in, frames and actions out. No I/O, no clock.

Theory. A session lives through many connections. Each begins with the patterns of the subscriptions that run already
and then `resume`, with null at the very first; when that is answered, the session is live. Only then does it ask for
patterns that are new, so what is resumed is exactly what ran before. A subscription starts when the broker has
confirmed all its patterns in a live session, and from then on gets every event until it is removed.

The position is the id of the last event that came, or what the last `resume` was answered with. Events without an id
came between a `subscribe` and the `resume` behind it; they come again, with one, and are passed over here. What an
application sends may look the same: until that `resume` is answered, whatever could be such an event counts as one.
Whoever feeds frames in must keep each event until it is delivered: the position has moved beyond it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeAlias, TypeVar

from broker.client.errors import CommandFailed
from broker.client.frames import Event, Message, Problem, Reply, command_frame, read_frame
from broker.core.errors import LogGap
from broker.core.index import PatternIndex

S = TypeVar("S", bound=Hashable)  # what stands for a subscription
C = TypeVar("C", bound=Hashable)  # what stands for a command of the user's


@dataclass(frozen=True, slots=True)
class Live:
    """The connection is resumed, and commands may be sent."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection is of no use: the broker can't resume on it."""

    error: CommandFailed


@dataclass(frozen=True, slots=True)
class Deliver(Generic[S]):
    """An event for these subscriptions."""

    event: Event
    subscriptions: Sequence[S]


@dataclass(frozen=True, slots=True)
class Started(Generic[S]):
    """From here on, this subscription gets every event that it matches."""

    subscription: S


@dataclass(frozen=True, slots=True)
class Failed(Generic[S]):
    """The broker refuses this subscription, which is over."""

    subscription: S
    error: CommandFailed


@dataclass(frozen=True, slots=True)
class Gap(Generic[S]):
    """These subscriptions have missed events for good."""

    text: str
    subscriptions: Sequence[S]


@dataclass(frozen=True, slots=True)
class Answered(Generic[C]):
    """The answer to a command: data, or an error."""

    command: C
    data: Any
    error: CommandFailed | None = None


Action: TypeAlias = Live | Broken | Deliver[S] | Message | Started[S] | Failed[S] | Gap[S] | Answered[C]


@dataclass(slots=True)
class _Pattern:
    """A pattern that this connection has asked for: with which command, and whether that is confirmed."""

    asked: int
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class _Subscribe:
    pattern: str


@dataclass(frozen=True, slots=True)
class _Resume:
    pass


@dataclass(frozen=True, slots=True)
class _Command(Generic[C]):
    key: C


class Session(Generic[S, C]):
    """One client's conversation, over all its connections.

    max_drops: patterns that are given up between two calls of `tidy`; a broker counts each as a command.
    """

    def __init__(self, max_drops: int = 50) -> None:
        self._max_drops = max_drops
        self.position: str | None = None
        self.live = False
        self._stale = False  # patterns were added since the position was last asked for
        self._unwanted: dict[str, None] = {}  # patterns on the wire that nobody holds any more
        self._may_drop = self._max_drops
        self._outgoing: list[str] = []
        self._ids = count(1)
        self._asked: dict[int, _Subscribe | _Resume | _Command[C]] = {}
        self._resuming = False
        self._on_wire: dict[str, _Pattern] = {}
        self._waiting: dict[S, Sequence[str]] = {}  # subscriptions that have not started, and their patterns
        self._running: dict[S, Sequence[str]] = {}
        self._holders: dict[str, dict[S, None]] = {}
        self._index: PatternIndex[S] = PatternIndex()
        self._repeated: PatternIndex[None] = PatternIndex()  # patterns whose events may come without an id first

    # -- the connection

    def connected(self) -> None:
        """A connection stands: say what has to be said first."""
        for patterns in self._running.values():
            self._ask_for(patterns)
        for pattern in self._on_wire:
            self._repeated.add(pattern, None)
        self._resume(self.position)

    def disconnected(self) -> list[C]:
        """The connection has ended; the commands that will never be answered."""
        lost = [asked.key for asked in self._asked.values() if isinstance(asked, _Command)]
        self.live = self._resuming = False
        self._asked.clear()
        self._on_wire.clear()
        self._unwanted.clear()
        self._repeated = PatternIndex()
        self._outgoing.clear()
        return lost

    def take_outgoing(self) -> Sequence[str]:
        """The frames that have to be sent, in order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    @property
    def untidy(self) -> bool:
        """Whether it is time for `tidy`; otherwise that can wait, but not for ever."""
        return self.live and (self._stale or self._may_drop < self._max_drops)

    def tidy(self) -> None:
        """Ask where the log is now, and give up what nobody wants; to be called not more than once a second.

        So the position does not grow old where few events come, and does not lie before subscriptions that were made
        since. And a broker that counts commands is not flooded by many subscriptions that end at once.
        """
        if self.live and not self._resuming:
            self._resume(None)
        self._may_drop = self._max_drops
        for pattern in list(self._unwanted)[: self._max_drops]:
            del self._unwanted[pattern]
            self._drop(pattern)

    def received(self, content: str | bytes) -> list[Action[S, C]]:
        """Take what has come; what has to be done about it, in order."""
        frame = read_frame(content)
        if isinstance(frame, Event):
            self.position = frame.id
            matching = self._index.match(frame.name)
            subscriptions = list(dict.fromkeys(key for keys in matching for key in keys))
            return [Deliver(frame, subscriptions)] if subscriptions else []
        if isinstance(frame, Message):
            comes_again = frame.name is not None and self._repeated.match(frame.name)
            return [] if comes_again else [frame]
        if frame.id is None:  # an error that is about none of our commands
            return []
        match self._asked.pop(frame.id, None):
            case _Resume():
                return self._resumed(frame)
            case _Subscribe(pattern):
                return self._subscribed(pattern, frame)
            case _Command(key):
                return [_answered(key, frame)]
            case None:  # somebody has given up waiting for it
                return []

    # -- what the user wants

    def subscribe(self, subscription: S, patterns: Iterable[str]) -> list[Action[S, C]]:
        """Begin a subscription, now or when there is a connection; `Started` tells when it has begun."""
        self._waiting[subscription] = tuple(dict.fromkeys(patterns))
        for pattern in self._waiting[subscription]:
            self._holders.setdefault(pattern, {})[subscription] = None
        if not self.live:
            return []
        self._ask_for(self._waiting[subscription])
        return self._start([subscription])

    def unsubscribe(self, subscription: S) -> None:
        """End a subscription, if it is not over already. A pattern goes when nobody holds it any more."""
        for pattern in self._waiting.pop(subscription, None) or self._running.pop(subscription, ()):
            self._index.remove(pattern, subscription)
            del self._holders[pattern][subscription]
            if not self._holders[pattern]:
                del self._holders[pattern]
                if pattern in self._on_wire and self._may_drop:
                    self._drop(pattern)
                elif pattern in self._on_wire:
                    self._unwanted[pattern] = None

    def command(self, key: C, event: str, data: Any) -> None:
        """Send a command of the user's; the session must be live.

        Raises TypeError or ValueError for data that is no JSON.
        """
        command_id = next(self._ids)
        self._outgoing.append(command_frame(event, data, command_id))
        self._asked[command_id] = _Command(key)

    def forget(self, key: C) -> None:
        """Nobody waits any more for the answer to this command."""
        self._asked = {number: asked for number, asked in self._asked.items() if asked != _Command(key)}

    # -- inside

    def _send(self, event: str, data: Any, asked: _Subscribe | _Resume) -> int:
        command_id = next(self._ids)
        self._asked[command_id] = asked
        self._outgoing.append(command_frame(event, data, command_id))
        return command_id

    def _ask_for(self, patterns: Iterable[str]) -> None:
        for pattern in patterns:
            self._unwanted.pop(pattern, None)
            if pattern not in self._on_wire:
                self._on_wire[pattern] = _Pattern(self._send("subscribe", pattern, _Subscribe(pattern)))
                self._stale = self._stale or self.live

    def _drop(self, pattern: str) -> None:
        del self._on_wire[pattern]
        self._outgoing.append(command_frame("unsubscribe", pattern))
        self._may_drop -= 1

    def _resume(self, position: str | None) -> None:
        self._send("resume", position, _Resume())
        self._resuming = True
        self._stale = False

    def _resumed(self, answer: Reply | Problem) -> list[Action[S, C]]:
        self._resuming = False
        if isinstance(answer, Reply):
            position = _position(answer.data)
            if position is None:
                return [Broken(CommandFailed("an answer to `resume` without a position", "bad_reply"))]
            self.position = position
            return [] if self.live else self._go_live()
        if self.live:
            return []  # the next time will do
        if answer.code == LogGap.code:
            # The old position stays until there is a new one: should the connection end before, it is a gap again.
            self._resume(None)
            return [*self._gap(answer.text), *self._go_live()]
        return [Broken(CommandFailed(answer.text, answer.code))]

    def _gap(self, text: str) -> list[Action[S, C]]:
        return [Gap(text, list(self._running))] if self._running else []

    def _go_live(self) -> list[Action[S, C]]:
        self.live = True
        self._repeated = PatternIndex()
        for patterns in self._waiting.values():
            self._ask_for(patterns)
        return [Live(), *self._start(self._waiting)]

    def _subscribed(self, pattern: str, answer: Reply | Problem) -> list[Action[S, C]]:
        on_wire = self._on_wire.get(pattern)
        if on_wire is None or on_wire.asked != answer.id:
            return []  # it was given up since, and perhaps asked for again
        holders = list(self._holders.get(pattern, ()))
        if isinstance(answer, Reply):
            on_wire.confirmed = True
            return self._start(holders) if self.live else []
        del self._on_wire[pattern]
        self._unwanted.pop(pattern, None)
        for subscription in holders:
            self.unsubscribe(subscription)
        error = CommandFailed(answer.text, answer.code)
        return [Failed(subscription, error) for subscription in holders]

    def _start(self, subscriptions: Iterable[S]) -> list[Action[S, C]]:
        """Start those of them for which nothing is left to be confirmed."""
        waiting = [subscription for subscription in subscriptions if subscription in self._waiting]
        starting = [subscription for subscription in waiting if self._confirmed(self._waiting[subscription])]
        for subscription in starting:
            self._running[subscription] = self._waiting.pop(subscription)
            for pattern in self._running[subscription]:
                self._index.add(pattern, subscription)
        return [Started(subscription) for subscription in starting]

    def _confirmed(self, patterns: Iterable[str]) -> bool:
        return all(pattern in self._on_wire and self._on_wire[pattern].confirmed for pattern in patterns)


def _position(data: object) -> str | None:
    position = data.get("id") if isinstance(data, dict) else None
    return position if isinstance(position, str) else None


def _answered(key: C, answer: Reply | Problem) -> Answered[C]:
    if isinstance(answer, Reply):
        return Answered(key, answer.data)
    return Answered(key, None, CommandFailed(answer.text, answer.code))
