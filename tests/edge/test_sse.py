"""Server-sent events on one connection: what may be asked for, what comes, from where it goes on, and how it ends."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from broker.core.errors import Close, LogUnavailable
from broker.edge.front import FrontSettings
from broker.edge.memory_log import MemoryLog
from broker.edge.retention import Retention
from broker.edge.sse import LONGEST_RETRY, SHORTEST_RETRY, UNACKNOWLEDGED_SECONDS, UNASKED_BYTES
from broker.runtime.outbox import Overflow, QueueLimits
from tests.edge.listeners import House, house, limited
from tests.edge.streams import Dribble, Gone, MemoryStream, Stuck, Through, Wrap, plain, read_to_end
from tests.system.certificates import Certificates
from tests.system.event_source import Comment, EventSource, EventStream, Item, Message, Place, Retry, Unchunked, request

both_ways = pytest.mark.parametrize("wrap", [plain, Dribble], ids=["whole", "byte by byte"])


async def waiting(source: EventSource) -> list[Item]:
    """All that has come and was not looked at."""
    found = []

    async def read() -> None:
        with suppress(EOFError):
            while True:
                found.append(await source.item())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return found


# --- What may be asked for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (request(token="ada"), (400, "bad_shape")),
        (request("", token="ada"), (400, "bad_pattern")),
        (request("a..b", token="ada"), (400, "bad_pattern")),
        (request("a", "a.<id>", token="ada"), (400, "bad_pattern")),
        (request("a,b", token="ada"), (400, "bad_pattern")),
        (request("a" * 256, token="ada"), (400, "bad_pattern")),
        (request("a", token="ada", last_event_id="x" * 256), (400, "bad_shape")),
        (request("a", headers=[("Last-Event-ID", "é" * 256)], token="ada"), (400, "bad_shape")),
        (request("a"), (401, "missing_token")),
        (request("a", token="nobody"), (401, "invalid_token")),
        (request("a", token="old"), (401, "token_expired")),
        (request("a", token="ada", access_token="bob"), (401, "invalid_token")),
        (request("a", headers=[("Authorization", "Basic YWRhOng=")], token="ada"), (401, "invalid_token")),
        (request("a", version="1.0", token="ada"), (505, "bad_request")),
        (request(*map(str, range(100)), token="ada"), (400, "bad_request")),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else f"{value[0]} {value[1]}",
)
async def test_what_can_t_be_served_is_answered_before_a_stream_begins(asked: bytes, refused: tuple[int, str]) -> None:
    async with house() as broker:
        assert await broker.status(asked) == refused
        assert len(broker.registry) == 0


async def test_whoever_asks_for_too_many_parameters_is_told_how_many_there_may_be() -> None:
    async with house() as broker:
        _, answer = await broker.ask(request(*map(str, range(100)), token="ada"))
        assert "100" in answer.json["error"]


async def test_a_connection_has_as_many_patterns_as_it_may_and_no_more() -> None:
    async with house(limited(max_subscriptions=2)) as broker:
        assert await broker.status(request("a", "b", "c", token="ada")) == (400, "too_many_subscriptions")
        await broker.hear("a", "b", "a")
        assert broker.registry.statistics().subscriptions == 2


async def test_the_head_says_that_it_is_a_stream_which_nobody_may_keep_or_collect() -> None:
    async with house() as broker:
        _, answer = await broker.ask(request("a", token="ada"))
        assert answer.status == 200
        assert answer.headers == {
            "content-type": "text/event-stream",
            "transfer-encoding": "chunked",
            "connection": "close",
            "cache-control": "no-store, no-transform",
            "x-accel-buffering": "no",
        }


async def test_head_has_the_head_of_get_and_nothing_more() -> None:
    async with house() as broker:
        source, answer = await broker.ask(request("a", method="HEAD", token="ada"))
        _, of_get = await broker.ask(request("a", token="ada"))
        assert (answer.status, answer.headers) == (200, of_get.headers)
        assert await read_to_end(source.stream) == b""
        assert len(broker.registry) == 1


async def test_a_client_that_vanishes_before_the_head_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as broker:
        source = broker.connect(Gone)
        await source.send(request("a", token="ada"))
        assert await read_to_end(source.stream) == b""
        assert len(broker.registry) == 0
        source = broker.connect(Gone)
        await source.send(request("a", method="HEAD", token="ada"))
        assert await read_to_end(source.stream) == b""
    assert "front.failed" not in caplog.messages


# --- What comes ------------------------------------------------------------------------------------------------------


@both_ways
async def test_first_comes_when_to_come_back_and_then_from_where(wrap: Wrap) -> None:
    async with house() as broker:
        source = await broker.hear("a", wrap=wrap)
        retry, place = await waiting(source)
        assert isinstance(retry, Retry)
        assert SHORTEST_RETRY <= retry.milliseconds <= LONGEST_RETRY
        assert place == Place(source.last_event_id)
        assert len(source.last_event_id) == 32


async def test_clients_do_not_all_come_back_at_the_same_time() -> None:
    async with house() as broker:
        retries = set()
        for _ in range(20):
            source = await broker.hear("a")
            await waiting(source)
            retries.add(source.retry)
        assert len(retries) > 5


async def test_an_event_is_json_with_its_id_beside_it() -> None:
    async with house() as broker:
        source = await broker.hear("a.*")
        await waiting(source)
        ids = await broker.publish(("a.b", b'{"x":  1.0}'), ("c", 2), ("a.c", "é"))
        assert await waiting(source) == [
            Message('{"event":"a.b","data":{"x":  1.0}}', ids[0]),
            Message('{"event":"a.c","data":"\\u00e9"}', ids[2]),
        ]


async def test_an_event_comes_once_however_many_patterns_match() -> None:
    async with house() as broker:
        source = await broker.hear("a.b", "a.*", "**", "a.b")
        await broker.publish(("a.b", 1))
        assert await source.data(1) == [1]
        assert await waiting(source) == []


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n", b"\n\n", b"\n\r"])
async def test_a_payload_over_several_lines_stays_the_same_json(line_end: bytes) -> None:
    payload = line_end.join([b"{", b'"data: x":', b"[1,", b'"id: 7"]', b"}"])
    async with house() as broker:
        source = await broker.hear("a")
        ids = await broker.publish(("a", payload), ("a", b"1" + line_end))
        first, second = await source.messages(2)
        assert (first.json["data"], first.id) == ({"data: x": [1, "id: 7"]}, ids[0])
        assert (second.json["data"], second.id) == (1, ids[1])


async def test_what_comes_means_the_same_wherever_it_is_cut() -> None:
    async with house() as broker:
        kept = Kept()
        source = await broker.hear("**", wrap=kept.watch)
        await broker.publish(("é.☃", b'"\xf0\x9f\x98\x80"'), ("b", b"[1,\r\n2]"), ids=["ü", None])
        next(iter(broker.registry)).ping()
        await broker.publish(("c", "x" * 300))
        next(iter(broker.registry)).close(Close.GOING_AWAY, "the server is stopping")
        whole = await waiting(source)
        assert [type(item) for item in whole] == [Retry, Place, Message, Message, Comment, Place, Message, Message]
        body = kept.sent.partition(b"\r\n\r\n")[2]
        for size in (1, 2, 3, 7):
            chunks, events, found = Unchunked(), EventStream(), list[Item]()
            for begin in range(0, len(body), size):
                for chunk in chunks.feed(body[begin : begin + size]):
                    for part in range(0, len(chunk), size):
                        found += events.feed(chunk[part : part + size])
            assert (found, chunks.ended) == (whole, True)


class Kept:
    """Keeps what the server writes."""

    def __init__(self) -> None:
        self.sent = b""

    def watch(self, stream: MemoryStream) -> Through:
        kept = self

        class Watched(Through):
            async def send_all(self, data: bytes | bytearray | memoryview) -> None:
                kept.sent += data
                await super().send_all(data)

        return Watched(stream)


async def test_a_sign_of_life_is_a_comment_which_nobody_hears_or_need_answer() -> None:
    async with house() as broker:
        source = await broker.hear("a")
        connection = next(iter(broker.registry))
        await waiting(source)
        connection.ping()
        assert Comment("") in await waiting(source)
        assert connection.pinged_at is None


async def test_who_hears_nothing_for_long_has_a_place_all_the_same_that_the_log_reaches_back_to() -> None:
    async with house(log=MemoryLog(Retention(events=2))) as broker:
        source = await broker.hear("a")
        await broker.publish(*(("not.asked.for", number) for number in range(10)))
        next(iter(broker.registry)).ping()
        await waiting(source)
        await broker.publish(("a", 1))
        again = await broker.hear("a", after=source.last_event_id)
        assert await again.data(1) == [1]


async def test_a_fresh_place_comes_only_where_everything_before_it_has_come() -> None:
    async with house() as broker:
        source = await broker.hear("a")
        connection = next(iter(broker.registry))
        await waiting(source)
        async with broker.dispatcher.between_turns:  # events are being given out
            connection.ping()
            assert await waiting(source) == [Comment("")]
        broker.registry.hold(connection)  # it has not got yet what it missed
        connection.ping()
        assert await waiting(source) == [Comment("")]
        broker.registry.release(connection)
        connection.ping()
        comment, place = await waiting(source)
        assert (comment, type(place)) == (Comment(""), Place)


async def test_a_fresh_place_takes_no_room_from_what_waits() -> None:
    async with house(limited(queue=QueueLimits(frames=1))) as broker:
        source = await broker.hear("a", wrap=lambda stream: Stuck(stream, room=2))
        connection = next(iter(broker.registry))
        await waiting(source)
        await broker.publish(("a", "in the writer's hands"))
        await broker.publish(("a", "waits"))
        for _ in range(3):
            connection.ping()
        await wait_all_tasks_blocked()
        assert list(broker.registry) == [connection]


# --- From where it goes on -------------------------------------------------------------------------------------------


async def three_and_more(broker: House, after: str, *, in_query: bool = False) -> list[object]:
    """What somebody hears who comes back after `after`, and then stays for one more event."""
    if in_query:
        source, _ = await broker.ask(request("a", token="ada", last_event_id=after))
    else:
        source = await broker.hear("a", after=after)
    await wait_all_tasks_blocked()
    await broker.publish(("a", "live"))
    return [item.json["data"] if isinstance(item, Message) else type(item) for item in await waiting(source)]


@pytest.mark.parametrize("in_query", [False, True], ids=["header", "query"])
@pytest.mark.parametrize(
    "event_id",
    [None, "1", "a b", "é", "à", "Å", "…", "☃ and 😀", "x\u00a0", "\u00a0x", "\u2028", "a, b", '"', "é" * 127],
)
async def test_what_was_missed_comes_first_then_the_place_then_what_happens(
    event_id: str | None, in_query: bool
) -> None:
    async with house() as broker:
        (taken,) = await broker.publish(("a", 0), ids=[event_id])
        await broker.publish(("a", 1), ("b", "not asked for"), ("a", 2))
        assert await three_and_more(broker, taken, in_query=in_query) == [Retry, 1, 2, Place, "live"]


async def test_the_header_counts_before_the_query_which_a_page_gave_long_ago() -> None:
    async with house() as broker:
        first, second, _ = await broker.publish(("a", 1), ("a", 2), ("a", 3))
        source, _ = await broker.ask(
            request("a", token="ada", last_event_id=first, headers=[("Last-Event-ID", second)])
        )
        assert await source.data(1) == [3]


@pytest.mark.parametrize("sent", [request("a", token="ada", last_event_id=""), request("a", "a", token="ada")])
async def test_without_an_id_nothing_is_sent_again(sent: bytes) -> None:
    async with house() as broker:
        await broker.publish(("a", 1))
        source, _ = await broker.ask(sent)
        assert [type(item) for item in await waiting(source)] == [Retry, Place]


async def test_an_empty_header_is_no_id_and_the_query_counts() -> None:
    async with house() as broker:
        first, _ = await broker.publish(("a", 1), ("a", 2))
        source, _ = await broker.ask(request("a", token="ada", last_event_id=first, headers=[("Last-Event-ID", "")]))
        assert await source.data(1) == [2]


@pytest.mark.parametrize("lost", ["never given", "é", "\ufffd"])
async def test_a_gap_is_told_and_from_then_on_there_is_a_place_again(lost: str) -> None:
    async with house() as broker:
        await broker.publish(("a", 1))
        source = await broker.hear("a", after=lost)
        await broker.publish(("a", 2))
        _, told, place, event = await waiting(source)
        assert isinstance(told, Message)
        assert (told.json["code"], told.id) == ("resume_gap", "")
        assert isinstance(place, Place)
        assert isinstance(event, Message)
        assert event.json["data"] == 2
        again = await broker.hear("a", after=place.id)
        assert await again.data(1) == [2]


async def test_an_id_that_is_no_utf_8_is_one_that_was_never_given() -> None:
    async with house() as broker:
        source, _ = await broker.ask(request("a", token="ada", headers=[("Last-Event-ID", "X")]).replace(b"X", b"\xff"))
        assert (await source.message()).json["code"] == "resume_gap"


async def test_what_the_log_has_dropped_is_a_gap() -> None:
    async with house(log=MemoryLog(Retention(events=2))) as broker:
        first, *_ = await broker.publish(*(("a", number) for number in range(5)))
        source = await broker.hear("a", after=first)
        assert (await source.message()).json["code"] == "resume_gap"


class Unreadable(MemoryLog):
    """A log that can't say where anything is."""

    async def locate(self, place: str) -> int | None:
        await trio.lowlevel.checkpoint()
        raise LogUnavailable("the disk is gone")


