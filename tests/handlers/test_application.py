"""Which handler answers what, with what it is answered, in which order, and what goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker import ClientError, Connection, Handlers, Received
from broker.handlers.errors import BadHandler
from broker.runtime.calls import MAX_WAITING
from tests.fakes import Client
from tests.handlers.house import BINARY, ask, command, running, tell, texts


@dataclass
class Order:
    drink: str
    cups: int = 1


class SoldOut(ClientError):
    """The application's own."""

    code = "sold_out"


async def refused(client: Client, event: str, data: Any = None) -> Any:
    (found,) = await client.say(command(event, data))
    return found["error"], found["code"]


# --- Which handler ---------------------------------------------------------------------------------------------------


async def test_a_handler_gets_what_it_names() -> None:
    app = Handlers()

    @app.on("chat.<room>.<what>")
    async def handler(room: str, connection: Connection, data: Any, id: int, request: Received, what: str) -> Any:  # noqa: A002
        return [room, what, data, id, connection.user, request.event, request.user, request.id]

    async with running(app) as broker:
        client = await broker.join("ada")
        (found,) = await client.say(command("chat.tea.say", {"a": 1}, 7))
    assert found == {"reply": 7, "data": ["tea", "say", {"a": 1}, 7, "ada", "chat.tea.say", "ada", 7]}


async def test_placeholders_behind_many_segments_are_found_from_the_right() -> None:
    app = Handlers()

    @app.on("files.**.<action>")
    async def handler(action: str) -> str:
        return action

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "files.a.b.c.open") == "open"
        assert await ask(client, "files.open") == "unknown_command"


async def test_the_most_specific_handler_counts_however_they_stand() -> None:
    app, other = Handlers(), Handlers()
    for place, event in ((other, "**"), (app, "a.**"), (app, "<x>.b.<y>"), (other, "a.<x>.c"), (app, "a.b.c")):

        def register(text: str, place: Handlers = place) -> None:
            @place.on(text)
            async def handler() -> str:
                return text

        register(event)
    async with running(app, other) as broker:
        client = await broker.join()
        asked = ["a.b.c", "a.x.c", "a.x", "x.b.y", "z"]
        assert [await ask(client, each) for each in asked] == ["a.b.c", "a.<x>.c", "a.**", "<x>.b.<y>", "**"]


async def test_alternatives_are_answered_by_the_same_handler() -> None:
    app = Handlers()

    @app.on("{open,close}.<door>")
    async def handler(door: str, request: Received) -> Any:
        return [request.event, door]

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "close.front") == ["close.front", "front"]
        assert await ask(client, "shut.front") == "unknown_command"


@pytest.mark.parametrize("events", [("a.<b>", "a.<c>"), ("a", "{a,b}"), ("a.*", "a.<b>")])
async def test_two_handlers_of_one_name_stop_the_start(events: tuple[str, str]) -> None:
    first, second = Handlers(), Handlers(path="/ws")

    async def nothing() -> None:
        raise NotImplementedError

    for place, event in zip((first, second), events, strict=True):
        place.on(event)(nothing)
    with pytest.raises(BadHandler, match="it has two handlers"):
        async with running(first, second):
            pass


async def test_other_paths_have_other_handlers() -> None:
    app, door = Handlers(), Handlers(path="/door")

    @app.on("a")
    async def at_home() -> str:
        return "home"

    @door.on("a")
    async def at_the_door() -> str:
        return "door"

    async with running(app, door) as broker:
        assert await ask(await broker.join(), "a") == "home"
        assert await ask(await broker.join(path="/door"), "a") == "door"


@pytest.mark.parametrize("event", ["what", "a..b", ".", "a" * 10_000, "." * 10_000, "*", "broker.a"])
async def test_what_nobody_answers_is_unknown(event: str) -> None:
    app = Handlers()

    @app.on("a.<b>")
    async def handler() -> None:
        raise NotImplementedError

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, event) == "unknown_command"


async def test_the_broker_s_own_commands_stay_what_they_are() -> None:
    app = Handlers()

    @app.on("<x>")
    async def handler() -> None:
        raise NotImplementedError

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "subscribe", "a.*") == {"pattern": "a.*"}
        assert await ask(client, "unsubscribe", "a.*") == {"pattern": "a.*"}


# --- What is answered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "said"),
    [(None, None), (0, 0), ("a", "a"), ([1], [1]), (Order("tea"), {"drink": "tea", "cups": 1}), ((1, 2), [1, 2])],
)
async def test_what_a_handler_returns_answers_the_command(result: Any, said: Any) -> None:
    app = Handlers()

    @app.on("a")
    async def handler() -> Any:
        return result

    async with running(app) as broker:
        client = await broker.join()
        assert await client.say(command("a")) == [{"reply": 1, "data": said}]


