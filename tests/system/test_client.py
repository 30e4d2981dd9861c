"""The Python client with real brokers: they stop, are killed, forget and overflow, and no event is lost unsaid."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from broker.client import (
    Change,
    Client,
    CommandFailed,
    Connected,
    Disconnected,
    Lost,
    NotConnected,
    Options,
    PublishFailed,
    Refused,
    ResumeGap,
    Subscription,
    connect,
    open_publisher,
)
from tests.system.certificates import Certificates
from tests.system.harness import PATIENCE, Broker, Brokers, environ, eventually

pytestmark = pytest.mark.system

LARGE = "x" * 4000


@asynccontextmanager
async def connected(broker: Broker, user: str = "ada", **claims: object) -> AsyncIterator[Client]:
    """A client with a token for an hour, which may publish anything."""
    token = broker.token(user, **{"publish": ["**"], **claims})
    async with connect(broker.url, token) as client:
        yield client


async def taken(events: Subscription, number: int) -> list[object]:
    """The data of the next events."""
    with trio.fail_after(PATIENCE):
        return [(await anext(events)).data for _ in range(number)]


@contextmanager
def staying_at(broker: Broker) -> Iterator[None]:
    """Brokers that are started meanwhile have this one's port."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.system.harness.environ", partial(environ, BROKER_SERVER__PORT=str(broker.port)))
        yield


def killed(brokers: Brokers, broker: Broker) -> None:
    brokers.kill(broker)


def stopped(brokers: Brokers, broker: Broker) -> None:
    broker.process.terminate()
    assert broker.wait_ended() == 0
    brokers.running.remove(broker)


End = Callable[[Brokers, Broker], None]


# --- All is well ------------------------------------------------------------------------------------------------------


async def test_what_is_published_comes_as_it_was_sent(open_broker: Broker) -> None:
    async with connected(open_broker) as client, client.subscribe("client.*.created", "client.**") as events:
        event_id = await client.publish("client.1.created", {"b": 1.0, "a": "größer"})
        event = await anext(events)
        assert (event.name, event.data, event.id) == ("client.1.created", {"b": 1.0, "a": "größer"}, event_id)
        open_broker.publish_text("client.1.created", b'{"b": 1E400, "b": 12345678901234567890.0 }')
        assert (await anext(events)).raw == b'{"b": 1E400, "b": 12345678901234567890.0 }'


async def test_an_event_that_is_published_again_under_its_id_comes_once(open_broker: Broker) -> None:
    async with connected(open_broker) as client, client.subscribe("twice.*") as events:
        assert await client.publish("twice.1", 1, id="client-twice-1") == "client-twice-1"
        assert await client.publish("twice.1", 1, id="client-twice-1") == "client-twice-1"
        await client.publish("twice.2", 2)
        assert await taken(events, 2) == [1, 2]


async def test_each_client_gets_what_its_user_may_see(broker: Broker) -> None:
    async with (
        connected(broker, "ada") as ada,
        connected(broker, "bob") as bob,
        ada.subscribe("**") as for_ada,
        bob.subscribe("**") as for_bob,
    ):
        await ada.publish("groups.client.created", {"members": ["ada"]})
        await ada.publish("users.cid.online", "both")
        assert await taken(for_ada, 2) == [{"members": ["ada"]}, "both"]
        assert await taken(for_bob, 1) == ["both"]


