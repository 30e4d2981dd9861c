"""Who sees what: the policy as it is shipped, told by what arrives at several users' sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.system.client import Client, connected
from tests.system.harness import Broker, Brokers, unique

pytestmark = pytest.mark.system


@asynccontextmanager
async def all_subscribed(broker: Broker, *users: str, pattern: str = "**") -> AsyncIterator[Sequence[Client]]:
    """A connection for each user, subscribed to everything: what arrives is what the user may see."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(broker, user)) for user in users]
        for client in clients:
            await client.subscribe(pattern)
        yield clients


async def names(clients: Sequence[Client]) -> list[list[str]]:
    return [[name for name in await client.names() if "mark" not in name] for client in clients]


@pytest.mark.parametrize("happening", ["online", "offline"])
async def test_everybody_sees_users_come_and_go(broker: Broker, happening: str) -> None:
    async with all_subscribed(broker, "ada", "bob") as clients:
        event = f"users.{unique('user')}.{happening}"
        broker.publish(event, {"name": "Cleo"})
        assert await names(clients) == [[event], [event]]


@pytest.mark.parametrize("happening", ["created", "updated", "deleted"])
async def test_a_groups_events_are_seen_by_its_members(broker: Broker, happening: str) -> None:
    async with all_subscribed(broker, "ada", "bob", "eve") as clients:
        event = f"groups.{unique('group')}.{happening}"
        broker.publish(event, {"members": ["ada", "bob"]})
        assert await names(clients) == [[event], [event], []]


async def test_a_groups_messages_are_seen_by_those_whom_its_latest_event_names(broker: Broker) -> None:
    async with all_subscribed(broker, "ada", "bob", "eve") as clients:
        group = f"groups.{unique('group')}"
        message = f"{group}.messages.1.created"
        broker.publish(message)
        assert await names(clients) == [[], [], []]

        broker.publish(f"{group}.created", {"members": ["ada", "bob"]})
        broker.publish(message)
        assert await names(clients) == [[f"{group}.created", message], [f"{group}.created", message], []]

        broker.publish(f"{group}.updated", {"members": ["ada", "eve"]})
        broker.publish(message)
        assert await names(clients) == [[f"{group}.updated", message], [], [f"{group}.updated", message]]

        broker.publish(f"{group}.deleted", {"members": ["ada"]})
        broker.publish(message)
        assert await names(clients) == [[f"{group}.deleted"], [], []]


async def test_the_members_of_one_group_do_not_see_the_messages_of_another(broker: Broker) -> None:
    async with all_subscribed(broker, "ada", "eve") as clients:
        ours, theirs = (f"groups.{unique('group')}" for _ in range(2))
        broker.publish(f"{ours}.created", {"members": ["ada"]})
        broker.publish(f"{theirs}.created", {"members": ["eve"]})
        broker.publish(f"{theirs}.messages.1.created")
        assert await names(clients) == [[f"{ours}.created"], [f"{theirs}.created", f"{theirs}.messages.1.created"]]


async def test_games_are_public_and_what_is_said_in_them_is_for_their_members(broker: Broker) -> None:
    async with all_subscribed(broker, "ada", "bob") as clients:
        game = f"games.{unique('game')}"
        public = [f"{game}.created", f"{game}.members.ada.created", f"{game}.updated"]
        for name in public:
            broker.publish(name)
        broker.publish(f"{game}.messages.1.created")
        assert await names(clients) == [[*public, f"{game}.messages.1.created"], public]


async def test_whoever_leaves_a_game_sees_his_own_leaving_and_nothing_that_is_said_after(broker: Broker) -> None:
    async with all_subscribed(broker, "ada", "bob") as clients:
        game = f"games.{unique('game')}"
        for name in ("members.ada.created", "members.bob.created", "messages.1.created", "members.bob.deleted"):
            broker.publish(f"{game}.{name}")
        broker.publish(f"{game}.messages.2.created")
        ada, bob = await names(clients)
        assert bob[-1] == f"{game}.members.bob.deleted"
        assert ada == [*bob, f"{game}.messages.2.created"]


