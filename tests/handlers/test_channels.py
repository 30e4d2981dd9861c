"""Channels: who may be on one, who hears what is said there, and who may say something."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker import ClientError, Connection, Handlers
from broker.core.ports import Identity
from broker.handlers.errors import BadHandler
from tests.handlers.house import LIMITS, ask, command, running, tell


class Teams:
    """A channel for each team, for those who have it among their claims."""

    def __init__(self) -> None:
        self.app = Handlers()
        self.channel = self.app.channel("teams.<team>.desk")
        self.channel.authorize(self.permit)
        self.channel.on("say.<what>")(self.say)
        self.open = self.app.channel("lobby")
        self.open.on("hello")(self.hello)
        self.asked: list[str] = []
        self.takes = 0.0
        self.outcome: Any = None

    async def permit(self, connection: Connection, user: str, team: str) -> Any:
        self.asked.append(f"{user} {team}")
        await trio.sleep(self.takes)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return team in connection.claims.get("teams", []) if self.outcome is None else self.outcome

    async def say(self, team: str, what: str, data: Any) -> int:
        return await self.channel.broadcast("said", what, to=data, team=team)

    async def hello(self) -> int:
        return await self.open.broadcast("hello")


RED = "teams.red.desk"


async def test_who_is_on_a_channel_hears_what_is_said_there() -> None:
    teams = Teams()
    async with running(teams.app) as broker:
        ada, bob, eve = [await broker.join(user, teams=["red", "blue"]) for user in ("ada", "bob", "eve")]
        for each in (ada, bob):
            assert await ask(each, "subscribe", RED) == {"pattern": RED}
        await ask(eve, "subscribe", "teams.blue.desk")
        assert await ask(ada, f"{RED}.say.hello") == 2
        heard = {"event": f"{RED}.said", "data": "hello"}
        assert heard in bob.json()
        assert heard in ada.json()
        assert heard not in eve.json()
    assert teams.asked == ["ada red", "bob red", "eve blue"]


@pytest.mark.parametrize("outcome", [None, False, 1, "yes", object()])
async def test_only_true_lets_somebody_in(outcome: Any) -> None:
    teams = Teams()
    teams.outcome = outcome
    async with running(teams.app) as broker:
        eve = await broker.join("eve", teams=["blue"])
        assert await ask(eve, "subscribe", RED) == "not_authorized"
        assert await ask(eve, f"{RED}.say.hello") == "not_authorized"
        assert broker.registry.statistics().subscriptions == 0


@pytest.mark.parametrize("pattern", ["**", "teams.**", "teams.*.desk", "teams.red.*", f"{RED}.said"])
async def test_no_other_subscription_is_a_way_in(pattern: str) -> None:
    teams = Teams()
    async with running(teams.app) as broker:
        ada, eve = await broker.join("ada", teams=["red"]), await broker.join("eve")
        await ask(ada, "subscribe", RED)
        assert await ask(eve, "subscribe", pattern) == {"pattern": pattern}
        assert await ask(eve, f"{RED}.say.hello") == "not_authorized"
        assert await ask(ada, f"{RED}.say.hello") == 1
        assert not [each for each in eve.json() if "event" in each]


class Banned(ClientError):
    """The application's own."""

    code = "banned"


@pytest.mark.parametrize(("error", "code"), [(ValueError("why"), "handler_failed"), (Banned("go"), "banned")])
async def test_what_authorize_raises_answers_and_lets_nobody_in(error: Exception, code: str) -> None:
    teams = Teams()
    teams.outcome = error
    async with running(teams.app) as broker:
        eve = await broker.join("eve")
        assert await ask(eve, "subscribe", RED) == code
        assert broker.registry.statistics().subscriptions == 0


async def test_authorize_that_takes_too_long_lets_nobody_in(autojump_clock: MockClock) -> None:
    teams = Teams()
    teams.takes = 11
    async with running(teams.app) as broker:
        ada = await broker.join("ada", teams=["red"])
        assert await ask(ada, "subscribe", RED) == "handler_timed_out"
        assert broker.registry.statistics().subscriptions == 0


