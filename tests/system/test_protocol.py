"""What a client may ask for, and what it is sent, at a real socket."""

from __future__ import annotations

import json

import pytest

from tests.system.client import connected
from tests.system.harness import Broker, eventually
from tests.system.raw import CONTINUATION, PING, PONG, TEXT, frame, raw_websocket

pytestmark = pytest.mark.system

NAMES = (
    "message",
    "message.created",
    "message.updated",
    "message.created.error",
    "game.created",
    "game.member.created",
    "created",
)


async def test_nothing_is_received_before_subscribing(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        open_broker.publish("message.created")
        assert await client.events() == []


async def test_an_event_frame_is_exactly_name_and_data(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("message.created")
        open_broker.publish("message.created", {"text": "hi"})
        assert await client.events() == [{"event": "message.created", "data": {"text": "hi"}}]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("message", ["message"]),
        ("message.created", ["message.created"]),
        ("message.*", ["message.created", "message.updated"]),
        ("*.created", ["message.created", "game.created"]),
        ("message.**", ["message.created", "message.updated", "message.created.error"]),
        ("**.created", ["message.created", "game.created", "game.member.created"]),
        ("*", ["message", "created"]),
        ("*.*", ["message.created", "message.updated", "game.created"]),
        ("message.*.error", ["message.created.error"]),
        ("**.**.**", ["message.created.error", "game.member.created"]),
        ("**", list(NAMES)),
        ("Message", []),
        ("messag", []),
    ],
)
async def test_a_pattern_receives_what_it_matches_and_nothing_else(
    open_broker: Broker, pattern: str, matched: list[str]
) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe(pattern)
        open_broker.publish_all([(name, b"null") for name in NAMES])
        assert await client.names() == matched


