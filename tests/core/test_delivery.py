"""Events on their way out: each form of them once, joined, and cut where the socket took no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from broker.core.delivery import Delivery, Joined
from broker.core.errors import BadName
from broker.core.event import Event, Record, check_name
from broker.core.forms import PLAIN
from broker.core.frames import text_frame


def parsed(frame: bytes) -> list[tuple[Opcode, Any]]:
    """The frames, read as a client of wsproto reads them; the parts of one message are put together."""
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(frame)
    found: list[tuple[Opcode, Any]] = []
    so_far: Any = None
    for part in protocol.received_frames():
        so_far = part.payload if so_far is None else so_far + part.payload
        if part.message_finished:
            found.append((part.opcode, so_far))
            so_far = None
    return found


def test_an_event_has_the_bytes_of_its_publisher() -> None:
    data = b'{ "b" :1.0,\n"a":"\\u00e9\xc3\xa9" }'
    delivery = Delivery(Record(Event('é"\\', data), "1", 1))
    assert delivery.encoded()[2:] == b'{"event":"\xc3\xa9\\"\\\\","data":%b}' % data
    [(_, text)] = parsed(delivery.encoded())
    assert json.loads(text) == {"event": 'é"\\', "data": json.loads(data)}


def test_an_event_is_encoded_once_for_all() -> None:
    delivery = Delivery(Record(Event("a", b"1"), "1", 1))
    assert delivery.encoded() is delivery.encoded()


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
    assert Delivery(Record(Event(text, b"1"), "1", 1)).encoded() == text_frame(expected)


# Joined.


def deliveries(sizes: list[int]) -> list[Delivery]:
    return [Delivery(Record(Event(f"n{at}", b"1" * size), "1", at)) for at, size in enumerate(sizes)]


joinedd = st.lists(st.integers(1, 200), min_size=1, max_size=6).map(deliveries)


@given(joinedd)
def test_a_joined_is_the_frames_of_its_events_one_after_the_other(events: list[Delivery]) -> None:
    joined = Joined(events, PLAIN)
    assert joined.data == b"".join(event.encoded() for event in events)
    assert (joined.count, joined.size) == (len(events), len(joined.data))
    assert [json.loads(text)["event"] for _, text in parsed(joined.data)] == [
        event.record.event.name for event in events
    ]


def test_a_joined_of_one_event_copies_nothing() -> None:
    [event] = deliveries([10])
    assert Joined([event], PLAIN).data is event.encoded()


@given(joinedd)
def test_a_joined_cut_at_any_byte_lacks_just_the_rest_of_the_frame_that_has_begun(events: list[Delivery]) -> None:
    joined = Joined(events, PLAIN)
    ends = [len(b"".join(event.encoded() for event in events[:count])) for count in range(len(events) + 1)]
    for sent in range(1, joined.size + 1):
        begun, rest = joined.cut(sent)
        assert ends[begun - 1] < sent <= ends[begun]
        assert joined.data[:sent] + rest == joined.data[: ends[begun]]


def test_a_joined_can_t_be_cut_behind_its_end() -> None:
    joined = Joined(deliveries([1, 2]), PLAIN)
    with pytest.raises(ValueError, match="more than there were"):
        joined.cut(joined.size + 1)