async def test_who_unsubscribes_is_off_the_channel() -> None:
    teams = Teams()
    async with running(teams.app) as broker:
        ada = await broker.join("ada", teams=["red"])
        await ask(ada, "subscribe", RED)
        await ask(ada, "unsubscribe", RED)
        assert await ask(ada, f"{RED}.say.hello") == "not_authorized"


async def test_who_is_refused_the_second_time_is_off_the_channel() -> None:
    teams = Teams()
    async with running(teams.app) as broker:
        ada = await broker.join("ada", teams=["red"])
        await ask(ada, "subscribe", RED)
        teams.outcome = False
        assert await ask(ada, "subscribe", RED) == "not_authorized"
        assert await ask(ada, f"{RED}.say.hello") == "not_authorized"
        assert broker.registry.statistics().subscriptions == 0


async def test_a_channel_without_authorize_is_open_to_all() -> None:
    teams = Teams()
    async with running(teams.app) as broker:
        ada = await broker.join("ada")
        assert await ask(ada, "lobby.hello") == "not_authorized"
        await ask(ada, "subscribe", "lobby")
        assert await ask(ada, "lobby.hello") == 1


async def test_a_broadcast_may_go_to_some_users_of_the_channel_only() -> None:
    teams = Teams()
    async with running(teams.app) as broker:
        ada, bob, phone = [await broker.join(user, teams=["red"]) for user in ("ada", "bob", "bob")]
        for each in (ada, bob, phone):
            await ask(each, "subscribe", RED)
        carol = await broker.join("carol", teams=["red"])
        assert await ask(ada, f"{RED}.say.hello", "bob") == 2
        assert await ask(ada, f"{RED}.say.hello", ["ada", "carol", "nobody"]) == 1
        assert await ask(ada, f"{RED}.say.hello", []) == 0
        assert carol.json() == []


# --- Commands that come while it is decided --------------------------------------------------------------------------


async def test_to_unsubscribe_right_after_is_to_be_off_it(autojump_clock: MockClock) -> None:
    teams = Teams()
    teams.takes = 1
    async with running(teams.app) as broker:
        ada = await broker.join("ada", teams=["red"])
        await tell(ada, command("subscribe", RED, 1), command("unsubscribe", RED, 2))
        assert ada.json() == []
        await trio.sleep(2)
        assert [each["reply"] for each in ada.json()] == [1, 2]
        assert broker.registry.statistics().subscriptions == 0


async def test_other_subscriptions_keep_their_place_too(autojump_clock: MockClock) -> None:
    teams = Teams()
    teams.takes = 1
    async with running(teams.app) as broker:
        ada = await broker.join("ada", teams=["red"])
        commands = [
            ("subscribe", RED),
            ("subscribe", "a"),
            ("unsubscribe", "a"),
            ("subscribe", "a"),
            ("subscribe", RED),
        ]
        await tell(ada, *(command(event, data, number) for number, (event, data) in enumerate(commands)))
        await trio.sleep(5)
        assert [each["reply"] for each in ada.json()] == [0, 1, 2, 3, 4]
        assert broker.registry.statistics().subscriptions == 2


async def test_as_many_may_wait_as_one_may_have(autojump_clock: MockClock) -> None:
    teams = Teams()
    teams.takes = 0.01
    teams.outcome = True
    async with running(teams.app) as broker:
        ada = await broker.join("ada")
        names = [f"teams.{number}.desk" for number in range(LIMITS.max_subscriptions)]
        await tell(ada, *(command("subscribe", name, name) for name in names))
        await trio.sleep(10)
        assert [each for each in ada.json() if "error" in each] == []
        assert await ask(ada, "subscribe", "teams.more.desk") == "too_many_subscriptions"


async def test_who_goes_while_it_is_decided_leaves_nothing(autojump_clock: MockClock) -> None:
    teams = Teams()
    teams.takes = 5
    async with running(teams.app) as broker:
        ada = await broker.join("ada", teams=["red"])
        await tell(ada, command("subscribe", RED, 1), command("resume", None, 2))
        ada.hang_up()
        await wait_all_tasks_blocked()
        await trio.sleep(10)
        assert set(broker.left_behind().values()) == {0}


