"""The examples that have handlers, chat, channels and game_lobby, each with real connections."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

from examples.showing import Shown, shown
from examples.stage import Client, connected

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent
APPLICATIONS = ["chat", "channels", "game_lobby"]


@pytest.fixture(scope="module")
def chat() -> Iterator[Shown]:
    with shown(ROOT / "examples" / "chat") as app:
        yield app


@pytest.fixture(scope="module")
def channels() -> Iterator[Shown]:
    with shown(ROOT / "examples" / "channels") as app:
        yield app


@pytest.fixture
def lobby() -> Iterator[Shown]:
    """One of its own for each test: who sits where is kept in it."""
    with shown(ROOT / "examples" / "game_lobby") as app:
        yield app


@asynccontextmanager
async def together(*clients: AbstractAsyncContextManager[Client]) -> AsyncIterator[list[Client]]:
    """Connect all of them, one after the other, for the length of the block."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client) for client in clients]


def token(app: Shown, **claims: object) -> str:
    """As `broker token` makes it."""
    secret = (app.broker.folder / ".broker" / "jwt.secret").read_text().strip()
    return jwt.encode(claims, secret, algorithm="HS256")


async def done(client: Client, name: str, data: object = None) -> Any:
    """What the answer says; it is no error."""
    answer = await client.command(name, data)
    assert "error" not in answer, answer
    return answer["data"]


async def refused(client: Client, name: str, data: object = None) -> str:
    """The code of the answer, which is an error."""
    code: str = (await client.command(name, data))["code"]
    return code


async def told(client: Client, event: str) -> Any:
    """The data of the next message, which is this one."""
    message = await client.message()
    assert message["event"] == event, message
    return message["data"]


# The chat


def chatting(chat: Shown, user: str) -> AbstractAsyncContextManager[Client]:
    return connected(chat.broker, token(chat, sub=user))


async def test_what_is_said_in_a_room_goes_to_all_who_are_in_it(chat: Shown) -> None:
    async with together(*(chatting(chat, user) for user in ("ada", "bob", "carol"))) as (ada, bob, carol):
        assert await done(ada, "rooms.garden.enter") == []
        await done(bob, "rooms.garden.enter")
        await done(bob, "rooms.garden.say", {"text": "hello"})
        assert await told(ada, "rooms.garden.entered") == {"user": "bob"}
        assert await told(ada, "rooms.garden.said") == {"user": "bob", "text": "hello"}
        assert await told(bob, "rooms.garden.said") == {"user": "bob", "text": "hello"}
        assert await done(carol, "rooms.garden.enter") == [{"user": "bob", "text": "hello"}]
        assert await told(ada, "rooms.garden.entered") == {"user": "carol"}  # and nothing came to her before


async def test_a_room_is_left_by_the_command_and_by_the_end_of_the_connection(chat: Shown) -> None:
    async with together(*(chatting(chat, user) for user in ("ada", "carol"))) as (ada, carol):
        await done(ada, "rooms.hall.enter")
        await done(carol, "rooms.hall.enter")
        async with chatting(chat, "bob") as bob:
            await done(bob, "rooms.hall.enter")
            await done(carol, "rooms.hall.leave")
        assert await told(ada, "rooms.hall.entered") == {"user": "carol"}
        assert await told(ada, "rooms.hall.entered") == {"user": "bob"}
        assert await told(ada, "rooms.hall.left") == {"user": "carol"}
        assert await told(ada, "rooms.hall.left") == {"user": "bob"}


async def test_bad_texts_and_closed_rooms_are_answered_with_codes(chat: Shown) -> None:
    async with chatting(chat, "ada") as ada:
        assert await refused(ada, "rooms.attic.say", {"text": "hello"}) == "not_in_room"
        await done(ada, "rooms.attic.enter")
        for data in ("hello", {"text": 1}, {"text": ""}, {"text": "hello", "colour": "red"}):
            assert await refused(ada, "rooms.attic.say", data) == "bad_data"


async def test_a_whisper_reaches_every_device_of_both(chat: Shown) -> None:
    async with together(*(chatting(chat, user) for user in ("bob", "bob", "ada", "ada", "carol"))) as (
        bob,
        phone,
        ada,
        tablet,
        carol,
    ):
        assert await done(bob, "users.ada.whisper", {"text": "psst"}) == {"online": True}
        for device in (bob, phone, ada, tablet):
            assert await told(device, "whispered") == {"user": "bob", "to": "ada", "text": "psst"}
        await done(bob, "users.carol.whisper", {"text": "you too"})
        assert (await told(carol, "whispered"))["text"] == "you too"
        assert await done(bob, "users.nobody.whisper", {"text": "psst"}) == {"online": False}


