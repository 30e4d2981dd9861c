"""Who comes and goes: told by events, learned from them again, and told to the application."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker import Handlers
from broker.core.event import Record
from broker.core.policy import Policy
from broker.core.visibility import Visibility
from broker.handlers.attendance import RELATION, Attendance, Witness
from broker.runtime.calls import Calls
from tests.handlers.house import Published

SHAPES = ("users.<userId>.online", "users.<userId>.offline")


async def published(news: Mapping[str, bool], *shapes: str) -> list[tuple[str, bytes]]:
    door = Published()
    await Attendance(door, *(shapes or SHAPES)).publish(news)
    return [(event.name, event.data) for event in door.events]


async def test_each_user_has_an_event() -> None:
    assert await published({"ada": True, "größer": False}) == [
        ("users.ada.online", b'{"userId":"ada"}'),
        ("users.größer.offline", '{"userId":"größer"}'.encode()),
    ]


@pytest.mark.parametrize("user", ["", "a.b", "a b", "*", "<userId>", "x" * 300, "\ud800", "a,b"])
async def test_a_user_whom_no_event_can_name_is_left_out(user: str) -> None:
    assert await published({user: True, "ada": True}) == [("users.ada.online", b'{"userId":"ada"}')]


async def test_a_user_whose_event_would_be_the_broker_s_own_is_left_out() -> None:
    assert await published({"broker": True}, "<userId>.online", "<userId>.offline") == []


async def test_who_is_online_is_learned_from_the_events() -> None:
    door = Published()
    attendance = Attendance(door, *SHAPES)
    visibility = Visibility(Policy().with_relation(attendance.relation))
    for news in ({"ada": True, "bob": True}, {"ada": False}, {"carol": True}):
        await attendance.publish(news)
    for offset, event in enumerate(door.events, start=1):
        visibility.learn(Record(event, str(offset), offset))
    assert visibility.facts.all_members(RELATION) == {"bob", "carol"}


async def test_the_application_hears_of_each_in_order(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, lines = Handlers(), Handlers(), []

    @first.on_online
    async def online(user: str) -> None:
        await trio.sleep(1)
        lines.append(f"{user} is here")

    @first.on_offline
    async def offline(user: str) -> None:
        lines.append(f"{user} is not")

    @second.on_online
    async def stuck(user: str) -> None:
        await trio.sleep_forever()

    calls = Calls()
    both, other = Witness([first], calls), Witness([second], calls)
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        both.tell({"ada": True})
        await wait_all_tasks_blocked()
        both.tell({"ada": False, "bob": False})
        other.tell({"carol": True})
        await calls.finish()
        nursery.cancel_scope.cancel()
    assert lines == ["bob is not", "ada is here", "ada is not"]
    assert [record.getMessage() for record in caplog.records] == ["presence.hook_failed"]


@pytest.mark.parametrize("flips", range(8))
async def test_of_one_who_comes_and_goes_meanwhile_it_hears_what_it_comes_to(
    flips: int, autojump_clock: MockClock
) -> None:
    app, heard = Handlers(), []

    @app.on_online
    async def online(user: str) -> None:
        heard.append(True)
        await trio.sleep(1)

    @app.on_offline
    async def offline(user: str) -> None:
        heard.append(False)

    calls = Calls()
    witness = Witness([app], calls)
    async with trio.open_nursery() as nursery:
        await nursery.start(calls.run)
        witness.tell({"ada": True})
        await wait_all_tasks_blocked()
        for flip in range(flips):
            witness.tell({"ada": flip % 2 == 1})
        assert calls.waiting() == 1
        await calls.finish()
        nursery.cancel_scope.cancel()
    assert heard == [True] if flips % 2 == 0 else [True, False]
