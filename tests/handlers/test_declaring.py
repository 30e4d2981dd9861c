"""What can be registered, and in which words the rest is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from broker import Channel, Connection, Handlers
from broker.handlers.errors import BadHandler
from tests.handlers.house import ask, running

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]

Register = Callable[[Handlers], Any]


async def nothing() -> None:
    """A handler that takes nothing."""


async def any_data(data: Any) -> None:
    """A handler that takes data."""


async def wants_room(room: str) -> None:
    """A handler that takes a placeholder."""


async def positional(data: Any, /) -> None:
    """A handler that does not take its arguments by name."""


async def variadic(*data: Any) -> None:
    """A handler that takes whatever there is."""


async def variadic_by_name(**data: Any) -> None:
    """A handler that takes whatever there is."""


async def of_bytes(data: bytes) -> None:
    """A handler of something that is no JSON."""


async def of_unknown(data: Unknown) -> None:
    """A handler of something that only type checkers know."""


async def says_unknown(connection: Connection, data: int) -> Unknown:
    """A handler whose other types only type checkers know."""


def sync(data: Any) -> None:
    """No coroutine function."""


BAD: list[tuple[Register, str]] = [
    (lambda app: app.on("a")(sync), "must be a coroutine function, `async def`"),  # type: ignore[type-var]
    (lambda app: app.on("a")(wants_room), "takes 'room'; there are connection, data, id, request, user"),
    (lambda app: app.on("a")(positional), "'data' is positional only"),
    (lambda app: app.on("a")(variadic), r"takes \*data"),
    (lambda app: app.on("a")(variadic_by_name), r"takes \*data"),
    (lambda app: app.on("a")(of_bytes), "commands are texts; bytes come to `on_message`"),
    (lambda app: app.on("a")(of_unknown), "Unknown"),
    (lambda app: app.on(nothing), r'nothing: the name of the command is missing: @on\("NAME"\)'),  # type: ignore[arg-type]
    (lambda app: app.on("")(nothing), "a segment is empty"),
    (lambda app: app.on("a..b")(nothing), "a segment is empty"),
    (lambda app: app.on("a b")(nothing), "white space"),
    (lambda app: app.on("a.<b")(nothing), "a placeholder is a whole segment"),
    (lambda app: app.on("a.<b>.<b>")(nothing), "<b> stands twice"),
    (lambda app: app.on("a.<data>")(nothing), "<data> means something else to handlers"),
    (lambda app: app.on("broker.<a>")(nothing), "matched by no wildcard"),
    (lambda app: app.on("subscribe")(nothing), "a command of the broker's own"),
    (lambda app: app.on("{a,resume}")(nothing), "a command of the broker's own"),
    (lambda app: [app.on("a.<b>")(nothing), app.on("a.<c>")(nothing)], "'a.<c>' has a handler already"),
    (lambda app: app.on("a", timeout=0), "the timeout of 'a': 0 is no number of seconds above 0"),
    (lambda app: app.on("a", timeout=-1), "-1 is no number of seconds"),
    (lambda app: app.on("a", timeout="5"), "'5' is no number of seconds"),  # type: ignore[arg-type]
    (lambda app: app.on("a", on_error=sync)(nothing), "middleware must be a coroutine function"),  # type: ignore[arg-type]
    (lambda app: app.on_message_received(sync), "middleware must be a coroutine function"),  # type: ignore[type-var]
    (lambda app: app.on_message_sent(sync), "middleware must be a coroutine function"),  # type: ignore[type-var]
    (lambda app: app.on_error(sync), "middleware must be a coroutine function"),  # type: ignore[type-var]
    (lambda app: app.on_message(any_data), "takes 'data'; there are connection, message, user"),
    (lambda app: app.on_connect(any_data), "takes 'data'; there are connection, user"),
    (lambda app: app.on_disconnect(any_data), "takes 'data'; there are code, connection, reason, user"),
    (lambda app: app.authenticate(any_data), "takes 'data'; there are request"),
    (lambda app: app.on_online(any_data), "takes 'data'; there are user"),
    (lambda app: [app.on_connect(nothing), app.on_connect(nothing)], "is there for this already"),
    (lambda app: [app.authenticate(nothing), app.authenticate(nothing)], "is there for this already"),
    (lambda app: app.channel("a.*"), "has literals and placeholders only"),
    (lambda app: app.channel("a.**"), "has literals and placeholders only"),
    (lambda app: app.channel("{a,b}"), "has literals and placeholders only"),
    (lambda app: app.channel("a.<to>"), "<to> means something else"),
    (lambda app: app.channel("a.<event>"), "<event> means something else"),
    (lambda app: [app.channel("a.<b>"), app.channel("a.<c>")], "there is such a channel already"),
    (lambda app: app.channel("a.<b>").on("<b>")(nothing), "<b> stands twice"),
    (lambda app: app.channel("a").authorize(any_data), "takes 'data'; there are connection, user"),
    (lambda app: Handlers(path="ws"), "is no path"),
    (lambda app: Handlers(path="/ws/"), "is no path"),
    (lambda app: Handlers(path="/<room"), "is no path"),
    (lambda app: Handlers(heartbeat=-1), "heartbeat: -1 is no number of seconds"),
    (lambda app: Handlers(heartbeat_timeout=-1), "heartbeat_timeout: -1 is no number of seconds"),
]


@pytest.mark.parametrize(("register", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_what_is_wrong_is_said_when_it_is_registered(register: Register, complaint: str) -> None:
    with pytest.raises(BadHandler, match=complaint):
        register(Handlers())


def test_decorators_give_functions_back_as_they_are() -> None:
    app = Handlers()
    channel = app.channel("c")
    assert app.on("a")(nothing) is nothing
    assert app.on_message(nothing) is nothing
    assert app.on_connect(nothing) is nothing
    assert app.on_disconnect(nothing) is nothing
    assert app.authenticate(nothing) is nothing
    assert app.on_online(nothing) is nothing
    assert app.on_offline(nothing) is nothing
    assert channel.authorize(nothing) is nothing
    assert app.on_error(None) is None


async def test_other_types_than_that_of_the_data_need_not_be_known() -> None:
    app = Handlers()
    app.on("a")(says_unknown)
    async with running(app) as broker:
        assert await ask(await broker.join(), "a", 1) is None
        assert await ask(await broker.join(), "a", "1") == "bad_data"


async def test_what_is_filled_in_beforehand_and_methods_can_be_handlers() -> None:
    class Counting:
        async def count(self, data: int) -> int:
            return data + 1

    async def add(much: int, data: int) -> int:
        return much + data

    app = Handlers()
    app.on("count")(Counting().count)
    app.on("add")(partial(add, much=10))
    async with running(app) as broker:
        client = await broker.join()
        assert await ask(client, "count", 1) == 2
        assert await ask(client, "add", 1) == 11
        assert await ask(client, "add", "1") == "bad_data"


async def test_what_has_a_default_and_is_not_there_keeps_it() -> None:
    app = Handlers()

    @app.on("a")
    async def handler(data: int = 7, other: str = "kept") -> Any:
        return [data, other]

    async with running(app) as broker:
        assert await ask(await broker.join(), "a", 1) == [1, "kept"]


# --- The names of channels -------------------------------------------------------------------------------------------


def test_a_channel_s_name_is_made_from_its_placeholders() -> None:
    channel = Handlers().channel("teams.<team>.desk.<desk>")
    assert channel.name(team="red", desk="1") == "teams.red.desk.1"


@pytest.mark.parametrize("placeholders", [{}, {"room": "1", "more": "2"}, {"other": "1"}])
def test_other_placeholders_than_it_has_are_refused(placeholders: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="needs room"):
        Handlers().channel("chat.<room>").name(**placeholders)


def test_a_channel_without_placeholders_wants_none() -> None:
    channel: Channel = Handlers().channel("lobby")
    assert channel.name() == "lobby"
    with pytest.raises(ValueError, match="needs no placeholders"):
        channel.name(room="1")


# --- Outside of a broker ---------------------------------------------------------------------------------------------


async def test_where_no_broker_runs_nothing_can_be_done() -> None:
    app = Handlers()
    with pytest.raises(RuntimeError, match="no broker that runs"):
        await app.to("ada").send("hello")
    with pytest.raises(RuntimeError, match="no broker that runs"):
        app.is_online("ada")


async def test_outside_of_a_handler_nobody_is_the_caller() -> None:
    app = Handlers()
    async with running(app):
        with pytest.raises(RuntimeError, match="use to"):
            await app.send("hello")
