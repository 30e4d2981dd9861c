"""A session and a model of the broker, with chance between them: frames, losses, and what an application says."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.client.frames import Message
from broker.client.session import Action, Deliver, Failed, Gap, Live, Session, Started
from broker.core.patterns import matches
from tests.client.model import ModelBroker, ModelConnection, offset_of

NAMES = st.sampled_from(["a", "b", "a.a", "a.b", "a.b.a"])
PATTERNS = st.lists(st.sampled_from(["a", "b", "a.*", "a.**", "**", "*.b"]), min_size=1, max_size=3)


class Follower:
    """What one subscription has got, and from where on it must have got everything."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = patterns
        self.since: int | None = None  # the first offset that it must have; None: it has not started
        self.got: list[int] = []

    def check(self, log: Sequence[str], until: int) -> None:
        """It has everything of the log that it must have."""
        if self.since is not None:
            due = [
                offset
                for offset in range(self.since, until)
                if any(matches(pattern, log[offset]) for pattern in self.patterns)
            ]
            assert [offset for offset in self.got if offset >= self.since] == due


class AnyOrder(RuleBasedStateMachine):
    """Frames travel one by one, connections break between any two, and the log forgets."""

    @initialize(max_drops=st.integers(1, 3))
    def begin(self, max_drops: int) -> None:
        self.broker = ModelBroker(most=4)
        self.session: Session[int, str] = Session(max_drops)
        self.connection: ModelConnection | None = None
        self.to_broker: list[str] = []
        self.followers: dict[int, Follower] = {}
        self.number = 0
        self.latest = -1
        self.said: dict[str, str] = {}  # what the application has said, and the name of the event that it looks like
        self.live = False
        self.greeted: set[str] = set()  # the patterns that the connection began with

    @rule(name=NAMES)
    def publish(self, name: str) -> None:
        self.broker.publish(name)

    @rule(patterns=PATTERNS)
    def subscribe(self, patterns: list[str]) -> None:
        self.number += 1
        self.followers[self.number] = Follower(patterns)
        self.act(self.session.subscribe(self.number, patterns))

    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        if self.followers:
            number = data.draw(st.sampled_from(sorted(self.followers)))
            del self.followers[number]
            self.session.unsubscribe(number)

    @rule()
    def forget(self) -> None:
        self.broker.forget()

    @rule()
    def tidy(self) -> None:
        self.session.tidy()

    @precondition(lambda self: self.connection is None)
    @rule()
    def connect(self) -> None:
        self.connection = self.broker.open()
        self.live = False
        self.greeted = {
            pattern
            for follower in self.followers.values()
            if follower.since is not None
            for pattern in follower.patterns
        }
        self.session.connected()

    @precondition(lambda self: self.connection is not None)
    @rule()
    def lose(self) -> None:
        assert self.connection is not None
        self.connection.close()
        self.connection = None
        self.to_broker.clear()
        self.session.disconnected()

    @precondition(lambda self: self.connection is not None)
    @rule(name=st.one_of(NAMES, st.just("")))
    def application_says(self, name: str) -> None:
        assert self.connection is not None
        number = len(self.said)
        text = json.dumps({"event": name, "data": f"said {number}"}) if name else f"said {number}"
        self.said[text] = name
        self.connection.message(text)

    @rule(frames=st.integers(1, 5))
    def broker_hears(self, frames: int) -> None:
        self.to_broker += self.session.take_outgoing()
        for _ in range(frames):
            if self.connection is not None and self.to_broker:
                self.connection.hear(self.to_broker.pop(0))

    @rule(frames=st.integers(1, 5))
    def broker_goes_on(self, frames: int) -> None:
        for _ in range(frames):
            if self.connection is not None:
                self.connection.go_on()

    @rule(frames=st.integers(1, 5))
    def client_hears(self, frames: int) -> None:
        for _ in range(frames):
            if self.connection is not None and self.connection.sent:
                text = self.connection.sent.pop(0)
                expected = [text] if self.is_message(text) else []
                actions = self.session.received(text)
                assert [action.raw for action in actions if isinstance(action, Message)] == expected
                self.act(actions)

    def is_message(self, text: str) -> bool:
        """Whether the application has said this, and it can't be an event that slipped in before the resume."""
        if text not in self.said:
            return False
        return self.live or not any(matches(pattern, self.said[text]) for pattern in self.greeted)

    def act(self, actions: Sequence[Action[int, str]]) -> None:
        for action in actions:
            match action:
                case Deliver(event, numbers):
                    assert event.data > self.latest, "an event comes again, or in the wrong order"
                    self.latest = event.data
                    for number in numbers:
                        self.followers[number].got.append(event.data)
                case Started(number):
                    self.followers[number].since = len(self.broker.log)
                case Failed(number):
                    del self.followers[number]
                case Gap(_, numbers):
                    for number in numbers:
                        follower = self.followers[number]
                        follower.check(self.broker.log, offset_of(self.session.position))
                        follower.since = len(self.broker.log)
                case Live():
                    self.live = True
                case Message():
                    pass  # looked at already
                case other:
                    raise AssertionError(other)

    @invariant()
    def nobody_has_what_it_did_not_ask_for(self) -> None:
        for follower in getattr(self, "followers", {}).values():
            names = {self.broker.log[offset] for offset in follower.got}
            assert all(any(matches(pattern, name) for pattern in follower.patterns) for name in names)

    def teardown(self) -> None:
        """In the end all goes well, and then everybody has everything, and the broker holds what is held here."""
        if not hasattr(self, "broker"):
            return
        if self.connection is None:
            self.connect()
        assert self.connection is not None
        for _ in range(3):  # what is said may be answered with something to say
            while (texts := self.session.take_outgoing()) or self.to_broker or self.connection.sent:
                self.to_broker += texts
                self.broker_hears(1000)
                while self.connection.go_on():
                    pass
                self.client_hears(1000)
            self.broker.publish("a")
            self.session.tidy()
        while self.session.untidy:
            self.session.tidy()
            self.to_broker += self.session.take_outgoing()
            self.broker_hears(1000)
            self.client_hears(1000)
        self.client_hears(1000)
        assert self.session.live
        for follower in self.followers.values():
            assert follower.since is not None
            follower.check(self.broker.log, len(self.broker.log))
        held = {pattern for follower in self.followers.values() for pattern in follower.patterns}
        assert set(self.connection.patterns) == held


AnyOrder.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase
