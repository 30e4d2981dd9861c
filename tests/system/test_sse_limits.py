"""Server-sent events at their bounds: full queues, silence, crowds, ends, and clients that mean no good."""

from __future__ import annotations

import json
import signal
import time
from contextlib import AsyncExitStack

import pytest
import trio

from tests.system.client import connected, steady_flow
from tests.system.event_source import EventSource, Message, ask, dialled, hearing, listening, request
from tests.system.floods import LARGE, QUEUE, config
from tests.system.harness import Broker, Brokers, eventually, unique
from tests.system.raw import dial, upgrade

pytestmark = pytest.mark.system


# --- Full queues -----------------------------------------------------------------------------------------------------


async def test_who_is_too_slow_is_told_so_and_comes_back_without_a_loss_as_slowly_as_it_likes(brokers: Brokers) -> None:
    broker = brokers.start(config("disconnect"))
    total = 0
    async with hearing(broker, "ada", "flood.*", receive_buffer=4096) as source:
        begun = source.last_event_id
        while not broker.metric("broker_deliveries_overflowed_total"):
            broker.publish_all([("flood.number", json.dumps([total + n, LARGE]).encode()) for n in range(QUEUE)])
            total += QUEUE
        *came, told = await source.rest()
        assert told.json["code"] == "too_slow"
        assert source.ended
        last = source.last_event_id
    assert broker.wait_logged("connection.closed")["code"] == 4008
    async with listening(broker, "ada", "flood.*", after=last) as source:
        missed = await source.messages(total - len(came))
    assert [message.json["data"][0] for message in [*came, *missed]] == list(range(total))
    overflowed = broker.metric("broker_deliveries_overflowed_total")
    async with listening(broker, "ada", "flood.*", after=begun, receive_buffer=4096) as source:
        await source.message()
        for number in range(total, total + 2 * QUEUE):
            broker.publish("flood.number", [number])  # waits its turn in the log
        again = await source.messages(total + 2 * QUEUE - 1)
        assert [message.json["data"][0] for message in again] == list(range(1, total + 2 * QUEUE))
    assert broker.metric("broker_deliveries_overflowed_total") == overflowed


# --- Signs of life ---------------------------------------------------------------------------------------------------