async def test_whoever_can_t_be_told_what_it_missed_is_sent_away_with_the_place_that_it_has() -> None:
    async with house(log=Unreadable()) as broker:
        source = await broker.hear("a", after="somewhere")
        *_, last = await source.rest()
        assert last.json["code"] == "internal_error"
        assert source.last_event_id == ""
        assert source.ended


# --- How it ends -----------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_is_gone() -> None:
    async with house() as broker:
        source = await broker.hear("a", "b")
        assert broker.registry.statistics().subscriptions == 2
        await source.stream.aclose()
        await wait_all_tasks_blocked()
        statistics = broker.registry.statistics()
        assert (statistics.connections, statistics.subscriptions) == (0, 0)


async def test_a_client_that_says_no_more_gets_a_proper_end() -> None:
    async with house() as broker:
        source = await broker.hear("a")
        assert isinstance(source.stream, trio.StapledStream)
        await source.stream.send_eof()
        assert await source.rest() == []


async def test_what_a_client_says_unasked_is_passed_over() -> None:
    async with house() as broker:
        source = broker.connect()
        await source.send(request("a", token="ada") + b"GET /healthz HTTP/1.1\r\n")
        await source.answer()
        for _ in range(3):
            await source.send(b"Host: x\r\n\r\n")
            await wait_all_tasks_blocked()
        await broker.publish(("a", 1))
        assert await source.data(1) == [1]


