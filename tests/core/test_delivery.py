"""Events on their way out: each form of them once, joined, and cut where the socket took no more."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from broker.core.delivery import Bundle, Delivery, Joined
from broker.core.errors import BadName
from broker.core.event import Event, Record, check_name
from broker.core.forms import IDENTIFIED, PLAIN, SERVER_SENT, DeflatedForm, Form
from tests.core.parsing import parsed

FORMS: list[Form] = [PLAIN, IDENTIFIED, SERVER_SENT, DeflatedForm(100)]


def test_an_event_has_the_bytes_of_its_publisher() -> None:
    data = b'{ "b" :1.0,\n"a":"\\u00e9\xc3\xa9" }'
    delivery = Delivery(Record(Event('é"\\', data), "1", 1))
    assert delivery.encoded()[2:] == b'{"event":"\xc3\xa9\\"\\\\","data":%b}' % data
    [(_, text)] = parsed(delivery.encoded())
    assert json.loads(text) == {"event": 'é"\\', "data": json.loads(data)}


def test_an_event_is_encoded_once_for_all() -> None:
    delivery = Delivery(Record(Event("a", b"1"), "1", 1))
    assert delivery.encoded() is delivery.encoded()


@pytest.mark.parametrize("form", FORMS)
def test_an_event_is_encoded_once_for_all_who_get_it_in_one_form(form: Form) -> None:
    delivery = Delivery(Record(Event("a", b"1"), "1", 1))
    assert delivery.encoded(form) is delivery.encoded(form)
    assert delivery.encoded(form) == form.event(delivery.record)


def test_the_size_of_an_event_is_that_of_what_it_carries() -> None:
    assert Delivery(Record(Event("a.b", b"12345"), "1", 1)).size == 8


def may_be_a_name(text: str) -> bool:
    try:
        check_name(text)
    except BadName:
        return False
    return True


@given(st.text(st.sampled_from('"\\/u.') | st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=80))
@example('\\"')
@example('"\\\\"\\')
@example("\\u0041")
def test_a_name_is_encoded_as_json_encodes_it(text: str) -> None:
    assume(may_be_a_name(text))
    expected = b'{"event":%b,"data":1}' % json.dumps(text, ensure_ascii=False).encode()
    assert Delivery(Record(Event(text, b"1"), "1", 1)).encoded() == PLAIN.frame(expected)


# Joined.


def deliveries(sizes: list[int]) -> list[Delivery]:
    return [Delivery(Record(Event(f"n{at}", b"1" * size), "1", at)) for at, size in enumerate(sizes)]


some_events = st.lists(st.integers(1, 200), min_size=1, max_size=6).map(deliveries)
forms = st.sampled_from(FORMS)


@given(some_events, forms, st.booleans())
def test_a_joined_is_the_frames_of_its_events_one_after_the_other(
    events: list[Delivery], form: Form, alone: bool
) -> None:
    joined = Joined(events, form, alone=alone)
    assert joined.data == b"".join(event.encoded(form) for event in events)
    assert (joined.count, joined.size) == (len(events), len(joined.data))


@given(some_events)
def test_what_is_joined_is_read_as_the_events_in_order(events: list[Delivery]) -> None:
    assert [json.loads(text)["event"] for _, text in parsed(Joined(events, PLAIN).data)] == [
        event.record.event.name for event in events
    ]


def test_a_joined_of_one_event_copies_nothing() -> None:
    [event] = deliveries([10])
    assert Joined([event], PLAIN).data is event.encoded()


@given(some_events, forms)
def test_a_joined_cut_at_any_byte_lacks_just_the_rest_of_the_frame_that_has_begun(
    events: list[Delivery], form: Form
) -> None:
    joined = Joined(events, form)
    ends = [len(b"".join(event.encoded(form) for event in events[:count])) for count in range(len(events) + 1)]
    for sent in range(1, joined.size + 1):
        begun, rest = joined.cut(sent)
        assert ends[begun - 1] < sent <= ends[begun]
        assert joined.data[:sent] + rest == joined.data[: ends[begun]]


def test_a_joined_can_t_be_cut_behind_its_end() -> None:
    joined = Joined(deliveries([1, 2]), PLAIN)
    with pytest.raises(ValueError, match="more than there were"):
        joined.cut(joined.size + 1)


# Bundle.


@pytest.mark.parametrize("form", FORMS)
def test_a_bundle_is_joined_once_for_all_who_get_it_in_one_form(form: Form) -> None:
    bundle = Bundle(deliveries([1, 2]))
    assert bundle.joined(form) is bundle.joined(form)
    assert bundle.joined(form).data == Joined(deliveries([1, 2]), form).data
