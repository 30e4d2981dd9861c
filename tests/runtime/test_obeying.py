"""The broker's own commands, and whose the others are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from trio.testing import wait_all_tasks_blocked

from broker.core.commands import Command
from broker.core.errors import ClientError
from broker.core.http import Request
from broker.core.ports import Identity
from broker.runtime.connection import Connection
from broker.runtime.obeying import answer
from broker.runtime.party import PeerGone
from broker.runtime.registry import Registry
from broker.runtime.services import Application, Arrival, ConnectionLimits
from tests.fakes import Client, Tokens, services, talking


class Full(ClientError):
    """The application takes nothing more."""

    code = "full"


async def no_body(_limit: int) -> bytes:
    return b""


REQUEST = Request("GET", "/ws", {}, [], b"1.1", no_body)


class Noting(Application):
    """An application that notes what it is given, and takes what begins with `mine`."""

    def __init__(self, hears: type[str | bytes] | None = None) -> None:
        self.noted: list[object] = []
        self.postpones: Sequence[str] = ()
        self._hears = hears

    def connected(self, client: Connection) -> None:
        self.noted.append("connected")

    def hear(self, client: Connection, message: str | bytes) -> bool:
        if self._hears is None or not isinstance(message, self._hears):
            return False
        self.noted.append(message)
        return True

    def obey(self, client: Connection, command: Command) -> bool:
        if command.event == "mine.full":
            raise Full("come again")
        return self._take(command)

    def subscribe(self, client: Connection, name: str, command: Command) -> bool:
        return name.startswith("mine") and self._take(command)

    def postpone(self, client: Connection, command: Command) -> bool:
        return command.event in self.postpones and self._take(command)

    def authenticated(self, client: Connection) -> None:
        self.noted.append("authenticated")

    def disconnected(self, client: Connection, code: int, reason: str) -> None:
        self.noted.append((code, reason))

    def _take(self, command: Command) -> bool:
        if command.event.startswith("mine") or command.event in ("subscribe", *self.postpones):
            self.noted.append(command.event)
            return True
        return False


def connect(application: Application | None = None, registry: Registry[Connection] | None = None) -> Connection:
    arrival = None if application is None else Arrival(application, REQUEST)
    house = services(Registry(max_per_user=10) if registry is None else registry, Tokens({"ada": Identity("ada")}))
    return Connection(Identity("ada"), house, ConnectionLimits(), arrival=arrival)


def code(answers: list[dict[str, object]]) -> object:
    (found,) = answers
    return found.get("code")


async def test_a_command_that_nobody_knows_is_told_which_there_are() -> None:
    async with talking(connect()) as client:
        (found,) = await client.say({"event": "what", "id": 1})
    assert found["code"] == "unknown_command"
    assert found["error"].endswith("there are subscribe, unsubscribe, resume, authenticate")


async def test_where_there_is_an_application_its_commands_are_mentioned() -> None:
    async with talking(connect(Noting())) as client:
        (found,) = await client.say({"event": "what", "id": 1})
    assert found["error"].endswith("authenticate and those of the application")


async def test_the_application_s_commands_go_to_it_and_it_answers_them() -> None:
    application = Noting()
    async with talking(connect(application)) as client:
        assert await client.say({"event": "mine", "id": 1}) == []
    assert application.noted == ["connected", "mine", (1000, "bye")]


async def test_what_the_application_refuses_is_answered() -> None:
    async with talking(connect(Noting())) as client:
        assert await client.say({"event": "mine.full", "id": 1}) == [
            {"reply": 1, "error": "come again", "code": "full"}
        ]


async def test_the_application_is_asked_about_subscriptions() -> None:
    application, registry = Noting(), Registry[Connection](max_per_user=10)
    async with talking(connect(application, registry)) as client:
        assert await client.say({"event": "subscribe", "data": "mine.a", "id": 1}) == []
        assert len(await client.say({"event": "subscribe", "data": "a", "id": 2})) == 1
        assert registry.statistics().subscriptions == 1


@pytest.mark.parametrize("event", ["unsubscribe", "resume"])
async def test_what_comes_behind_a_subscription_that_waits_can_wait_too(event: str) -> None:
    application = Noting()
    application.postpones = ["unsubscribe", "resume"]
    async with talking(connect(application)) as client:
        assert await client.say({"event": event, "data": "a", "id": 1}) == []
    assert event in application.noted


async def test_to_authenticate_waits_for_nothing() -> None:
    async with talking(connect(Noting())) as client:
        assert await client.say({"event": "authenticate", "data": "ada", "id": 1}) == [
            {"reply": 1, "data": {"expires_at": None}}
        ]


async def test_what_has_waited_is_carried_out_without_asking_again() -> None:
    application = Noting()
    connection = connect(application)
    async with talking(connection) as client:
        answer(connection, Command("subscribe", "mine.a", 1))
        await wait_all_tasks_blocked()
        assert client.json() == [{"reply": 1, "data": {"pattern": "mine.a"}}]
    assert "subscribe" not in application.noted


@pytest.mark.parametrize("message", ["{", "[]", '{"event": 1}', '{"event": ""}', '{"event": "a", "id": 1.5}'])
async def test_what_is_no_command_never_reaches_the_application(message: str) -> None:
    application = Noting()
    async with talking(connect(application)) as client:
        assert code(await client.say(message)) in ("bad_json", "bad_shape")
    assert application.noted == ["connected", (1000, "bye")]


async def test_a_bad_shape_is_answered_under_its_id() -> None:
    async with talking(connect()) as client:
        (found,) = await client.say({"event": 1, "id": 7})
    assert (found["reply"], found["code"]) == (7, "bad_shape")


# --- Messages as they come -------------------------------------------------------------------------------------------


async def test_messages_that_the_application_hears_are_no_commands() -> None:
    application = Noting(hears=str)
    async with talking(connect(application)) as client:
        assert await client.say({"event": "subscribe", "data": "a", "id": 1}) == []
    assert application.noted[1] == '{"event": "subscribe", "data": "a", "id": 1}'


async def test_bytes_that_the_application_does_not_hear_end_the_connection() -> None:
    async with talking(connect(Noting(hears=str))) as client:
        await client.say(b"\x00")
        assert client.close_code() == 1003


async def test_bytes_that_it_hears_come_to_it_beside_commands() -> None:
    application = Noting(hears=bytes)
    async with talking(connect(application)) as client:
        assert len(await client.say(b"\x00", {"event": "subscribe", "data": "a", "id": 1})) == 1
    assert b"\x00" in application.noted


# --- Coming and going ------------------------------------------------------------------------------------------------


async def test_however_a_connection_ends_the_application_hears_of_it() -> None:
    application = Noting()
    connection = connect(application)

    async def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await connection.run(fail)
    assert application.noted == ["connected", (1011, "")]
    assert connection.ended


async def test_who_has_gone_can_be_subscribed_to_nothing() -> None:
    registry = Registry[Connection](max_per_user=10)
    connection = connect(Noting(), registry)

    async def gone() -> str:
        raise PeerGone(1000)

    await connection.run(gone)
    connection.subscribe("a")
    assert registry.statistics().subscriptions == 0


async def test_one_connection_too_many_never_comes_to_the_application() -> None:
    application, registry = Noting(), Registry[Connection](max_per_user=0)
    connection = connect(application, registry)
    assert await connection.run(Client()._receive) == (1008, "a user may have at most 0 connections at a time")
    assert application.noted == []


async def test_the_application_is_told_of_another_token_and_not_of_a_bad_one() -> None:
    application = Noting()
    async with talking(connect(application)) as client:
        for token in ("nonsense", "ada"):
            await client.say({"event": "authenticate", "data": token, "id": 1})
    assert application.noted == ["connected", "authenticated", (1000, "bye")]
    async with talking(connect()) as client:
        (found,) = await client.say({"event": "authenticate", "data": "ada", "id": 1})
    assert found["data"] == {"expires_at": None}