async def test_a_client_that_says_much_unasked_is_ended() -> None:
    async with house() as broker:
        source = await broker.hear("a")
        await source.send(b"x" * UNASKED_BYTES)
        assert await source.rest() == []
        assert len(broker.registry) == 0


async def test_who_is_too_slow_is_told_so_and_goes_on_where_it_was() -> None:
    async with house(limited(queue=QueueLimits(frames=3))) as broker:
        source = await broker.hear("a")
        (first,) = await broker.publish(("a", 0))
        assert await source.data(1) == [0]
        await broker.publish(*(("a", number) for number in range(1, 9)))  # more at a time than may wait
        *came, last = await source.rest()
        assert last.json["code"] == "too_slow"
        assert last.id == ([first] + [event.id for event in came])[-1]
        again = await broker.hear("a", after=source.last_event_id)
        assert [event.json["data"] for event in came] + await again.data(8 - len(came)) == list(range(1, 9))


async def test_who_takes_nothing_for_long_is_ended(autojump_clock: MockClock) -> None:
    async with house() as broker:
        source = await broker.hear("a", wrap=lambda stream: Stuck(stream, room=1))
        await broker.publish(("a", 1))
        while len(broker.registry):
            await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError):
            await source.rest()


async def test_what_waits_goes_out_before_the_end_where_that_is_decent() -> None:
    async with house() as broker:
        source = await broker.hear("a")
        await broker.publish(("a", 1))
        next(iter(broker.registry)).close(Close.GOING_AWAY, "the server is stopping")
        event, end = await source.rest()
        assert event.json["data"] == 1
        assert end.json == {"error": "the server is stopping", "code": "going_away"}
        assert end.id == event.id
        assert await read_to_end(source.stream) == b""


