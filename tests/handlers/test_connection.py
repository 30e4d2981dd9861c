"""What handlers do with connections: rooms, broadcasts, closing, coming and going."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker import Connection, Handlers, Refused
from broker.core.ports import Identity
from broker.handlers.house import SENDS_PER_TURN
from broker.runtime.calls import GRACE
from broker.runtime.outbox import QueueLimits
from tests.handlers.house import LIMITS, ask, command, request, running, tell, texts


def lobby() -> Handlers:
    app = Handlers()

    @app.on("join")
    async def join(connection: Connection, data: Any) -> list[str]:
        connection.join(data)
        return list(connection.rooms)

    @app.on("leave")
    async def leave(connection: Connection, data: str) -> list[str]:
        await connection.leave(data)
        return list(connection.rooms)

    @app.on("say.<text>")
    async def say(connection: Connection, text: str, data: list[str] | str | None) -> int:
        return await connection.broadcast(text, rooms=data, include_self=text.isupper())

    @app.on("shout.<text>")
    async def shout(text: str, data: list[str]) -> int:
        return await app.broadcast(text, rooms=data)

    return app


async def test_what_is_said_in_a_room_goes_to_the_others_there() -> None:
    async with running(lobby()) as broker:
        ada, bob, carol = [await broker.join(user) for user in ("ada", "bob", "carol")]
        assert await ask(ada, "join", "tea") == ["tea"]
        await ask(bob, "join", "tea")
        await ask(carol, "join", "cake")
        assert await ask(ada, "say.hello", "tea") == 1
        assert await ask(ada, "say.HELLO", ["tea"]) == 2
        assert (texts(bob)[1:], texts(carol)[1:]) == (["hello", "HELLO"], [])
        assert texts(ada)[2] == "HELLO"


async def test_who_is_in_several_of_the_rooms_gets_it_once() -> None:
    async with running(lobby()) as broker:
        ada, bob = [await broker.join(user) for user in ("ada", "bob")]
        for room in ("tea", "cake"):
            await ask(bob, "join", room)
        assert await ask(ada, "say.hello", ["tea", "cake", "nowhere"]) == 1
        assert await ask(ada, "shout.hi", ["cake", "tea"]) == 1
        assert texts(bob)[2:] == ["hello", "hi"]


async def test_without_rooms_it_goes_to_all_of_the_path() -> None:
    app, door = lobby(), Handlers(path="/door")
    async with running(app, door) as broker:
        ada, bob = [await broker.join(user) for user in ("ada", "bob")]
        other = await broker.join("carol", path="/door")
        assert await ask(ada, "say.hello") == 1
        assert await ask(ada, "say.HELLO") == 2
        assert (texts(bob), texts(other)) == (["hello", "HELLO"], [])


async def test_who_leaves_a_room_hears_nothing_more_of_it() -> None:
    async with running(lobby()) as broker:
        ada, bob = [await broker.join(user) for user in ("ada", "bob")]
        await ask(bob, "join", "tea")
        assert await ask(bob, "leave", "tea") == []
        assert await ask(ada, "say.hello", "tea") == 0


@pytest.mark.parametrize("room", ["", 1, "x" * 256])
async def test_what_no_room_can_be_called_is_the_client_s_fault(room: Any) -> None:
    async with running(lobby()) as broker:
        assert await ask(await broker.join(), "join", room) == "bad_room"


async def test_a_connection_knows_how_it_has_come() -> None:
    app = Handlers()

    @app.on("who")
    async def who(connection: Connection) -> Any:
        connection.state["asked"] = connection.state.get("asked", 0) + 1
        asked = connection.request
        return [connection.user, connection.claims["role"], asked.path, asked.address, connection.state["asked"]]

    async with running(app) as broker:
        client = await broker.join("ada", role="admin")
        assert await ask(client, "who") == ["ada", "admin", "/ws", "192.0.2.1", 1]
        assert (await ask(client, "who"))[-1] == 2


# --- Coming and going ------------------------------------------------------------------------------------------------


class Diary:
    """An application that notes who comes and goes."""

    def __init__(self) -> None:
        self.app = Handlers()
        self.lines: list[Any] = []
        self.app.on_connect(self.came)
        self.app.on_disconnect(self.went)
        self.app.on("close")(self.close)

    async def came(self, connection: Connection, user: str) -> None:
        connection.join("tea")
        self.lines.append(("came", user))

    async def went(self, connection: Connection, user: str, code: int, reason: str) -> None:
        self.lines.append(("went", user, code, reason))
        assert connection.closed
        connection.join("another")
        await connection.broadcast({"gone": user}, rooms=connection.rooms, include_self=True)

    async def close(self, connection: Connection, data: int) -> str:
        await connection.send("the last")
        await connection.close(data, "as you like")
        await connection.send("too late")
        return "too late"


async def test_who_goes_can_say_so_to_its_rooms() -> None:
    diary = Diary()
    async with running(diary.app) as broker:
        ada, bob = [await broker.join(user) for user in ("ada", "bob")]
        ada.hang_up()
        await wait_all_tasks_blocked()
        assert bob.json() == [{"gone": "ada"}]
        assert len(broker.rooms.members("tea")) == 1
    assert diary.lines[:3] == [("came", "ada"), ("came", "bob"), ("went", "ada", 1000, "bye")]


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4000, 4008, 4999])
async def test_what_waits_is_sent_before_a_handler_s_close(code: int) -> None:
    diary = Diary()
    async with running(diary.app) as broker:
        client = await broker.join()
        await tell(client, command("close", code))
        assert (texts(client), client.close_code()) == (["the last"], code)
    assert diary.lines[-1] == ("went", "ada", code, "as you like")


@pytest.mark.parametrize("code", [999, 1002, 1005, 1006, 1007, 2999, 5000])
async def test_codes_that_are_not_the_application_s_are_refused(code: int) -> None:
    diary = Diary()
    async with running(diary.app) as broker:
        client = await broker.join()
        assert await ask(client, "close", code) == "handler_failed"
        assert client.ending is None


async def test_who_comes_is_welcomed_before_its_first_command(autojump_clock: MockClock) -> None:
    app, lines = Handlers(), []

    @app.on_connect
    async def came() -> None:
        await trio.sleep(5)
        lines.append("came")

    @app.on("a")
    async def handler() -> None:
        lines.append("a")

    async with running(app) as broker:
        await ask(await broker.join(), "a")
    assert lines == ["came", "a"]


@pytest.mark.parametrize("slow", [False, True])
async def test_a_welcome_that_fails_ends_the_connection(slow: bool, autojump_clock: MockClock) -> None:
    app = Handlers()

    @app.on_connect
    async def came() -> None:
        if slow:
            await trio.sleep_forever()
        raise ValueError

    @app.on("a")
    async def handler() -> None:
        raise NotImplementedError

    async with running(app) as broker:
        client = await broker.join()
        await tell(client, command("a"))
        await trio.sleep(11)
        assert client.ending == (1011, "on_connect failed")
        assert client.close_code() == 1011
        assert texts(client) == []


async def test_who_is_gone_before_its_welcome_is_welcomed_and_seen_off_all_the_same() -> None:
    diary = Diary()
    async with running(diary.app) as broker:
        broker.come(Identity("ada"), request())
        broker.hang_up()
        await wait_all_tasks_blocked()
    assert diary.lines == [("came", "ada"), ("went", "ada", 1000, "bye")]


async def test_of_several_each_is_called_and_one_that_fails_takes_nothing_from_the_others() -> None:
    first, second, lines = Handlers(), Handlers(), []

    @first.on_disconnect
    async def fails() -> None:
        raise ValueError

    @second.on_connect
    async def came() -> None:
        lines.append("came")

    @second.on_disconnect
    async def went() -> None:
        lines.append("went")

    async with running(first, second) as broker:
        await broker.join()
    assert lines == ["came", "went"]


@pytest.mark.parametrize(("takes", "lines"), [(GRACE - 1, [1, -1]), (GRACE + 1, [-1])])
async def test_when_the_connection_ends_what_waits_is_forgotten_and_what_runs_has_a_while(
    takes: float, lines: list[int], autojump_clock: MockClock
) -> None:
    app, found = Handlers(), []

    @app.on("a")
    async def handler(data: int) -> None:
        await trio.sleep(takes)
        found.append(data)

    @app.on_disconnect
    async def went() -> None:
        found.append(-1)

    async with running(app) as broker:
        client = await broker.join()
        await tell(client, command("a", 1), command("a", 2))
        client.hang_up()
        await trio.sleep(20)
    assert found == lines


@pytest.mark.parametrize("kind", ["connection", "user", "room"])
async def test_a_handler_that_sends_in_a_loop_stops_nobody(kind: str, autojump_clock: MockClock) -> None:
    app = lobby()

    @app.on("loop", timeout=1)
    async def loop(connection: Connection) -> None:
        while True:
            await {"connection": connection.send, "user": app.send, "room": nobody}[kind]("x")
            if trio.current_time() > 50:
                return

    async def nobody(message: str) -> None:
        await app.broadcast(message, rooms="nowhere")

    @app.on("tick")
    async def tick() -> float:
        return trio.current_time()

    async with running(app, limits=replace(LIMITS, queue=QueueLimits(frames=100))) as broker:
        ada, bob = await broker.join("ada"), await broker.join("bob")
        ada.say_soon(command("loop"))
        for _ in range(3):
            bob.say_soon(command("tick", command_id="tick"))
            for _ in range(100):
                await trio.lowlevel.checkpoint()
        assert len(bob.json()) == 3
        assert ada.ending is None, "what it sends goes out meanwhile"
        ada.hang_up()
        autojump_clock.jump(100)
        await wait_all_tasks_blocked()


async def test_all_in_a_room_hear_what_is_said_in_the_same_order() -> None:
    app = lobby()
    async with running(app) as broker:
        members = [broker.come(Identity(f"user{number}"), request()) for number in range(SENDS_PER_TURN + 50)]
        for each in members:
            each.say_soon(command("join", "tea"))
        await wait_all_tasks_blocked()
        for number, each in enumerate(members[::60]):
            each.say_soon(command(f"shout.{number}", ["tea"], None))
        await wait_all_tasks_blocked()
        orders = {tuple(text for text in texts(each) if text.isdigit()) for each in members}
        assert len(orders) == 1
        assert len(next(iter(orders))) == 5


async def test_what_comes_after_the_connection_was_closed_is_not_handled() -> None:
    app, handled = lobby(), []

    @app.on("bye")
    async def bye(connection: Connection) -> None:
        connection.close()

    @app.on("more")
    async def more() -> None:
        handled.append("more")

    async with running(app) as broker:
        ada = await broker.join()
        await tell(ada, command("bye"), command("more"), command("more"))
        assert ada.ending == (1000, "")
    assert handled == []


async def test_before_on_connect_has_ended_nothing_is_carried_out(autojump_clock: MockClock) -> None:
    app, handled = lobby(), []

    @app.on_connect
    async def slow(user: str) -> None:
        await trio.sleep(1)
        if user == "eve":
            raise Refused(4403)

    @app.on("more")
    async def more(user: str) -> None:
        handled.append(user)

    async with running(app) as broker:
        for user in ("ada", "eve"):
            client = await broker.join(user)
            await tell(client, command("subscribe", "**"), command("more"))
            assert (client.json(), broker.registry.statistics().subscriptions) == ([], 0)
            await trio.sleep(2)
            assert len(client.json()) == (2 if user == "ada" else 0)
            client.hang_up()
            await wait_all_tasks_blocked()
    assert handled == ["ada"]


async def test_a_handler_that_never_returns_keeps_nothing_for_ever(autojump_clock: MockClock) -> None:
    app = lobby()

    @app.on("stuck")
    async def stuck() -> None:
        await trio.sleep_forever()

    async with running(app) as broker:
        client = await broker.join()
        await ask(client, "join", "tea")
        await tell(client, command("stuck"))
        client.hang_up()
        await trio.sleep(31)
        assert set(broker.left_behind().values()) == {0}


async def test_a_ping_asks_for_a_sign_of_life_and_a_pong_is_one() -> None:
    app = Handlers()

    @app.on("a")
    async def handler(connection: Connection) -> None:
        await connection.ping()
        await connection.pong()

    async with running(app) as broker:
        client = await broker.join()
        await ask(client, "a")
        assert sorted(opcode for opcode, _ in client.heard) == [1, 9, 10]


async def test_who_is_where_can_be_asked() -> None:
    app = lobby()
    async with running(app, Handlers(path="/other")) as broker:
        ada, bob = await broker.join("ada"), await broker.join("bob")
        await broker.join("ada", "/other")
        for each in (bob, ada):
            await ask(each, "join", "tea")
        assert [each.user for each in app.members("tea")] == ["bob", "ada"]
        assert app.members("nowhere") == []
        assert [each.user for each in app.connections] == ["ada", "bob"]
        assert [each.request.path for each in app.connections_of("ada")] == ["/ws", "/other"]
        bob.hang_up()
        await wait_all_tasks_blocked()
        assert [each.user for each in app.members("tea")] == ["ada"]
        assert app.connections_of("bob") == []


async def test_on_connect_may_refuse_with_a_code_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    app = lobby()

    @app.on_connect
    async def only_ada(user: str) -> None:
        if user != "ada":
            raise Refused(4403, "ada only")

    async with running(app) as broker:
        ada, bob = await broker.join("ada"), await broker.join("bob")
        assert await ask(ada, "join", "tea") == ["tea"]
        assert bob.ending == (4403, "ada only")
    assert "handler.failed" not in caplog.messages