async def test_without_an_id_nothing_is_answered() -> None:
    app = Handlers()

    @app.on("a")
    async def handler() -> Any:
        return object()

    async with running(app) as broker:
        client = await broker.join()
        assert await client.say(command("a", None, None)) == []


@pytest.mark.parametrize("result", [b"bytes", [b"bytes"], object(), float("nan"), "\ud800", {1, object()}, {(1,): 2}])
async def test_what_json_can_t_say_is_a_fault_of_the_handler(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = Handlers()

    @app.on("a")
    async def handler() -> Any:
        return result

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "a") == "handler_failed"
        assert client.ending is None
    assert [record.getMessage() for record in caplog.records] == ["handler.failed"]


async def test_data_of_another_type_never_reach_the_handler() -> None:
    app = Handlers()

    @app.on("order")
    async def handler(data: Order) -> str:
        return f"{data.cups} of {data.drink}"

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "order", {"drink": "tea"}) == "1 of tea"
        assert await refused(client, "order", {"drink": "tea", "cups": "2"}) == (
            "data.cups: an integer is expected, not a text",
            "bad_data",
        )


# --- What goes wrong -------------------------------------------------------------------------------------------------


async def in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, ValueError("from within"))


async def fail(error: Exception) -> None:
    await trio.lowlevel.checkpoint()
    raise error