async def test_comments_keep_a_stream_alive_which_nobody_answers(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nheartbeat = 0.1\nheartbeat_timeout = 0.1\n")
    async with hearing(broker, "ada", "a") as source:
        while source.comments < 8:  # six more than anybody would get who had to answer
            assert not isinstance(await source.item(), Message)
        broker.publish("a", 1)
        assert await source.data(1) == [1]


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_a_client_that_goes_is_noticed(open_broker: Broker, way: str) -> None:
    before = open_broker.metrics()
    async with hearing(open_broker, "ada", "a", "b") as source:
        assert open_broker.metric("broker_connections") == before["broker_connections"] + 1
        assert open_broker.metric("broker_subscriptions") == before["broker_subscriptions"] + 2
        if way == "reset":
            source.reset()
    same = ("broker_connections", "broker_subscriptions")
    eventually(lambda: all(open_broker.metric(name) == before[name] for name in same), "end")


# --- Crowds ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowded(shared_brokers: Brokers) -> Broker:
    return shared_brokers.start(
        '[server]\nallowed_origins = ["https://app.example"]\n'
        "[websocket]\nmax_connections = 3\nmax_connections_per_user = 2\n"
    )


@pytest.fixture
def crowded_broker(crowded: Broker) -> Broker:
    """A broker that lets three in, of one user two, and where nobody is now."""
    eventually(lambda: not crowded.metric("broker_connections"), "end of those who were here before")
    return crowded


async def test_streams_and_websockets_together_are_as_many_as_may_be(crowded_broker: Broker) -> None:
    broker = crowded_broker
    asked = request("a", token=broker.token("cleo"))
    async with hearing(broker, "ada", "a"), AsyncExitStack() as stack:
        for user in ("bob", "dan"):
            socket = await stack.enter_async_context(connected(broker, user))
            await socket.subscribe("a")
        assert broker.metric("broker_connections") == 3
        answer = await ask(broker, asked)
        assert (answer.status, answer.json["code"]) == (503, "bad_request")
        assert int(answer.headers["retry-after"]) > 0
        async with dial(broker) as raw:
            await raw.send(upgrade(Authorization=f"Bearer {broker.token('cleo')}"))
            assert (await raw.answer())[0].status == 503
        assert broker.request("GET", "/healthz").status == 200
        await stack.aclose()  # the sockets say goodbye
        while (await ask(broker, asked)).status != 200:
            await trio.lowlevel.checkpoint()


async def test_of_a_crowd_that_comes_at_once_no_more_than_may_are_let_in(crowded_broker: Broker) -> None:
    statuses: list[int] = []

    async def come(stack: AsyncExitStack) -> None:
        source = await stack.enter_async_context(dialled(crowded_broker))
        await source.send(request("a", token=crowded_broker.token(unique("user"))))
        statuses.append((await source.answer()).status)

    async with AsyncExitStack() as stack:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(come, stack)
        assert sorted(statuses) == [200] * 3 + [503] * 27


async def test_a_user_s_streams_and_websockets_together_are_as_many_as_a_user_may_have(crowded_broker: Broker) -> None:
    broker = crowded_broker
    asked = request("a", token=broker.token("ada"))
    async with hearing(broker, "ada", "a") as first, AsyncExitStack() as stack:
        socket = await stack.enter_async_context(connected(broker, "ada"))
        await socket.subscribe("a")
        answer = await ask(broker, asked)
        assert (answer.status, answer.json["code"]) == (429, "too_many_connections")
        async with connected(broker, "ada") as another:
            assert await another.closed() == 1008
        async with hearing(broker, "bob", "a") as of_bob:
            broker.publish("a", 1)
            assert await of_bob.data(1) == await first.data(1) == [1]
        await stack.aclose()  # the socket says goodbye
        while (await ask(broker, asked)).status != 200:
            await trio.lowlevel.checkpoint()


# --- Ends ------------------------------------------------------------------------------------------------------------


async def test_a_token_that_expires_ends_the_stream_and_it_is_said_why(broker: Broker) -> None:
    token = broker.token("ada", exp=time.time() + 0.7)
    asked = request("users.*.online", headers=[("Authorization", f"Bearer {token}")])
    async with dialled(broker) as source:
        await source.send(asked)
        await source.answer()
        place = await source.place()
        (told,) = await source.rest()
        assert told == Message('{"error":"the token has expired","code":"token_expired"}', place)
    answer = await ask(broker, asked)  # a browser that comes back by itself
    assert (answer.status, answer.json["code"]) == (401, "token_expired")
    event_id = broker.publish("users.eve.online")
    async with listening(broker, "ada", "users.*.online", after=place) as source:  # and a page with a fresh token
        assert (await source.message()).id == event_id


async def test_when_the_broker_stops_what_waits_comes_first_and_then_a_proper_end(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nqueue_size = 1000\nqueue_bytes = 100000000\n")
    large = b'"%b"' % (b"x" * 60_000)
    async with hearing(broker, "ada", "large", receive_buffer=4096) as source:
        for _ in range(10):
            await trio.to_thread.run_sync(broker.publish_all, [("large", large)] * 15)
        broker.signal(signal.SIGTERM)
        broker.wait_logged("broker.stopping")
        *came, told = await source.rest()
        assert len(came) == 150
        assert told.json["code"] == "going_away"
        assert told.id == came[-1].id == source.last_event_id
    assert broker.wait_ended(8) == 0  # and not after the grace, which is 10 seconds


async def test_when_the_broker_stops_in_a_replay_the_client_has_a_place_to_go_on_from(brokers: Brokers) -> None:
    broker = brokers.start()
    async with hearing(broker, "ada", "large") as source:
        begun = source.last_event_id
    large = b'"%b"' % (b"x" * 60_000)
    ids = [found for _ in range(10) for found in broker.publish_all([("large", large)] * 15)]
    async with listening(broker, "ada", "large", after=begun, receive_buffer=4096) as source:
        broker.signal(signal.SIGTERM)
        broker.wait_logged("broker.stopping")
        *came, told = await source.rest()
        assert told.json["code"] == "going_away"
        assert [message.id for message in came] == ids[: len(came)]
        last = source.last_event_id
    assert broker.wait_ended() == 0
    again = brokers.start_again(broker)
    async with listening(again, "ada", "large", after=last) as source:
        assert [message.id for message in await source.messages(150 - len(came))] == ids[len(came) :]


# --- Clients that mean no good ---------------------------------------------------------------------------------------


@pytest.mark.longest(60)
async def test_many_streams_that_nobody_reads_hold_up_nobody(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nqueue_size = 64\nqueue_bytes = 200000\n")
    flood = [("flood", b'"%b"' % (b"x" * 50_000))] * 10
    async with steady_flow(broker), AsyncExitStack() as stack:
        before = broker.resident_bytes()
        for _ in range(50):
            await stack.enter_async_context(hearing(broker, "mallory", "flood", receive_buffer=4096))
        while broker.metric("broker_deliveries_overflowed_total") < 50:
            await trio.to_thread.run_sync(broker.publish_all, flood)
        eventually(lambda: broker.metric("broker_connections") <= 1, "end of those who do not read")
        assert broker.resident_bytes() - before < 100_000_000


async def test_a_crowd_that_says_half_a_request_holds_up_nobody(crowded_broker: Broker) -> None:
    broker = crowded_broker
    async with steady_flow(broker), AsyncExitStack() as stack:
        half = request("a", token=broker.token("mallory"))[:-3]
        for _ in range(100):
            source = await stack.enter_async_context(dialled(broker))
            await source.send(half)
        async with hearing(broker, "ada", "a") as source:
            broker.publish("a", 1)
            assert await source.data(1) == [1]


async def test_who_talks_all_the_time_is_not_listened_to_for_long(open_broker: Broker) -> None:
    async with hearing(open_broker, "mallory", "a") as source:
        with pytest.raises(trio.BrokenResourceError):  # the broker lingers for a while, and then it is gone
            await talk(source)


async def talk(source: EventSource) -> None:
    while True:
        await source.send(b"x" * 65_536)


async def test_the_token_appears_in_no_log_and_no_metric(open_broker: Broker) -> None:
    broker = open_broker
    tokens = [broker.token("ada"), broker.token("ada", exp=1), "notatoken"]
    for token in tokens:
        await ask(broker, request("a", token=token, last_event_id="x" * 300))
        await ask(broker, request("a", token=token))
    seen = broker.errors() + broker.output() + broker.request("GET", "/metrics").body.decode()
    assert [token for token in tokens if token in seen] == []


# --- Pages of other origins ------------------------------------------------------------------------------------------


async def test_pages_that_may_hear_and_see_what_went_wrong_and_others_do_not(crowded_broker: Broker) -> None:
    broker = crowded_broker
    app, evil = ("Origin", "https://app.example"), ("Origin", "https://evil.example")
    token = broker.token("ada")
    async with dialled(broker) as source, hearing(broker, "ada", "a"):
        await source.send(request("a", headers=[app], token=token))
        answer = await source.answer()
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")
        for asked, status in {
            request("a", headers=[app], token=token): 429,
            request("a", headers=[app]): 401,
            request("a", headers=[app], method="OPTIONS"): 204,
            request("a", headers=[app], method="DELETE"): 405,
        }.items():
            answer = await ask(broker, asked)
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, "https://app.example")
            assert answer.headers["vary"] == "Origin"
        for method in ("GET", "OPTIONS"):
            answer = await ask(broker, request("a", headers=[evil], method=method, token=token))
            assert (answer.status, answer.headers.get("access-control-allow-origin")) == (403, None)


async def test_an_origin_that_no_browser_sends_is_nothing_to_speak_of(open_broker: Broker) -> None:
    strange = [("Origin", "http://é@localhost")]
    assert (await ask(open_broker, request("a", headers=strange, token=open_broker.token("ada")))).status == 403
    assert not open_broker.logged("front.failed")
