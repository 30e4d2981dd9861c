"""Commands: what a client may say, and what it is told when it says something else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.commands import Command, parse_command, problem, reply
from broker.core.errors import BadJSON, BadPattern, BadShape, ClientError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def payload(frame: bytes) -> Any:
    """What is in a short text frame."""
    assert frame[:1] == b"\x81"
    assert frame[1] == len(frame) - 2
    return json.loads(frame[2:])


@given(st.text(min_size=1), json_values, st.none() | st.integers() | st.text(max_size=255))
def test_a_command_says_what_was_sent(event: str, data: Any, command_id: int | str | None) -> None:
    text = json.dumps({"event": event, "data": data, "id": command_id})
    assert parse_command(text) == Command(event, data, command_id)


def test_data_and_id_may_be_left_out() -> None:
    assert parse_command('{"event": "x"}') == Command("x", None, None)


def test_what_else_is_in_a_command_does_not_matter() -> None:
    assert parse_command('{"event": "x", "data": 1, "more": 2}') == Command("x", 1)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ('{"event": "x"} {}', "no JSON"),
        ('{"event": "x", "data": NaN}', "NaN is no JSON number"),
        ('{"event": "x", "data": -Infinity}', "-Infinity is no JSON number"),
        ('{"event": "x", "data": ' + "9" * 5000 + "}", "no JSON"),
        ("[" * 200_000, "nested too deep"),
    ],
)
def test_what_is_no_json_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(BadJSON, match=complaint) as caught:
        parse_command(text)
    assert caught.value.reply_id is None


@pytest.mark.parametrize("text", ["null", "1", '"subscribe"', "[]", "true"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(BadShape, match="a command is an object"):
        parse_command(text)


@pytest.mark.parametrize("command_id", ["1.5", "true", "false", "[]", "{}", '"' + "x" * 256 + '"'])
def test_an_id_is_a_short_text_or_an_integer(command_id: str) -> None:
    with pytest.raises(BadShape, match='"id" is a text of at most 255 characters, or an integer') as caught:
        parse_command('{"event": "x", "id": %s}' % command_id)  # noqa: UP031
    assert caught.value.reply_id is None


@pytest.mark.parametrize("rest", ["", ', "event": null', ', "event": 1', ', "event": ""', ', "event": ["x"]'])
def test_without_an_event_it_is_refused_and_the_id_is_answered(rest: str) -> None:
    with pytest.raises(BadShape, match='a command has an "event"') as caught:
        parse_command('{"id": "seven"%s}' % rest)  # noqa: UP031
    assert caught.value.reply_id == "seven"


@pytest.mark.parametrize("command_id", ["a", "", 0, -1, 10**30])
def test_a_reply_has_the_id_and_the_data(command_id: str | int) -> None:
    assert reply(command_id, {"x": [1]}) == {"reply": command_id, "data": {"x": [1]}}


def test_an_error_has_its_text_and_code() -> None:
    assert problem(BadPattern("no, not this")) == {"error": "no, not this", "code": "bad_pattern"}


@pytest.mark.parametrize("command_id", ["a", "", 0])
def test_an_error_has_the_id_of_its_command(command_id: str | int) -> None:
    assert problem(ClientError("no"), command_id) == {
        "reply": command_id,
        "error": "no",
        "code": "bad_command",
    }
