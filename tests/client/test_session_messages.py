"""What has no id: a message of the application's, or an event that comes again. A session tells which."""

from __future__ import annotations

from broker.client.frames import Message
from broker.client.session import Live
from tests.client.conversation import Conversation


def told(conversation: Conversation, *texts: str) -> list[str | bytes]:
    """What of this, said by an application, is a message."""
    actions = [action for text in texts for action in conversation.session.received(text)]
    assert all(isinstance(action, Message) for action in actions)
    return [action.raw for action in actions if isinstance(action, Message)]


A = '{"event":"a.1","data":1}'
B = '{"event":"b.1","data":1}'


def returning(*patterns: str) -> Conversation:
    """A session that has asked to be resumed, and waits for the answer."""
    conversation = Conversation()
    conversation.connect()
    conversation.subscribe("s", *patterns)
    conversation.lose()
    conversation.connection = conversation.broker.open()
    conversation.session.connected()
    return conversation


def test_what_has_no_id_is_a_message_once_the_session_is_live(conversation: Conversation) -> None:
    conversation.subscribe("s", "a.*")
    assert told(conversation, A, B, "text", "[]") == [A, B, "text", "[]"]
    assert conversation.session.received(b"binary") == [Message(b"binary")]


def test_at_first_it_is_one_as_well_since_nothing_was_asked_for() -> None:
    conversation = Conversation()
    conversation.session.subscribe("s", ["**"])
    conversation.session.connected()
    assert told(conversation, A, "text") == [A, "text"]


def test_until_the_resume_is_answered_what_may_come_again_as_an_event_is_none() -> None:
    conversation = returning("a.*")
    assert told(conversation, A, B, "text", '{"data":1}') == [B, "text", '{"data":1}']
    assert conversation.session.received(b"binary") == [Message(b"binary")]
    assert conversation.talk() == [Live()]
    assert told(conversation, A) == [A]


def test_so_it_is_for_a_pattern_that_was_given_up_meanwhile() -> None:
    conversation = returning("a.*")
    conversation.session.unsubscribe("s")
    assert told(conversation, A, B) == [B]
    assert conversation.talk() == [Live()]
    assert told(conversation, A) == [A]


def test_behind_a_gap_it_is_a_message(conversation: Conversation) -> None:
    conversation.subscribe("s", "a.*")
    conversation.lose()
    conversation.publish("a.1")
    conversation.broker.forget()
    conversation.connect()
    assert told(conversation, A) == [A]


def test_what_one_connection_was_told_does_not_count_on_the_next() -> None:
    conversation = returning("a.*")
    conversation.session.unsubscribe("s")
    conversation.lose()
    conversation.session.connected()
    assert told(conversation, A) == [A]


def test_a_message_does_not_move_the_position(conversation: Conversation) -> None:
    before = conversation.session.position
    told(conversation, A, '{"event":"x","data":1,"id":7}', '{"id":"e7"}', '{"data":{"id":"e7"}}')
    assert conversation.session.position == before