async def test_a_deleted_game_has_no_members(broker: Broker) -> None:
    async with all_subscribed(broker, "ada", pattern="games.*.messages.**") as clients:
        game = f"games.{unique('game')}"
        for name in ("members.ada.created", "deleted", "messages.1.created"):
            broker.publish(f"{game}.{name}")
        assert await names(clients) == [[]]


@pytest.mark.parametrize("name", ["message.created", "users.ada", "users.ada.online.now", "games.1.paused", "x"])
async def test_what_no_rule_names_is_seen_by_nobody(broker: Broker, name: str) -> None:
    async with all_subscribed(broker, "ada") as [client]:
        await client.subscribe(name)
        broker.publish(name, {"members": ["ada"]})
        assert await client.events() == []


@pytest.mark.parametrize(
    "data", [None, {}, {"members": None}, {"members": {"ada": 1}}, {"members": [{"id": "ada"}]}, ["ada"]]
)
async def test_a_list_of_members_that_is_none_is_seen_by_nobody_and_counted(broker: Broker, data: object) -> None:
    async with all_subscribed(broker, "ada") as clients:
        before = broker.metric("broker_visibility_faults_total")
        broker.publish(f"groups.{unique('group')}.created", data)
        assert await names(clients) == [[]]
        assert broker.metric("broker_visibility_faults_total") > before


async def test_a_member_called_like_a_wildcard_is_just_a_name(broker: Broker) -> None:
    async with all_subscribed(broker, "ada") as clients:
        broker.publish(f"groups.{unique('group')}.created", {"members": ["*", "**", "<userId>", ""]})
        assert await names(clients) == [[]]


async def test_all_devices_of_a_user_see_what_the_user_sees(broker: Broker) -> None:
    async with all_subscribed(broker, "ada", "ada", "eve") as clients:
        event = f"groups.{unique('group')}.created"
        broker.publish(event, {"members": ["ada"]})
        assert await names(clients) == [[event], [event], []]


async def test_a_subscription_to_what_one_may_not_see_is_taken_and_tells_nothing(broker: Broker) -> None:
    async with connected(broker, "eve") as client:
        group = unique("group")
        broker.publish(f"groups.{group}.created", {"members": ["ada"]})
        existing = await client.ask("subscribe", f"groups.{group}.messages.*.created")
        missing = await client.ask("subscribe", f"groups.{group}x.messages.*.created")
        assert existing.keys() == missing.keys() == {"reply", "data"}
        assert existing["data"].keys() == missing["data"].keys()


MEMBERS_ONLY = """
default = "nobody"

[relations.game]
add    = "games.<gameId>.members.<userId>.created"
remove = "games.<gameId>.members.<userId>.deleted"
key    = "<gameId>"
users  = "<userId>"

[[rules]]
events     = "games.<gameId>.members.<userId>.{created,deleted}"
visible_to = { relation = "game", key = "<gameId>" }

[[rules]]
events     = "users.<userId>.online"
visible_to = "everyone"

[[rules]]
events     = "admin.**"
visible_to = { claim = "roles", contains = "admin" }

[[rules]]
events     = "admin.<userId>.secret"
visible_to = { all = [{ users = "<userId>" }, { not = { claim = "suspended", equals = true } }] }
"""


async def test_the_newcomer_and_the_leaver_see_the_event_that_concerns_them(brokers: Brokers) -> None:
    broker = brokers.start(policy=MEMBERS_ONLY)
    async with all_subscribed(broker, "ada", "bob") as clients:
        happenings = [
            "games.7.members.ada.created",
            "games.7.members.bob.created",
            "games.7.members.bob.deleted",
            "games.7.members.ada.deleted",
        ]
        for name in happenings:
            broker.publish(name)
        assert await names(clients) == [happenings, happenings[1:3]]


async def test_claims_and_combinations_decide_too(brokers: Brokers) -> None:
    broker = brokers.start(policy=MEMBERS_ONLY)
    async with (
        connected(broker, "root", roles=["admin"]) as root,
        connected(broker, "ada", roles=["player"], suspended=False) as ada,
        connected(broker, "bob", suspended=True) as bob,
    ):
        for client in (root, ada, bob):
            await client.subscribe("admin.**")
        for name in ("admin.audit", "admin.ada.secret", "admin.bob.secret"):
            broker.publish(name)
        assert await names([root, ada, bob]) == [["admin.audit"], ["admin.ada.secret"], []]
