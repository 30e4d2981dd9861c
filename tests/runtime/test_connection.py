"""One client: what each command does, what each mistake is answered with, and with which code it ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.core.delivery import Delivery
from broker.core.errors import AuthenticationError, Close, ExpiredToken
from broker.core.event import Event, Record
from broker.core.forms import SERVER_SENT
from broker.core.frames import BINARY
from broker.core.message import Message
from broker.core.ports import Identity
from broker.runtime import connection as connection_module
from broker.runtime.connection import Connection
from broker.runtime.outbox import Fate, Overflow, QueueLimits
from broker.runtime.party import PeerGone, Refusal
from broker.runtime.registry import Registry
from broker.runtime.services import ConnectionLimits
from tests.fakes import PING, TEXT, Client, Tokens, services, talking

NOW = 1_700_000_000.0

KNOWN: dict[str, Identity | AuthenticationError] = {
    "ada": Identity("ada", {"roles": ["dev"]}, NOW + 3600),
    "ada for ever": Identity("ada", {}),
    "bob": Identity("bob", {}, NOW + 3600),
    "old": ExpiredToken("the token has expired"),
}


@pytest.fixture(autouse=True)
def wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is always the same time of day, however far Trio's clock has jumped."""
    monkeypatch.setattr(connection_module, "time", SimpleNamespace(time=lambda: NOW))


def new_registry(max_per_user: int = 10) -> Registry[Connection]:
    return Registry(max_per_user=max_per_user, indexed_claims=["roles"])


def connect(
    registry: Registry[Connection] | None = None,
    identity: Identity | None = None,
    queue: QueueLimits | None = None,
    **limits: Any,
) -> Connection:
    return Connection(
        identity or Identity("ada", {}, NOW + 60),
        services(new_registry() if registry is None else registry, Tokens(KNOWN)),
        ConnectionLimits(queue=queue or QueueLimits(), **limits),
    )


def delivery(name: str = "a.b", data: bytes = b"1") -> Delivery:
    return Delivery(Record(Event(name, data), "1", 1))


def subscribed(registry: Registry[Connection], name: str) -> list[Connection]:
    return [connection for found in registry.matching(name) for connection in found]


# Subscribing.


@pytest.mark.parametrize("command_id", ["x", "", 0, 7, -1])
async def test_a_subscription_with_an_id_is_answered(command_id: str | int) -> None:
    async with talking(connect()) as client:
        assert await client.say({"event": "subscribe", "data": "a.*", "id": command_id}) == [
            {"reply": command_id, "data": {"pattern": "a.*"}}
        ]


async def test_without_an_id_all_that_goes_well_is_silent() -> None:
    async with talking(connect()) as client:
        for event, data in (("subscribe", "a.*"), ("unsubscribe", "a.*"), ("authenticate", "ada")):
            assert await client.say({"event": event, "data": data}) == []


async def test_who_subscribed_is_found() -> None:
    registry = new_registry()
    connection = connect(registry)
    async with talking(connection) as client:
        await client.say({"event": "subscribe", "data": "a.*"})
        assert subscribed(registry, "a.b") == [connection]
        assert connection.patterns == {"a.*"}


async def test_subscribing_twice_is_one_subscription() -> None:
    registry = new_registry()
    async with talking(connect(registry)) as client:
        subscribe = {"event": "subscribe", "data": "a.*", "id": 1}
        assert len(await client.say(subscribe, subscribe)) == 2
        assert registry.statistics().subscriptions == 1
        await client.say({"event": "unsubscribe", "data": "a.*"})
        assert subscribed(registry, "a.b") == []


async def test_unsubscribing_ends_it() -> None:
    registry = new_registry()
    connection = connect(registry)
    async with talking(connection) as client:
        await client.say({"event": "subscribe", "data": "a.*"})
        answer = await client.say({"event": "unsubscribe", "data": "a.*", "id": 1})
        assert answer == [{"reply": 1, "data": {"pattern": "a.*"}}]
        assert subscribed(registry, "a.b") == []
        assert connection.patterns == set()


async def test_unsubscribing_one_pattern_keeps_the_others() -> None:
    registry = new_registry()
    connection = connect(registry)
    async with talking(connection) as client:
        await client.say(*({"event": "subscribe", "data": pattern} for pattern in ("a.*", "b.*")))
        await client.say({"event": "unsubscribe", "data": "a.*"})
        assert subscribed(registry, "b.c") == [connection]
        assert connection.patterns == {"b.*"}


