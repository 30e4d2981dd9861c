"""What applications send and answer, as the clients that come with the broker give it to their users: each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import pytest
import trio

from tests.system.application import Applications, socket
from tests.system.callers import EVERY_CLIENT, PATIENT, Call, Caller, Refused
from tests.system.harness import Broker, environ

pytestmark = [pytest.mark.system, pytest.mark.longest(PATIENT)]

MODULE: Final = """
from dataclasses import dataclass

import trio

from broker import ClientError, Connection, Handlers

app = Handlers()


class SoldOut(ClientError):
    code = "sold_out"


@dataclass
class Order:
    drink: str
    cups: int = 1


@app.on_connect
async def welcome(connection: Connection):
    await connection.send({"event": "app.welcome", "data": connection.user})


@app.on("send")
async def send(connection: Connection, data):
    await connection.send(data)


@app.on("send.binary")
async def send_binary(connection: Connection, data: list[int]):
    await connection.send(bytes(data))


@app.on("send.devices")
async def send_to_devices(data):
    return await app.send(data)


@app.on("send.to.<whom>")
async def send_to(whom: str, data):
    return await app.to(whom).send(data)


@app.on("rooms.<room>.enter")
async def enter(connection: Connection, room: str):
    connection.join(room)


@app.on("rooms.<room>.say")
async def say_in_room(connection: Connection, room: str, data):
    return await connection.broadcast(data, rooms=[room], include_self=True)


@app.on("publish.<name>")
async def publish(name: str, data):
    await app.publish(f"news.{name}", data)


@app.on("order", timeout=0.5, on_error=None)
async def order(data: Order):
    if data.drink == "beer":
        raise SoldOut("there is none left")
    if data.drink == "nothing":
        raise ValueError
    if data.drink == "wine":
        await trio.sleep_forever()
    return {"cups": data.cups}


hall = app.channel("hall.<room>")


@hall.authorize
async def may_enter(connection: Connection, room: str):
    if room == "slow":
        await app.publish("news.slipped", "in between")
        await trio.sleep(0.1)  # so that it is given out before the client resumes
        await connection.send({"event": "hall.slow.door", "data": "opens"})
    return room != "closed"


@hall.on("say")
async def say_in_hall(room: str, data):
    return await hall.broadcast("said", data, room=room)
"""

ANYTHING: Final[list[Any]] = [
    None,
    7,
    "text",
    "",
    "<html>",
    [1, "é", None],
    {"from": "ada", "text": "hello"},
    {"event": "chat.42.said", "data": {"text": "hello"}},
    {"error": "no more tea"},
]


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applications]:
    started = Applications(tmp_path_factory.mktemp("messages"))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def application(applications: Applications) -> Broker:
    return applications.start(module=MODULE, handlers=["app"])


@pytest.fixture(params=EVERY_CLIENT, ids=lambda call: call.__name__)
def call(request: pytest.FixtureRequest) -> Call:
    given: Call = request.param
    return given


async def welcomed(caller: Caller, user: str) -> None:
    """Take the greeting of the application, which has come before anything else."""
    assert await caller.heard(1) == [{"event": "app.welcome", "data": user}]


async def test_what_a_handler_sends_comes_as_it_was_sent(application: Broker, call: Call) -> None:
    async with call(application, "ada") as ada:
        await welcomed(ada, "ada")
        for value in ANYTHING:
            await ada.command("send", value)
        assert await ada.heard(len(ANYTHING)) == ANYTHING
        await ada.command("send.binary", [0, 1, 255])
        assert await ada.heard(1) == [{"binary": [0, 1, 255]}]


async def test_others_can_be_sent_to_as_users_and_in_rooms(application: Broker, call: Call) -> None:
    async with call(application, "bob") as bob:
        await welcomed(bob, "bob")
        await bob.command("rooms.tea.enter")
        assert await bob.command("send.devices", "to myself") == 1
        with socket(application, user="ada") as ada:
            for event in ("send.to.bob", "rooms.tea.say"):
                ada.send(json.dumps({"event": event, "data": {"from": "ada", "by": event}}))
            assert await bob.heard(3) == [
                "to myself",
                {"from": "ada", "by": "send.to.bob"},
                {"from": "ada", "by": "rooms.tea.say"},
            ]
        bearer = f"Bearer {application.token(publish=['users.*.messages'])}"
        answer = application.request("POST", "/users/bob/messages", b'{"by": "HTTP"}', Authorization=bearer)
        assert (answer.status, answer.json) == (202, {"connections": 1})
        assert await bob.heard(1) == [{"by": "HTTP"}]


async def test_what_is_said_on_a_channel_is_a_message_and_an_event_is_none(application: Broker, call: Call) -> None:
    async with call(application, "ada") as ada:
        await welcomed(ada, "ada")
        await ada.subscribe("hall.1")
        await ada.subscribe("hall.**")
        await ada.subscribe("news.*")
        assert await ada.command("hall.1.say", "hello") == 1
        await ada.command("publish.today", "rain")
        assert await ada.heard(1) == [{"event": "hall.1.said", "data": "hello"}]
        assert await ada.events(1) == [["news.today", "rain"]]


async def test_commands_are_answered_with_data_or_an_error_and_its_code(application: Broker, call: Call) -> None:
    async with call(application, "ada") as ada:
        assert await ada.command("order", {"drink": "tea", "cups": 2}) == {"cups": 2}
        refusals = {
            "beer": ("sold_out", "there is none left"),
            "nothing": ("handler_failed", "ValueError"),
            "wine": ("handler_timed_out", ""),
        }
        for drink, (code, text) in refusals.items():
            with pytest.raises(Refused) as refused:
                await ada.command("order", {"drink": drink})
            assert refused.value.args[0] == code
            assert text in refused.value.args[1]
        for event, code in {"order": "bad_data", "hall.1.say": "not_authorized", "dance": "unknown_command"}.items():
            with pytest.raises(Refused) as refused:
                await ada.command(event, {})
            assert refused.value.args[0] == code
        await welcomed(ada, "ada")  # and none of these answers was a message
        await ada.command("send", "the last")
        assert await ada.heard(1) == ["the last"]


async def test_after_a_restart_messages_go_on_and_none_is_an_event_that_slipped_in(
    applications: Applications, call: Call
) -> None:
    broker = applications.start(module=MODULE, handlers=["app"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.system.harness.environ", partial(environ, BROKER_SERVER__PORT=str(broker.port)))
        async with call(broker, "ada") as ada:
            await welcomed(ada, "ada")
            await ada.subscribe("news.*")
            await ada.subscribe("hall.slow")
            assert await ada.heard(1) == [{"event": "hall.slow.door", "data": "opens"}]
            assert await ada.events(1) == [["news.slipped", "in between"]]
            applications.kill(broker)
            broker = await trio.to_thread.run_sync(applications.start_again, broker)
            await welcomed(ada, "ada")
            # The event came without an id before the client had resumed, and then again.
            assert await ada.heard(1) == [{"event": "hall.slow.door", "data": "opens"}]
            assert await ada.events(1) == [["news.slipped", "in between"]]
            await ada.command("publish.today", "rain")
            await ada.command("hall.slow.say", "hello")
            assert await ada.heard(1) == [{"event": "hall.slow.said", "data": "hello"}]
            assert await ada.events(1) == [["news.today", "rain"]]
