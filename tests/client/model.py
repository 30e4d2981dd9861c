"""What docs/protocol.md says that a broker does, on plain lists: slow, obvious, and without any waiting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from broker.core.patterns import matches


class ModelBroker:
    """A log of names, and the connections that are open. The payload of an event is its offset.

    reaches_back_to: the first offset that the log still holds. most: patterns that a connection may hold.
    greeting: what an application says to each connection before anything else.
    """

    def __init__(self, most: int = 1000) -> None:
        self.log: list[str] = []
        self.reaches_back_to = 0
        self.most = most
        self.readable = True
        self.greeting: list[str] = []
        self.connections: list[ModelConnection] = []

    def publish(self, name: str) -> int:
        """Take an event, and give it to all connections; its offset."""
        offset = len(self.log)
        self.log.append(name)
        for connection in self.connections:
            connection.offer(offset)
        return offset

    def forget(self) -> None:
        """Let the log forget all that it holds."""
        self.reaches_back_to = len(self.log)

    def open(self) -> ModelConnection:
        connection = ModelConnection(self)
        connection.sent += self.greeting
        self.connections.append(connection)
        return connection


class ModelConnection:
    """One connection. `sent` are the frames for the client, in order; what waits behind a replay comes by `go_on`."""

    def __init__(self, broker: ModelBroker) -> None:
        self.broker = broker
        self.patterns: list[str] = []
        self.heard: list[dict[str, Any]] = []
        self.sent: list[str] = []
        self._identified = False
        self._replay: list[str] | None = None  # what is still to be sent before live events are

    def close(self) -> None:
        self.broker.connections.remove(self)

    def hear(self, text: str) -> None:
        """Carry out a command."""
        command = json.loads(text)
        self.heard.append(command)
        answer = getattr(self, f"_{command['event']}", self._other)(command)
        if answer is not None and "id" in command:
            self._say({"reply": command["id"], **answer})

    def offer(self, offset: int) -> None:
        """An event happens."""
        if self._sees(offset):
            if self._replay is not None:
                self._replay.append(self._event(offset))
            else:
                self.sent.append(self._event(offset))

    def message(self, text: str) -> None:
        """The application says something, which waits for no replay."""
        self.sent.append(text)

    def go_on(self) -> bool:
        """Send one more frame of a replay; whether there was one."""
        if not self._replay:
            return False
        self.sent.append(self._replay.pop(0))
        if not self._replay:
            self._replay = None
        return True

    def _subscribe(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["data"] not in self.patterns:
            if len(self.patterns) >= self.broker.most:
                return {"error": "too many", "code": "too_many_subscriptions"}
            self.patterns.append(command["data"])
        return {"data": {"pattern": command["data"]}}

    def _unsubscribe(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["data"] in self.patterns:
            self.patterns.remove(command["data"])
        return {"data": {"pattern": command["data"]}}

    def _resume(self, command: dict[str, Any]) -> dict[str, Any] | None:
        assert not any("reply" in frame for frame in map(json.loads, self._replay or [])), "resume in progress"
        if not self.broker.readable:
            return {"error": "the log can't be read", "code": "log_unavailable"}
        self._identified = True
        now = len(self.broker.log)
        place = now if command["data"] is None else int(command["data"][1:])
        if place < self.broker.reaches_back_to:
            return {"error": "the log does not reach back", "code": "resume_gap"}
        missed = [self._event(offset) for offset in range(place, now) if self._sees(offset)]
        reply = json.dumps({"reply": command["id"], "data": {"id": f"p{now}"}})
        if not missed and self._replay is None:
            self.sent.append(reply)
        else:
            self._replay = [*(self._replay or []), *missed, reply]
        return None

    def _authenticate(self, command: dict[str, Any]) -> dict[str, Any]:
        return {"data": {"expires_at": None}}

    def _other(self, command: dict[str, Any]) -> dict[str, Any]:
        if command["event"] == "echo":
            return {"data": command["data"]}
        return {"error": f"there is no command {command['event']!r}", "code": "unknown_command"}

    def _sees(self, offset: int) -> bool:
        return any(matches(pattern, self.broker.log[offset]) for pattern in self.patterns)

    def _event(self, offset: int) -> str:
        named = {"id": f"e{offset + 1}"} if self._identified else {}
        return json.dumps({"event": self.broker.log[offset], "data": offset, **named})

    def _say(self, frame: dict[str, Any]) -> None:
        self.sent.append(json.dumps(frame))


def offset_of(position: str | None) -> int:
    """The offset of the first event behind a position."""
    return 0 if position is None else int(position[1:])


def events(connection: ModelConnection) -> Sequence[tuple[str, Any]]:
    """What a connection heard, without ids."""
    return [(command["event"], command["data"]) for command in connection.heard]