async def test_unsubscribing_by_any_other_pattern_does_nothing() -> None:
    registry = new_registry()
    connection = connect(registry)
    async with talking(connection) as client:
        await client.say({"event": "subscribe", "data": "a.*"})
        for other in ("a.b", "**", "a.**", "*.*"):
            assert await client.say({"event": "unsubscribe", "data": other}) == []
        assert subscribed(registry, "a.b") == [connection]


async def test_unsubscribing_what_is_not_subscribed_is_no_error() -> None:
    async with talking(connect()) as client:
        answer = await client.say({"event": "unsubscribe", "data": "never", "id": 1})
        assert answer == [{"reply": 1, "data": {"pattern": "never"}}]


async def test_one_pattern_too_many_is_refused_and_the_others_stay() -> None:
    registry = new_registry()
    async with talking(connect(registry, max_subscriptions=2)) as client:
        answers = await client.say(
            *({"event": "subscribe", "data": pattern, "id": pattern} for pattern in ("a", "b", "c", "b"))
        )
        assert [answer.get("code") for answer in answers] == [None, None, "too_many_subscriptions", None]
        assert answers[2] == {
            "reply": "c",
            "error": "a connection holds at most 2 subscriptions",
            "code": "too_many_subscriptions",
        }
        assert registry.statistics().subscriptions == 2


async def test_an_unsubscribed_pattern_makes_room_for_another() -> None:
    async with talking(connect(max_subscriptions=1)) as client:
        answers = await client.say(
            {"event": "subscribe", "data": "a"},
            {"event": "unsubscribe", "data": "a"},
            {"event": "subscribe", "data": "b", "id": 1},
        )
        assert answers == [{"reply": 1, "data": {"pattern": "b"}}]


# Mistakes. Each is answered, and none costs the connection.


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("{", "bad_json"),
        ("", "bad_json"),
        ("[]", "bad_shape"),
        ("{}", "bad_shape"),
        ({"event": 1}, "bad_shape"),
        ({"event": "subscribe", "id": 1.5}, "bad_shape"),
        ({"event": "subscribe"}, "bad_pattern"),
        ({"event": "subscribe", "data": ""}, "bad_pattern"),
        ({"event": "subscribe", "data": "{a,b}"}, "bad_pattern"),
        ({"event": "subscribe", "data": "a.<b>"}, "bad_pattern"),
        ({"event": "subscribe", "data": ["a"]}, "bad_pattern"),
        ({"event": "unsubscribe", "data": "a*"}, "bad_pattern"),
        ({"event": "authenticate", "data": 1}, "bad_shape"),
        ({"event": "authenticate", "data": {"token": "ada"}}, "bad_shape"),
        ({"event": "authenticate"}, "missing_token"),
        ({"event": "authenticate", "data": "unheard of"}, "invalid_token"),
        ({"event": "authenticate", "data": "bob"}, "invalid_token"),
        ({"event": "authenticate", "data": "old"}, "token_expired"),
        ({"event": "Subscribe", "data": "a"}, "unknown_command"),
        ({"event": "publish", "data": "a"}, "unknown_command"),
    ],
)
async def test_a_mistake_is_answered_with_its_code_and_the_connection_stays(
    said: str | dict[str, Any], code: str
) -> None:
    async with talking(connect()) as client:
        [answer] = await client.say(said)
        assert set(answer) == {"error", "code"}
        assert answer["code"] == code
        assert await client.say({"event": "subscribe", "data": "a", "id": 1}) != []
        assert client.ending is None


@pytest.mark.parametrize(
    ("event", "data", "code"),
    [
        (None, None, "bad_shape"),
        ("subscribe", "a..b", "bad_pattern"),
        ("authenticate", 1, "bad_shape"),
        ("authenticate", "bob", "invalid_token"),
        ("dance", None, "unknown_command"),
    ],
)
@pytest.mark.parametrize("command_id", ["x", "", 0])
async def test_a_mistake_is_answered_with_the_id_of_its_command(
    event: str | None, data: Any, code: str, command_id: str | int
) -> None:
    async with talking(connect()) as client:
        [answer] = await client.say({"event": event, "data": data, "id": command_id})
        assert (answer["reply"], answer["code"]) == (command_id, code)


async def test_an_unknown_command_is_shown_in_part_only() -> None:
    async with talking(connect()) as client:
        [answer] = await client.say({"event": "x" * 10_000})
        assert "'" + "x" * 100 + "'" in answer["error"]
        assert "x" * 101 not in answer["error"]


# Authentication.


