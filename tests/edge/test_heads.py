"""Heads that come again mean what h11 makes of them, however the bytes are cut; and answers are h11's as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.core.http import Request, Response
from broker.edge import http
from broker.edge.heads import BadRequest, Head, LastHead, Message, answer_head
from broker.edge.http import HttpConnection

HEAD = b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\nX: y\r\n\r\n"

Verdict = tuple[bytes, str, list[tuple[bytes, bytes]], bytes, bytes] | int


class Cut(trio.abc.Stream):
    """Gives the pieces that it was made of, one at a time, and keeps what is written."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self.written = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._pieces.pop(0) if self._pieces else b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.written += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def by_h11(sent: bytes) -> list[Verdict]:
    """What one h11 connection makes of it all, from the first request to the last: the slow and obvious way."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(sent)
    if sent:
        connection.receive_data(b"")
    told: list[Verdict] = []
    try:
        while isinstance(head := connection.next_event(), h11.Request):
            headers = list(head.headers)
            if {b"content-length", b"transfer-encoding"} <= dict(headers).keys():
                return [*told, 400]
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += event.data
            told.append((head.method, head.target.decode(), headers, head.http_version, body))
            connection.send(h11.Response(status_code=202, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                break
            connection.start_next_cycle()
    except h11.RemoteProtocolError as error:
        return [*told, error.error_status_hint]
    return told


async def by_us(pieces: Iterable[bytes]) -> list[Verdict]:
    connection = HttpConnection(Cut(pieces))
    told: list[Verdict] = []
    try:
        while (request := await connection.next_request()) is not None:
            body = await request.read_body(1_000_000)
            told.append((request.method.encode(), request.path, list(request.headers), request.http_version, body))
            if not await connection.respond(Response(202)):
                break
    except BadRequest as error:
        return [*told, error.status]
    return told


def cut(sent: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({min(place, len(sent)) for place in places} | {len(sent)})
    return [sent[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


# Few of each, so that the same comes again.
FIRST = [b"POST /a HTTP/1.1", b"GET /a HTTP/1.1", b"POST /a HTTP/1.0", b"HEAD /b HTTP/1.1", b"POST  /a HTTP/1.1"]
NAMES = [b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"X-Content-Length", b"X", b" Content-Length"]
VALUES = [b"0", b"1", b"5", b"12", b"05", b"5, 5", b"5,6", b"+5", b"", b" 5 ", b"5\r\n", b"5\r\n 5", b"5\r\n\t",
          b"5\r\n ,5", b"content-length: 5", b"0" * 14 + b"5", b"0" * 18 + b"5", b"0" * 20 + b"5", b"5\n",
          b"\x0b5"]  # fmt: skip
LINES = [b"Host: b", b"Connection: close", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"X: y", b"X : y"]
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\n"]
BODIES = [b"", b"hello", b"hello world!", b"x", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"\r\n", b" \r\n"]


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    length = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)).map(lambda pair: b"%b: %b" % pair)
    lines = [b"Host: b", *draw(st.lists(st.one_of(st.sampled_from(LINES), length), max_size=4))]
    end = draw(st.sampled_from(ENDS))
    return b"".join(line + end for line in [draw(st.sampled_from(FIRST)), *lines, b""])


@st.composite
def alike(draw: st.DrawFn) -> bytes:
    """Requests that differ in nothing but the length of their bodies, which is sometimes a lie."""
    before, after = draw(st.sampled_from([(b"", b""), (b"X: y\r\n", b""), (b"", b"X: content-length: 5\r\n")]))
    name = draw(st.sampled_from(NAMES[:4]))
    sent = b""
    for body in draw(st.lists(st.sampled_from(BODIES), min_size=2, max_size=5)):
        said = draw(st.sampled_from([b"%d" % len(body)] * 6 + VALUES))
        sent += b"POST /a HTTP/1.1\r\nHost: b\r\n%b%b: %b\r\n%b\r\n%b" % (before, name, said, after, body)
    return sent


several = st.lists(st.tuples(headers(), st.sampled_from(BODIES)).map(b"".join), max_size=3)
twice = several.map(lambda parts: b"".join(part + part for part in parts))
places = st.lists(st.integers(0, 600), max_size=8)


@given(st.one_of(alike(), twice, several.map(b"".join)), places)
async def test_however_the_bytes_are_cut_they_mean_what_h11_makes_of_them_all(sent: bytes, places: list[int]) -> None:
    assert await by_us(cut(sent, places)) == by_h11(sent)


@given(alike(), st.integers(0, 600), st.binary(max_size=3), places)
async def test_also_where_something_in_them_is_broken(sent: bytes, at: int, by: bytes, places: list[int]) -> None:
    broken = sent[:at] + by + sent[at + 1 :]
    assert await by_us(cut(broken, places)) == by_h11(broken)


@given(st.lists(st.sampled_from(BODIES), max_size=4), st.booleans())
async def test_what_is_remembered_changes_no_answer(bodies: list[bytes], all_at_once: bool) -> None:
    sent = [HEAD.replace(b"5", b"%d" % len(body)) + body for body in bodies]
    stream = Cut([b"".join(sent)] if all_at_once else sent)
    connection = HttpConnection(stream)
    while (await connection.next_request()) is not None:
        await connection.read_body(100)
        assert await connection.respond(Response(202, b"{}"))
    one = answer_head(202, ("content-type", "application/json"), ("content-length", "2")) + b"{}"
    assert stream.written == one * len(bodies)


# --- The head that came last -----------------------------------------------------------------------------------------


def parsed(text: bytes) -> Head:
    message = Message()
    message.feed(text)
    head = message.head()
    assert head is not None
    return head


def kept(text: bytes) -> LastHead:
    last = LastHead()
    last.keep(text, parsed(text))
    return last


def test_the_same_bytes_are_the_same_head_whatever_follows() -> None:
    last = kept(HEAD)
    first, second = last.recall(HEAD), last.recall(HEAD + b"hello")
    assert first is not None
    assert second is not None
    assert first[0] is second[0]
    assert first == second == (parsed(HEAD), len(HEAD))


def test_another_length_changes_the_length_and_nothing_else() -> None:
    last = kept(HEAD)
    for digits in (b"17", b"017", b"5"):
        text = HEAD.replace(b"5", digits)
        assert last.recall(text) == (parsed(text), len(text))


@pytest.mark.parametrize(
    "text",
    [
        HEAD[:-1],
        HEAD.replace(b"5", b"-5"),
        HEAD.replace(b"5", b""),
        HEAD.replace(b"5", b"5" * 16),
        HEAD.replace(b"5\r\n", b"5\r\n 6\r\n"),
        HEAD.replace(b"Host", b"host"),
        HEAD.replace(b"X: y", b"X: z"),
        b"\r\n" + HEAD,
        b"",
    ],
    ids=["not all", "negative", "none", "long", "folded", "capitals", "value", "empty line before", "nothing"],
)
def test_other_bytes_are_another_head(text: bytes) -> None:
    assert kept(HEAD).recall(text) is None


@pytest.mark.parametrize(
    "twice",
    [HEAD.replace(b"X: y", b"Content-Length: 5"), HEAD.replace(b"X: y", b"X: content-length: 5")],
    ids=["a header", "a value"],
)
def test_where_the_length_is_named_twice_only_the_very_same_bytes_count(twice: bytes) -> None:
    last = kept(twice)
    assert last.recall(twice) == (parsed(twice), len(twice))
    assert last.recall(twice.replace(b"Content-Length: 5", b"Content-Length: 6", 1)) is None


@pytest.mark.parametrize(
    "text",
    [HEAD.replace(b"Content", b"X-Content"), HEAD.replace(b"5\r\n", b"5\r\n ,5\r\n")],
    ids=["of another header", "of a folded one"],
)
def test_other_digits_are_another_head(text: bytes) -> None:
    last = kept(text)
    assert last.recall(text) == (parsed(text), len(text))
    assert last.recall(text.replace(b"5", b"6", 1)) is None


def test_a_head_without_a_length_is_known_again() -> None:
    text = b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n"
    assert kept(text).recall(text * 2) == (parsed(text), len(text))


@pytest.mark.parametrize(
    "text",
    [HEAD.replace(b"X: y", b"X: " + b"y" * 10_000), HEAD.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")],
    ids=["long", "chunked"],
)
def test_some_heads_are_not_kept_nor_is_what_came_before_them(text: bytes) -> None:
    last = kept(HEAD)
    last.keep(text, parsed(text))
    assert last.recall(text) is None
    assert last.recall(HEAD) is None


@pytest.mark.parametrize("said", [[b"5", b"5"], [b"5", b"12"]], ids=["same length", "other length"])
async def test_a_head_that_comes_again_is_not_parsed_again(
    said: Sequence[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[Message] = []

    def message() -> Message:
        parsed.append(Message())
        return parsed[-1]

    monkeypatch.setattr(http, "Message", message)
    connection = HttpConnection(Cut([HEAD.replace(b"5", digits) + b"x" * int(digits) for digits in said]))
    seen: list[Request] = []
    while (request := await connection.next_request()) is not None:
        assert len(await request.read_body(100)) == int(said[len(seen)])
        assert await connection.respond(Response(202))
        seen.append(request)
    assert [request.header("content-length") for request in seen] == [digits.decode() for digits in said]
    assert len(parsed) == 1


# --- Answers ---------------------------------------------------------------------------------------------------------


def test_the_head_of_an_answer_can_hold_no_second_line() -> None:
    with pytest.raises(h11.LocalProtocolError):
        answer_head(200, ("x", "a\r\nSet-Cookie: b"))


def test_who_waits_to_be_asked_is_asked_in_one_line() -> None:
    assert answer_head(100) == b"HTTP/1.1 100 \r\n\r\n"
