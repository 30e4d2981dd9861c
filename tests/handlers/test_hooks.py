"""Middleware: which hook counts, what it is told, and what becomes of it when it fails."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker import ClientError, Connection, Handlers, Received, Sent, log_error, log_received
from tests.handlers.house import ask, command, running, tell, texts


class Told:
    """Hooks that note what they are told, under a name."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def received(self, name: str) -> Any:
        async def hook(request: Received) -> None:
            self.told.append((name, request.event))

        return hook

    def sent(self, name: str) -> Any:
        async def hook(message: Sent) -> None:
            self.told.append((name, message.content))

        return hook

    def error(self, name: str) -> Any:
        async def hook(error: Exception, request: Received) -> None:
            self.told.append((name, f"{type(error).__name__} in {request.event}"))

        return hook


def application(told: Told) -> Handlers:
    """Three handlers: one with hooks of its own, one with none at all, one that says nothing about it."""
    app = Handlers()
    app.on_message_received(told.received("path"))
    app.on_message_sent(told.sent("path"))
    app.on_error(told.error("path"))
    channel = app.channel("c")
    channel.on_message_received(told.received("channel"))

    async def handler(connection: Connection, data: Any) -> str:
        await connection.send("sent")
        if data == "fail":
            raise ValueError
        return "returned"

    app.on("plain")(handler)
    app.on("none", on_message_received=None, on_message_sent=None, on_error=None)(handler)
    app.on(
        "own",
        on_message_received=told.received("own"),
        on_message_sent=told.sent("own"),
        on_error=told.error("own"),
    )(handler)
    channel.on("plain")(handler)
    channel.on("own", on_message_received=told.received("own"))(handler)
    return app


REPLY = {"reply": "asked", "data": "returned"}