async def test_a_fresh_token_replaces_the_claims_and_the_end() -> None:
    registry = new_registry()
    connection = connect(registry)
    async with talking(connection) as client:
        answer = await client.say({"event": "authenticate", "data": "ada", "id": 1})
        assert answer == [{"reply": 1, "data": {"expires_at": NOW + 3600}}]
        assert connection.claims == {"roles": ["dev"]}
        assert list(registry.directory.with_claim("roles", "dev")) == [connection]


@pytest.mark.parametrize("token", ["bob", "old", "unheard of", None])
async def test_after_a_bad_token_the_old_one_still_counts(token: str | None) -> None:
    registry = new_registry()
    connection = connect(registry, Identity("ada", {"roles": ["admin"]}, NOW + 60))
    async with talking(connection) as client:
        await client.say({"event": "authenticate", "data": token})
        assert (connection.user, connection.claims) == ("ada", {"roles": ["admin"]})
        assert list(registry.directory.with_claim("roles", "admin")) == [connection]
        assert list(registry.directory.of_user("bob")) == []


async def test_a_refused_token_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with talking(connect()) as client:
        [answer] = await client.say({"event": "authenticate", "data": "s3cret"})
    assert "s3cret" not in str([vars(record) for record in caplog.records])
    assert "s3cret" not in str(answer)


async def test_a_token_that_expires_ends_the_connection(autojump_clock: MockClock) -> None:
    async with talking(connect()) as client:
        await trio.sleep(59)
        assert client.ending is None
        await trio.sleep(2)
        assert client.ending == (Close.TOKEN_EXPIRED, "the token has expired")
        assert client.close_code() == 4003


async def test_a_token_that_has_expired_by_now_ends_it_at_once(autojump_clock: MockClock) -> None:
    async with talking(connect(identity=Identity("ada", {}, NOW - 1))) as client:
        assert client.close_code() == 4003


async def test_a_fresh_token_postpones_the_end(autojump_clock: MockClock) -> None:
    async with talking(connect()) as client:
        await client.say({"event": "authenticate", "data": "ada"})
        await trio.sleep(3590)
        assert client.ending is None
        await trio.sleep(20)
        assert client.close_code() == 4003


async def test_a_token_without_an_end_lets_it_live(autojump_clock: MockClock) -> None:
    async with talking(connect()) as client:
        await client.say({"event": "authenticate", "data": "ada for ever"})
        await trio.sleep(80_000)
        assert client.ending is None


async def test_a_bad_token_postpones_nothing(autojump_clock: MockClock) -> None:
    async with talking(connect()) as client:
        await client.say({"event": "authenticate", "data": "bob"})
        await trio.sleep(61)
        assert client.close_code() == 4003


async def test_what_waits_goes_out_before_an_expired_tokens_end(autojump_clock: MockClock) -> None:
    connection = connect()
    connection.offer(delivery())

    async def nothing() -> str:
        await trio.sleep_forever()
        raise AssertionError

    await connection.run(nothing)
    client = Client()
    await connection.outbox.run(client.write)
    assert client.json() == [{"event": "a.b", "data": 1}]
    assert client.close_code() == 4003


# Floods.


async def test_a_flood_of_commands_ends_the_connection(autojump_clock: MockClock) -> None:
    async with talking(connect(commands_per_second=10)) as client:
        answers = await client.say(*["what?"] * 11)
        assert client.ending == (Close.POLICY_VIOLATION, "too many commands")
        assert client.close_code() == 1008
        assert len(answers) <= 10


async def test_as_many_commands_as_may_be_are_no_flood(autojump_clock: MockClock) -> None:
    async with talking(connect(commands_per_second=10)) as client:
        assert len(await client.say(*["what?"] * 10)) == 10
        for _ in range(20):
            await trio.sleep(0.5)
            assert len(await client.say(*["what?"] * 5)) == 5
        assert client.ending is None


async def test_silence_saves_up_no_more_than_one_second(autojump_clock: MockClock) -> None:
    async with talking(connect(commands_per_second=10)) as client:
        await trio.sleep(50)
        await client.say(*["what?"] * 11)
        assert client.close_code() == 1008


async def test_new_subscriptions_are_no_flood(autojump_clock: MockClock) -> None:
    async with talking(connect(commands_per_second=2, max_subscriptions=100)) as client:
        await client.say(*({"event": "subscribe", "data": f"a.{number}"} for number in range(100)))
        assert client.ending is None


@pytest.mark.parametrize("event", ["subscribe", "unsubscribe"])
async def test_the_same_subscription_again_and_again_is_one(autojump_clock: MockClock, event: str) -> None:
    async with talking(connect(commands_per_second=10)) as client:
        await client.say(*[{"event": event, "data": "a"}] * 12)
        assert client.close_code() == 1008


