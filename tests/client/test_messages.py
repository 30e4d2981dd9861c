"""What an application sends without being asked: who gets it, and what happens when nobody reads."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.client import ClientClosed, CommandTimedOut, Disconnected, Messages, Options, ResumeGap, connect
from broker.client.messages import MOST_EARLY
from tests.client.server import FakeBroker
from tests.client.using import URL, names, out_of_the_block


async def values(messages: Messages, number: int) -> list[Any]:
    """The next messages."""
    return [await anext(messages) for _ in range(number)]


def say(broker: FakeBroker, *texts: str) -> None:
    """Have the application say this on the latest connection."""
    for text in texts:
        broker.connection.say_text(text)


# --- What comes -------------------------------------------------------------------------------------------------------


async def test_a_message_is_what_its_json_says_or_a_text_or_bytes(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.messages() as messages:
        say(broker, '{"from": "ada"}', "ada nudges you", "[1, null]")
        broker.connection.say_binary(b'{"from": "ada"}')
        say(broker, '{"event": "chat.42.said", "data": 1}', "")
        got = []
        async for message in messages:
            got.append(message)
            if message == "":
                break
    assert got == [
        *({"from": "ada"}, "ada nudges you", [1, None], b'{"from": "ada"}'),
        *({"event": "chat.42.said", "data": 1}, ""),
    ]


async def test_binary_may_come_in_parts_with_texts_behind_it(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.messages() as messages:
        for part, finished in ((b"one ", False), (b"", False), (b"two", True)):
            broker.connection.say_binary(part, finished=finished)
        broker.connection.say_text("three ", finished=False)
        broker.connection.say_text("four", finished=True)
        broker.connection.say_binary(b"five")
        assert await values(messages, 3) == [b"one two", "three four", b"five"]


async def test_who_reads_byte_by_byte_gets_the_same(broker: FakeBroker) -> None:
    broker.pieces = 1
    async with connect(URL) as client, client.messages() as messages:
        say(broker, "grüße")
        broker.connection.say_binary(bytes(range(256)))
        assert await values(messages, 2) == ["grüße", bytes(range(256))]


async def test_an_event_is_no_message_and_a_message_no_event(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.messages() as messages, client.subscribe("**") as events:
        broker.publish("a.1")
        say(broker, '{"event": "a.2", "data": "said"}')
        broker.publish("a.3")
        assert await names(events, 2) == ["a.1", "a.3"]
        assert await values(messages, 1) == [{"event": "a.2", "data": "said"}]
        assert client.statistics().buffered == 0


async def test_each_who_asks_gets_each_message_from_then_on(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.messages() as first:
        say(broker, "1")
        await wait_all_tasks_blocked()
        async with client.messages() as second:
            say(broker, "2", "3")
            assert await values(second, 2) == [2, 3]
        assert await values(first, 3) == [1, 2, 3]


async def test_what_nobody_asked_for_is_dropped(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        say(broker, *["nobody listens"] * 5000)
        broker.connection.say_binary(b"nobody listens")
        broker.publish("a")
        assert await names(events, 1) == ["a"]
        assert client.statistics().buffered == 0
        async with client.messages() as messages:
            say(broker, "somebody does")
            assert await values(messages, 1) == ["somebody does"]


async def test_what_comes_before_an_answer_is_there_when_the_answer_is(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.messages() as messages:
        broker.connection.deaf = True

        async def answer() -> None:
            await wait_all_tasks_blocked()
            command = json.loads(broker.connection.messages[-1])
            say(broker, "first", json.dumps({"reply": command["id"], "data": "then"}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            assert await client.command("greet") == "then"
            assert client.statistics().buffered == 1
        assert await values(messages, 1) == ["first"]


async def test_messages_need_room(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        with pytest.raises(ValueError, match="at least one"):
            client.messages(buffer=0)


# --- Before anybody can ask -------------------------------------------------------------------------------------------


async def test_what_came_while_connecting_goes_to_the_first_who_asks(broker: FakeBroker) -> None:
    broker.model.greeting = ["welcome", '{"event": "chat.welcome", "data": "ada"}']
    async with connect(URL) as client, client.messages() as first, client.messages() as second:
        say(broker, "hello")
        assert await values(first, 3) == ["welcome", {"event": "chat.welcome", "data": "ada"}, "hello"]
        assert await values(second, 1) == ["hello"]


async def test_what_came_between_that_and_the_asking_is_dropped(broker: FakeBroker) -> None:
    broker.model.greeting = ["welcome"]
    async with connect(URL) as client:
        say(broker, "too early")
        await wait_all_tasks_blocked()
        async with client.messages() as messages:
            say(broker, "hello")
            assert await values(messages, 2) == ["welcome", "hello"]


async def test_only_so_much_is_kept_while_nobody_can_ask(broker: FakeBroker) -> None:
    broker.model.greeting = [str(number) for number in range(MOST_EARLY + 10)]
    async with connect(URL) as client, client.messages() as messages:
        say(broker, "hello")
        assert await values(messages, MOST_EARLY + 1) == [*range(MOST_EARLY), "hello"]


async def test_nor_more_than_so_many_bytes(broker: FakeBroker) -> None:
    broker.model.greeting = ["x" * 6, "y" * 6, "z" * 4]
    async with connect(URL, options=Options(buffer_bytes=10)) as client, client.messages() as messages:
        say(broker, "hello")
        assert await values(messages, 3) == ["x" * 6, "z" * 4, "hello"]


# --- How it ends ------------------------------------------------------------------------------------------------------


async def test_who_leaves_a_loop_wants_no_more(broker: FakeBroker) -> None:
    async def leave_after_one(messages: Messages) -> None:
        async for _ in messages:
            break

    async with connect(URL) as client, client.subscribe("**") as events:
        messages = client.messages(buffer=1)
        say(broker, "1", "2", "3")
        await leave_after_one(messages)
        del messages
        gc.collect()
        broker.publish("a")
        assert await names(events, 1) == ["a"]
        assert client.statistics().buffered == 0


async def test_who_waits_for_a_message_is_told_that_it_is_over(broker: FakeBroker) -> None:
    async with connect(URL) as client, trio.open_nursery() as nursery:
        messages = client.messages()

        async def listen() -> None:
            async for _ in messages:
                pytest.fail("nothing is said")

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        await messages.aclose()
        await messages.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(messages)


async def test_after_the_client_s_block_there_are_no_more_messages(broker: FakeBroker) -> None:
    async with connect(URL) as client:
        messages = client.messages()
        say(broker, "hello")
        await wait_all_tasks_blocked()
    assert await values(messages, 1) == ["hello"]  # it had come
    for _ in range(2):
        with pytest.raises(ClientClosed):
            await anext(messages)
    with pytest.raises(ClientClosed):
        client.messages()
    await messages.aclose()


async def test_what_ends_the_client_comes_out_of_the_iterator_behind_what_had_come(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    got: list[Any] = []
    with out_of_the_block(Disconnected, match="4004"):
        async with connect(URL) as client, client.messages() as messages:
            say(broker, "hello")
            broker.connection.close(4004)
            await trio.sleep(1)  # the block is not cut short, since somebody asks for messages
            got += await values(messages, 1)
            await anext(messages)
    assert got == ["hello"]


async def test_messages_are_not_replayed_and_go_on_behind_a_gap(broker: FakeBroker, autojump_clock: MockClock) -> None:
    async with connect(URL) as client, client.messages() as messages, client.subscribe("**") as events:
        say(broker, "1")
        await wait_all_tasks_blocked()
        broker.connection.reset()
        broker.publish("a")
        broker.model.forget()
        await trio.sleep(1)
        say(broker, "2")
        assert await values(messages, 2) == [1, 2]
        with pytest.raises(ResumeGap):
            await anext(events)


async def test_binary_that_is_too_large_ends_the_client(broker: FakeBroker, autojump_clock: MockClock) -> None:
    with out_of_the_block(Disconnected, match="1009 a message has more than 10000 bytes"):
        async with connect(URL, options=Options(max_message_size=10_000)) as client, client.messages() as messages:
            broker.connection.say_binary(b"x" * 10_000)
            for _ in range(2):
                broker.connection.say_binary(b"x" * 6_000, finished=False)
            assert await values(messages, 1) == [b"x" * 10_000]
            await anext(messages)


# --- When nobody reads ------------------------------------------------------------------------------------------------


async def test_when_a_buffer_is_full_the_client_stops_reading(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.messages(buffer=3) as messages:
        say(broker, *map(str, range(100)))
        await wait_all_tasks_blocked()
        read = broker.connection.read
        assert client.statistics().buffered == 3
        say(broker, "100")
        await wait_all_tasks_blocked()
        assert broker.connection.read == read
        assert await values(messages, 101) == list(range(101))


async def test_it_is_bounded_in_bytes_as_well_but_takes_what_is_larger(broker: FakeBroker) -> None:
    async with connect(URL, options=Options(buffer_bytes=10)) as client, client.messages() as messages:
        for _ in range(5):
            broker.connection.say_binary(b"x" * 6)
        broker.connection.say_binary(b"x" * 20)
        await wait_all_tasks_blocked()
        assert client.statistics().buffered == 2
        assert [len(message) for message in await values(messages, 6)] == [*([6] * 5), 20]


async def test_who_does_not_read_holds_up_the_others_until_it_ends(
    broker: FakeBroker, autojump_clock: MockClock
) -> None:
    async with connect(URL) as client, client.subscribe("**") as events:
        full = client.messages(buffer=1)
        say(broker, "1", "2", "3")
        broker.publish("a")
        with trio.move_on_after(1) as impatient:
            await anext(events)
        assert impatient.cancelled_caught
        with pytest.raises(CommandTimedOut, match="a buffer is full, so nothing is read"):
            await client.command("echo")
        await full.aclose()
        assert await names(events, 1) == ["a"]


async def test_a_client_can_be_left_though_nobody_reads(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.messages(buffer=1):
        say(broker, "1", "2", "3")
        await wait_all_tasks_blocked()
    assert broker.connection.closed_with == (1000, "")


async def test_who_is_cancelled_while_it_waits_takes_no_message_with_it(broker: FakeBroker) -> None:
    async with connect(URL) as client, client.messages() as messages:
        for number in range(3):
            with trio.CancelScope() as scope:
                say(broker, str(number))
                scope.cancel()
                await anext(messages)
            assert scope.cancelled_caught
            assert await anext(messages) == number
