"""The forms in which a client gets what goes to it, read back as its end reads them."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.deflate import deflate
from broker.core.errors import Close, PublisherError
from broker.core.event import Event, Record, check_id, check_name
from broker.core.forms import IDENTIFIED, PLAIN, SERVER_SENT, DeflatedForm, Form
from tests.fakes import CLOSE, TEXT, frames_in

AWKWARD_IDS = [
    "plain-1_2.3:4",
    'with "quotes"',
    "back\\slash",
    '\\"',
    "\\u0041",
    "é",
    "日本",
    "🙂",
    " spaced ",
    "</script>",
]
SPACED = b'{ "a" :\r\n [1,\r2,\n3],\t"b": "\\r\\n" }'


def record(data: bytes = b"1", *, name: str = "a.b", event_id: str = "1") -> Record:
    return Record(Event(name, data), event_id, 1)


def is_good(check: Any, text: str) -> bool:
    try:
        check(text)
    except PublisherError:
        return False
    return True


TEXTS = st.text(
    st.sampled_from('"\\/ .:u0\u2028\ufeff') | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60
)
IDS = TEXTS.filter(lambda text: is_good(check_id, text))
NAMES = TEXTS.filter(lambda text: is_good(check_name, text))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
SPACES = st.text(" \t\r\n", max_size=4)
PAYLOADS = st.builds(
    lambda value, *spaces: f"{spaces[0]}[{spaces[1]}{json.dumps(value, indent=1)}{spaces[2]}]{spaces[3]}".encode(),
    VALUES,
    *[SPACES] * 4,
)


# WebSocket.


def heard(data: bytes) -> Any:
    """The JSON of the one text frame."""
    [(opcode, payload)] = frames_in(data)
    assert opcode == TEXT
    return json.loads(payload)


def test_an_event_has_its_name_and_its_payload_and_with_ids_its_id_behind_them() -> None:
    told = [PLAIN.event(record(b"[1]", event_id="x"))[2:], IDENTIFIED.event(record(b"[1]", event_id="x"))[2:]]
    assert told == [b'{"event":"a.b","data":[1]}', b'{"event":"a.b","data":[1],"id":"x"}']


@pytest.mark.parametrize("event_id", AWKWARD_IDS)
def test_an_id_is_read_as_it_was_given(event_id: str) -> None:
    assert heard(IDENTIFIED.event(record(event_id=event_id)))["id"] == event_id


@given(NAMES, PAYLOADS, IDS)
def test_an_event_in_a_frame_is_read_as_it_was_published(name: str, data: bytes, event_id: str) -> None:
    told = heard(IDENTIFIED.event(record(data, name=name, event_id=event_id)))
    assert told == {"event": name, "data": json.loads(data), "id": event_id}


@pytest.mark.parametrize("form", [PLAIN, IDENTIFIED])
def test_a_payload_goes_into_a_frame_byte_for_byte(form: Form) -> None:
    assert SPACED in form.event(record(SPACED))


@pytest.mark.parametrize("form", [PLAIN, IDENTIFIED])
def test_an_answer_is_a_frame_of_json(form: Form) -> None:
    assert heard(form.message({"reply": "é", "data": [1]})) == {"reply": "é", "data": [1]}


@pytest.mark.parametrize("form", [PLAIN, IDENTIFIED])
def test_who_has_commands_is_told_a_position_by_a_reply_alone(form: Form) -> None:
    assert (form.position("p"), form.listens_only) == (b"", False)


@pytest.mark.parametrize("form", [PLAIN, IDENTIFIED])
def test_the_end_of_a_websocket_is_a_close_frame(form: Form) -> None:
    assert frames_in(form.close(4008, "too slow")) == [(CLOSE, b"\x0f\xa8too slow")]


# WebSocket, compressed.

THRESHOLD = 100
DEFLATED = DeflatedForm(THRESHOLD, with_ids=DeflatedForm(THRESHOLD))
DEFLATED_FORMS = [DEFLATED, DEFLATED.with_ids]


def inflated(data: bytes) -> bytes:
    """What the one frame says, which is a text, compressed (RFC 7692 section 6: RSV1) or not."""
    [(_, payload)] = frames_in(data)
    assert data[0] in (0x81, 0xC1)
    return zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") if data[0] == 0xC1 else payload


@pytest.mark.parametrize(
    ("size", "first"), [(0, 0x81), (1, 0x81), (99, 0x81), (100, 0xC1), (101, 0xC1), (10_000, 0xC1)]
)
def test_what_is_below_the_threshold_is_not_compressed(size: int, first: int) -> None:
    data = DEFLATED.frame(b"x" * size)
    assert (data[0], inflated(data)) == (first, b"x" * size)


def test_what_would_not_become_smaller_is_not_compressed() -> None:
    noise = random.Random(1).randbytes(200)
    assert len(deflate(noise)) > len(noise)
    assert DEFLATED.frame(noise) == PLAIN.frame(noise)
    assert DeflatedForm(0).frame(b"") == PLAIN.frame(b"")


def test_a_binary_message_stays_one() -> None:
    assert [DEFLATED.frame(b"x" * size, 0x2)[0] for size in (1, 200)] == [0x82, 0xC2]
    assert PLAIN.frame(b"x", 0x2)[0] == 0x82


@given(NAMES, PAYLOADS, IDS)
def test_a_compressed_event_is_the_same_as_one_that_is_not(name: str, data: bytes, event_id: str) -> None:
    told = record(data, name=name, event_id=event_id)
    for deflated, plain in zip(DEFLATED_FORMS, (PLAIN, IDENTIFIED), strict=True):
        assert inflated(deflated.event(told)) == frames_in(plain.event(told))[0][1]


def test_answers_keep_to_the_threshold_too() -> None:
    short, long = {"reply": 1}, {"reply": "é" * 200}
    assert [DEFLATED.message(value)[0] for value in (short, long)] == [0x81, 0xC1]
    assert [json.loads(inflated(DEFLATED.message(value))) for value in (short, long)] == [short, long]


@pytest.mark.parametrize("form", DEFLATED_FORMS)
def test_control_frames_are_never_compressed(form: Form) -> None:
    assert (form.ping, form.close(4008, "x" * 120)) == (PLAIN.ping, PLAIN.close(4008, "x" * 120))


@pytest.mark.parametrize(
    ("form", "with_ids"),
    [
        (PLAIN, IDENTIFIED),
        (IDENTIFIED, IDENTIFIED),
        (DEFLATED, DEFLATED.with_ids),
        (DEFLATED.with_ids, DEFLATED.with_ids),
        (SERVER_SENT, SERVER_SENT),
    ],
)
def test_each_form_has_one_with_ids(form: Form, with_ids: Form) -> None:
    assert form.with_ids is with_ids
    assert b"an-id" in with_ids.event(record(event_id="an-id"))


# Server-sent events: a reader of chunks, and one of what is in them, both as the standards have it.


class CutShortError(Exception):
    """The body has no end."""


def body(data: bytes) -> bytes:
    """What the chunks hold (RFC 9112 section 7.1); all of the data is chunks, and the last one is the empty one."""
    held = b""
    while True:
        size, line_end, data = data.partition(b"\r\n")
        if not line_end:
            raise CutShortError
        assert re.fullmatch(rb"[0-9a-f]+", size)
        length = int(size, 16)
        chunk, data = data[:length], data[length:]
        assert len(chunk) == length
        assert data.startswith(b"\r\n")
        data = data[2:]
        if not length:
            assert data == b""
            return held
        held += chunk


@dataclass
class Source:
    """What a browser makes of a stream (HTML, section 9.2.6)."""

    messages: list[tuple[str, str]] = field(default_factory=list)  # data, and the last event id at that time
    last_event_id: str = ""
    retry: int | None = None

    def read(self, stream: bytes) -> None:
        lines = re.split(r"\r\n|\r|\n", stream.decode())
        data: list[str] = []
        noted = self.last_event_id
        for line in lines[:-1]:  # behind the last line end there is nothing whole
            if not line:
                self.last_event_id = noted
                if data:
                    self.messages.append(("\n".join(data), self.last_event_id))
                data = []
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "id" and "\0" not in value:
                noted = value
            elif name == "retry" and value.isascii() and value.isdigit():
                self.retry = int(value)
            else:
                assert name == "", f"no field of the format: {line!r}"


def sourced(*parts: bytes) -> Source:
    source = Source()
    source.read(body(b"".join(parts) + b"0\r\n\r\n"))
    return source


def test_an_event_is_one_message_with_its_id() -> None:
    source = sourced(SERVER_SENT.event(record(b'{"n": 1}', event_id="x 1")))
    assert source.messages == [('{"event":"a.b","data":{"n": 1}}', "x 1")]


@pytest.mark.parametrize("data", [b"[1,\r2]", b"[1,\n2]", b"[1,\r\n2]", b"\r\n[1,\n\r\n\r2]\n\n", SPACED, b"\n\r1\r\n"])
def test_a_payload_of_several_lines_is_one_message(data: bytes) -> None:
    [(told, _)] = sourced(SERVER_SENT.event(record(data))).messages
    assert json.loads(told)["data"] == json.loads(data)


@pytest.mark.parametrize("event_id", AWKWARD_IDS)
def test_a_browser_comes_back_with_the_id_as_it_was_given(event_id: str) -> None:
    assert sourced(SERVER_SENT.event(record(event_id=event_id))).last_event_id == event_id


@given(st.lists(st.tuples(NAMES, PAYLOADS, IDS), max_size=4))
@example([("a", b"1", "\u2028"), ("\ufeff", b"\r2\n\n", "\ufeff")])
def test_a_stream_of_events_is_read_as_they_were_published(published: list[tuple[str, bytes, str]]) -> None:
    frames = [SERVER_SENT.event(record(data, name=name, event_id=id_)) for name, data, id_ in published]
    assert [(json.loads(told), id_) for told, id_ in sourced(*frames).messages] == [
        ({"event": name, "data": json.loads(data)}, id_) for name, data, id_ in published
    ]


def chunks(*frames: bytes) -> Iterator[int]:
    """How many chunks each frame is."""
    for frame in frames:
        count = 0
        while frame:
            size, _, rest = frame.partition(b"\r\n")
            frame = rest[int(size, 16) + 2 :]
            count += 1
        yield count


def test_each_frame_is_a_chunk_of_its_own_so_that_they_can_be_cut_and_joined() -> None:
    frames = [SERVER_SENT.event(record(SPACED)), SERVER_SENT.message({}), SERVER_SENT.position("p"), SERVER_SENT.ping]
    assert list(chunks(*frames, SERVER_SENT.retry(1))) == [1, 1, 1, 1, 1]


def test_a_comment_keeps_it_alive_and_tells_nothing() -> None:
    assert sourced(SERVER_SENT.event(record()), SERVER_SENT.ping, SERVER_SENT.ping).messages == [
        ('{"event":"a.b","data":1}', "1")
    ]


def test_a_position_is_noted_without_a_message() -> None:
    source = sourced(SERVER_SENT.event(record(event_id="x")), SERVER_SENT.position("p"))
    assert (len(source.messages), source.last_event_id) == (1, "p")


def test_a_browser_is_told_after_how_long_to_come_back() -> None:
    assert sourced(SERVER_SENT.retry(2500)).retry == 2500


@pytest.mark.parametrize("text", ["é\r\n\u2028", "\ud800", 'data: "x"\n\n'])
def test_an_answer_is_a_message_whatever_its_texts_hold(text: str) -> None:
    [(told, _)] = sourced(SERVER_SENT.message({"error": text})).messages
    assert json.loads(told) == {"error": text.encode(errors="replace").decode()}


def test_an_answer_leaves_the_last_id_as_it_is() -> None:
    assert sourced(SERVER_SENT.position("p"), SERVER_SENT.message({})).last_event_id == "p"


def test_the_end_is_the_end_of_the_body() -> None:
    assert body(SERVER_SENT.ping + SERVER_SENT.close(Close.NORMAL, "")) == b":\n"
    with pytest.raises(CutShortError):
        body(SERVER_SENT.ping)


@pytest.mark.parametrize(
    ("code", "told"), [(Close.TOO_SLOW, "too_slow"), (Close.GOING_AWAY, "going_away"), (4999, "closed"), (0, "closed")]
)
def test_an_end_with_a_reason_says_why(code: int, told: str) -> None:
    source = Source()
    source.read(body(SERVER_SENT.close(code, "why é")))
    [(message, _)] = source.messages
    assert json.loads(message) == {"error": "why é", "code": told}


def test_who_reads_server_sent_events_listens_only() -> None:
    assert SERVER_SENT.listens_only
