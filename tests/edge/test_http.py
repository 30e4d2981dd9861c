"""HTTP on one connection: what may come, what may not, and when it is over."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

from broker.core.http import BodyTooLarge, Response
from broker.edge.http import MAX_HEAD_BYTES, BadRequest, HttpConnection
from tests.edge.streams import Dribble, Stuck, Wrap, plain, read_answer, read_to_end

GET = b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n"

both_ways = pytest.mark.parametrize("wrap", [plain, Dribble], ids=["whole", "byte by byte"])


class Pair:
    """A client's stream, and the server's connection at its other end."""

    def __init__(self, wrap: Wrap = plain) -> None:
        self.client, server = memory_stream_pair()
        self.connection = HttpConnection(wrap(server))


def post(body: bytes, *more: bytes, length: int | None = None) -> bytes:
    said = len(body) if length is None else length
    head = b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n" % said
    return head + b"".join(line + b"\r\n" for line in more) + b"\r\n" + body


async def refusal(pair: Pair) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        await pair.connection.next_request()
    return caught.value


async def with_body(sent: bytes, wrap: Wrap = plain, limit: int = 100) -> bytes:
    pair = Pair(wrap)
    await pair.client.send_all(sent)
    request = await pair.connection.next_request()
    assert request is not None
    return await request.read_body(limit)


# --- Heads -----------------------------------------------------------------------------------------------------------


@both_ways
async def test_a_request_is_read(wrap: Wrap) -> None:
    pair = Pair(wrap)
    await pair.client.send_all(b"GET /a/b?x=1&x=2&y= HTTP/1.1\r\nHost: b\r\nX-One:  two \r\n\r\n")
    request = await pair.connection.next_request()
    assert request is not None
    assert (request.method, request.path, request.http_version) == ("GET", "/a/b", b"1.1")
    assert request.query == {"x": ["1", "2"], "y": [""]}
    assert request.header("x-one") == "two"


async def test_an_absolute_target_has_the_path_of_its_url() -> None:
    pair = Pair()
    await pair.client.send_all(b"GET http://b/a?x=1 HTTP/1.1\r\nHost: b\r\n\r\n")
    request = await pair.connection.next_request()
    assert request is not None
    assert (request.path, request.query) == ("/a", {"x": ["1"]})


@both_ways
@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\r\nX : 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET //[ HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET /?" + b"&".join([b"a=1"] * 101) + b" HTTP/1.1\r\nHost: b\r\n\r\n",
    ],
    ids=["TLS", "no version", "no host", "two hosts", "no colon", "space before colon", "negative length",
         "two lengths", "no URL", "many parameters"],
)  # fmt: skip
async def test_a_head_that_is_no_good_one_is_refused(head: bytes, wrap: Wrap) -> None:
    pair = Pair(wrap)
    await pair.client.send_all(head)
    assert (await refusal(pair)).status == 400


@both_ways
async def test_length_and_transfer_encoding_together_are_refused(wrap: Wrap) -> None:
    pair = Pair(wrap)
    await pair.client.send_all(post(b"0\r\n\r\n", b"Transfer-Encoding: chunked"))
    assert "ambiguous" in str(await refusal(pair))


async def test_an_unknown_transfer_encoding_is_refused() -> None:
    pair = Pair()
    await pair.client.send_all(b"POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: gzip\r\n\r\n")
    assert (await refusal(pair)).status == 501


@both_ways
async def test_a_head_of_more_than_16_kib_is_refused_before_its_end(wrap: Wrap) -> None:
    pair = Pair(wrap)
    await pair.client.send_all(b"GET / HTTP/1.1\r\nHost: b\r\nX: " + b"x" * MAX_HEAD_BYTES)
    assert (await refusal(pair)).status == 431


@both_ways
async def test_a_head_of_more_than_16_kib_is_refused_also_where_it_comes_whole(wrap: Wrap) -> None:
    pair = Pair(wrap)
    await pair.client.send_all(b"GET / HTTP/1.1\r\nHost: b\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n")
    assert (await refusal(pair)).status == 431


async def test_a_head_just_within_16_kib_is_read() -> None:
    pair = Pair()
    start = b"GET / HTTP/1.1\r\nHost: b\r\nX: "
    await pair.client.send_all(start + b"x" * (MAX_HEAD_BYTES - len(start) - 4) + b"\r\n\r\n")
    assert await pair.connection.next_request() is not None


async def test_a_client_that_says_nothing_is_told_that_it_took_too_long(autojump_clock: MockClock) -> None:
    assert (await refusal(Pair())).status == 408


async def test_a_head_that_dribbles_in_has_no_more_time_than_another(autojump_clock: MockClock) -> None:
    pair = Pair()

    async def dribble() -> None:
        while True:
            await pair.client.send_all(b"G")
            await trio.sleep(4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        assert (await refusal(pair)).status == 408
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_without_a_word_is_done() -> None:
    pair = Pair()
    await pair.client.aclose()
    assert await pair.connection.next_request() is None


async def test_a_client_that_is_torn_away_is_done() -> None:
    pair = Pair()
    await pair.connection._stream.aclose()  # what a reset looks like from here on
    assert await pair.connection.next_request() is None


async def test_a_client_that_leaves_within_a_head_sent_no_request() -> None:
    pair = Pair()
    await pair.client.send_all(GET[:-2])
    await pair.client.aclose()
    assert (await refusal(pair)).status == 400


# --- Bodies ----------------------------------------------------------------------------------------------------------


@both_ways
async def test_a_body_of_announced_length_is_read(wrap: Wrap) -> None:
    assert await with_body(post(b"hello") + b"and more", wrap) == b"hello"


@both_ways
async def test_a_chunked_body_is_put_together(wrap: Wrap) -> None:
    assert await with_body(CHUNKED + b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n", wrap) == b"hello!"


async def test_a_request_without_a_body_has_an_empty_one() -> None:
    assert await with_body(GET) == b""


async def test_a_body_may_be_as_long_as_the_limit() -> None:
    assert await with_body(post(b"12345"), limit=5) == b"12345"


async def test_a_body_announced_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(BodyTooLarge):
        await with_body(post(b"", length=6), limit=5)  # not a byte of it has been sent


@both_ways
async def test_a_body_that_grows_too_long_is_refused_before_its_end(wrap: Wrap) -> None:
    with pytest.raises(BodyTooLarge) as caught:
        await with_body(CHUNKED + b"6\r\n123456\r\n", wrap, limit=5)
    assert caught.value.limit == 5


@both_ways
async def test_a_broken_body_is_refused(wrap: Wrap) -> None:
    with pytest.raises(BadRequest) as caught:
        await with_body(CHUNKED + b"5\r\nhelloXX", wrap)
    assert caught.value.status == 400


async def test_a_body_that_breaks_off_is_refused() -> None:
    pair = Pair()
    await pair.client.send_all(post(b"hel", length=5))
    await pair.client.aclose()
    request = await pair.connection.next_request()
    assert request is not None
    with pytest.raises(BadRequest, match="closed"):
        await request.read_body(100)


async def test_a_body_can_be_read_once() -> None:
    pair = Pair()
    await pair.client.send_all(post(b"hello") + GET)
    request = await pair.connection.next_request()
    assert request is not None
    await request.read_body(100)
    with pytest.raises(BadRequest, match="before its end"):
        await request.read_body(100)


async def test_a_body_that_does_not_come_is_given_up(autojump_clock: MockClock) -> None:
    with pytest.raises(BadRequest) as caught:
        await with_body(post(b"hel", length=5))
    assert caught.value.status == 408


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    pair = Pair()
    await pair.client.send_all(post(b"", b"Expect: 100-continue", length=5))
    request = await pair.connection.next_request()
    assert request is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(request.read_body, 100)
        assert (await read_answer(pair.client)).status == 100
        await pair.client.send_all(b"hello")


async def test_a_client_is_not_asked_for_a_body_that_is_too_long() -> None:
    pair = Pair()
    await pair.client.send_all(post(b"", b"Expect: 100-continue", length=500))
    request = await pair.connection.next_request()
    assert request is not None
    with pytest.raises(BodyTooLarge):
        await request.read_body(100)
    await pair.connection.respond(Response(413))
    assert (await read_answer(pair.client)).status == 413


# --- Answers ---------------------------------------------------------------------------------------------------------


async def test_an_answer_says_what_it_is() -> None:
    pair = Pair()
    await pair.client.send_all(GET)
    await pair.connection.next_request()
    await pair.connection.respond(Response(404, b"nothing", "text/plain", {"X-Tea": "pot"}))
    answer = await read_answer(pair.client)
    assert (answer.status, answer.body) == (404, b"nothing")
    assert answer.headers == {"content-type": "text/plain", "content-length": "7", "x-tea": "pot"}


async def test_an_answer_without_content_says_nothing_of_any() -> None:
    pair = Pair()
    await pair.client.send_all(GET + GET)
    await pair.connection.next_request()
    assert await pair.connection.respond(Response(204, headers={"X-Tea": "pot"}))
    answer = await read_answer(pair.client)
    assert (answer.status, answer.headers) == (204, {"x-tea": "pot"})


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_an_answer_may_be_begun_whose_body_somebody_else_writes(method: bytes) -> None:
    pair = Pair()
    await pair.client.send_all(GET.replace(b"GET", method) + GET)
    await pair.connection.next_request()
    head = pair.connection.begin(Response(200, content_type="text/plain", headers={"X-Tea": "pot"}))
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "http/1.1 200 ok"
    assert set(lines[1:-2]) == {
        "content-type: text/plain",
        "transfer-encoding: chunked",
        "connection: close",
        "x-tea: pot",
    }


async def test_an_answer_has_its_phrase() -> None:
    pair = Pair()
    await pair.client.send_all(GET)
    await pair.connection.next_request()
    await pair.connection.respond(Response(503))
    assert (await pair.client.receive_some()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


async def test_the_answer_to_head_is_a_head() -> None:
    pair = Pair()
    await pair.client.send_all(GET.replace(b"GET", b"HEAD") + GET)
    await pair.connection.next_request()
    assert await pair.connection.respond(Response(200, b"hello"))
    answer = await read_answer(pair.client, of_head=True)
    assert answer.headers["content-length"] == "5"
    await pair.connection.next_request()
    await pair.connection.respond(Response(200, b"hello"))
    assert (await read_answer(pair.client)).body == b"hello"


@pytest.mark.parametrize("bad", [b"what?\r\n\r\n", b"HEAD /?" + b"a=1&" * 101 + b" HTTP/1.1\r\nHost: b\r\n\r\n"])
async def test_a_bad_request_after_head_is_answered(bad: bytes) -> None:
    pair = Pair()
    await pair.client.send_all(GET.replace(b"GET", b"HEAD") + bad)
    await pair.connection.next_request()
    await pair.connection.respond(Response(200, b"hello"))
    await read_answer(pair.client, of_head=True)
    await refusal(pair)
    await pair.connection.respond(Response(400, b"oh", close=True))
    assert (await read_answer(pair.client, of_head=True)).status == 400


async def test_a_head_request_that_is_ambiguous_is_answered() -> None:
    pair = Pair()
    await pair.client.send_all(post(b"", b"Transfer-Encoding: chunked").replace(b"POST", b"HEAD"))
    await refusal(pair)
    await pair.connection.respond(Response(400, b"oh", close=True))
    assert (await read_answer(pair.client, of_head=True)).status == 400


@both_ways
async def test_a_connection_serves_one_request_after_another(wrap: Wrap) -> None:
    pair = Pair(wrap)
    for _ in range(3):
        await pair.client.send_all(post(b"hello"))
        request = await pair.connection.next_request()
        assert request is not None
        assert await request.read_body(5) == b"hello"
        assert await pair.connection.respond(Response(200))
        assert "connection" not in (await read_answer(pair.client)).headers


@both_ways
async def test_requests_that_come_at_once_are_answered_in_order(wrap: Wrap) -> None:
    pair = Pair(wrap)
    await pair.client.send_all(b"".join(GET.replace(b"/a", b"/%d" % number) for number in range(3)))
    for number in range(3):
        request = await pair.connection.next_request()
        assert request is not None
        assert request.path == f"/{number}"
        assert await pair.connection.respond(Response(200))


async def test_an_upgrade_to_what_we_do_not_speak_is_an_ordinary_request() -> None:
    pair = Pair()
    await pair.client.send_all(b"GET / HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + GET)
    await pair.connection.next_request()
    assert await pair.connection.respond(Response(200))
    assert await pair.connection.next_request() is not None


@pytest.mark.parametrize(
    "head", [GET.replace(b"Host: b", b"Host: b\r\nConnection: close"), b"GET / HTTP/1.0\r\n\r\n"], ids=["close", "1.0"]
)
async def test_the_client_may_want_one_answer_only(head: bytes) -> None:
    pair = Pair()
    await pair.client.send_all(head)
    await pair.connection.next_request()
    assert not await pair.connection.respond(Response(200))
    assert (await read_answer(pair.client)).headers["connection"] == "close"


async def test_the_server_may_have_one_answer_only() -> None:
    pair = Pair()
    await pair.client.send_all(GET)
    await pair.connection.next_request()
    assert not await pair.connection.respond(Response(200, close=True))
    assert (await read_answer(pair.client)).headers["connection"] == "close"


@pytest.mark.parametrize(
    "sent",
    [post(b"hello"), post(b"", length=5), CHUNKED, CHUNKED + b"5\r\nhello\r\n", CHUNKED + b"nonsense\r\n"],
    ids=["there", "awaited", "no chunk yet", "a chunk", "broken"],
)
async def test_nothing_follows_a_body_that_was_not_read(sent: bytes) -> None:
    pair = Pair()
    await pair.client.send_all(sent)
    await pair.connection.next_request()
    assert not await pair.connection.respond(Response(200))
    assert (await read_answer(pair.client)).headers["connection"] == "close"


async def test_nothing_follows_a_broken_body() -> None:
    pair = Pair()
    await pair.client.send_all(CHUNKED + b"nonsense\r\n")
    request = await pair.connection.next_request()
    assert request is not None
    with pytest.raises(BadRequest):
        await request.read_body(100)
    assert not await pair.connection.respond(Response(400))


async def test_an_empty_body_need_not_be_read() -> None:
    pair = Pair()
    await pair.client.send_all(post(b""))
    await pair.connection.next_request()
    assert await pair.connection.respond(Response(200))


async def test_a_client_that_asks_nothing_more_is_done_after_a_while(autojump_clock: MockClock) -> None:
    pair = Pair()
    await pair.client.send_all(GET)
    await pair.connection.next_request()
    await pair.connection.respond(Response(200))
    assert await pair.connection.next_request() is None


async def test_a_client_that_leaves_after_an_answer_is_done() -> None:
    pair = Pair()
    await pair.client.send_all(GET)
    await pair.connection.next_request()
    await pair.connection.respond(Response(200))
    await pair.client.aclose()
    assert await pair.connection.next_request() is None


async def test_a_client_that_does_not_read_its_answer_is_given_up(autojump_clock: MockClock) -> None:
    pair = Pair(Stuck)
    await pair.client.send_all(GET)
    await pair.connection.next_request()
    with pytest.raises(trio.BrokenResourceError):
        await pair.connection.respond(Response(200))


async def test_what_comes_beyond_the_head_is_for_whoever_takes_over() -> None:
    pair = Pair()
    await pair.client.send_all(b"GET / HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
    await pair.connection.next_request()
    assert pair.connection.unread() == b"early"


async def test_nothing_is_written_before_there_is_an_answer() -> None:
    pair = Pair()
    await pair.client.send_all(post(b"hello"))
    request = await pair.connection.next_request()
    assert request is not None
    await request.read_body(100)
    await wait_all_tasks_blocked()
    await pair.connection._stream.aclose()
    assert await read_to_end(pair.client) == b""


# --- The end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", GET[:-2]], ids=["nothing", "half a head"])
async def test_who_is_told_to_stop_waits_for_no_request_any_longer(sent: bytes) -> None:
    pair = Pair()
    await pair.client.send_all(sent)
    async with trio.open_nursery() as nursery:

        async def expect_none() -> None:
            assert await pair.connection.next_request() is None

        nursery.start_soon(expect_none)
        await wait_all_tasks_blocked()
        pair.connection.stop()


async def test_who_is_told_to_stop_answers_first_and_takes_no_request_then() -> None:
    pair = Pair()
    await pair.client.send_all(post(b"hello") + GET)
    request = await pair.connection.next_request()
    assert request is not None
    pair.connection.stop()
    assert await request.read_body(5) == b"hello"
    assert await pair.connection.respond(Response(200))
    assert await pair.connection.next_request() is None


async def test_who_asks_without_waiting_for_answers_does_not_keep_others_waiting() -> None:
    pair = Pair()
    await pair.client.send_all(GET * 3)
    await pair.connection.next_request()
    for _ in range(2):
        await pair.connection.respond(Response(200))
        with assert_checkpoints():
            assert await pair.connection.next_request() is not None


async def test_what_follows_a_chunked_body_is_the_next_request() -> None:
    pair = Pair()
    await pair.client.send_all((CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + post(b"hello")) * 2)
    for _ in range(4):
        request = await pair.connection.next_request()
        assert request is not None
        assert await request.read_body(5) == b"hello"
        assert await pair.connection.respond(Response(200))


async def test_an_empty_chunked_body_need_not_be_read() -> None:
    pair = Pair()
    await pair.client.send_all(CHUNKED + b"0\r\n\r\n" + GET)
    await pair.connection.next_request()
    assert await pair.connection.respond(Response(200))
    assert await pair.connection.next_request() is not None


async def test_before_a_request_there_is_no_body() -> None:
    with pytest.raises(BadRequest):
        await Pair().connection.read_body(100)


async def test_what_came_beyond_a_chunked_head_is_for_whoever_takes_over() -> None:
    pair = Pair()
    await pair.client.send_all(CHUNKED + b"early")
    await pair.connection.next_request()
    assert pair.connection.unread() == b"early"
