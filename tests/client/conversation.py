"""A session and the model of a broker that talk to each other, one frame after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from broker.client.session import Action, Session
from tests.client.model import ModelBroker, ModelConnection, events

Actions: TypeAlias = list[Action[str, str]]


class Conversation:
    """A session and the connection that it has, if any."""

    def __init__(self, broker: ModelBroker | None = None) -> None:
        self.broker = broker or ModelBroker()
        self.session: Session[str, str] = Session()
        self.connection: ModelConnection | None = None

    @property
    def heard(self) -> Sequence[tuple[str, Any]]:
        assert self.connection is not None
        return events(self.connection)

    def connect(self) -> Actions:
        self.connection = self.broker.open()
        self.session.connected()
        return self.talk()

    def lose(self) -> list[str]:
        assert self.connection is not None
        self.connection.close()
        self.connection = None
        return self.session.disconnected()

    def reconnect(self) -> Actions:
        self.lose()
        return self.connect()

    def subscribe(self, name: str, *patterns: str) -> Actions:
        actions = self.session.subscribe(name, patterns)
        return actions + self.talk()

    def talk(self) -> Actions:
        """Let both sides say all they have to say; what the session makes of it."""
        actions: Actions = []
        connection = self.connection
        while connection is not None:
            for text in self.session.take_outgoing():
                connection.hear(text)
            while connection.go_on():
                pass
            if not connection.sent:
                break
            actions += self.session.received(connection.sent.pop(0))
        return actions

    def publish(self, *names: str) -> Actions:
        for name in names:
            self.broker.publish(name)
        return self.talk()
