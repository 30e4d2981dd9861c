"""What functions of the application raise, however wild, ends nothing of the broker's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio

from broker import ClientError, Handlers, Refused
from broker.handlers.containing import NotAnException, contained
from tests.handlers.house import ask, request, running


class SoldOut(ClientError):
    code = "sold_out"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def raising(error: BaseException) -> Callable[[], Any]:
    def function() -> None:
        raise error

    return function


WILD: dict[str, Callable[[], Any]] = {
    "sys.exit": lambda: sys.exit(3),
    "asyncio": raising(asyncio.CancelledError()),
    "interrupt": raising(KeyboardInterrupt()),
    "group": raising(BaseExceptionGroup("several", [ValueError("x"), KeyboardInterrupt()])),
    "deep": raising(BaseExceptionGroup("one", [BaseExceptionGroup("two", [SystemExit(1)])])),
}


@pytest.mark.parametrize("kind", WILD)
async def test_what_would_end_a_program_answers_like_any_other_failure(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Handlers()

    @app.on("wild")
    async def wild() -> None:
        WILD[kind]()

    @app.on_disconnect
    async def went() -> None:
        WILD[kind]()

    @app.on_message_sent
    async def sent(message: Any) -> None:
        WILD[kind]()

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "wild") == "handler_failed"
        assert await ask(client, "wild") == "handler_failed"
        client.hang_up()
    assert "handler.failed" in caplog.messages


@pytest.mark.parametrize("kind", WILD)
async def test_nobody_gets_in_by_it(kind: str) -> None:
    door = Handlers(path="/door")

    @door.authenticate
    async def authenticate() -> None:
        WILD[kind]()

    async with running(door) as broker:
        assert (await broker.knock(request("/door"))).ending == (1011, "authenticate failed")


async def test_what_is_raised_in_a_nursery_is_what_it_is() -> None:
    app, door = Handlers(), Handlers(path="/door")

    async def sell() -> None:
        raise SoldOut("no more tea")

    async def refuse() -> None:
        raise Refused(4404, "not you")

    @app.on("buy")
    async def buy() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sell)

    @door.authenticate
    async def authenticate() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)

    async with running(app, door) as broker:
        assert await ask(await broker.join(), "buy") == "sold_out"
        assert (await broker.knock(request("/door"))).ending == (4404, "not you")


@pytest.mark.parametrize(("error", "said"), [(Unspeakable(), "Unspeakable"), (ValueError("x" * 5000), "x" * 1000)])
async def test_what_an_exception_says_may_be_anything(error: Exception, said: str) -> None:
    app = Handlers()

    @app.on("fails")
    async def fails() -> None:
        raise error

    @app.on_error
    async def quiet(error: Exception, received: Any) -> None:
        pass

    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "fails") == "handler_failed"
        assert client.json()[-1]["error"] == said


async def exiting() -> None:
    try:
        await trio.sleep_forever()
    finally:
        sys.exit(3)


async def test_cancellation_stays_what_it_is_whatever_comes_with_it() -> None:
    for others in ([trio.sleep_forever], [trio.sleep_forever, exiting]):
        with trio.move_on_after(0) as scope, contained():
            async with trio.open_nursery() as nursery:
                for other in others:
                    nursery.start_soon(other)
        assert scope.cancelled_caught


async def test_what_is_raised_in_the_place_of_cancellation_is_not() -> None:
    with pytest.raises(NotAnException, match="SystemExit: 3"), trio.move_on_after(0), contained():
        await exiting()


def test_exceptions_come_out_as_they_are() -> None:
    several = ExceptionGroup("several", [ValueError("x"), KeyError("y")])
    for error in (ValueError("x"), several):
        with pytest.raises(type(error)) as caught, contained():
            raise error
        assert caught.value is error
