"""WebSocket on one connection: what a client may do to it, and how it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, wrap_server_stream

from broker.core.errors import Close
from broker.core.forms import PLAIN
from broker.core.frames import MAX_FRAGMENTS, PING
from broker.core.http import Headers, Request
from broker.core.ports import Identity
from broker.edge.http import BadRequest
from broker.edge.websocket import Handshake, Wire, check_upgrade, choose_subprotocol, converse, wants_upgrade
from broker.runtime.connection import Connection
from broker.runtime.outbox import Outbox, QueueLimits
from broker.runtime.party import Ending, Receive, Refusal
from broker.runtime.registry import Registry
from broker.runtime.services import ConnectionLimits
from tests.edge.streams import (
    Dribble,
    Gone,
    MemoryStream,
    Stuck,
    Wrap,
    client_frame,
    plain,
    read_answer,
    read_frame,
    read_to_end,
)
from tests.fakes import services

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3, where its answer is
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HANDSHAKE = Handshake(KEY)
MAX_MESSAGE = 300
CONTINUATION, TEXT, BINARY, CLOSE, PING_OPCODE, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

both_ways = pytest.mark.parametrize("wrap", [plain, Dribble], ids=["whole", "byte by byte"])


def connection() -> Connection:
    return Connection(Identity("ada"), services(Registry(max_per_user=1)), ConnectionLimits())


def command(number: int = 1) -> bytes:
    return json.dumps({"event": "subscribe", "data": "a", "id": number}).encode()


def closing(code: int, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, code.to_bytes(2, "big") + reason)


class Conversation:
    """A client's stream, and how the conversation on it ended."""

    def __init__(self, client: MemoryStream) -> None:
        self.client = client
        self.ending: Ending | None = None

    async def say(self, *frames: bytes) -> None:
        await self.client.send_all(b"".join(frames))

    async def hear(self) -> tuple[int, bytes]:
        return await read_frame(self.client)

    async def close_code(self) -> int:
        """The code of the next frame, which is a close frame."""
        opcode, payload = await self.hear()
        assert opcode == CLOSE
        return int.from_bytes(payload[:2], "big")


Party = Connection | Refusal


@asynccontextmanager
async def conversing(party: Party, wrap: Wrap = plain, handshake: Handshake = HANDSHAKE) -> AsyncIterator[Conversation]:
    """Talk to `party` after its handshake; at the end of the block the conversation must come to its own end."""
    client, server = memory_stream_pair()
    conversation = Conversation(client)

    async def run() -> None:
        conversation.ending = await converse(handshake, party, MAX_MESSAGE, wrap(server))
        await server.aclose()  # as the front end does

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        assert (await read_answer(client)).status == 101
        yield conversation


# --- The opening handshake -------------------------------------------------------------------------------------------


async def no_body(limit: int) -> bytes:
    return b""


def upgrade(*changed: tuple[bytes, bytes | None], method: str = "GET", version: bytes = b"1.1") -> Request:
    """A good handshake, but for the headers that are changed (None: left out)."""
    headers: dict[bytes, bytes | None] = {
        b"host": b"broker",
        b"connection": b"keep-alive, Upgrade",
        b"upgrade": b"WebSocket",
        b"sec-websocket-version": b"13",
        b"sec-websocket-key": KEY,
        **dict(changed),
    }
    present: Headers = [(name, value) for name, value in headers.items() if value is not None]
    return Request(method, "/ws", {}, present, version, no_body)


def test_a_good_handshake_gives_its_key() -> None:
    assert wants_upgrade(upgrade())
    assert check_upgrade(upgrade()) == KEY


@pytest.mark.parametrize("value", [None, b"h2c", b"websockets"])
def test_another_upgrade_is_no_websocket(value: bytes | None) -> None:
    assert not wants_upgrade(upgrade((b"upgrade", value)))