# --- Several ---------------------------------------------------------------------------------------------------------


async def test_two_channels_of_one_name_stop_the_start() -> None:
    first, second = Handlers(), Handlers()
    first.channel("a.<b>")
    second.channel("a.<c>")
    with pytest.raises(BadHandler, match="are the same name"):
        async with running(first, second):
            pass


async def test_the_most_specific_channel_counts() -> None:
    app = Handlers()
    wide, narrow = app.channel("rooms.<room>"), app.channel("rooms.secret")

    @wide.authorize
    async def everybody() -> bool:
        return True

    @narrow.authorize
    async def nobody() -> bool:
        return False

    async with running(app) as broker:
        ada = await broker.join()
        assert await ask(ada, "subscribe", "rooms.secret") == "not_authorized"
        assert await ask(ada, "subscribe", "rooms.open") == {"pattern": "rooms.open"}


async def test_who_subscribes_to_the_name_on_another_path_hears_nothing() -> None:
    teams = Teams()
    async with running(teams.app, Handlers(path="/public")) as broker:
        ada, eve = await broker.join("ada", teams=["red"]), await broker.join("eve", "/public")
        await ask(ada, "subscribe", RED)
        assert await ask(eve, "subscribe", RED) == {"pattern": RED}
        assert await ask(ada, f"{RED}.say.hello") == 1
        assert [each.user for each in teams.channel.members(team="red")] == ["ada"]
        assert eve.json() == [{"reply": "asked", "data": {"pattern": RED}}]


async def test_a_burst_of_subscriptions_to_channels_does_not_count(autojump_clock: MockClock) -> None:
    teams = Teams()
    limits = replace(LIMITS, commands_per_second=5)
    async with running(teams.app, limits=limits) as broker:
        ada = await broker.join("ada", teams=[f"t{number}" for number in range(50)])
        await tell(ada, *[command("subscribe", f"teams.t{number}.desk") for number in range(50)])
        await trio.sleep(1)
        assert len(ada.json()) == 50
        assert broker.registry.statistics().subscriptions == 50


@pytest.mark.parametrize("who", ["eve", "ada"])
async def test_a_flood_of_those_that_are_refused_or_there_already_does_count(
    who: str, autojump_clock: MockClock
) -> None:
    teams = Teams()
    limits = replace(LIMITS, commands_per_second=5)
    async with running(teams.app, limits=limits) as broker:
        client = await broker.join(who, teams=["red"] if who == "ada" else [])
        await tell(client, *[command("subscribe", RED) for _ in range(8)])
        await trio.sleep(0.1)
        assert client.close_code() == 1008
        assert len(teams.asked) <= 8


@pytest.mark.parametrize("event", ["teams.*.desk.say.x", "teams..desk.say.x", "teams.**.say.x"])
async def test_no_wildcard_is_a_way_to_a_handler(event: str) -> None:
    teams = Teams()
    async with running(teams.app) as broker:
        eve = await broker.join("eve")
        await ask(eve, "subscribe", "teams.*.desk")
        assert await ask(eve, event) == "unknown_command"


async def test_with_another_token_one_is_asked_again_whether_one_may(autojump_clock: MockClock) -> None:
    teams = Teams()
    async with running(teams.app) as broker:
        client = await broker.join("ada", teams=["red", "blue"])
        for name in (RED, "teams.blue.desk", "lobby", "other.events"):
            await ask(client, "subscribe", name)
        broker.tokens.known["new"] = Identity("ada", {"teams": ["blue"]})
        teams.takes = 1
        assert await ask(client, "authenticate", "new") == {"expires_at": None}
        await ask(client, "authenticate", "new")
        await trio.sleep(10)
        assert [each for each in client.json() if "error" in each] == [
            {"error": f"you may not be on {RED}", "code": "not_authorized"}
        ]
        assert sorted(teams.asked[2:]) == ["ada blue", "ada blue", "ada red"]
        assert await ask(client, f"{RED}.say.hello") == "not_authorized"
        assert broker.registry.statistics().subscriptions == 3
