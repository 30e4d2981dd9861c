"""Names, ids and batches: what may be published, and what the refusal says."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.errors import BadEvent, BadName, PublisherError
from broker.core.event import Event, check_batch, check_name, check_publishable, utf8_length


def allowed(name: str) -> bool:
    """The rules for names, one character at a time."""
    try:
        if len(name.encode()) > 255:
            return False
    except UnicodeEncodeError:
        return False
    forbidden = set("*<>{},")
    return all(
        segment
        and not any(char in forbidden or char.isspace() or unicodedata.category(char) == "Cc" for char in segment)
        for segment in name.split(".")
    )


@pytest.mark.parametrize("name", ["a", "message", "message.created", "games.1.x", "größe.π.事", "a-b_c:d/e", "a" * 255])
def test_these_are_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "the name is empty"),
        (".a", "segment 1 of '.a' is empty"),
        ("a.", "segment 2 of 'a.' is empty"),
        ("a..b", "segment 2 of 'a..b' is empty"),
        ("a.b c", "segment 2 of 'a.b c' has white space"),
        ("a.b\n", "segment 2 of 'a.b\\n' has white space"),
        ("a\x00", "segment 1 of 'a\\x00' has white space, a control character"),
        ("a\x7f", "segment 1 of 'a\\x7f' has white space, a control character"),
        ("a\x85", "segment 1 of 'a\\x85' has white space"),
        ("a\N{NO-BREAK SPACE}b", "segment 1 of 'a\\xa0b' has white space"),
        ("a.*", "or one of * < > { } ,"),
        ("a.<b>", "or one of * < > { } ,"),
        ("a.{b,c}", "or one of * < > { } ,"),
        ("a,b", "or one of * < > { } ,"),
        ("a" * 256, "at most 255 bytes, this one has 256 characters"),
        ("é" * 128, "at most 255 bytes, this one has 256"),
        ("a.\ud800", "a name must be valid Unicode: 'a.\\ud800'"),
    ],
)
def test_these_are_no_names_and_the_refusal_says_why(name: str, complaint: str) -> None:
    with pytest.raises(BadName, match=re.escape(complaint)):
        check_name(name)


@given(st.text(alphabet=st.sampled_from("ab.*<>{}, \t\n\x00\x7f\x85\u2028é\ud800") | st.characters(), max_size=12))
def test_a_name_is_what_the_slow_rules_allow(name: str) -> None:
    if allowed(name):
        check_name(name)
    else:
        with pytest.raises(BadName):
            check_name(name)


@given(st.integers(240, 260), st.sampled_from("aéπ𝄞"))
def test_length_is_counted_in_bytes(bytes_in_all: int, char: str) -> None:
    width = len(char.encode())
    name = char * (bytes_in_all // width) + "x" * (bytes_in_all % width)
    assert allowed(name) == (bytes_in_all <= 255)
    if bytes_in_all <= 255:
        check_name(name)
    else:
        with pytest.raises(BadName):
            check_name(name)


def test_no_source_may_publish_the_brokers_own_names() -> None:
    with pytest.raises(BadName, match=r"the broker's own: 'broker\.stopped'"):
        check_publishable(Event("broker.stopped", b"{}"))


@pytest.mark.parametrize("name", ["broker", "brokers.x", "a.broker.b", "Broker.x"])
def test_names_that_only_resemble_the_brokers_own_may_be_published(name: str) -> None:
    check_publishable(Event(name, b"{}"))


@pytest.mark.parametrize("event_id", ["1", "a b", "é" * 127, "x" * 255, "3f0c-…"])
def test_these_are_ids(event_id: str) -> None:
    check_publishable(Event("a", b"1", id=event_id))


@pytest.mark.parametrize("event_id", ["", "x" * 256, "é" * 128, "a\n", "\x00", "\x7f", "\x80", "\ud800"])
def test_these_are_no_ids(event_id: str) -> None:
    with pytest.raises(PublisherError, match="an event's id is a text of 1 to 255 bytes"):
        check_publishable(Event("a", b"1", id=event_id))


def test_an_empty_batch_is_in_order() -> None:
    check_batch([])


def test_the_first_bad_event_of_a_batch_is_named_by_its_index() -> None:
    with pytest.raises(BadEvent) as caught:
        check_batch([Event("a", b"1"), Event("b", b"1", id=""), Event("..", b"1")])
    assert caught.value.index == 1
    assert caught.value.reason == str(caught.value)
    assert "id" in caught.value.reason


@pytest.mark.parametrize(("text", "length"), [("", 0), ("aé𝄞", 7), ("\udfff", None)])
def test_the_length_in_utf8_is_none_where_there_is_no_utf8(text: str, length: int | None) -> None:
    assert utf8_length(text) == length
