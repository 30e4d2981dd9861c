"""The command `resume`: what it takes, what it answers and when, and what becomes of it when the connection ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.commands import MAX_ID_LENGTH
from broker.core.errors import BrokerError, Close, LogGap, LogUnavailable
from broker.core.forms import IDENTIFIED, PLAIN, SERVER_SENT, Form
from broker.core.ports import Identity
from broker.runtime.connection import Connection
from broker.runtime.outbox import QueueLimits
from broker.runtime.registry import Registry
from broker.runtime.services import ConnectionLimits, Resumed
from tests.fakes import Client, Tokens, services, talking

LOST = LogGap("what you have missed is gone")


class Resumer:
    """Resumes nobody until it is told to."""

    def __init__(self) -> None:
        self.places: list[str | None] = []
        self.scopes: list[trio.CancelScope] = []
        self.failure: BrokerError | None = None
        self.refreshed = 0
        self._resumed: Resumed | None = None

    def start(self, connection: Connection, place: str | None, resumed: Resumed) -> trio.CancelScope:
        if self.failure is not None:
            raise self.failure
        self.places.append(place)
        self.scopes.append(trio.CancelScope())
        self._resumed = resumed
        return self.scopes[-1]

    def refresh(self, connection: Connection) -> None:
        self.refreshed += 1

    def tell(self, outcome: str | BrokerError) -> None:
        assert self._resumed is not None
        self._resumed(outcome)


class House:
    """One connection, and who resumes it."""

    def __init__(self, form: Form = PLAIN) -> None:
        self.resumer = Resumer()
        self.registry: Registry[Connection] = Registry(max_per_user=1)
        tokens = Tokens({"fresh": Identity("ada")})
        limits = ConnectionLimits(queue=QueueLimits(frames=100))
        self.connection = Connection(Identity("ada"), services(self.registry, tokens, self.resumer), limits, form)

    async def told(self, client: Client, outcome: str | BrokerError) -> list[Any]:
        """What the client hears when it has been resumed."""
        known = len(client.json())
        self.resumer.tell(outcome)
        await wait_all_tasks_blocked()
        return client.json()[known:]


def resume(place: object = None, **more: object) -> dict[str, Any]:
    return {"event": "resume", "data": place, **more}


@pytest.mark.parametrize("place", [None, "x", "", "é" * MAX_ID_LENGTH])
async def test_a_place_is_an_id_or_nothing(place: str | None) -> None:
    house = House()
    async with talking(house.connection) as client:
        assert await client.say(resume(place, id=1)) == []
        assert house.resumer.places == [place]


@pytest.mark.parametrize("place", [0, 1.5, True, [], ["x"], {}, {"id": "x"}, "x" * (MAX_ID_LENGTH + 1)])
async def test_what_is_no_place_is_refused(place: object) -> None:
    house = House()
    async with talking(house.connection) as client:
        [answer] = await client.say(resume(place, id=1))
        assert (answer["reply"], answer["code"], house.resumer.places) == (1, "bad_shape", [])


async def test_a_resume_without_data_is_one_from_now_on() -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say({"event": "resume"})
        assert house.resumer.places == [None]


@pytest.mark.parametrize("command_id", [0, "", "x"])
async def test_the_answer_is_the_position_and_comes_when_it_has_resumed(command_id: str | int) -> None:
    house = House()
    async with talking(house.connection) as client:
        before = await client.say(resume("x", id=command_id))
        assert (before, await house.told(client, "p")) == ([], [{"reply": command_id, "data": {"id": "p"}}])


async def test_without_an_id_a_resume_that_goes_well_is_silent() -> None:
    house = House()
    async with talking(house.connection) as client:
        assert [*await client.say(resume("x")), *await house.told(client, "p")] == []


@pytest.mark.parametrize("more", [{}, {"id": 1}])
async def test_a_resume_that_fails_is_told_with_and_without_an_id(more: dict[str, int]) -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say(resume("x", **more))
        reply = {"reply": 1} if more else {}
        assert await house.told(client, LOST) == [{**reply, "error": str(LOST), "code": "resume_gap"}]


async def test_a_resume_that_fails_leaves_the_connection_open() -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say(resume("x"))
        await house.told(client, LogUnavailable("the log is gone"))
        assert client.close_code() is None


async def test_another_resume_is_refused_until_the_first_one_is_done() -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say(resume("x", id=1))
        [refused] = await client.say(resume("y", id=2))
        assert (refused["reply"], refused["code"], house.resumer.places) == (2, "resume_in_progress", ["x"])


@pytest.mark.parametrize("outcome", ["p", LOST])
async def test_another_resume_is_taken_once_the_first_one_is_done(outcome: str | BrokerError) -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say(resume("x", id=1))
        await house.told(client, outcome)
        await client.say(resume("y", id=2))
        assert house.resumer.places == ["x", "y"]


async def test_a_resume_that_was_refused_is_not_in_progress() -> None:
    house = House()
    async with talking(house.connection) as client:
        house.resumer.failure = LogUnavailable("nobody can resume yet")
        [refused] = await client.say(resume("x", id=1))
        house.resumer.failure = None
        await client.say(resume("y", id=2))
        assert (refused["code"], house.resumer.places) == ("log_unavailable", ["y"])


async def test_other_commands_are_answered_meanwhile() -> None:
    house = House()
    async with talking(house.connection) as client:
        answers = await client.say(
            resume("x", id=1),
            {"event": "subscribe", "data": "a", "id": 2},
            {"event": "unsubscribe", "data": "a", "id": 3},
            {"event": "authenticate", "data": "fresh", "id": 4},
        )
        assert [answer["reply"] for answer in answers] == [2, 3, 4]


async def test_a_resume_is_cancelled_when_the_client_goes() -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say(resume("x"))
        client.hang_up()
        await wait_all_tasks_blocked()
        assert house.resumer.scopes[0].cancel_called


async def test_a_resume_is_cancelled_when_the_connection_is_closed() -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say(resume("x"))
        house.connection.close(Close.DISCONNECTED)
        await wait_all_tasks_blocked()
        assert (house.resumer.scopes[0].cancel_called, client.close_code()) == (True, Close.DISCONNECTED)


async def test_a_resume_that_is_done_is_not_cancelled_any_more() -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say(resume("x"))
        await house.told(client, "p")
    assert not house.resumer.scopes[0].cancel_called


async def test_a_resume_that_is_done_after_the_end_tells_nobody() -> None:
    house = House()
    async with talking(house.connection) as client:
        await client.say(resume("x", id=1))
        client.hang_up()
        await wait_all_tasks_blocked()
        assert await house.told(client, "p") == []


# Ids.


async def test_events_have_ids_once_the_connection_is_identified() -> None:
    connection = House().connection
    connection.identify()
    assert connection.form is IDENTIFIED


async def test_a_connection_of_another_form_keeps_it() -> None:
    connection = House(SERVER_SENT).connection
    connection.identify()
    assert connection.form is SERVER_SENT


# Who only listens.


async def listen(house: House, nursery: trio.Nursery) -> None:
    """A client that has said that it resumes, and says no more."""

    async def receive() -> str:
        if not house.resumer.places:
            await trio.lowlevel.checkpoint()
            return '{"event": "resume", "data": "x"}'
        await trio.sleep_forever()
        raise AssertionError

    nursery.start_soon(house.connection.run, receive)
    await wait_all_tasks_blocked()


@pytest.mark.parametrize(("outcome", "stays"), [(LOST, True), (LogUnavailable("gone"), False), ("p", True)])
async def test_who_only_listens_is_closed_to_try_again_when_the_log_fails(
    outcome: str | BrokerError, stays: bool
) -> None:
    house = House(SERVER_SENT)
    async with trio.open_nursery() as nursery:
        await listen(house, nursery)
        house.resumer.tell(outcome)
        await wait_all_tasks_blocked()
        assert (len(house.registry) == 1) is stays
        nursery.cancel_scope.cancel()


async def test_who_only_listens_is_given_a_fresh_position_now_and_then() -> None:
    house = House(SERVER_SENT)
    house.connection.ping()
    assert (house.resumer.refreshed, house.connection.pinged_at) == (1, None)


async def test_who_is_held_before_it_has_patterns_gets_nothing_live() -> None:
    house = House()
    async with talking(house.connection) as client:
        house.connection.hold()
        await client.say({"event": "subscribe", "data": "a"})
        assert (len(house.registry.patterns), len(house.registry.held)) == (0, 1)