@pytest.mark.parametrize(
    ("failing", "answered"),
    [
        (lambda: fail(ValueError("what it says")), ("what it says", "handler_failed")),
        (lambda: fail(ZeroDivisionError()), ("ZeroDivisionError", "handler_failed")),
        (lambda: fail(trio.TooSlowError()), ("TooSlowError", "handler_failed")),
        (lambda: fail(SoldOut("no tea")), ("no tea", "sold_out")),
        (in_a_nursery, ("from within", "handler_failed")),
    ],
)
async def test_what_a_handler_raises_answers_and_the_connection_stays(
    failing: Callable[[], Any], answered: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    app = Handlers()

    @app.on("a")
    async def handler() -> None:
        await failing()

    async with running(app) as broker:
        client = await broker.join()
        assert await refused(client, "a") == answered
        assert await client.say(command("a", None, None)) != []
        assert client.ending is None
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert logged == ([] if answered[1] == "sold_out" else ["handler.failed"] * 2)


async def test_a_handler_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    app = Handlers()
    given_up = []

    @app.on("slow")
    async def slow() -> None:
        await wait()

    @app.on("slower", timeout=50)
    async def slower() -> None:
        await wait()

    async def wait() -> None:
        begun = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            given_up.append(trio.current_time() - begun)

    async with running(app, timeout=5) as broker:
        client = await broker.join()
        assert await ask(client, "slow") == "handler_timed_out"
        assert await ask(client, "slower") == "handler_timed_out"
    assert given_up == pytest.approx([5, 50])
    assert "longer than 5 seconds" in texts(client)[0]


async def test_a_handler_s_own_time_out_is_its_own(autojump_clock: MockClock) -> None:
    app = Handlers()

    @app.on("a")
    async def handler() -> str:
        with trio.move_on_after(1):
            await trio.sleep_forever()
        return "moved on"

    async with running(app) as broker:
        assert await ask(await broker.join(), "a") == "moved on"


# --- Order and bounds ------------------------------------------------------------------------------------------------


def taking_turns() -> tuple[Handlers, list[Any]]:
    app, ended = Handlers(), []

    @app.on("wait.<seconds>")
    async def handler(user: str, seconds: str) -> None:
        await trio.sleep(float(seconds))
        ended.append((user, seconds))

    return app, ended


async def test_commands_of_one_connection_are_handled_one_after_the_other(autojump_clock: MockClock) -> None:
    app, ended = taking_turns()
    async with running(app) as broker:
        client = await broker.join()
        client.say_soon(*(command(f"wait.{seconds}") for seconds in (3, 2, 1)))
        await trio.sleep(10)
    assert [seconds for _, seconds in ended] == ["3", "2", "1"]


async def test_those_of_several_are_handled_side_by_side(autojump_clock: MockClock) -> None:
    app, ended = taking_turns()
    async with running(app) as broker:
        (await broker.join("ada")).say_soon(command("wait.3"))
        (await broker.join("bob")).say_soon(command("wait.1"))
        (await broker.join("ada")).say_soon(command("wait.2"))
        await trio.sleep(10)
    assert ended == [("bob", "1"), ("ada", "2"), ("ada", "3")]


async def test_the_broker_s_own_commands_do_not_wait_for_handlers(autojump_clock: MockClock) -> None:
    app, _ = taking_turns()
    async with running(app) as broker:
        client = await broker.join()
        answers = await client.say(command("wait.3"), command("subscribe", "a", 2))
        assert answers == [{"reply": 2, "data": {"pattern": "a"}}]
        await trio.sleep(5)


async def test_too_many_commands_that_wait_are_refused_and_the_others_are_not(autojump_clock: MockClock) -> None:
    app, ended = taking_turns()
    async with running(app) as broker:
        client = await broker.join()
        await client.say(command("wait.1"))
        answers = await client.say(*(command("wait.0", None, number) for number in range(MAX_WAITING + 3)))
        assert [(each["reply"], each["code"]) for each in answers] == [
            (number, "too_many_waiting") for number in range(MAX_WAITING, MAX_WAITING + 3)
        ]
        await trio.sleep(5)
        assert len(ended) == MAX_WAITING + 1


# --- Messages as they come -------------------------------------------------------------------------------------------


async def test_messages_come_as_they_are_and_nothing_is_a_command() -> None:
    app = Handlers()

    @app.on_message
    async def echo(connection: Connection, message: str | bytes) -> None:
        await connection.send(message)

    async with running(app) as broker:
        client = await broker.join()
        await tell(client, "", "{", '{"event": "subscribe", "data": "a", "id": 1}', b"", b"\x00\xff")
        assert texts(client) == ["", "{", '{"event": "subscribe", "data": "a", "id": 1}']
        assert [payload for opcode, payload in client.heard if opcode == BINARY] == [b"", b"\x00\xff"]
        assert broker.registry.statistics().subscriptions == 0


async def test_where_only_bytes_are_wanted_texts_are_commands() -> None:
    app = Handlers()

    @app.on_message
    async def takes(connection: Connection, message: bytes) -> None:
        await connection.send(len(message))

    async with running(app) as broker:
        client = await broker.join()
        assert await client.say(b"\x00\x01") == [2]
        assert await ask(client, "subscribe", "a") == {"pattern": "a"}


async def test_where_only_texts_are_wanted_bytes_end_the_connection() -> None:
    app = Handlers()

    @app.on_message
    async def takes(message: str) -> None:
        raise NotImplementedError

    async with running(app) as broker:
        client = await broker.join()
        await client.say(b"\x00")
        assert client.close_code() == 1003


async def test_texts_and_bytes_may_have_a_handler_each() -> None:
    app = Handlers()

    @app.on_message
    async def text(connection: Connection, message: str) -> None:
        await connection.send("text")

    @app.on_message
    async def binary(connection: Connection, message: bytes) -> None:
        await connection.send("bytes")

    async with running(app) as broker:
        client = await broker.join()
        await tell(client, "a", b"a")
        assert texts(client) == ["text", "bytes"]


async def test_two_handlers_of_the_same_messages_stop_the_start() -> None:
    app = Handlers()

    async def nothing(message: str) -> None:
        raise NotImplementedError

    async def everything() -> None:
        raise NotImplementedError

    app.on_message(nothing)
    app.on_message(everything)
    with pytest.raises(BadHandler, match="one on_message for texts and one for bytes"):
        async with running(app):
            pass


async def test_what_it_raises_is_told_without_an_id() -> None:
    app = Handlers()

    @app.on_message
    async def handler(message: str) -> bytes:
        if message == "bytes":
            return b"what it returns does not matter"
        raise ValueError("no")

    async with running(app) as broker:
        client = await broker.join()
        assert await client.say("x") == [{"error": "no", "code": "handler_failed"}]
        assert await client.say("bytes") == []


async def test_a_flood_of_messages_that_wait_ends_the_connection(autojump_clock: MockClock) -> None:
    app = Handlers()

    @app.on_message
    async def handler() -> None:
        await trio.sleep(1)

    async with running(app) as broker:
        client = await broker.join()
        client.say_soon("first")
        await wait_all_tasks_blocked()
        client.say_soon(*["x"] * (MAX_WAITING + 1))
        await wait_all_tasks_blocked()
        assert client.ending == (1008, "too many messages wait for their handler")
        await trio.sleep(5)


async def test_messages_as_they_come_may_have_a_time_out_and_hooks_of_their_own(autojump_clock: MockClock) -> None:
    app = Handlers()
    seen: list[Any] = []

    async def received(request: Received) -> None:
        seen.append(request.data)

    @app.on_message(timeout=2, on_message_received=received)
    async def slow(message: str) -> None:
        await trio.sleep(float(message))

    async with running(app, timeout=30) as broker:
        client = await broker.join()
        client.say_soon("1", "3")
        await trio.sleep(5)
        assert client.json() == [{"error": "this took longer than 2 seconds", "code": "handler_timed_out"}]
    assert seen == ["1", "3"]


def test_a_time_out_of_messages_is_a_number_of_seconds() -> None:
    with pytest.raises(BadHandler, match="on_message"):
        Handlers().on_message(timeout=0)