async def test_errors_of_the_broker_s_are_raised_with_their_codes(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nmax_subscriptions = 1\n")
    async with connected(broker, publish=["allowed.*"]) as client, client.subscribe("a"):
        with pytest.raises(CommandFailed) as unknown:
            await client.command("nonsense")
        assert unknown.value.code == "unknown_command"
        with pytest.raises(CommandFailed) as refused:
            await anext(client.subscribe("b"))
        assert refused.value.code == "too_many_subscriptions"
        with pytest.raises(PublishFailed) as failed:
            await client.publish("forbidden.1")
        assert (failed.value.status, failed.value.code) == (403, "not_permitted")


async def test_who_only_publishes_needs_no_user(open_broker: Broker) -> None:
    async with open_publisher(open_broker.url, open_broker.token(publish=["only.*"])) as publisher:
        assert await publisher.publish("only.1", None, id="only-1") == "only-1"


async def test_leaving_is_a_goodbye(brokers: Brokers) -> None:
    broker = brokers.start()
    for _ in range(5):
        async with connected(broker) as client, client.subscribe("a"):
            pass
    eventually(lambda: broker.metric("broker_connections") == 0, "end of the connections", patience=5)
    assert broker.logged("connection.closed") == []


async def test_a_flood_of_commands_is_none(open_broker: Broker) -> None:
    token = open_broker.token("ada")
    async with connected(open_broker) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(client.command, "authenticate", token)
        assert client.statistics().connections == 1


async def test_subscriptions_may_come_and_go_in_crowds(open_broker: Broker) -> None:
    async with connected(open_broker) as client, client.subscribe("many.**") as everything:
        for number in range(200):
            async with client.subscribe(f"many.{number}"):
                pass
        subscriptions = [client.subscribe(f"many.{number}") for number in range(200, 900)]
        async with subscriptions.pop() as last:
            await client.publish("many.899", "last")
            assert await taken(last, 1) == ["last"]
        subscriptions.clear()
        await trio.sleep(1.5)
        assert await taken(everything, 1) == ["last"]
        assert client.statistics().connections == 1
        assert client.statistics().subscriptions == 1


async def test_it_speaks_tls_and_knows_whom_to_trust(brokers: Brokers, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "certificates")
    certificates.make("ada")
    tls = f'[server.tls]\ncertificate = "{certificates.server}"\nprivate_key = "{certificates.server_key}"\n'
    broker = brokers.start(tls)
    url = f"https://127.0.0.1:{broker.port}"
    token = broker.token("ada", publish=["**"])
    trusting = Options(tls=ssl.create_default_context(cafile=certificates.ca))
    async with connect(url, token, options=trusting) as client, client.subscribe("a") as events:
        await client.publish("a", 1)
        assert await taken(events, 1) == [1]
    with pytest.raises(NotConnected, match="certificate verify failed"):
        async with connect(url, token):
            pass


# --- When there is no way in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "code"), [(None, 4001), ("nonsense", 4002)])
async def test_a_token_that_does_not_do_is_told(token: str | None, code: int, open_broker: Broker) -> None:
    with pytest.raises(Disconnected) as ended:
        async with connect(open_broker.url, token):
            pass
    assert ended.value.code == code


async def test_a_token_that_has_expired_is_told(open_broker: Broker) -> None:
    with pytest.raises(Disconnected) as ended:
        async with connect(open_broker.url, open_broker.token("ada", exp=time.time() - 10)):
            pass
    assert ended.value.code == 4003


async def test_so_is_a_refusal_by_http(brokers: Brokers) -> None:
    broker = brokers.start('[auth]\non_failure = "reject"\n')
    with pytest.raises(Refused) as refused:
        async with connect(broker.url, "nonsense"):
            pass
    assert refused.value.status == 401
    assert refused.value.text
    with pytest.raises(Refused, match="404"):
        async with connect(f"{broker.url}/nowhere", broker.token("ada")):
            pass


# --- When the broker is away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [stopped, killed])
async def test_what_happened_around_a_restart_comes_once_and_in_order(end: End, brokers: Brokers) -> None:
    broker = brokers.start()
    changes: list[Change] = []
    token = broker.token("ada")
    connection = connect(broker.url, token, on_change=changes.append)
    with staying_at(broker):
        async with connection as client, client.subscribe("restart.*") as events:
            broker.publish("restart.1", 1)
            end(brokers, broker)
            await trio.sleep(1)
            broker = brokers.start_again(broker)
            broker.publish("restart.2", 2)
            assert await taken(events, 2) == [1, 2]
            broker.publish("restart.3", 3)
            assert await taken(events, 1) == [3]
            assert client.statistics().gaps == 0
    assert changes[0] == Connected(again=False)
    assert isinstance(changes[1], Lost)
    assert changes[-1] == Connected(again=True)


@pytest.mark.longest(90)
async def test_over_several_kills_everything_that_was_published_comes_once(brokers: Brokers) -> None:
    broker = brokers.start()
    token = broker.token("ada", publish=["**"])
    published: list[int] = []
    got: list[object] = []

    async def publish(client: Client) -> None:
        for number in range(400):
            await client.publish("kill.event", number, timeout=60)
            published.append(number)

    async def kill() -> None:
        nonlocal broker
        for share in (80, 160, 240):
            while len(published) < share:
                await trio.sleep(0.01)
            brokers.kill(broker)
            broker = await trio.to_thread.run_sync(brokers.start_again, broker)

    with staying_at(broker):
        async with connect(broker.url, token) as client, client.subscribe("kill.*", buffer=10) as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, client)
                nursery.start_soon(kill)
                while len(got) < 400:
                    got.append((await anext(events)).data)
            assert got == list(range(400))
            assert client.statistics().connections > 1


