"""What a client says and makes of what it hears, beside a model of the broker that does as the protocol has it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from broker.client.errors import CommandFailed
from broker.client.frames import Event
from broker.client.session import Answered, Broken, Deliver, Failed, Gap, Live, Session, Started
from tests.client.conversation import Actions, Conversation
from tests.client.model import ModelBroker


def delivered(actions: Actions) -> list[tuple[str, Sequence[str]]]:
    return [(action.event.name, action.subscriptions) for action in actions if isinstance(action, Deliver)]


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
    ['{"reply":4711,"data":1}', '{"reply":4711,"error":"e","code":"c"}', '{"error":"e","code":"c"}'],
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
