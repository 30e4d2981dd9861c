"""The front end: one port, who is sent where, and how little one client can do to the others."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from broker.core.errors import AuthenticationError, ExpiredToken, InvalidToken, MissingToken
from broker.core.http import Request, Response, Route, json_response
from broker.core.ports import Identity
from broker.edge import front
from broker.edge.front import Front, FrontSettings
from broker.edge.http import BadRequest
from broker.runtime.connection import Connection
from broker.runtime.party import Refusal
from broker.runtime.registry import Registry
from broker.runtime.services import Admitted, ConnectionLimits, Endpoint
from tests.edge.streams import (
    Answer,
    Gone,
    MemoryStream,
    Through,
    Wrap,
    client_frame,
    plain,
    read_answer,
    read_frame,
    read_to_end,
)
from tests.fakes import services

SETTINGS = FrontSettings()
CLOSE = 0x8
BYE = client_frame(CLOSE, (1000).to_bytes(2, "big"))


class Words:
    """Knows who stands behind a word."""

    def identify(self, token: str | None) -> Identity:
        known: dict[str | None, Identity | AuthenticationError] = {
            "ada": Identity("ada"),
            "old": ExpiredToken("that was yesterday"),
            None: MissingToken("no token"),
        }
        found = known.get(token, InvalidToken("an unknown token"))
        if isinstance(found, AuthenticationError):
            raise found
        return found

    def publisher(self, token: str | None) -> Identity:
        raise NotImplementedError


class Anybody:
    """Serves without users."""

    def identify(self, token: str | None) -> Identity:
        assert token is None
        return Identity()

    def publisher(self, token: str | None) -> Identity:
        raise NotImplementedError


async def hello(request: Request) -> Response:
    return json_response(200, {"hello": request.path})


async def echo(request: Request) -> Response:
    return Response(200, await request.read_body(100))


async def fail(request: Request) -> Response:
    raise ZeroDivisionError("inner detail")


async def refuse(request: Request) -> Response:
    raise BadRequest(418, "a teapot")


async def wait_for_ever(request: Request) -> Response:
    await trio.sleep_forever()
    raise AssertionError


ROUTES = [
    Route("GET", "/hello", hello),
    Route("POST", "/echo", echo),
    Route("PUT", "/echo", hello),
    Route("GET", "/fail", fail),
    Route("GET", "/refuse", refuse),
    Route("GET", "/wait", wait_for_ever),
]


class House:
    """A front end, and as many clients of it as one likes."""

    def __init__(self, nursery: trio.Nursery, settings: FrontSettings, authenticator: Words | Anybody) -> None:
        self._nursery = nursery
        self.clients: list[MemoryStream] = []
        self.registry = Registry[Connection](max_per_user=100)
        self.front = Front(settings, services(self.registry, authenticator), ROUTES)

    def connect(self, wrap: Wrap = plain) -> MemoryStream:
        client, server = memory_stream_pair()
        self._nursery.start_soon(self.front.serve, wrap(server))
        self.clients.append(client)
        return client

    async def ask(self, sent: bytes) -> Answer:
        """The answer to one request, on a connection of its own that is ended then."""
        client = self.connect()
        await client.send_all(sent)
        answer = await read_answer(client, of_head=sent.startswith(b"HEAD"))
        await client.aclose()
        return answer

    async def open(self, sent: bytes | None = None) -> MemoryStream:
        """A WebSocket whose handshake has been answered."""
        client = self.connect()
        await client.send_all(upgrade() if sent is None else sent)
        assert (await read_answer(client)).status == 101
        return client

    async def close_code(self, sent: bytes) -> int:
        """The code that a WebSocket is closed with at once."""
        client = await self.open(sent)
        opcode, payload = await read_frame(client)
        assert opcode == CLOSE
        await client.send_all(client_frame(CLOSE, payload[:2]))
        return int.from_bytes(payload[:2], "big")


@asynccontextmanager
async def house(
    settings: FrontSettings = SETTINGS, authenticator: Words | Anybody | None = None
) -> AsyncIterator[House]:
    """A front end that serves for the length of the block; then its clients leave, and every connection must end."""
    async with trio.open_nursery() as nursery:
        found = House(nursery, settings, authenticator or Words())
        yield found
        for client in found.clients:
            await client.aclose()


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: broker:8080", *headers, "", ""]).encode()


def upgrade(path: str = "/ws?token=ada", *headers: str) -> bytes:
    return get(
        path,
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
    )


def error(answer: Answer) -> dict[str, Any]:
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


# --- Where requests go -----------------------------------------------------------------------------------------------


async def test_a_request_goes_to_the_handler_of_its_path() -> None:
    async with house() as broker:
        answer = await broker.ask(get("/hello?x=1"))
    assert (answer.status, json.loads(answer.body)) == (200, {"hello": "/hello"})


async def test_head_is_answered_where_get_is() -> None:
    async with house() as broker:
        answer = await broker.ask(get("/hello", method="HEAD"))
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/", "/hello/", "/Hello", "/hell", "*"])
async def test_where_there_is_nothing_404_says_so(path: str) -> None:
    async with house() as broker:
        answer = await broker.ask(get(path))
    assert answer.status == 404
    assert path in error(answer)["error"]


async def test_another_method_is_told_those_that_there_are() -> None:
    async with house() as broker:
        answer = await broker.ask(get("/echo", method="DELETE"))
    assert (answer.status, answer.headers["allow"]) == (405, "POST, PUT")


async def test_head_is_no_method_where_get_is_none() -> None:
    async with house() as broker:
        assert (await broker.ask(get("/echo", method="HEAD"))).status == 405


async def test_the_websocket_s_path_tells_http_to_upgrade() -> None:
    async with house() as broker:
        answer = await broker.ask(get("/ws"))
    assert (answer.status, answer.headers["upgrade"], answer.headers["sec-websocket-version"]) == (
        426,
        "websocket",
        "13",
    )


async def test_what_is_no_http_is_told_so_and_left() -> None:
    async with house() as broker:
        answer = await broker.ask(b"EHLO example.org\r\n\r\n")
    assert (answer.status, answer.headers["connection"], error(answer)["code"]) == (400, "close", "bad_request")


async def test_one_connection_serves_many_requests() -> None:
    async with house() as broker:
        client = broker.connect()
        for _ in range(3):
            await client.send_all(get("/echo", "Content-Length: 2", method="POST") + b"hi")
            assert (await read_answer(client)).body == b"hi"
        await client.send_all(upgrade())
        assert (await read_answer(client)).status == 101
        await client.send_all(BYE)


async def test_a_refusal_of_a_handler_is_its_answer() -> None:
    async with house() as broker:
        answer = await broker.ask(get("/refuse"))
    assert (answer.status, error(answer)["error"]) == (418, "a teapot")


async def test_a_fault_of_a_handler_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as broker:
        answer = await broker.ask(get("/fail"))
    assert (answer.status, error(answer)["code"], answer.headers["connection"]) == (500, "internal", "close")
    assert b"detail" not in answer.body
    (record,) = caplog.records
    assert record.exc_info is not None


async def test_a_fault_of_a_handler_is_no_other_client_s_business(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as broker:
        other = await broker.open()
        await broker.ask(get("/fail"))
        await other.send_all(client_frame(0x9, b"alive?"))
        assert await read_frame(other) == (0xA, b"alive?")
        await other.send_all(BYE)


async def test_a_fault_of_the_front_end_s_own_ends_one_connection(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(front, "converse", broken)
    async with house() as broker:
        client = broker.connect()
        await client.send_all(upgrade())
        assert await read_to_end(client) == b""
        assert (await broker.ask(get("/hello"))).status == 200
    assert [record.getMessage() for record in caplog.records] == ["front.failed"]


async def test_a_client_that_vanishes_is_nothing_to_speak_of(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as broker:
        client = broker.connect(Gone)
        await client.send_all(get("/hello"))
        assert await read_to_end(client) == b""
    assert caplog.records == []


async def test_a_client_that_vanishes_while_it_is_asked_for_its_body_is_nothing_to_speak_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with house() as broker:
        client = broker.connect(Gone)
        await client.send_all(get("/echo", "Content-Length: 2", "Expect: 100-continue", method="POST"))
        assert await read_to_end(client) == b""
    assert caplog.records == []


async def test_a_client_that_vanishes_while_its_fault_is_told_is_nothing_to_speak_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with house() as broker:
        client = broker.connect(Gone)
        await client.send_all(b"what?\r\n\r\n")
        assert await read_to_end(client) == b""
    assert caplog.records == []


# --- WebSockets ------------------------------------------------------------------------------------------------------


async def test_a_websocket_may_speak_before_it_is_answered() -> None:
    async with house() as broker:
        early = client_frame(0x1, b'{"event": "subscribe", "data": "a", "id": 1}')
        client = await broker.open(upgrade() + early)
        assert json.loads((await read_frame(client))[1])["reply"] == 1
        await client.send_all(BYE)


async def test_a_websocket_is_attached_while_it_lasts() -> None:
    async with house() as broker:
        client = await broker.open()
        await wait_all_tasks_blocked()
        assert [connection.user for connection in broker.registry] == ["ada"]
        await client.send_all(BYE)
        assert await read_frame(client) == (CLOSE, b"\x03\xe8")
        assert await read_to_end(client) == b""
        assert len(broker.registry) == 0


async def test_the_subprotocol_is_chosen_of_those_configured() -> None:
    async with house(FrontSettings(subprotocols=["chat"])) as broker:
        client = broker.connect()
        await client.send_all(upgrade("/ws?token=ada", "Sec-WebSocket-Protocol: other, chat"))
        assert (await read_answer(client)).headers["sec-websocket-protocol"] == "chat"
        await client.send_all(BYE)


async def test_a_websocket_elsewhere_is_told_where_it_should_be() -> None:
    async with house() as broker:
        answer = await broker.ask(upgrade("/hello"))
    assert answer.status == 404
    assert "/ws" in error(answer)["error"]


async def test_a_bad_handshake_is_refused_and_its_connection_closed() -> None:
    async with house() as broker:
        client = broker.connect()
        await client.send_all(upgrade().replace(b"Version: 13", b"Version: 8"))
        answer = await read_answer(client)
        assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
        assert await read_to_end(client) == b""


@pytest.mark.parametrize(
    ("path", "code"),
    [("/ws", 4001), ("/ws?token=nobody", 4002), ("/ws?token=ada&access_token=bob", 4002), ("/ws?token=old", 4003)],
)
async def test_who_may_not_in_is_told_why_by_a_close_code(path: str, code: int) -> None:
    async with house() as broker:
        assert await broker.close_code(upgrade(path)) == code


@pytest.mark.parametrize("path", ["/ws", "/ws?token=nobody", "/ws?token=ada&access_token=bob", "/ws?token=old"])
async def test_who_may_not_in_can_be_refused_by_http_instead(path: str) -> None:
    async with house(FrontSettings(reject_unauthenticated=True)) as broker:
        answer = await broker.ask(upgrade(path))
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_bad_header_does_not_fall_back_to_a_good_query() -> None:
    async with house() as broker:
        assert await broker.close_code(upgrade("/ws?token=ada", "Authorization: Basic YWRhOng=")) == 4002


async def test_without_users_no_token_is_looked_at() -> None:
    async with house(FrontSettings(authenticate=False), Anybody()) as broker:
        client = await broker.open(upgrade("/ws?token=a&token=b", "Authorization: Basic x"))
        await client.send_all(BYE)


async def test_an_ordinary_end_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "broker"):
        async with house() as broker:
            await (await broker.open()).send_all(BYE)
    assert caplog.records == []


async def test_an_end_for_a_reason_is_logged_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "broker"):
        async with house() as broker:
            await broker.close_code(upgrade("/ws?token=secret"))
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["code"]) == ("connection.closed", 4002)
    assert "secret" not in str(vars(record))


# --- Bounds ----------------------------------------------------------------------------------------------------------


async def test_one_websocket_too_many_is_told_to_come_again() -> None:
    async with house(FrontSettings(max_connections=1)) as broker:
        first = await broker.open()
        answer = await broker.ask(upgrade())
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        await first.send_all(BYE)
        assert await read_frame(first) == (CLOSE, b"\x03\xe8")
        await read_to_end(first)
        await (await broker.open()).send_all(BYE)


async def test_requests_are_answered_when_there_are_as_many_websockets_as_may_be() -> None:
    async with house(FrontSettings(max_connections=1)) as broker:
        client = await broker.open()
        assert (await broker.ask(get("/hello"))).status == 200
        await client.send_all(BYE)


async def test_beyond_the_reserve_a_connection_is_closed_unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_HTTP_RESERVE", 1)
    async with house(FrontSettings(max_connections=1)) as broker:
        held = [broker.connect() for _ in range(2)]
        await wait_all_tasks_blocked()
        beyond = broker.connect()
        assert await read_to_end(beyond) == b""
        for client in held:
            await client.aclose()
        await wait_all_tasks_blocked()
        assert (await broker.ask(get("/hello"))).status == 200


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        ((), "http://broker:8080", 200),
        ((), "http://evil.example", 403),
        ((), "null", 403),
        (("https://app.example",), "https://app.example", 200),
        (("https://app.example",), "http://broker:8080", 403),
        (("*",), "http://evil.example", 200),
    ],
)
async def test_pages_of_other_origins_get_no_answer(allowed: Sequence[str], origin: str, status: int) -> None:
    async with house(FrontSettings(allowed_origins=allowed)) as broker:
        assert (await broker.ask(get("/hello", f"Origin: {origin}"))).status == status


async def test_pages_of_other_origins_get_no_websocket() -> None:
    async with house() as broker:
        assert (await broker.ask(upgrade("/ws?token=ada", "Origin: http://evil.example"))).status == 403


async def test_a_tls_client_that_does_not_shake_hands_is_given_up(autojump_clock: MockClock) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    async with house() as broker:
        client = broker.connect(lambda stream: trio.SSLStream(stream, context, server_side=True))
        assert await read_to_end(client) == b""


# --- Ends ------------------------------------------------------------------------------------------------------------


async def test_to_stop_ends_connections_that_ask_nothing() -> None:
    async with house() as broker:
        fresh, used, half = broker.connect(), broker.connect(), broker.connect()
        await used.send_all(get("/hello"))
        await read_answer(used)
        await half.send_all(get("/hello")[:10])
        await wait_all_tasks_blocked()
        broker.front.stop()
        for client in (fresh, used, half):
            assert await read_to_end(client) == b""


async def test_to_stop_lets_a_request_in_progress_be_answered() -> None:
    async with house() as broker:
        client = broker.connect()
        await client.send_all(get("/echo", "Content-Length: 2", method="POST"))
        await wait_all_tasks_blocked()
        broker.front.stop()
        await client.send_all(b"hi" + get("/hello"))
        assert (await read_answer(client)).body == b"hi"
        assert await read_to_end(client) == b""


async def test_after_the_stop_nobody_is_heard() -> None:
    async with house() as broker:
        broker.front.stop()
        client = broker.connect()
        assert await read_to_end(client) == b""


async def test_to_stop_leaves_websockets_to_their_own_farewell() -> None:
    async with house() as broker:
        client = await broker.open()
        broker.front.stop()
        await client.send_all(client_frame(0x9, b"alive?"))
        assert await read_frame(client) == (0xA, b"alive?")
        await client.send_all(BYE)


async def test_the_client_s_last_bytes_are_read_before_its_connection_is_closed() -> None:
    watched: list[Through] = []

    def watch(stream: MemoryStream) -> Through:
        watched.append(Through(stream))
        return watched[0]

    sent = get("/hello", "Content-Length: 200000", method="POST") + b"x" * 200_000
    async with house() as broker:
        client = broker.connect(watch)
        await client.send_all(sent)
        assert (await read_answer(client)).status == 405
        assert await read_to_end(client) == b""
    assert watched[0].read == len(sent)


async def test_a_client_that_does_not_leave_is_not_waited_for_long(autojump_clock: MockClock) -> None:
    async with house() as broker:
        client, server = memory_stream_pair()
        await client.send_all(b"what?\r\n\r\n")
        await broker.front.serve(server)  # ends although the client does not
        assert (await read_answer(client)).status == 400


async def test_a_client_that_talks_on_is_not_listened_to_for_long() -> None:
    async with house() as broker:
        client, server = memory_stream_pair()
        watched = Through(server)
        await client.send_all(b"what?\r\n\r\n" + b"x" * 3_000_000)
        await broker.front.serve(watched)
        assert watched.read < 1_500_000


async def test_a_cancelled_front_end_closes_its_connections() -> None:
    async with house() as broker:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                client, server = memory_stream_pair()
                nursery.start_soon(broker.front.serve, server)
                await client.send_all(get("/wait"))
                await wait_all_tasks_blocked()
                scope.cancel()
        assert await read_to_end(client) == b""


# --- Paths of applications -------------------------------------------------------------------------------------------


class Doorkeeper:
    """Decides who connects, and takes its time."""

    def __init__(self, answer: Admitted | Refusal) -> None:
        self._answer = answer
        self.go = trio.Event()

    async def admit(self, request: Request) -> Admitted | Refusal:
        await self.go.wait()
        return self._answer


def door(keeper: Doorkeeper, **more: Any) -> FrontSettings:
    return FrontSettings(endpoints={"/door": Endpoint(ConnectionLimits(), admit=keeper.admit, **more)})


async def test_an_application_may_decide_who_connects_to_its_path() -> None:
    keeper = Doorkeeper(Admitted(Identity("carol")))
    keeper.go.set()
    async with house(door(keeper)) as broker:
        client = await broker.open(upgrade("/door"))
        await wait_all_tasks_blocked()
        assert [connection.user for connection in broker.registry] == ["carol"]
        await client.send_all(BYE)


async def test_whom_it_refuses_is_told_by_a_close_code() -> None:
    keeper = Doorkeeper(Refusal(4401, "who is there?"))
    keeper.go.set()
    async with house(door(keeper)) as broker:
        assert await broker.close_code(upgrade("/door")) == 4401


async def test_who_is_admitted_when_the_broker_stops_already_is_told_to_come_again() -> None:
    keeper = Doorkeeper(Admitted(Identity("carol")))
    async with house(door(keeper)) as broker:
        client = broker.connect()
        await client.send_all(upgrade("/door"))
        await wait_all_tasks_blocked()
        broker.front.stop()
        keeper.go.set()
        assert (await read_answer(client)).status == 503


async def test_compression_is_offered_where_the_path_has_it() -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    keeper = Doorkeeper(Admitted(Identity("carol")))
    keeper.go.set()
    for compression in (True, False):
        async with house(door(keeper, compression=compression)) as broker:
            client = broker.connect()
            await client.send_all(upgrade("/door", offer))
            assert ("sec-websocket-extensions" in (await read_answer(client)).headers) == compression
            await client.send_all(BYE)