async def test_subscribing_and_unsubscribing_in_turn_is_one_too(autojump_clock: MockClock) -> None:
    async with talking(connect(commands_per_second=10)) as client:
        for _ in range(12):
            await client.say({"event": "subscribe", "data": "a"}, {"event": "unsubscribe", "data": "a"})
        assert client.close_code() == 1008


async def test_subscriptions_beyond_the_limit_are_one_too(autojump_clock: MockClock) -> None:
    async with talking(connect(commands_per_second=10, max_subscriptions=1)) as client:
        await client.say(*({"event": "subscribe", "data": f"a.{number}"} for number in range(13)))
        assert client.close_code() == 1008


async def test_a_command_may_be_spared_and_charged_later(autojump_clock: MockClock) -> None:
    connection = connect(commands_per_second=2, max_subscriptions=100)
    async with talking(connection) as client:
        for number in range(10):
            await client.say({"event": "what?"})
            connection.spare()
            connection.subscribe(f"a.{number}", spared=True)
        assert client.ending is None
        for _ in range(3):
            connection.charge()
        assert client.party is connection
        await wait_all_tasks_blocked()
        assert client.close_code() == 1008


# Other ways to end.


async def test_a_binary_message_ends_the_connection() -> None:
    async with talking(connect()) as client:
        await client.say(b"\x00")
        assert client.ending == (Close.UNSUPPORTED_DATA, "this path takes text frames only")
        assert client.close_code() == 1003


async def test_who_hangs_up_is_answered_with_its_own_code() -> None:
    async with talking(connect()) as client:
        client.hang_up()
        await wait_all_tasks_blocked()
        assert client.ending == (1000, "bye")
        assert client.close_code() == 1000


@pytest.mark.parametrize("code", [Close.GOING_AWAY, Close.DISCONNECTED])
async def test_who_is_closed_by_us_gets_what_waits_first(code: Close) -> None:
    connection = connect()
    async with talking(connection) as client:
        connection.offer(delivery(data=b"1"))
        connection.offer(delivery(data=b"2"))
        connection.close(code, "go")
        connection.offer(delivery(data=b"3"))
        await wait_all_tasks_blocked()
        assert client.json() == [{"event": "a.b", "data": 1}, {"event": "a.b", "data": 2}]
        assert client.close_code() == code
        assert client.ending == (code, "go")


async def test_the_first_reason_to_end_counts() -> None:
    connection = connect()
    async with talking(connection) as client:
        connection.close(Close.DISCONNECTED, "by an administrator")
        connection.close(Close.GOING_AWAY)
        client.hang_up()
        await wait_all_tasks_blocked()
        assert client.ending == (4004, "by an administrator")


async def test_a_peer_that_goes_after_we_decided_changes_nothing() -> None:
    connection = connect()

    async def receive() -> str:
        connection.close(Close.GOING_AWAY, "we are stopping")
        raise PeerGone(1006)

    assert await connection.run(receive) == (Close.GOING_AWAY, "we are stopping")


async def test_a_commands_answer_after_the_end_is_none() -> None:
    connection = connect()
    async with talking(connection) as client:
        assert await client.say(b"\x00", "what?") == []
        assert client.close_code() == 1003


@pytest.mark.parametrize("overflow", [Overflow.DISCONNECT, Overflow.LATEST])
async def test_who_is_too_slow_for_its_events_is_ended(overflow: Overflow) -> None:
    connection = connect(queue=QueueLimits(frames=2, overflow=overflow))
    async with talking(connection) as client:
        fates = [connection.offer(delivery(name)) for name in ("a", "b", "c")]
        assert fates == [Fate.QUEUED, Fate.QUEUED, Fate.OVERFLOWED]
        await wait_all_tasks_blocked()
        assert client.close_code() == 4008
        assert client.ending == (Close.TOO_SLOW, "too slow: the queue overflowed")


@pytest.mark.parametrize("overflow", [Overflow.DROP_NEWEST, Overflow.DROP_OLDEST])
async def test_who_may_lose_events_is_not_ended(overflow: Overflow) -> None:
    connection = connect(queue=QueueLimits(frames=2, overflow=overflow))
    async with talking(connection) as client:
        for _ in range(10):
            connection.offer(delivery())
        await wait_all_tasks_blocked()
        assert client.ending is None