async def test_who_comes_and_goes_is_seen_once_however_many_devices_there_are(chat: Shown) -> None:
    async with chatting(chat, "ada") as ada:
        await done(ada, "subscribe", "users.dora.*")
        async with chatting(chat, "dora"), chatting(chat, "dora") as second:
            assert await told(ada, "users.dora.online") == {"userId": "dora"}
            assert "dora" in await done(second, "who")
        assert await told(ada, "users.dora.offline") == {"userId": "dora"}
        assert "dora" not in await done(ada, "who")


# Channels


def at_desk(channels: Shown, user: str, *teams: str, muted: bool = False) -> AbstractAsyncContextManager[Client]:
    return connected(channels.broker, token(channels, sub=user, teams=teams, muted=muted))


async def test_only_members_of_the_team_get_onto_its_channels(channels: Shown) -> None:
    async with at_desk(channels, "ada", "red") as ada:
        await done(ada, "subscribe", "teams.red.desks.news")
        assert await refused(ada, "subscribe", "teams.blue.desks.news") == "not_authorized"
        assert await refused(ada, "teams.blue.desks.news.post", {"text": "hello"}) == "not_authorized"
        assert await refused(ada, "teams.red.desks.sports.post", {"text": "hello"}) == "not_authorized"  # is not there
        assert await refused(ada, "subscribe", "inboxes.bob") == "not_authorized"


async def test_a_post_reaches_all_on_the_channel_the_sender_too(channels: Shown) -> None:
    async with together(
        *(at_desk(channels, *who) for who in (("ada", "red", "blue"), ("bob", "blue"), ("carol", "red")))
    ) as (ada, bob, carol):
        for client, name in ((ada, "blue"), (ada, "red"), (bob, "blue"), (carol, "red")):
            await done(client, "subscribe", f"teams.{name}.desks.news")
        assert await done(bob, "teams.blue.desks.news.post", {"text": "hello"}) == 2
        for client in (ada, bob):
            assert await told(client, "teams.blue.desks.news.posted") == {"user": "bob", "text": "hello"}
        await done(carol, "teams.red.desks.news.post", {"text": "ours"})
        assert (await told(carol, "teams.red.desks.news.posted"))["text"] == "ours"  # and nothing came to her before


async def test_a_question_goes_to_one_user_where_they_are_on_the_channel(channels: Shown) -> None:
    async with together(*(at_desk(channels, user, "red") for user in ("ada", "ada", "ada", "bob"))) as (
        ada,
        tab,
        elsewhere,
        bob,
    ):
        for client in (ada, tab, bob):
            await done(client, "subscribe", "teams.red.desks.news")
        assert await done(bob, "teams.red.desks.news.ask.ada", {"text": "when?"}) == 2
        assert await done(bob, "notices.ada", {"text": "look"}) == {"inboxes": 0, "devices": 3}
        for client in (ada, tab):
            assert await told(client, "teams.red.desks.news.asked") == {"user": "bob", "text": "when?"}
            assert await told(client, "hint") == "bob has written to you"
        assert await told(elsewhere, "hint") == "bob has written to you"


async def test_a_draft_is_confirmed_to_the_connection_that_saved_it(channels: Shown) -> None:
    async with together(*(at_desk(channels, "ada", "red") for _ in range(2))) as (ada, tab):
        for client in (ada, tab):
            await done(client, "subscribe", "teams.red.desks.news")
        await done(ada, "teams.red.desks.news.save", {"text": "dear all"})
        await done(tab, "teams.red.desks.news.save", {"text": "dear"})
        for client in (ada, tab):
            assert await told(client, "teams.red.desks.news.saved") == {"drafts": 1}


async def test_the_middleware_of_a_channel_refuses_the_muted_there_and_nowhere_else(channels: Shown) -> None:
    async with at_desk(channels, "eve", "red", muted=True) as eve:
        await done(eve, "subscribe", "teams.red.desks.news")
        assert await refused(eve, "teams.red.desks.news.post", {"text": "hello"}) == "muted"
        await done(eve, "subscribe", "inboxes.eve")
        assert await done(eve, "notices.eve", {"text": "note to self"}) == {"inboxes": 1, "devices": 1}
        assert (await told(eve, "inboxes.eve.noticed"))["text"] == "note to self"


async def test_events_of_a_team_need_no_code(channels: Shown) -> None:
    async with together(*(at_desk(channels, *who) for who in (("ada", "red"), ("bob", "blue")))) as (ada, bob):
        for client in (ada, bob):
            await done(client, "subscribe", "teams.*.members.*.*")
        names = ["teams.red.members.zoe.joined", "teams.blue.members.zoe.left"]
        await channels.broker.publish([{"event": name} for name in names], token(channels, publish=["teams.**"]))
        assert await told(ada, names[0]) is None
        assert await told(bob, names[1]) is None


# The game lobby


def guest(lobby: Shown, query: str) -> AbstractAsyncContextManager[Client]:
    return connected(lobby.broker, path=f"/lobby?{query}")


