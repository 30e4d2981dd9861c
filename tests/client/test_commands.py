"""Commands: each is sent once at most, and its sender hears what became of it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.client import (
    ClientClosed,
    ClientStatistics,
    CommandFailed,
    CommandLost,
    CommandTimedOut,
    Disconnected,
    Options,
    connect,
)
from tests.client.server import FakeBroker
from tests.client.using import URL


async def test_a_command_gives_the_data_of_its_reply(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        assert await client.command("echo", {"text": "hello"}) == {"text": "hello"}
        assert await client.command("echo") is None


async def test_an_error_is_raised_with_its_code(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        with pytest.raises(CommandFailed, match="there is no command 'nonsense'") as failed:
            await client.command("nonsense")
    assert failed.value.code == "unknown_command"


@pytest.mark.parametrize("event", ["subscribe", "unsubscribe", "resume"])
async def test_what_the_client_does_itself_is_no_command(event: str, broker: FakeBroker) -> None:
    async with connect(URL) as client:
        with pytest.raises(ValueError, match="the client's own"):
            await client.command(event, "a")


async def test_data_that_is_no_json_does_no_harm(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        with pytest.raises(TypeError):
            await client.command("echo", object())
        assert await client.command("echo", 1) == 1


async def test_a_command_in_flight_is_lost_with_the_connection_and_never_repeated(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client:
        broker.connection.deaf = True
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(CommandLost):
                    await client.command("echo")

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            broker.connection.reset()
        await trio.sleep(10)
        assert broker.heard()[1:] == [[("resume", "p0")]]


async def test_without_a_connection_a_command_waits_for_one(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client:
        broker.connection.reset()
        await wait_all_tasks_blocked()
        assert await client.command("echo", 1) == 1
        assert trio.current_time() == 0.25


async def test_but_no_longer_than_it_may(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client:
        broker.welcomes = [OSError("no network")] * 100
        broker.connection.reset()
        await wait_all_tasks_blocked()
        with pytest.raises(CommandTimedOut, match="no answer to 'echo' within 5 seconds"):
            await client.command("echo", 1, timeout=5)
        assert trio.current_time() == 5


async def test_where_nothing_is_read_it_says_why_there_was_no_answer(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("**", buffer=1) as events:
        broker.publish("a", "a", "a")
        async for _ in events:
            with pytest.raises(CommandTimedOut, match="a buffer is full, so nothing is read"):
                await client.command("echo")
            break


async def test_an_answer_that_comes_too_late_does_no_harm(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client:
        connection = broker.connection
        connection.deaf = True
        with pytest.raises(CommandTimedOut):
            await client.command("echo", 1, timeout=1)
        connection.say_text('{"reply":2,"data":1}')
        connection.deaf = False
        assert await client.command("echo", 2) == 2


async def test_only_so_many_wait_for_their_answers_at_a_time(broker: FakeBroker) -> None:
    async with connect(URL, options=Options(max_commands=3)) as client, trio.open_nursery() as nursery:
        broker.connection.deaf = True
        for _ in range(10):
            nursery.start_soon(client.command, "echo")
        await wait_all_tasks_blocked()
        assert sum("echo" in message for message in broker.connection.messages) == 3
        nursery.cancel_scope.cancel()


async def test_more_go_out_than_a_broker_takes_only_little_by_little(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL, options=Options(commands_per_second=10)) as client:
        await trio.sleep(100)
        for number in range(30):
            assert await client.command("echo", number) == number
            assert sum("echo" in message for message in broker.connection.messages) == number + 1
        assert trio.current_time() == pytest.approx(102)


async def test_a_command_in_flight_hears_of_the_end(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client, client.subscribe("a"):  # or the block would end
        broker.connection.deaf = True
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Disconnected, match="4004"):
                    await client.command("echo")

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            broker.connection.close(4004)


async def test_after_the_client_s_block_there_are_no_commands(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        pass
    with pytest.raises(ClientClosed):
        await client.command("echo")
    assert client.statistics() == ClientStatistics(False, 1, 0, 0, 0)