async def test_a_stream_cancelled_at_any_checkpoint_leaves_nothing() -> None:
    steps = 1
    while await live_shortly(steps):
        steps += 1
    assert steps > 10


async def live_shortly(cancel_at: int) -> bool:
    """Be there, hear something and leave, cancelled at that step; True if it came to that."""
    async with house() as broker:
        (first, _) = await broker.publish(("a", 1), ("a", 2))
        client, server = memory_stream_pair()
        await client.send_all(request("a", "b", token="ada", last_event_id=first))
        await client.send_eof()
        with trio.CancelScope() as scope:
            counting = Steps(cancel_at, scope.cancel)
            trio.lowlevel.add_instrument(counting)
            await broker.front.serve(server)
        trio.lowlevel.remove_instrument(counting)
        await wait_all_tasks_blocked()
        statistics = broker.registry.statistics()
        assert (statistics.connections, statistics.subscriptions) == (0, 0), f"cancelled at step {cancel_at}"
        await client.aclose()
        return scope.cancelled_caught


class Steps(trio.abc.Instrument):
    """Does something at the given step of any task."""

    def __init__(self, left: int, act: Callable[[], None]) -> None:
        self.left = left
        self._act = act

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self._act()


# --- Bounds ----------------------------------------------------------------------------------------------------------