@pytest.mark.parametrize(
    ("query", "ending"),
    [
        ("", (4401, "say who you are")),
        ("name=x%20y", (4402, "a name is up to 20 letters")),
        ("name=Ada", (4409, "there is a Ada already")),
    ],
)
async def test_the_application_closes_with_codes_of_its_own(lobby: Shown, query: str, ending: tuple[int, str]) -> None:
    async with guest(lobby, "name=Ada") as ada:
        await told(ada, "welcome")
        async with guest(lobby, query) as client:
            assert await client.ending() == ending


async def test_of_many_who_come_at_once_under_one_name_one_gets_in(lobby: Shown) -> None:
    outcomes: list[str | int] = []
    decided = trio.Event()

    async def come() -> None:
        async with guest(lobby, "name=Ada") as client:
            try:
                outcomes.append((await client.message())["event"])
            except ConnectionClosed as closed:
                outcomes.append(closed.reason.code if closed.reason else 0)
            if len(outcomes) == 20:
                decided.set()
            await decided.wait()

    os.kill(lobby.broker.pid, signal.SIGSTOP)  # until all handshakes are there
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(come)
            await wait_all_tasks_blocked(0.1)
            os.kill(lobby.broker.pid, signal.SIGCONT)
    finally:
        os.kill(lobby.broker.pid, signal.SIGCONT)
    assert Counter(outcomes) == {"welcome": 1, 4409: 19}


async def test_a_name_is_free_again_when_who_had_it_has_gone(lobby: Shown) -> None:
    async with guest(lobby, "name=Bob") as bob:
        await told(bob, "welcome")
        for _ in range(3):
            async with guest(lobby, "name=Ada") as ada:
                await told(ada, "welcome")
                await done(ada, "tables.1.sit")
                async with guest(lobby, "name=Ada") as other:  # who is refused takes neither the name nor the seat
                    assert (await other.ending())[0] == 4409
                assert await done(bob, "tables.1.watch") == ["Ada"]
            for event in ("lobby.came", "tables.1.players", "tables.1.players", "lobby.went"):
                await told(bob, event)


async def test_who_has_chosen_a_name_gets_nothing_that_is_for_a_user_of_that_name(lobby: Shown) -> None:
    publisher = token(lobby, publish=["users.*.messages"])
    async with together(connected(lobby.broker, token(lobby, sub="Ada")), guest(lobby, "name=Ada")) as (user, player):
        await told(player, "welcome")
        for name, client in (("Ada", user), ("player:Ada", player)):
            sent = {"for": name}
            assert await trio.to_thread.run_sync(send, lobby, name, sent, publisher) == {"connections": 1}
            assert await client.message() == sent


async def test_two_play_and_a_third_one_watches(lobby: Shown) -> None:
    async with together(*(guest(lobby, f"name={name}") for name in ("Ada", "Bob", "Carol"))) as (ada, bob, carol):
        await done(ada, "tables.1.sit")
        await done(bob, "tables.1.sit")
        assert await done(carol, "tables.1.watch") == ["Ada", "Bob"]
        assert await refused(carol, "tables.1.sit") == "against_the_rules"
        assert await refused(carol, "tables.9.sit") == "against_the_rules"
        assert await refused(carol, "tables.1.show", "well") == "bad_data"
        await done(ada, "tables.1.show", "rock")
        await done(bob, "tables.1.show", "paper")
        ended = {"shown": {"Ada": "rock", "Bob": "paper"}, "winner": "Bob"}
        assert [await carol.message() for _ in range(5)][1:] == [
            {"event": "tables.1.players", "data": ["Ada"]},
            {"event": "tables.1.players", "data": ["Ada", "Bob"]},
            {"event": "tables.1.thinks", "data": "Ada"},
            {"event": "tables.1.ended", "data": ended},
        ]


async def test_who_goes_leaves_the_table_and_the_others_hear_why(lobby: Shown) -> None:
    async with guest(lobby, "name=Ada") as ada:
        assert (await told(ada, "welcome"))["tables"] == {"1": [], "2": [], "3": []}
        async with guest(lobby, "name=Bob&colour=%23ff0000") as bob:
            assert await told(ada, "lobby.came") == {"name": "Bob", "colour": "#ff0000"}
            await done(bob, "tables.2.sit")
            assert await told(ada, "tables.2.players") == ["Bob"]
            with pytest.raises(ConnectionClosed):
                await bob.command("quit", None)
        assert await told(ada, "tables.2.players") == []
        assert await told(ada, "lobby.went") == {"name": "Bob", "code": 4000}


def send(app: Shown, user: str, message: object, bearer: str) -> Any:
    """A message to a user, by HTTP; returns what is answered."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {bearer}"}
    url = f"{app.broker.url}/users/{user}/messages"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(message).encode(), headers)) as response:
        return json.load(response)


# All of them


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_is_shown_until_it_is_stopped(name: str) -> None:
    command = [sys.executable, "-m", f"examples.{name}", "--port", "0", "--page-port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Open side by side; Ctrl-C stops.\n"
        assert "?broker=ws://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert '"event": "broker.stopped"' in errors
    assert "Traceback" not in errors
