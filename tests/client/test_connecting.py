"""The first connection: who asks for it and how, and in which plain words it is refused."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from broker.client import (
    BadUrl,
    Connected,
    Disconnected,
    Lost,
    NotConnected,
    Options,
    Refused,
    TokenUnavailable,
    connect,
)
from broker.client.options import Change
from tests.client.server import Closing, FakeBroker, Refusal, Welcome
from tests.client.using import URL

PATIENT = Options(keep_trying=True)


async def test_a_handshake_asks_for_the_websocket_with_the_token_in_its_head(broker: FakeBroker) -> None:
    async with connect("https://broker.example:8443/live/ws?x=1", "a.b.c"):
        pass
    request = broker.connection.request
    assert request is not None
    assert (request.host, request.target) == ("broker.example:8443", "/live/ws?x=1")
    assert broker.connection.headers[b"authorization"] == b"Bearer a.b.c"


async def test_without_a_token_none_is_shown(broker: FakeBroker) -> None:
    async with connect(URL):
        pass
    assert b"authorization" not in broker.connection.headers


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("ws://broker.example", "broker.example", "/ws"),
        ("wss://broker.example/", "broker.example", "/ws"),
        ("http://broker.example:80", "broker.example", "/ws"),
        ("https://broker.example?a=b", "broker.example", "/ws?a=b"),
        ("http://[::1]:8080/ws/private", "[::1]:8080", "/ws/private"),
        ("http://bücher.example", "xn--bcher-kva.example", "/ws"),
    ],
)
async def test_a_url_is_where_the_broker_is(url: str, host: str, target: str, broker: FakeBroker) -> None:
    async with connect(url):
        pass
    request = broker.connection.request
    assert request is not None
    assert (request.host.encode("idna").decode(), request.target) == (host, target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker.example",
        "ftp://broker.example",
        "http://",
        "http://a b",
        "http://x:0",
        "http://x:y",
        "http://x/ü",
        "http://[::1",
        "http://user:secret@broker.example",
        "http://x\n",
        "http://" + "x" * 70,
    ],
)
async def test_a_url_of_no_broker_is_refused_without_being_told(url: str) -> None:
    with pytest.raises(BadUrl) as refused:
        async with connect(url):
            pass
    assert "secret" not in str(refused.value)


# --- Tokens -----------------------------------------------------------------------------------------------------------


async def test_a_function_gives_a_token_for_each_connection(broker: FakeBroker, autojump_clock: MockClock) -> None:
    tokens = iter(["first", "second"])
    async with connect(URL, lambda: next(tokens)) as client:
        broker.connection.reset()
        async with client.subscribe("x"):
            assert broker.connection.headers[b"authorization"] == b"Bearer second"


async def test_an_async_function_may_give_tokens(broker: FakeBroker) -> None:
    async def token() -> str:
        await trio.lowlevel.checkpoint()
        return "late"

    async with connect(URL, token):
        assert broker.connection.headers[b"authorization"] == b"Bearer late"


async def test_a_function_that_fails_at_first_is_told_with_its_error(broker: FakeBroker) -> None:
    def token() -> str:
        raise RuntimeError("with a secret in it")

    with pytest.raises(TokenUnavailable) as failed:
        async with connect(URL, token):
            pass
    assert "secret" not in str(failed.value)
    assert isinstance(failed.value.__cause__, RuntimeError)
    assert broker.times == []


async def test_a_function_that_fails_later_is_asked_again(broker: FakeBroker, autojump_clock: MockClock) -> None:
    answers = iter(["good", None, "better"])

    def token() -> str:
        answer = next(answers)
        if answer is None:
            raise OSError("no network")
        return answer

    changes: list[Change] = []
    async with connect(URL, token, on_change=changes.append) as client:
        broker.connection.reset()
        async with client.subscribe("x"):
            assert broker.connection.headers[b"authorization"] == b"Bearer better"
    first, lost, refused, again = changes
    assert (first, again) == (Connected(again=False), Connected(again=True))
    assert isinstance(lost, Lost)
    assert isinstance(refused, Lost)
    assert (refused.reason, refused.pause) == ("the function that gives tokens failed: OSError", 0.5)
    assert isinstance(refused.error, TokenUnavailable)


async def test_a_function_that_never_answers_is_not_waited_for(autojump_clock: MockClock) -> None:
    with pytest.raises(NotConnected, match="within 10 seconds"):
        async with connect(URL, trio.sleep_forever):
            pass


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: y", "ü", b"bytes", 7])
async def test_what_is_no_token_is_refused_and_not_shown(token: str, broker: FakeBroker) -> None:
    for given in (token, lambda: token):
        with pytest.raises(TokenUnavailable) as refused:
            async with connect(URL, given):
                pass
        assert "X: y" not in str(refused.value)
    assert broker.times == []


# --- When there is no broker ------------------------------------------------------------------------------------------


def refused_by_all() -> OSError:
    error = OSError("all attempts to connect to broker.example:80 failed")
    error.__cause__ = ExceptionGroup("multiple exceptions", [ConnectionRefusedError(111, "Connection refused")])
    return error


@pytest.mark.parametrize(
    ("welcome", "told"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (refused_by_all(), "Connection refused"),
        (trio.BrokenResourceError(), "the connection broke"),
        (b"", "within 10 seconds"),
        (b"220 mail.example ESMTP\r\n\r\n", "its answer is none of a broker"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "its answer is none of a broker"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: \xff\r\n\r\n", "its answer is none of a broker"),
        (b"HTTP/1.1 101", "it hung up without an answer"),
    ],
)
async def test_who_is_no_broker_is_told_with_the_address(
    welcome: Welcome, told: str, broker: FakeBroker, autojump_clock: MockClock
) -> None:
    broker.welcomes = [welcome]
    with pytest.raises(NotConnected) as failed:
        async with connect("http://broker.example:81", "t"):
            pass
    assert str(failed.value).startswith("no broker answers at http://broker.example:81")
    assert told in str(failed.value)
    assert all(connection.closed for connection in broker.connections)


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (Refusal(401, b'{"error": "the token has expired", "code": "token_expired"}'), "the token has expired"),
        (Refusal(404, b"<html>"), ""),
        (Refusal(403), ""),
        (Refusal(503, b'{"code": "overloaded"}'), ""),
        (Refusal(200, b"[" * 100_000), ""),
        (Refusal(200, b"[]"), ""),
    ],
)
async def test_a_refusal_is_told_with_its_status_and_text(refusal: Refusal, text: str, broker: FakeBroker) -> None:
    broker.welcomes = [refusal]
    with pytest.raises(Refused) as refused:
        async with connect(URL):
            pass
    assert (refused.value.status, refused.value.text) == (refusal.status, text)
    assert str(refused.value) == f"the broker refused the connection: HTTP {refusal.status} {text}".rstrip()
    assert broker.connection.closed


async def test_a_refusal_that_is_cut_short_is_told_as_far_as_it_came(broker: FakeBroker) -> None:
    broker.welcomes = [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n{"]
    with pytest.raises(Refused, match="HTTP 403"):
        async with connect(URL):
            pass


@pytest.mark.parametrize(
    ("code", "advice"),
    [(4001, "bring a token"), (4002, "another token"), (4003, "fresh token"), (1001, "after a moment")],
)
async def test_a_close_instead_of_a_welcome_is_told_with_what_to_do(code: int, advice: str, broker: FakeBroker) -> None:
    broker.welcomes = [Closing(code, "for a reason")]
    with pytest.raises(Disconnected) as ended:
        async with connect(URL, lambda: "t"):
            pass
    assert (ended.value.code, ended.value.reason) == (code, "for a reason")
    assert advice in str(ended.value)


async def test_a_code_that_nobody_knows_is_told_without_advice(broker: FakeBroker) -> None:
    broker.welcomes = [Closing(4999)]
    with pytest.raises(Disconnected) as ended:
        async with connect(URL):
            pass
    assert str(ended.value) == "the connection ended: 4999"


async def test_a_broker_that_shakes_hands_and_says_no_more_is_not_waited_for(
    broker: FakeBroker, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.client.model.ModelConnection.hear", lambda *_: None)
    with pytest.raises(NotConnected, match=r"http://broker\.example within 3 seconds"):
        async with connect(URL, options=Options(connect_timeout=3)):
            pass
    assert trio.current_time() == 3


async def test_a_log_that_can_t_be_read_is_told(broker: FakeBroker) -> None:
    broker.model.readable = False
    with pytest.raises(Exception, match="the log can't be read"):
        async with connect(URL):
            pass


# --- Those who wait for a broker --------------------------------------------------------------------------------------


async def test_who_wants_to_keep_trying_waits_for_the_first_connection(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    broker.welcomes = [OSError("no network"), b"", Refusal(503), Closing(1001), Refusal(429)]
    async with connect(URL, options=PATIENT) as client:
        assert client.statistics().connected
    assert broker.times == [0.0, 0.25, 10.75, 11.75, 13.75, 17.75]


@pytest.mark.parametrize("welcome", [Refusal(401), Refusal(404), Closing(4002), Closing(4003)])
async def test_what_will_never_do_is_not_tried_again(welcome: Welcome, broker: FakeBroker) -> None:
    broker.welcomes = [welcome]
    with pytest.raises((Refused, Disconnected)):
        async with connect(URL, "t", options=PATIENT):
            pass
    assert len(broker.times) == 1


async def test_a_token_that_has_expired_already_is_replaced_after_a_pause(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    broker.welcomes = [Closing(4003), Closing(4003)]
    async with connect(URL, lambda: "t", options=PATIENT):
        assert broker.times == [0.0, 0.25, 0.75]
