"""What ends a client for good, and how its user hears of it: as one plain error, wherever it comes out."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.client import Client, Disconnected, Refused, connect
from tests.client.server import Closing, FakeBroker, Refusal, Welcome
from tests.client.using import URL, names, out_of_the_block


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 4001, 4002, 4003, 4004])
async def test_some_codes_are_the_end(code: int, broker: FakeBroker, autojump_clock: MockClock) -> None:
    with out_of_the_block(Disconnected) as ended:
        async with connect(URL, "t") as client, client.subscribe("**") as events:
            broker.publish("a.1")
            broker.connection.close(code, "for a reason")
            assert await names(events, 1) == ["a.1"]  # what has come is still given out
            await anext(events)
    assert (ended.value.code, ended.value.reason) == (code, "for a reason")
    assert len(broker.times) == 1


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 426])
async def test_so_are_some_refusals(status: int, broker: FakeBroker, autojump_clock: MockClock) -> None:
    with out_of_the_block(Refused) as refused:
        async with connect(URL) as client, client.subscribe("**") as events:
            broker.welcomes = [Refusal(status)]
            broker.connection.hang_up()
            await anext(events)
    assert refused.value.status == status


@pytest.mark.parametrize("welcome", [Closing(4004), Refusal(403)])
async def test_the_end_is_told_to_each_who_asks(
    welcome: Welcome, broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client:
        events = client.subscribe("**")
        broker.welcomes = [welcome]
        broker.connection.hang_up()
        for _ in range(2):
            with pytest.raises((Disconnected, Refused)):
                await anext(events)
        with pytest.raises((Disconnected, Refused)):
            await client.command("echo")
        with pytest.raises((Disconnected, Refused)):
            client.subscribe("a")
        assert not client.statistics().connected


async def test_where_nobody_listens_it_comes_out_of_the_block(broker: FakeBroker, autojump_clock: MockClock) -> None:
    with out_of_the_block(Disconnected, match="4004"):
        async with connect(URL):
            broker.connection.close(4004)
            await trio.sleep_forever()


async def listen(client: Client, pattern: str) -> None:
    async for _ in client.subscribe(pattern):
        pass


async def test_it_comes_out_plain_of_the_user_s_own_nurseries(broker: FakeBroker, autojump_clock: MockClock) -> None:
    with out_of_the_block(Disconnected, match="4004"):
        async with connect(URL) as client, trio.open_nursery() as nursery:
            nursery.start_soon(listen, client, "a")
            nursery.start_soon(listen, client, "b")
            await wait_all_tasks_blocked()
            broker.connection.close(4004)


async def test_it_may_be_caught_inside(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client:
        broker.connection.close(4004)
        with pytest.raises(Disconnected):
            await listen(client, "a")
        await trio.sleep(1)


@pytest.mark.parametrize(
    "error", [ValueError(), KeyboardInterrupt(), ExceptionGroup("two", [ValueError(), TypeError()])]
)
async def test_what_the_user_raises_comes_out_as_it_is(error: BaseException, broker: FakeBroker) -> None:
    with out_of_the_block(type(error)) as raised:
        async with connect(URL):
            raise error
    assert raised.value is error
    assert broker.connection.closed_with == (1000, "")


async def test_what_else_went_wrong_beside_the_end_is_not_hidden(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("the user's own")

    with out_of_the_block(ExceptionGroup) as raised:
        async with connect(URL) as client, trio.open_nursery() as nursery:
            nursery.start_soon(listen, client, "a")
            nursery.start_soon(fail_late)
            await wait_all_tasks_blocked()
            broker.connection.close(4004)
    assert raised.group_contains(ValueError)
    assert raised.group_contains(Disconnected)


async def test_a_fault_of_ours_is_told_to_those_who_wait(
    broker: FakeBroker, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with out_of_the_block(ZeroDivisionError):
        async with connect(URL) as client, client.subscribe("**") as events:
            monkeypatch.setattr("broker.client.session.Session.received", fail)
            broker.publish("a.1")
            await anext(events)