async def test_of_a_crowd_that_comes_at_once_as_many_are_let_in_as_may_be() -> None:
    async with house(replace(FrontSettings(), max_connections=3)) as broker:
        crowd = [broker.connect() for _ in range(10)]
        for source in crowd:
            await source.send(request("a", token="ada"))
        answers = [await source.answer() for source in crowd]
        assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 7
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status == 503)
        assert len(broker.registry) == 3


async def test_of_a_user_s_crowd_as_many_are_let_in_as_a_user_may_have() -> None:
    async with house(max_per_user=3) as broker:
        crowd = [broker.connect() for _ in range(10)]
        for source in crowd:
            await source.send(request("a", token="ada"))
        answers = [await source.answer() for source in crowd]
        assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 7
        assert {answer.json["code"] for answer in answers if answer.status == 429} == {"too_many_connections"}
        assert await broker.status(request("a", token="ada")) == (429, "too_many_connections")
        await broker.hear("a", user="bob")
        assert len(broker.registry) == 4


async def test_whoever_was_refused_may_come_when_another_has_left() -> None:
    async with house(max_per_user=1) as broker:
        source = await broker.hear("a")
        assert await broker.status(request("a", token="ada")) == (429, "too_many_connections")
        await source.stream.aclose()
        await wait_all_tasks_blocked()
        await broker.hear("a")


async def test_whoever_comes_while_the_broker_stops_is_not_forgotten() -> None:
    steps = 1
    while await stop_meanwhile(steps):
        steps += 1
    assert steps > 10


async def stop_meanwhile(step: int) -> bool:
    """Begin to stop when somebody who comes is at that step; True if that was before it had come."""
    async with house() as broker:
        client, server = memory_stream_pair()
        await client.send_all(request("a", token="ada"))

        def stop() -> None:
            broker.front.stop()
            for connection in broker.registry:
                connection.close(Close.GOING_AWAY)

        counting = Steps(step, stop)
        trio.lowlevel.add_instrument(counting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.front.serve, server)
            await wait_all_tasks_blocked()
            trio.lowlevel.remove_instrument(counting)
            stopped = counting.left <= 0
            if not stopped:
                stop()
            await wait_all_tasks_blocked()
            assert len(broker.registry) == 0, f"stopped at step {step}"
            await client.aclose()
        return stopped


async def test_the_smallest_queue_is_large_enough_to_begin() -> None:
    async with house(limited(queue=QueueLimits(frames=1, bytes=1024))) as broker:
        source = await broker.hear("a", "b", "c")
        assert [type(item) for item in await waiting(source)] == [Retry, Place]
        await broker.publish(("a", 1))
        assert await source.data(1) == [1]


@pytest.mark.parametrize("overflow", list(Overflow))
async def test_with_every_way_to_overflow_ids_only_go_forward(overflow: Overflow) -> None:
    async with house(limited(queue=QueueLimits(frames=4, overflow=overflow))) as broker:
        ids: list[str] = []
        source = await broker.hear("**")
        for batch in range(4):
            ids += await broker.publish(*((f"{number % 3}", batch) for number in range(10)))
        messages = [item for item in await waiting(source) if isinstance(item, Message)]
        came = [ids.index(message.id) for message in messages if "event" in message.json]
        assert came == sorted(set(came))
        assert came


# --- Sockets ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("tls") / "certificates")
    made.make("client")
    return made


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    server = await listener.accept()
    await listener.aclose()
    return client, server


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_that_vanishes_without_a_word_is_given_up_by_the_kernel(
    certificates: Certificates, tls: bool
) -> None:
    client, server = await tcp_pair()
    of_client = ssl.create_default_context(cafile=certificates.ca)
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificates.server, certificates.server_key)
    async with house() as broker, trio.open_nursery() as nursery:
        serving = trio.SSLStream(server, of_server, server_side=True) if tls else server
        nursery.start_soon(broker.front.serve, serving)
        source = EventSource(trio.SSLStream(client, of_client, server_hostname="localhost") if tls else client)
        await source.send(request("a", token="ada"))
        await source.answer()
        await source.place()
        await broker.publish(("a", 1))
        assert await source.data(1) == [1]
        timeout = server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert timeout == UNACKNOWLEDGED_SECONDS * 1000
        await client.aclose()