@pytest.mark.parametrize(
    ("event", "data", "expected"),
    [
        ("plain", None, [("path", "plain"), ("path", "sent"), ("path", REPLY)]),
        ("own", None, [("own", "own"), ("own", "sent"), ("own", REPLY)]),
        ("none", None, []),
        ("plain", "fail", [("path", "plain"), ("path", "sent"), ("path", "ValueError in plain")]),
        ("own", "fail", [("own", "own"), ("own", "sent"), ("own", "ValueError in own")]),
        ("none", "fail", []),
        ("c.plain", None, [("channel", "c.plain"), ("path", "sent"), ("path", REPLY)]),
        ("c.own", None, [("own", "c.own"), ("path", "sent"), ("path", REPLY)]),
    ],
)
async def test_the_most_specific_hook_counts_and_none_is_none(
    event: str, data: Any, expected: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()
    async with running(application(told)) as broker:
        client = await broker.join()
        await ask(client, "subscribe", "c")
        await ask(client, event, data)
    assert told.told == expected
    assert caplog.records == []


async def test_the_default_logs_what_came_and_what_failed_and_not_what_was_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Handlers()

    @app.on("a")
    async def handler(connection: Connection, data: Any) -> None:
        await connection.send("sent")
        raise ValueError(data)

    with caplog.at_level(logging.INFO, "broker"):
        async with running(app) as broker:
            await ask(await broker.join("ada"), "a", "private")
    received, failed = caplog.records
    assert (received.getMessage(), vars(received)["user"], vars(received)["command"]) == (
        "message.received",
        "ada",
        "a",
    )
    assert "private" not in str(vars(received))
    assert (failed.getMessage(), failed.exc_info is not None) == ("handler.failed", True)


async def test_hooks_may_wrap_the_default(caplog: pytest.LogCaptureFixture) -> None:
    app = Handlers()

    @app.on_message_received
    async def received(request: Received) -> None:
        await log_received(request)

    @app.on_error
    async def failed(error: Exception, request: Received) -> None:
        await log_error(error, request)

    @app.on("a")
    async def handler() -> None:
        raise ValueError

    with caplog.at_level(logging.INFO, "broker"):
        async with running(app) as broker:
            await ask(await broker.join(), "a")
    assert [record.getMessage() for record in caplog.records] == ["message.received", "handler.failed"]


async def test_several_handlers_of_one_path_have_their_own_hooks_else_each_other_s() -> None:
    told = Told()
    first, second, third = Handlers(), Handlers(), Handlers()

    async def handler() -> None:
        """Nothing to do."""

    for one, name in ((first, "first"), (second, "second")):
        one.on_message_received(told.received(name))
    for one, name in ((first, "first"), (second, "second"), (third, "third")):
        one.on(name)(handler)
    async with running(first, second, third) as broker:
        client = await broker.join()
        for name in ("first", "second", "third"):
            await ask(client, name)
    assert told.told == [("first", "first"), ("second", "second"), ("first", "third")]


class Closed(ClientError):
    """What a hook may say."""

    code = "closed"


@pytest.mark.parametrize(("error", "code"), [(ValueError(), "handler_failed"), (Closed("come later"), "closed")])
async def test_what_a_hook_raises_answers_in_the_place_of_the_handler(error: Exception, code: str) -> None:
    app, told = Handlers(), Told()
    app.on_error(told.error("path"))

    @app.on_message_received
    async def hook(request: Received) -> None:
        raise error

    @app.on("a")
    async def handler() -> None:
        raise NotImplementedError

    async with running(app) as broker:
        assert await ask(await broker.join(), "a") == code
    assert told.told == ([("path", "ValueError in a")] if code == "handler_failed" else [])


async def test_a_hook_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    app = Handlers()

    @app.on_message_received
    async def hook(request: Received) -> None:
        await trio.sleep_forever()

    @app.on("a")
    async def handler() -> None:
        raise NotImplementedError

    async with running(app) as broker:
        begun = trio.current_time()
        assert await ask(await broker.join(), "a") == "handler_timed_out"
        assert trio.current_time() - begun < 11


async def test_a_hook_for_errors_that_fails_itself_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = Handlers()

    @app.on_error
    async def hook(error: Exception, request: Received) -> None:
        raise ZeroDivisionError

    @app.on("a")
    async def handler() -> None:
        raise ValueError

    async with running(app) as broker:
        assert await ask(await broker.join(), "a") == "handler_failed"
    assert [record.getMessage() for record in caplog.records] == ["hook.failed"]


async def test_a_hook_for_what_is_sent_may_send_and_is_not_told_of_that() -> None:
    app, told = Handlers(), Told()

    @app.on_message_sent
    async def hook(message: Sent) -> None:
        told.told.append(("sent", message.content))
        await app.send("copy")

    @app.on_message
    async def handler(connection: Connection, message: str) -> None:
        await connection.send(message)
        await connection.send(message.upper())

    async with running(app) as broker:
        client = await broker.join()
        await tell(client, "a")
    assert texts(client) == ["a", "copy", "A", "copy"]
    assert told.told == [("sent", "a"), ("sent", "A")]


async def test_a_hook_for_what_is_sent_that_fails_is_reported_and_what_is_out_is_out() -> None:
    app, told = Handlers(), Told()
    app.on_error(told.error("path"))

    @app.on_message_sent
    async def hook(message: Sent) -> None:
        raise ZeroDivisionError

    @app.on("sends")
    async def sends(connection: Connection) -> None:
        await connection.send("hello")
        await connection.send("again")

    @app.on("answers")
    async def answers() -> str:
        return "answered"

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "sends") is None
        assert await ask(client, "answers") == "answered"
        assert texts(client)[:2] == ["hello", "again"]
    failed = [("path", f"ZeroDivisionError in {name}") for name in ("sends", "sends", "sends", "answers")]
    assert told.told == failed, "two messages and an answer, and another answer"


async def test_outside_of_handlers_the_hook_of_the_path_is_told(caplog: pytest.LogCaptureFixture) -> None:
    app, counts = Handlers(), []

    @app.on_message_sent
    async def hook(message: Sent) -> None:
        counts.append(message.to)
        if message.content == "bad":
            raise ZeroDivisionError

    async with running(app) as broker:
        await broker.join("ada")
        assert await app.to("ada").send("good") == 1
        assert await app.to("ada").send("bad") == 1
        for each in app.connections:
            await each.send("also good")
    assert counts == [1, 1, 1]
    assert [record.getMessage() for record in caplog.records] == ["hook.failed"]


async def test_it_is_told_how_many_got_a_message() -> None:
    app, counts = Handlers(), []

    @app.on_message_sent
    async def hook(message: Sent) -> None:
        counts.append(message.to)

    @app.on("a")
    async def handler(connection: Connection) -> int:
        return await connection.broadcast("hello")

    async with running(app) as broker:
        client, _, _ = [await broker.join() for _ in range(3)]
        assert await client.say(command("a")) == [{"reply": 1, "data": 2}]
    assert counts == [2, 1]
