"""What a client says and makes of what it hears, beside a model of the broker that does as the protocol has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.client.errors import CommandFailed
from broker.client.frames import Event
from broker.client.session import Action, Answered, Broken, Deliver, Failed, Gap, Live, Session, Started
from broker.core.patterns import matches
from tests.client.model import ModelBroker, ModelConnection, events, offset_of

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


def delivered(actions: Actions) -> list[tuple[str, Sequence[str]]]:
    return [(action.event.name, action.subscriptions) for action in actions if isinstance(action, Deliver)]


@pytest.fixture
def conversation() -> Conversation:
    conversation = Conversation()
    assert conversation.connect() == [Live()]
    return conversation


# --- What is said ----------------------------------------------------------------------------------------------------


def test_at_first_it_resumes_from_nowhere_and_subscribes_then() -> None:
    conversation = Conversation()
    conversation.session.subscribe("a", ["x", "y"])
    assert conversation.connect() == [Live(), Started("a")]
    assert conversation.heard == [("resume", None), ("subscribe", "x"), ("subscribe", "y")]


def test_later_it_subscribes_and_resumes_then(conversation: Conversation) -> None:
    conversation.subscribe("a", "x")
    conversation.publish("x")
    conversation.reconnect()
    assert conversation.heard == [("subscribe", "x"), ("resume", "e1")]


def test_the_position_of_a_reply_counts_like_that_of_an_event(conversation: Conversation) -> None:
    conversation.subscribe("a", "x")
    conversation.publish("x", "y", "y")
    conversation.session.tidy()
    conversation.talk()
    conversation.reconnect()
    assert conversation.heard[-1] == ("resume", "p3")


def test_what_is_new_waits_until_the_session_is_live(conversation: Conversation) -> None:
    conversation.subscribe("a", "x")
    conversation.lose()
    assert conversation.session.subscribe("b", ["x", "y"]) == []
    conversation.publish("y")
    assert conversation.connect() == [Live(), Started("b")]
    assert conversation.heard == [("subscribe", "x"), ("resume", "p0"), ("subscribe", "y")]


def test_a_pattern_of_two_subscriptions_goes_with_the_last(conversation: Conversation) -> None:
    conversation.subscribe("a", "x", "y")
    assert conversation.subscribe("b", "x") == [Started("b")]
    conversation.session.unsubscribe("a")
    conversation.talk()
    assert conversation.heard[1:] == [("subscribe", "x"), ("subscribe", "y"), ("unsubscribe", "y")]
    conversation.session.unsubscribe("b")
    conversation.talk()
    assert conversation.heard[-1] == ("unsubscribe", "x")


def test_a_pattern_given_twice_is_one(conversation: Conversation) -> None:
    conversation.subscribe("a", "x", "x")
    conversation.session.unsubscribe("a")
    conversation.talk()
    assert conversation.heard[1:] == [("subscribe", "x"), ("unsubscribe", "x")]


def test_to_unsubscribe_twice_is_no_error(conversation: Conversation) -> None:
    conversation.subscribe("a", "x")
    conversation.session.unsubscribe("a")
    conversation.session.unsubscribe("a")
    assert conversation.publish("x") == []


def test_what_ended_without_a_connection_is_not_asked_for_again(conversation: Conversation) -> None:
    conversation.subscribe("a", "x")
    conversation.lose()
    conversation.session.unsubscribe("a")
    conversation.connect()
    assert conversation.heard == [("resume", "p0")]


def test_after_a_new_subscription_the_position_is_to_be_asked_for(conversation: Conversation) -> None:
    assert not conversation.session.untidy
    conversation.subscribe("a", "x")
    assert conversation.session.untidy
    conversation.session.tidy()
    assert not conversation.session.untidy
    conversation.talk()
    conversation.subscribe("b", "x")
    assert not conversation.session.untidy  # the pattern was there


def test_the_position_is_asked_for_once_at_a_time(conversation: Conversation) -> None:
    conversation.session.tidy()
    conversation.session.tidy()
    conversation.talk()
    assert conversation.heard == [("resume", None)] * 2
    conversation.session.tidy()
    conversation.talk()
    assert conversation.heard == [("resume", None)] * 3


def test_without_a_connection_the_position_is_not_asked_for() -> None:
    conversation = Conversation()
    conversation.session.tidy()
    assert conversation.session.take_outgoing() == []


def test_many_subscriptions_that_end_at_once_are_given_up_little_by_little(conversation: Conversation) -> None:
    assert conversation.connection is not None
    for number in range(101):
        conversation.subscribe(f"{number}", f"x.{number}")
    for number in range(101):
        conversation.session.unsubscribe(f"{number}")
    conversation.talk()
    assert len(conversation.connection.patterns) == 51
    assert delivered(conversation.publish("x.80")) == []
    assert conversation.subscribe("again", "x.80") == [Started("again")]
    while conversation.session.untidy:
        conversation.session.tidy()
        conversation.talk()
    assert conversation.connection.patterns == ["x.80"]
    assert [data for event, data in conversation.heard if event == "subscribe"].count("x.80") == 1


# --- What is made of what comes ---------------------------------------------------------------------------------------


def test_an_event_goes_once_to_each_subscription_that_it_matches(conversation: Conversation) -> None:
    conversation.subscribe("a", "x.*", "**")
    conversation.subscribe("b", "x.1")
    conversation.subscribe("c", "y")
    ((name, subscriptions),) = delivered(conversation.publish("x.1"))
    assert (name, sorted(subscriptions)) == ("x.1", ["a", "b"])


def test_what_was_missed_comes_once_and_before_what_is_new(conversation: Conversation) -> None:
    conversation.subscribe("a", "**")
    conversation.publish("x.1")
    conversation.lose()
    conversation.publish("x.2", "x.3")
    connection = conversation.connection = conversation.broker.open()
    conversation.session.connected()
    subscribe, resume = conversation.session.take_outgoing()
    connection.hear(subscribe)
    conversation.broker.publish("x.4")  # comes without an id, and again with one
    connection.hear(resume)
    conversation.broker.publish("x.5")
    assert [name for name, _ in delivered(conversation.talk())] == ["x.2", "x.3", "x.4", "x.5"]


def test_a_subscription_that_is_not_confirmed_gets_nothing(conversation: Conversation) -> None:
    conversation.subscribe("a", "**")
    conversation.session.subscribe("b", ["x"])
    conversation.broker.publish("x")
    assert conversation.connection is not None
    assert delivered(conversation.session.received(conversation.connection.sent.pop(0))) == [("x", ["a"])]


def test_a_refused_subscription_is_over_with_all_its_patterns() -> None:
    conversation = Conversation(ModelBroker(most=2))
    conversation.connect()
    conversation.subscribe("a", "x")
    failed = conversation.subscribe("b", "y", "z")
    assert [(type(action), action.subscription) for action in failed if isinstance(action, Failed)] == [(Failed, "b")]
    assert conversation.connection is not None
    assert conversation.connection.patterns == ["x"]
    assert delivered(conversation.publish("x", "y", "z")) == [("x", ["a"])]


def test_what_is_refused_at_a_reconnection_has_failed_as_well(conversation: Conversation) -> None:
    conversation.subscribe("a", "x")
    conversation.broker.most = 0
    actions = conversation.reconnect()
    assert [action.subscription for action in actions if isinstance(action, Failed)] == ["a"]


def test_an_answer_about_a_pattern_that_was_given_up_and_taken_again_does_not_count(conversation: Conversation) -> None:
    conversation.session.subscribe("a", ["x"])
    conversation.session.unsubscribe("a")
    conversation.session.subscribe("b", ["x"])
    first, second, third = conversation.session.take_outgoing()
    assert conversation.connection is not None
    conversation.connection.hear(first)
    assert conversation.session.received(conversation.connection.sent.pop(0)) == []
    conversation.connection.hear(second)
    conversation.connection.hear(third)
    assert conversation.talk() == [Started("b")]


def test_a_gap_is_told_to_those_that_ran_and_then_all_goes_on(conversation: Conversation) -> None:
    conversation.subscribe("a", "x")
    conversation.lose()
    conversation.session.subscribe("b", ["x"])
    conversation.publish("x")
    conversation.broker.forget()
    gap, *rest = conversation.connect()
    assert gap == Gap("the log does not reach back", ["a"])
    assert rest == [Live(), Started("b")]
    assert conversation.session.position == "p1"
    assert [sorted(subscriptions) for _, subscriptions in delivered(conversation.publish("x"))] == [["a", "b"]]


def test_a_gap_that_nobody_minds_is_none(conversation: Conversation) -> None:
    conversation.lose()
    conversation.publish("x")
    conversation.broker.forget()
    assert conversation.connect() == [Live()]


def test_a_connection_that_ends_within_a_gap_meets_it_again(conversation: Conversation) -> None:
    conversation.subscribe("a", "x")
    conversation.lose()
    conversation.publish("x")
    conversation.broker.forget()
    connection = conversation.connection = conversation.broker.open()
    conversation.session.connected()
    for text in conversation.session.take_outgoing():
        connection.hear(text)
    actions = [action for text in connection.sent for action in conversation.session.received(text)]
    assert Gap("the log does not reach back", ["a"]) in actions
    assert Gap("the log does not reach back", ["a"]) in conversation.reconnect()


def test_a_log_that_can_t_be_read_makes_a_connection_useless_but_not_a_live_one(conversation: Conversation) -> None:
    conversation.broker.readable = False
    conversation.session.tidy()
    assert conversation.talk() == []
    (broken,) = conversation.reconnect()
    assert isinstance(broken, Broken)
    assert broken.error.code == "log_unavailable"


@pytest.mark.parametrize("data", [None, {}, {"id": 1}, [], "p1"])
def test_a_position_that_is_none_makes_a_connection_useless(data: object) -> None:
    session: Session[str, str] = Session()
    session.connected()
    (resume,) = map(json.loads, session.take_outgoing())
    (broken,) = session.received(json.dumps({"reply": resume["id"], "data": data}))
    assert isinstance(broken, Broken)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '"text"',
        '{"event":"x","data":1}',
        '{"event":"x","data":1,"id":7}',
        '{"event":1,"data":1,"id":"e1"}',
        '{"reply":"text","data":1}',
        '{"reply":4711,"data":1}',
        '{"reply":4711,"error":"e","code":"c"}',
        '{"error":"e","code":"c"}',
        "\ud800",
        "[" * 100_000,
    ],
)
def test_what_is_none_of_its_business_is_passed_over(text: str, conversation: Conversation) -> None:
    conversation.subscribe("a", "**")
    before = conversation.session.position
    assert conversation.session.received(text) == []
    assert conversation.session.position == before


# --- Commands ---------------------------------------------------------------------------------------------------------


def test_a_command_is_answered_with_its_data_or_its_error(conversation: Conversation) -> None:
    conversation.session.command("first", "echo", {"x": 1})
    conversation.session.command("second", "nonsense", None)
    good, bad = conversation.talk()
    assert good == Answered("first", {"x": 1})
    assert isinstance(bad, Answered)
    assert isinstance(bad.error, CommandFailed)
    assert (bad.command, bad.error.code) == ("second", "unknown_command")


def test_commands_that_are_not_answered_are_lost_with_the_connection(conversation: Conversation) -> None:
    conversation.session.command("answered", "echo", 1)
    conversation.talk()
    conversation.session.command("first", "echo", 1)
    conversation.session.command("second", "echo", 1)
    assert conversation.lose() == ["first", "second"]
    conversation.connect()
    assert [name for name, _ in conversation.heard] == ["resume"]


def test_an_answer_that_nobody_waits_for_any_more_is_passed_over(conversation: Conversation) -> None:
    conversation.session.command("given up", "echo", 1)
    conversation.session.forget("given up")
    assert conversation.talk() == []


@pytest.mark.parametrize("data", [float("nan"), {1, 2}, object()])
def test_data_that_is_no_json_is_refused_and_leaves_nothing_behind(data: object, conversation: Conversation) -> None:
    with pytest.raises((TypeError, ValueError)):
        conversation.session.command("bad", "echo", data)
    assert conversation.lose() == []


# --- Events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "data"),
    [("1.0", 1.0), ('{"b": 1, "a":[2 ]}', {"a": [2], "b": 1}), ("9" * 5000, float("inf")), ('"\\u00e4ä"', "ää")],
)
def test_an_event_keeps_its_payload_s_text_and_decodes_it_when_asked(
    raw: str, data: object, conversation: Conversation
) -> None:
    conversation.subscribe("a", "x")
    (deliver,) = conversation.session.received(f'{{"event":"x","data":{raw},"id":"e1"}}')
    assert isinstance(deliver, Deliver)
    assert deliver.event == Event("x", raw.encode(), "e1")
    assert deliver.event.data == data
    assert deliver.event.data is deliver.event.data


def test_a_payload_that_can_t_be_decoded_says_so() -> None:
    with pytest.raises(ValueError, match="'x' can't be decoded"):
        _ = Event("x", b"[" * 100_000, "e1").data


# --- Whatever happens, in any order -----------------------------------------------------------------------------------

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
        self.gap_at: list[int] = []

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
        self.session.connected()

    @precondition(lambda self: self.connection is not None)
    @rule()
    def lose(self) -> None:
        assert self.connection is not None
        self.connection.close()
        self.connection = None
        self.to_broker.clear()
        self.session.disconnected()

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
                self.act(self.session.received(self.connection.sent.pop(0)))

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
                    pass
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
