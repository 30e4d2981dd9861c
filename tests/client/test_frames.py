"""What is the broker's own, and what an application has said: everything else, whatever it looks like."""

from __future__ import annotations

from typing import Any

import pytest

from broker.client.frames import Event, Frame, Message, Problem, Reply, read_frame


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"event":"a.b","data":[1 ],"id":"e1"}', Event("a.b", b"[1 ]", "e1")),
        ('{"reply":7,"data":{"x":1}}', Reply(7, {"x": 1})),
        ('{"reply":7}', Reply(7, None)),
        ('{"reply":7,"error":"e","code":"c"}', Problem(7, "e", "c")),
        ('{"reply":7,"error":""}', Problem(7, "", "")),
        ('{"error":"e","code":"c"}', Problem(None, "e", "c")),
        ('{"error":"","code":"c","more":1}', Problem(None, "", "c")),
    ],
)
def test_the_broker_s_own_frames_are_known_by_their_keys(text: str, frame: Frame) -> None:
    assert read_frame(text) == frame


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("7", 7),
        (" 0.5 ", 0.5),
        ('"text"', "text"),
        ("[]", []),
        ("{}", {}),
        ('{"from":"ada","text":"grüße"}', {"from": "ada", "text": "grüße"}),
        ('{"event":7,"id":"p7"}', {"event": 7, "id": "p7"}),
        ('{"event":"a","data":1,"id":7}', {"event": "a", "data": 1, "id": 7}),
        ('{"id":"p7","data":1}', {"id": "p7", "data": 1}),
        ('{"error":"sold out"}', {"error": "sold out"}),
        ('{"error":{"text":"e"},"code":7}', {"error": {"text": "e"}, "code": 7}),
        ('{"code":"sold_out"}', {"code": "sold_out"}),
        ('{"reply":"p7","data":1}', {"reply": "p7", "data": 1}),
        ("1" * 5000, float("inf")),
        (f"[{'1' * 5000}, 12345678901234567890]", [float("inf"), 12345678901234567890]),
    ],
)
def test_any_other_json_is_a_message_with_its_value(text: str, value: Any) -> None:
    frame = read_frame(text)
    assert frame == Message(text)
    assert isinstance(frame, Message)
    assert frame.value == value


@pytest.mark.parametrize(
    "text",
    ["", "hello", "<html>", "[1", "NaN", "-Infinity", "[NaN]", "\ufeff1", "\ud800", "[" * 100_000 + "]" * 100_000],
)
def test_a_text_that_is_no_json_or_none_that_can_be_held_is_its_own_value(text: str) -> None:
    frame = read_frame(text)
    assert frame == Message(text)
    assert isinstance(frame, Message)
    assert frame.value == text


@pytest.mark.parametrize("data", [b"", b"{}", b'{"reply":7,"data":1}', bytes(range(256))])
def test_binary_is_a_message_whatever_it_holds(data: bytes) -> None:
    frame = read_frame(data)
    assert frame == Message(data)
    assert isinstance(frame, Message)
    assert frame.value == data


@pytest.mark.parametrize(
    ("text", "name"),
    [('{"event":"a.b","data":1}', "a.b"), ('{"event":"a.b"}', "a.b"), ('{"event":null}', None), ('"a.b"', None)],
)
def test_a_message_that_may_be_an_event_without_its_id_has_its_name(text: str, name: str | None) -> None:
    assert read_frame(text) == Message(text, name)