async def test_only_the_same_pattern_unsubscribes(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("message.*", "game.created")
        await client.unsubscribe("message.created", "message.**", "**", "game.*")
        open_broker.publish_all([("message.created", b"1"), ("game.created", b"2")])
        assert await client.names() == ["message.created", "game.created"]
        await client.unsubscribe("message.*", "game.created")
        open_broker.publish_all([("message.created", b"1"), ("game.created", b"2")])
        assert await client.names() == []


async def test_subscribing_twice_is_one_subscription(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("message.*", "message.*")
        open_broker.publish("message.created")
        assert await client.names() == ["message.created"]
        await client.unsubscribe("message.*")
        open_broker.publish("message.created")
        assert await client.names() == []


async def test_an_event_comes_once_however_many_patterns_match(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("**", "message.*", "*.created", "message.created", "message.**")
        open_broker.publish("message.created")
        assert await client.names() == ["message.created"]


async def test_each_connection_of_a_user_has_subscriptions_of_its_own(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as phone, connected(open_broker, "ada") as desk:
        await phone.subscribe("message.created")
        open_broker.publish("message.created")
        assert await desk.names() == []
        assert await phone.names() == ["message.created"]


@pytest.mark.parametrize("politely", [True, False], ids=["close", "reset"])
async def test_closing_unsubscribes_everything(open_broker: Broker, politely: bool) -> None:
    patterns = ("message.*", "**", "game.created")
    async with raw_websocket(open_broker, "ada", *patterns) as raw:
        assert open_broker.metric("broker_subscriptions") == len(patterns)
        if politely:
            await raw.stream.aclose()
        else:
            raw.reset()
    gauges = ("broker_subscriptions", "broker_connections")
    eventually(lambda: not any(open_broker.metric(name) for name in gauges), "end of the subscriptions")


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":{"c":[ ]}}',
        b"[1,\t2 , [3\n]]",
        b'"text"',
        b'"\\u00e9\\/\\ud83d\\ude00\\b"',
        '"é😀\u2028"'.encode(),
        b"17",
        b"-0.0",
        b"1E+400",
        b"123456789012345678901234567890123456789.000",
        b"9" * 5000,
        b"true",
        b"false",
        b"null",
        b'{"twice":1,"twice":2}',
        b'{ "spaced" : "out" }',
        b'"%b"' % (b"x" * 70_000),
        b"[" * 128 + b"]" * 128,
    ],
    ids=lambda data: data[:24].decode(),
)
async def test_data_is_forwarded_byte_for_byte(open_broker: Broker, data: bytes) -> None:
    async with raw_websocket(open_broker, "ada", "message.created") as raw:
        open_broker.publish_text("message.created", data)
        assert await raw.text() == b'{"event":"message.created","data":%b}' % data


async def test_names_are_any_unicode(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("spiele.*.größer😀")
        open_broker.publish("spiele.schön.größer😀")
        assert await client.names() == ["spiele.schön.größer😀"]


async def test_events_come_in_the_order_in_which_they_were_taken(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as one, connected(open_broker, "bob") as other:
        for client in (one, other):
            await client.subscribe("order.**")
        for batch in range(10):
            open_broker.publish_all([(f"order.{n % 7}", b"%d" % (batch * 50 + n)) for n in range(50)])
        for client in (one, other):
            assert [event["data"] for event in await client.events()] == list(range(500))


async def test_without_an_id_success_is_silent(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.command("subscribe", "message.created")
        await client.command("unsubscribe", "message.created")
        await client.command("unsubscribe", "never.subscribed")
        assert await client.events() == []


@pytest.mark.parametrize("command_id", ["one", "", 0, -1, 2**70])
async def test_a_command_with_an_id_is_answered_under_it(open_broker: Broker, command_id: str | int) -> None:
    async with connected(open_broker, "ada") as client:
        await client.command("subscribe", "message.created", id=command_id)
        answer = await client.frame()
        assert answer["reply"] == command_id
        assert "data" in answer
        assert "error" not in answer


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "bad_json"),
        ("{", "bad_json"),
        ('{"event": NaN}', "bad_json"),
        ("[" * 50_000, "bad_json"),
        ("[]", "bad_shape"),
        ("null", "bad_shape"),
        ("{}", "bad_shape"),
        ('{"event": 1}', "bad_shape"),
        ('{"event": "subscribe", "data": "a", "id": [1]}', "bad_shape"),
        ('{"event": "subscribe", "data": "a", "id": true}', "bad_shape"),
        ('{"event": "subscribe", "data": "a", "id": 1.5}', "bad_shape"),
        ('{"event": "subscribe"}', "bad_pattern"),
        ('{"event": "subscribe", "data": ["a"]}', "bad_pattern"),
        ('{"event": "subscribe", "data": ""}', "bad_pattern"),
        ('{"event": "subscribe", "data": "a..b"}', "bad_pattern"),
        ('{"event": "subscribe", "data": ".a"}', "bad_pattern"),
        ('{"event": "subscribe", "data": "a b"}', "bad_pattern"),
        ('{"event": "subscribe", "data": "a*"}', "bad_pattern"),
        ('{"event": "subscribe", "data": "a.***"}', "bad_pattern"),
        ('{"event": "subscribe", "data": "\\ud800"}', "bad_pattern"),
        ('{"event": "subscribe", "data": "message.{created,updated}"}', "bad_pattern"),
        ('{"event": "subscribe", "data": "{message,game}"}', "bad_pattern"),
        ('{"event": "subscribe", "data": "users.<userId>.online"}', "bad_pattern"),
        ('{"event": "subscribe", "data": "%s"}' % ("a" * 256), "bad_pattern"),
        ('{"event": "unsubscribe", "data": 7}', "bad_pattern"),
        ('{"event": "publish", "data": {}}', "unknown_command"),
        ('{"event": "Subscribe", "data": "a"}', "unknown_command"),
        ('{"event": "authenticate", "data": {}}', "bad_shape"),
        ('{"event": "authenticate"}', "missing_token"),
        ('{"event": "authenticate", "data": "garbage"}', "invalid_token"),
    ],
)
async def test_a_bad_command_is_told_why_and_does_not_cost_the_connection(
    open_broker: Broker, message: str, code: str
) -> None:
    async with connected(open_broker, "ada") as client:
        await client.send(message)
        answer = await client.frame()
        assert answer.pop("error")
        assert answer == {"code": code}
        await client.subscribe("message.created")
        open_broker.publish("message.created")
        assert await client.names() == ["message.created"]


@pytest.mark.parametrize(
    ("event", "data", "code"),
    [
        ("subscribe", "a{b}", "bad_pattern"),
        ("nonsense", None, "unknown_command"),
        ("authenticate", 1, "bad_shape"),
        ("authenticate", "garbage", "invalid_token"),
        ("authenticate", None, "missing_token"),
    ],
)
async def test_an_error_carries_the_id_of_its_command(open_broker: Broker, event: str, data: object, code: str) -> None:
    async with connected(open_broker, "ada") as client:
        answer = await client.ask(event, data)
        assert answer["code"] == code
        assert answer["error"]


async def test_a_bad_shape_is_answered_under_its_id_where_there_is_one(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.send('{"id": 7, "event": 1}')
        answer = await client.frame()
        assert (answer["reply"], answer["code"]) == (7, "bad_shape")


async def test_a_thousand_subscriptions_may_be_held_and_the_next_is_an_error(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        for number in range(1000):
            await client.command("subscribe", f"many.{number}")
        answer = await client.ask("subscribe", "many.1000")
        assert answer["code"] == "too_many_subscriptions"
        assert "error" not in await client.ask("subscribe", "many.7")
        open_broker.publish_all([("many.1000", b"1"), ("many.999", b"2")])
        await client.unsubscribe("many.0")
        assert await client.names() == ["many.999"]


async def test_a_command_in_fragments_is_one_command(open_broker: Broker) -> None:
    command = json.dumps({"event": "subscribe", "data": "message.größer", "id": 1}, ensure_ascii=False).encode()
    async with raw_websocket(open_broker, "ada") as raw:
        for at in range(len(command)):  # cut between the bytes of a character as well
            opcode = TEXT if at == 0 else CONTINUATION
            await raw.send(frame(opcode, command[at : at + 1], final=at == len(command) - 1))
            await raw.send(frame(PING))
        while (answer := await raw.frame())[0] == PONG:
            pass
        assert answer == (TEXT, b'{"reply":1,"data":{"pattern":"message.gr\xc3\xb6\xc3\x9fer"}}')