async def test_commands_wait_for_the_broker(brokers: Brokers) -> None:
    broker = brokers.start()
    with staying_at(broker):
        async with connected(broker) as client, trio.open_nursery() as nursery:
            brokers.kill(broker)
            await trio.sleep(0.1)
            nursery.start_soon(client.command, "authenticate", broker.token("ada"))
            await trio.to_thread.run_sync(brokers.start_again, broker)


async def test_what_is_lost_for_good_is_told(brokers: Brokers) -> None:
    broker = brokers.start('[log]\npath = ":memory:"\n')
    with staying_at(broker):
        async with connected(broker) as client, client.subscribe("gap.*") as events:
            broker.publish("gap.1", 1)
            brokers.kill(broker)
            broker = await trio.to_thread.run_sync(brokers.start_again, broker)
            assert await taken(events, 1) == [1]
            with pytest.raises(ResumeGap):
                await taken(events, 1)
            broker.publish("gap.2", 2)
            assert await taken(events, 1) == [2]


async def test_who_may_not_publish_during_an_outage_is_patient(brokers: Brokers) -> None:
    broker = brokers.start()
    with staying_at(broker):
        async with open_publisher(broker.url, broker.token(publish=["**"])) as publisher:
            await publisher.publish("outage.1", 1)
            brokers.kill(broker)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publisher.publish, "outage.2", 2)
                await trio.to_thread.run_sync(brokers.start_again, broker)


# --- When a token expires ---------------------------------------------------------------------------------------------


async def test_a_token_that_expires_is_renewed_without_a_new_connection(open_broker: Broker) -> None:
    asked: list[float] = []

    def token() -> str:
        asked.append(time.time())
        return open_broker.token("ada", exp=time.time() + 1.5)

    async with connect(open_broker.url, token) as client, client.subscribe("expire.*") as events:
        await trio.sleep(4)
        assert len(asked) > 2
        open_broker.publish("expire.1", 1)
        assert await taken(events, 1) == [1]
        assert client.statistics().connections == 1


async def test_where_it_can_t_be_renewed_in_time_the_next_connection_has_a_fresh_one(open_broker: Broker) -> None:
    tokens = iter([open_broker.token("ada", exp=time.time() + 1), "nonsense", open_broker.token("ada")])
    async with connect(open_broker.url, lambda: next(tokens)) as client, client.subscribe("late.*") as events:
        await trio.sleep(1.5)
        open_broker.publish("late.1", 1)
        assert await taken(events, 1) == [1]
        assert client.statistics().connections == 2


async def test_a_fixed_token_ends_the_client(open_broker: Broker) -> None:
    with pytest.raises(Disconnected) as ended:
        async with connect(open_broker.url, open_broker.token("ada", exp=time.time() + 1)) as client:
            await taken(client.subscribe("a"), 1)
    assert ended.value.code == 4003


# --- When a client is slow --------------------------------------------------------------------------------------------


@pytest.mark.longest(90)
async def test_who_reads_slowly_gets_everything_all_the_same(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nqueue_size = 16\n")
    async with connected(broker) as client, client.subscribe("slow.*", buffer=5) as events:
        for number in range(0, 4000, 100):
            batch = [("slow.event", f'[{number + index}, "{LARGE}"]'.encode()) for index in range(100)]
            await trio.to_thread.run_sync(broker.publish_all, batch)
        assert client.statistics().buffered == 5
        eventually(lambda: broker.metric("broker_deliveries_overflowed_total") > 0, "overflow")
        got = [data[0] for data in await taken(events, 4000) if isinstance(data, list)]
        assert got == list(range(4000))
        assert client.statistics().connections > 1
        assert client.statistics().gaps == 0