@pytest.mark.parametrize(
    "request_",
    [
        upgrade(method="POST"),
        upgrade(method="HEAD"),
        upgrade(version=b"1.0"),
        upgrade((b"connection", b"keep-alive")),
        upgrade((b"connection", None)),
        upgrade((b"content-length", b"5")),
        upgrade((b"transfer-encoding", b"chunked")),
        upgrade((b"sec-websocket-key", None)),
        upgrade((b"sec-websocket-key", b"dG9vIHNob3J0")),
        upgrade((b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ")),
        upgrade((b"sec-websocket-key", b"dGhl\xe4IHNhbXBsZSBub25jZQ==")),
        upgrade((b"sec-websocket-key", KEY + b", " + KEY)),
    ],
)
def test_a_handshake_against_the_rules_is_refused(request_: Request) -> None:
    with pytest.raises(BadRequest) as caught:
        check_upgrade(request_)
    assert caught.value.status == 400


@pytest.mark.parametrize("version", [None, b"8", b"13, 8"])
def test_another_version_is_told_which_one_to_use(version: bytes | None) -> None:
    with pytest.raises(BadRequest, match="13") as caught:
        check_upgrade(upgrade((b"sec-websocket-version", version)))
    assert caught.value.status == 426


def test_an_announced_body_of_no_bytes_is_none() -> None:
    assert check_upgrade(upgrade((b"content-length", b"0"))) == KEY


@pytest.mark.parametrize(
    ("proposed", "chosen"), [(b"a, b", "a"), (b"x,b", "b"), (b"x", None), (b"", None), (None, None), (b"A", None)]
)
def test_the_client_s_first_that_we_support_is_chosen(proposed: bytes | None, chosen: str | None) -> None:
    assert choose_subprotocol(upgrade((b"sec-websocket-protocol", proposed)), ["b", "a"]) == chosen


async def answer_to(handshake: Handshake) -> dict[str, str]:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, handshake, connection(), MAX_MESSAGE, server)
        answer = await read_answer(client)
        nursery.cancel_scope.cancel()
    assert answer.status == 101
    return answer.headers


async def test_the_handshake_is_answered_as_the_rfc_has_it() -> None:
    headers = await answer_to(Handshake(KEY))
    assert headers["sec-websocket-accept"] == ACCEPT
    assert (headers["upgrade"].lower(), headers["connection"].lower()) == ("websocket", "upgrade")
    assert "sec-websocket-protocol" not in headers
    assert "sec-websocket-extensions" not in headers


async def test_the_chosen_subprotocol_is_told() -> None:
    assert (await answer_to(Handshake(KEY, "chat.v1")))["sec-websocket-protocol"] == "chat.v1"


async def test_what_came_before_the_handshake_was_answered_is_not_lost() -> None:
    early = client_frame(TEXT, command(1)) + client_frame(TEXT, command(2))
    async with conversing(connection(), handshake=Handshake(KEY, early=early)) as talk:
        assert json.loads((await talk.hear())[1])["reply"] == 1
        assert json.loads((await talk.hear())[1])["reply"] == 2
        await talk.say(closing(1000))


async def test_a_frame_may_begin_early_and_end_later() -> None:
    frame = client_frame(TEXT, command(1))
    async with conversing(connection(), handshake=Handshake(KEY, early=frame[:9])) as talk:
        await talk.say(frame[9:])
        assert json.loads((await talk.hear())[1])["reply"] == 1
        await talk.say(closing(1000))


async def test_a_bound_that_is_broken_early_ends_it_too() -> None:
    early = client_frame(TEXT, b"x" * (MAX_MESSAGE + 1))
    async with conversing(connection(), handshake=Handshake(KEY, early=early)) as talk:
        assert await talk.close_code() == Close.MESSAGE_TOO_BIG


async def test_a_client_that_vanishes_during_the_handshake_ends_quietly(caplog: pytest.LogCaptureFixture) -> None:
    _, server = memory_stream_pair()
    party = connection()
    with caplog.at_level(logging.INFO, "broker"):
        code, _ = await converse(HANDSHAKE, party, MAX_MESSAGE, Gone(server))
    assert (code, caplog.records) == (1006, [])


async def test_a_client_that_takes_no_answer_to_its_handshake_is_given_up(autojump_clock: MockClock) -> None:
    _, server = memory_stream_pair()
    assert (await converse(HANDSHAKE, connection(), MAX_MESSAGE, Stuck(server)))[0] == 1006


# --- Talking ---------------------------------------------------------------------------------------------------------


@both_ways
async def test_a_command_is_answered(wrap: Wrap) -> None:
    async with conversing(connection(), wrap) as talk:
        await talk.say(client_frame(TEXT, command(7)))
        opcode, payload = await talk.hear()
        assert (opcode, json.loads(payload)) == (TEXT, {"reply": 7, "data": {"pattern": "a"}})
        await talk.say(closing(1000))


@both_ways
async def test_fragments_are_put_together_with_a_ping_between_them(wrap: Wrap) -> None:
    text = command(7)
    async with conversing(connection(), wrap) as talk:
        await talk.say(
            client_frame(TEXT, text[:5], final=False),
            client_frame(PING_OPCODE, b"still there?"),
            client_frame(CONTINUATION, text[5:9], final=False),
            client_frame(CONTINUATION, text[9:]),
        )
        assert await talk.hear() == (PONG, b"still there?")
        assert json.loads((await talk.hear())[1])["reply"] == 7
        await talk.say(closing(1000))


@both_ways
async def test_a_ping_is_answered_with_its_own_words(wrap: Wrap) -> None:
    async with conversing(connection(), wrap) as talk:
        await talk.say(client_frame(PING_OPCODE, b"x" * 125))
        assert await talk.hear() == (PONG, b"x" * 125)
        await talk.say(closing(1000))


async def test_whatever_comes_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    party = connection()
    async with conversing(party) as talk:
        await wait_all_tasks_blocked()
        party.ping()
        assert await talk.hear() == (PING_OPCODE, b"")
        await talk.say(client_frame(PONG))
        await wait_all_tasks_blocked()
        assert party.pinged_at is None
        await talk.say(closing(1000))


# --- Ends ------------------------------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_the_client_s_close_is_answered_with_its_own_code(wrap: Wrap, code: int) -> None:
    async with conversing(connection(), wrap) as talk:
        await talk.say(closing(code, b"bye"))
        assert await talk.close_code() == code
    assert talk.ending == (code, "bye")


async def test_a_close_without_a_code_is_answered_without_one() -> None:
    async with conversing(connection()) as talk:
        await talk.say(client_frame(CLOSE))
        assert await talk.hear() == (CLOSE, b"")
    assert talk.ending == (1005, "")


async def test_a_client_that_is_gone_without_a_close_is_noted_as_such() -> None:
    async with conversing(connection()) as talk:
        await talk.client.aclose()
    assert talk.ending == (1006, "")


FAULTS = {
    "a reserved opcode": (client_frame(0x3), Close.PROTOCOL_ERROR),
    "a reserved bit": (b"\xc1\x80\x00\x00\x00\x00", Close.PROTOCOL_ERROR),
    "no mask": (client_frame(TEXT, b"hello", masked=False), Close.PROTOCOL_ERROR),
    "a continuation of nothing": (client_frame(CONTINUATION, b"x"), Close.PROTOCOL_ERROR),
    "a message within a message": (
        client_frame(TEXT, b"x", final=False) + client_frame(TEXT, b"y"),
        Close.PROTOCOL_ERROR,
    ),
    "a fragmented ping": (client_frame(PING_OPCODE, b"x", final=False), Close.PROTOCOL_ERROR),
    "a long ping": (client_frame(PING_OPCODE, b"x" * 126), Close.PROTOCOL_ERROR),
    "half a close code": (client_frame(CLOSE, b"\x03"), Close.PROTOCOL_ERROR),
    "a close code that never travels": (closing(1005), Close.PROTOCOL_ERROR),
    "a close code that is none": (closing(999), Close.PROTOCOL_ERROR),
    "a binary message": (client_frame(BINARY, b"\x00"), Close.UNSUPPORTED_DATA),
    "text that is not UTF-8": (client_frame(TEXT, b"\xff"), Close.INVALID_PAYLOAD),
    "text that is cut within a character": (client_frame(TEXT, b"\xe2\x82"), Close.INVALID_PAYLOAD),
    "a close reason that is not UTF-8": (closing(1000, b"\xff"), Close.INVALID_PAYLOAD),
    "a long message": (client_frame(TEXT, b"x" * (MAX_MESSAGE + 1)), Close.MESSAGE_TOO_BIG),
    "a message long in bytes only": (client_frame(TEXT, "ä".encode() * (MAX_MESSAGE // 2 + 1)), Close.MESSAGE_TOO_BIG),
    "a message long in its parts": (
        client_frame(TEXT, b"x" * 200, final=False) + client_frame(CONTINUATION, b"x" * 200),
        Close.MESSAGE_TOO_BIG,
    ),
    "a head that announces too much": (b"\x81\xff\x00\x00\x00\x01\x00\x00\x00\x00abcd", Close.MESSAGE_TOO_BIG),
    "a flood of fragments": (
        client_frame(TEXT, final=False) + client_frame(CONTINUATION, final=False) * MAX_FRAGMENTS,
        Close.POLICY_VIOLATION,
    ),
}


@both_ways
@pytest.mark.parametrize(("sent", "code"), FAULTS.values(), ids=FAULTS.keys())
async def test_a_fault_in_the_protocol_is_answered_with_its_close_frame(
    sent: bytes, code: Close, wrap: Wrap, autojump_clock: MockClock
) -> None:
    async with conversing(connection(), wrap) as talk:
        await talk.say(sent)
        assert await talk.close_code() == code
        assert await read_to_end(talk.client) == b""
    assert talk.ending is not None
    assert talk.ending[0] == code


@both_ways
async def test_a_message_as_long_as_it_may_be_is_taken(wrap: Wrap) -> None:
    text = command(7)
    async with conversing(connection(), wrap) as talk:
        await talk.say(client_frame(TEXT, text + b" " * (MAX_MESSAGE - len(text))))
        assert json.loads((await talk.hear())[1])["reply"] == 7
        await talk.say(closing(1000))


async def test_as_many_fragments_as_there_may_be_are_taken() -> None:
    empty = client_frame(CONTINUATION, final=False) * (MAX_FRAGMENTS - 2)
    async with conversing(connection()) as talk:
        await talk.say(client_frame(TEXT, command(7), final=False), empty, client_frame(CONTINUATION))
        assert json.loads((await talk.hear())[1])["reply"] == 7
        await talk.say(closing(1000))


async def test_a_refusal_says_why_in_its_close_frame() -> None:
    async with conversing(Refusal(Close.NO_TOKEN, "bring a token")) as talk:
        assert await talk.hear() == (CLOSE, (4001).to_bytes(2, "big") + b"bring a token")
        await talk.say(closing(4001))
    assert talk.ending == (4001, "bring a token")


async def test_the_client_is_given_time_to_answer_our_close_frame(autojump_clock: MockClock) -> None:
    party = connection()
    async with conversing(party) as talk:
        await wait_all_tasks_blocked()
        party.close(Close.DISCONNECTED, "enough")
        assert await talk.close_code() == 4004
        await wait_all_tasks_blocked()
        assert talk.ending is None
        await talk.say(closing(4004))
    assert talk.ending == (4004, "enough")


async def test_a_client_that_never_answers_our_close_frame_is_left(autojump_clock: MockClock) -> None:
    party = connection()
    async with conversing(party) as talk:
        await wait_all_tasks_blocked()
        party.close(Close.DISCONNECTED)
    assert talk.ending == (4004, "")


async def test_a_client_that_goes_on_talking_after_our_close_frame_is_left(autojump_clock: MockClock) -> None:
    party = connection()
    async with conversing(party) as talk:
        await wait_all_tasks_blocked()
        party.close(Close.DISCONNECTED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk_on, talk)
            await talk.close_code()
            assert await read_to_end(talk.client) == b""
            nursery.cancel_scope.cancel()
    assert talk.ending == (4004, "")


async def talk_on(talk: Conversation) -> None:
    while True:
        await talk.say(client_frame(TEXT, command()))
        await trio.sleep(0.1)


async def test_a_ping_after_our_close_frame_does_no_harm() -> None:
    party = connection()
    async with conversing(party) as talk:
        await wait_all_tasks_blocked()
        party.close(Close.DISCONNECTED)
        await talk.close_code()
        await talk.say(client_frame(PING_OPCODE, b"late"), closing(4004))
        assert await read_to_end(talk.client) == b""
    assert talk.ending == (4004, "")


async def test_nothing_follows_a_close_frame() -> None:
    party = connection()
    async with conversing(party) as talk:
        await talk.say(closing(1000), client_frame(TEXT, command()), client_frame(PING_OPCODE))
        assert await talk.close_code() == 1000
        party.outbox.answer(PLAIN.frame(b"late"))
        party.outbox.control(PING)
        party.close(Close.INTERNAL_ERROR)
        assert await read_to_end(talk.client) == b""


async def test_what_waits_goes_out_before_a_farewell() -> None:
    party = connection()
    async with conversing(party) as talk:
        await wait_all_tasks_blocked()
        party.outbox.answer(PLAIN.frame(b"last words"))
        party.close(Close.GOING_AWAY)
        assert await talk.hear() == (TEXT, b"last words")
        assert await talk.close_code() == 1001
        await talk.say(closing(1001))


async def test_a_writer_that_is_stuck_ends_the_conversation(autojump_clock: MockClock) -> None:
    party = connection()
    async with conversing(party, lambda stream: Stuck(stream, room=1)) as talk:
        party.outbox.answer(PLAIN.frame(b"nobody reads this"))
    assert talk.ending is not None
    assert talk.ending[0] == Close.TOO_SLOW
    assert party.outbox.broken


async def test_a_farewell_that_gets_stuck_ends_the_conversation(autojump_clock: MockClock) -> None:
    _, server = memory_stream_pair()
    party = Refusal(Close.NO_TOKEN, "")
    assert await converse(HANDSHAKE, party, MAX_MESSAGE, Stuck(server, room=1)) == (4001, "")
    assert party.outbox.broken


class Faulty:
    """A party with a fault of its own."""

    def __init__(self) -> None:
        self.id = 0
        self.outbox = Outbox(QueueLimits())

    def heard(self) -> None: ...

    def close(self, code: int, reason: str = "") -> None: ...

    async def run(self, receive: Receive) -> Ending:
        await receive()
        raise ZeroDivisionError("a fault of ours")


async def test_a_fault_of_ours_ends_with_1011_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, HANDSHAKE, Faulty(), MAX_MESSAGE, server)
        await read_answer(client)
        await client.send_all(client_frame(TEXT, b"x"))
        assert await read_frame(client) == (CLOSE, (1011).to_bytes(2, "big"))
    assert [record.getMessage() for record in caplog.records] == ["connection.failed"]


async def test_a_conversation_that_is_cancelled_leaves_the_registry_empty() -> None:
    registry = Registry[Connection](max_per_user=1)
    party = Connection(Identity("ada"), services(registry), ConnectionLimits())
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(converse, HANDSHAKE, party, MAX_MESSAGE, server)
        await read_answer(client)
        await client.send_all(client_frame(TEXT, command()))
        await read_frame(client)
        assert len(registry) == 1
        nursery.cancel_scope.cancel()
    assert (len(registry), registry.statistics().subscriptions) == (0, 0)


async def test_a_wire_that_has_ended_gives_nothing_more() -> None:
    _, server = memory_stream_pair()
    wire = Wire(server, HANDSHAKE, MAX_MESSAGE)
    await wire.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await wire.receive_some()


# --- What we rely on in the library, and what we mend: a newer one that differs shows here ----------------------------


async def library_s_answer_to(sent: bytes) -> bytes:
    """What the library by itself writes after the handshake, to a client that says this."""
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        await client.send_all(HANDSHAKE.canonical())
        request = await wrap_server_stream(nursery, server)
        socket = await request.accept()
        await read_answer(client)
        await client.send_all(sent)
        with pytest.raises(ConnectionClosed):
            await socket.get_message()
        await server.aclose()
    return await read_to_end(client)


@pytest.mark.parametrize("fault", ["a reserved opcode", "no mask", "text that is not UTF-8"])
async def test_the_library_sends_no_close_frame_for_a_fault_in_the_protocol(fault: str) -> None:
    assert await library_s_answer_to(FAULTS[fault][0]) == b""


async def test_the_library_answers_a_close_frame_by_itself() -> None:
    assert await library_s_answer_to(closing(1000)) == b"\x88\x02\x03\xe8"


async def test_the_library_does_not_bound_fragments() -> None:
    empty = client_frame(CONTINUATION, final=False) * (2 * MAX_FRAGMENTS)
    answer = await library_s_answer_to(client_frame(TEXT, final=False) + empty + closing(1000))
    assert answer == b"\x88\x02\x03\xe8"


async def test_the_library_loses_what_comes_before_it_has_answered_the_handshake() -> None:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        await client.send_all(HANDSHAKE.canonical())
        request = await wrap_server_stream(nursery, server)
        await client.send_all(client_frame(TEXT, b"early"))
        await wait_all_tasks_blocked()
        socket = await request.accept()
        await client.send_all(client_frame(TEXT, b"later"))
        assert await socket.get_message() == "later"
        nursery.cancel_scope.cancel()
