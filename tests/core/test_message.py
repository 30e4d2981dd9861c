"""Messages of the application's: what they are in each form, and what can't be one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.core.forms import IDENTIFIED, PLAIN, SERVER_SENT, DeflatedForm
from broker.core.frames import BINARY, TEXT
from broker.core.message import Message
from tests.fakes import frames_in


@pytest.mark.parametrize("text", ["", "hello", "größer", '{"a": 1}', "two\nlines"])
def test_a_text_is_a_text_frame(text: str) -> None:
    assert frames_in(Message(text).encoded(PLAIN)) == [(TEXT, text.encode())]


@pytest.mark.parametrize("data", [b"", b"\x00\xff", b"x" * 70_000])
def test_bytes_are_a_binary_frame(data: bytes) -> None:
    assert frames_in(Message(data).encoded(PLAIN)) == [(BINARY, data)]


@pytest.mark.parametrize("value", [None, True, 0, 1.5, [1, "a"], {"größe": [None]}])
def test_anything_else_is_json_in_a_text_frame(value: Any) -> None:
    ((opcode, payload),) = frames_in(Message(value).encoded(PLAIN))
    assert (opcode, json.loads(payload)) == (TEXT, value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", ["\ud800"]])
def test_what_has_no_place_in_a_frame_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Message(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, [b"bytes"], {(1, 2): 3}])
def test_what_json_can_t_say_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        Message(value)


def test_it_is_encoded_once_for_each_form() -> None:
    message = Message({"a": 1})
    assert message.encoded(PLAIN) is message.encoded(PLAIN)
    assert message.encoded(IDENTIFIED) == message.encoded(PLAIN)


def test_server_sent_events_have_texts_only() -> None:
    assert b"data: hello\n" in Message("hello").encoded(SERVER_SENT)
    assert b"data: two\ndata: lines\n" in Message("two\nlines").encoded(SERVER_SENT)
    assert Message(b"hello").encoded(SERVER_SENT) == b""


@pytest.mark.parametrize(("content", "opcode"), [("x" * 2000, TEXT), (b"x" * 2000, BINARY)])
def test_what_is_large_enough_is_compressed(content: str | bytes, opcode: int) -> None:
    frame = Message(content).encoded(DeflatedForm(1024))
    assert len(frame) < 100
    assert frame[0] == 0x80 | 0x40 | opcode
    assert Message(content[:1000]).encoded(DeflatedForm(1024))[0] == 0x80 | opcode