@pytest.mark.parametrize("overflow", Overflow)
async def test_who_is_too_slow_for_its_answers_is_ended(overflow: Overflow) -> None:
    connection = connect(queue=QueueLimits(frames=2, overflow=overflow))
    messages = iter(["what?"] * 3)

    async def receive() -> str:
        message = next(messages, None)
        if message is None:
            await trio.sleep_forever()
        assert message is not None
        return message

    # Nobody writes what waits in the outbox.
    assert await connection.run(receive) == (Close.TOO_SLOW, "too slow: the queue overflowed")


async def test_a_user_with_too_many_connections_gets_no_further_one() -> None:
    registry = new_registry(max_per_user=1)
    async with talking(connect(registry)) as first, talking(connect(registry)) as second:
        assert second.close_code() == 1008
        assert second.ending == (Close.POLICY_VIOLATION, "a user may have at most 1 connections at a time")
        assert first.ending is None
        assert await first.say({"event": "subscribe", "data": "a", "id": 1}) != []


@pytest.mark.parametrize("code", [Close.GOING_AWAY, Close.TOO_SLOW])
async def test_whoever_ends_leaves_no_trace(code: Close) -> None:
    registry = new_registry()
    connection = connect(registry)
    async with talking(connection) as client:
        await client.say({"event": "subscribe", "data": "**"})
        connection.close(code)
        await wait_all_tasks_blocked()
        assert len(registry) == len(registry.patterns) == len(registry.directory) == 0


# Signs of life.


async def test_a_ping_goes_out_and_is_remembered(autojump_clock: MockClock) -> None:
    connection = connect()
    async with talking(connection) as client:
        await trio.sleep(5)
        connection.ping()
        assert connection.pinged_at == trio.current_time()
        await wait_all_tasks_blocked()
        assert client.heard == [(PING, b"")]


async def test_whatever_is_heard_counts_as_a_sign_of_life(autojump_clock: MockClock) -> None:
    connection = connect()
    await trio.sleep(5)
    connection.ping()
    connection.heard()
    assert (connection.heard_at, connection.pinged_at) == (trio.current_time(), None)


# The refusal of a connection.


async def test_a_refusal_says_why_and_ends() -> None:
    refusal = Refusal(Close.NO_TOKEN, "there is no token")
    refusal.heard()
    refusal.close(Close.GOING_AWAY)
    async with talking(refusal) as client:
        assert client.ending == (4001, "there is no token")
        assert client.close_code() == 4001


async def test_every_party_has_an_id_of_its_own() -> None:
    assert len({connect().id, connect().id, Refusal(4001, "").id}) == 3


async def test_a_ping_more_does_not_give_more_time_to_answer(autojump_clock: MockClock) -> None:
    connection = connect()
    async with talking(connection):
        connection.ping()
        pinged_at = connection.pinged_at
        await trio.sleep(5)
        connection.ping()
        assert connection.pinged_at == pinged_at


# Messages of the application's.


async def test_a_message_goes_the_way_of_events() -> None:
    connection = connect()
    async with talking(connection) as client:
        connection.offer(delivery())
        connection.deliver(Message("hello"))
        connection.deliver(Message(b"\x00"))
        await wait_all_tasks_blocked()
        assert client.heard[1:] == [(TEXT, b"hello"), (BINARY, b"\x00")]


async def test_a_message_that_the_form_can_t_say_is_left_out() -> None:
    connection = connect()
    connection.form = SERVER_SENT
    connection.deliver(Message(b"\x00"))
    assert connection.outbox.statistics().waiting_frames == 0


async def test_who_is_too_slow_for_its_messages_is_ended() -> None:
    connection = connect(queue=QueueLimits(frames=2))
    async with talking(connection) as client:
        for _ in range(3):
            connection.deliver(Message("hello"))
        await wait_all_tasks_blocked()
        assert client.close_code() == 4008


@pytest.mark.parametrize("code", [1000, 1008, 1011, 4008])
async def test_to_close_with_any_code_what_waits_can_be_let_out_before(code: int) -> None:
    connection = connect()
    async with talking(connection) as client:
        connection.deliver(Message("last"))
        connection.close(code, "bye", discard=False)
        await wait_all_tasks_blocked()
        assert (client.heard[0], client.close_code()) == ((TEXT, b"last"), code)


async def test_a_user_is_there_for_as_long_as_a_connection_is() -> None:
    house = services(new_registry())
    connection = Connection(Identity("ada"), house, ConnectionLimits())
    async with talking(connection):
        assert house.presence.is_online("ada")
    assert connection.ended


async def test_nobody_in_particular_is_nowhere() -> None:
    house = services(new_registry())
    async with talking(Connection(Identity(), house, ConnectionLimits())):
        assert list(house.presence.online()) == []
