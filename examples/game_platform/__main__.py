"""Two users, both subscribed to everything, see different things; then patterns, and connections that are refused.

`python -m examples.game_platform` prints it all. Exit status 1: somebody saw what they should not, or missed something.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import trio

from examples.stage import PATIENCE, Client, RunningBroker, connected, running_broker

BOTH, ADA, BOB, NOBODY = {"ada", "bob"}, {"ada"}, {"bob"}, set[str]()
END = "users.nobody.offline"  # everyone sees it: what came before it has come

Publish = Callable[[Sequence[dict[str, Any]]], Awaitable[list[str]]]


@dataclass(frozen=True)
class Line:
    """One event of the play, and who is to see it."""

    event: str
    data: Any
    seen_by: set[str]


PLAY = [
    Line("users.ada.online", {"name": "Ada"}, BOTH),
    Line("groups.chess.created", {"name": "Chess", "members": ["ada"]}, ADA),
    Line("groups.chess.messages.1.created", {"text": "anybody here?"}, ADA),
    Line("groups.chess.updated", {"name": "Chess", "members": ["ada", "bob"]}, BOTH),
    Line("groups.chess.messages.2.created", {"text": "hello Bob"}, BOTH),
    Line("games.42.created", {"name": "Blitz"}, BOTH),
    Line("games.42.messages.1.created", {"text": "nobody has joined yet"}, NOBODY),
    Line("games.42.members.bob.created", {"colour": "white"}, BOTH),
    Line("games.42.messages.2.created", {"text": "e4"}, BOB),
    Line("games.42.members.bob.deleted", None, BOTH),
    Line("games.42.messages.3.created", {"text": "Bob has left"}, NOBODY),
    Line("groups.chess.updated", {"name": "Chess", "members": ["bob"]}, BOB),
    Line("groups.chess.messages.3.created", {"text": "Ada is out"}, BOB),
    Line("invoices.7.created", {"members": ["ada", "bob"]}, NOBODY),
    Line("users.bob.offline", None, BOTH),
]


async def visibility(ada: Client, bob: Client, publish: Publish) -> bool:
    """Play the play; print who saw what; return whether it was as it should be."""
    for client in (ada, bob):
        await client.command("subscribe", "**")
    await publish([*({"event": line.event, "data": line.data} for line in PLAY), {"event": END}])
    seen = {"ada": await ada.events_until(END), "bob": await bob.events_until(END)}
    print(f"{'Both are subscribed to **':36} {'ada sees':10} bob sees")
    for line in PLAY:
        frame = {"event": line.event, "data": line.data}
        marks = ["yes" if frame in seen[user] else "-" for user in ("ada", "bob")]
        print(f"  {line.event:34} {marks[0]:10} {marks[1]}")
    return all(seen[user] == _expected(user) for user in seen)


def _expected(user: str) -> list[dict[str, Any]]:
    return [{"event": line.event, "data": line.data} for line in PLAY if user in line.seen_by]


async def patterns(bob: Client, publish: Publish) -> bool:
    """Narrower subscriptions, and what takes them away."""
    await bob.command("unsubscribe", "users.bob.offline")  # it was never subscribed: nothing happens
    await bob.command("unsubscribe", "**")
    for pattern in ("games.*.created", "users.*.*", END):
        await bob.command("subscribe", pattern)
    await publish(
        _events("games.43.created", "games.43.members.bob.created", "users.ada.online", "games.43.deleted", END)
    )
    narrow = _names(await bob.events_until(END))
    print(f"\nBob holds games.*.created and users.*.*   he sees {', '.join(narrow)}")
    await bob.command("unsubscribe", "users.*.*")
    await publish(_events("users.ada.offline", "games.44.created", END))
    narrower = _names(await bob.events_until(END))
    print(f"Bob has unsubscribed users.*.*            he sees {', '.join(narrower)}")
    refused = (await bob.command("subscribe", "games.{42,43}.created")).get("code")
    print(f"Bob subscribes to games.{{42,43}}.created   {refused}: braces belong into the policy")
    return (narrow, narrower, refused) == (
        ["games.43.created", "users.ada.online"],
        ["games.44.created"],
        "bad_pattern",
    )


async def refusals(broker: RunningBroker) -> bool:
    """Nobody gets in without a good token."""
    endings = []
    forged = jwt.encode({"sub": "ada"}, "a secret that only a forger would think of")
    for what, token in (("no token", None), ("a forged token", forged)):
        async with connected(broker, token) as stranger:
            code, reason = await stranger.ending()
        endings.append(code)
        print(f"A connection with {what:24} is closed: {code} {reason}")
    return endings == [4001, 4002]


async def play(broker: RunningBroker, tokens: dict[str, str]) -> bool:
    """All of it, one after the other."""
    with trio.fail_after(PATIENCE):
        publish = partial(broker.publish, token=tokens["platform"])
        async with connected(broker, tokens["ada"]) as ada:
            await ada.command("subscribe", "users.bob.online")
            async with connected(broker, tokens["bob"]) as bob:
                await ada.events_until("users.bob.online")
                print("Bob has come, and Ada sees users.bob.online: the broker publishes it by itself\n")
                await ada.command("unsubscribe", "users.bob.online")
                good = [await visibility(ada, bob, publish), await patterns(bob, publish)]
        return all([*good, await refusals(broker)])


def _events(*names: str) -> list[dict[str, Any]]:
    return [{"event": name} for name in names]


def _names(events: Sequence[dict[str, Any]]) -> list[str]:
    return [frame["event"] for frame in events]


def main() -> int:
    """Run the example; 0 if everything was as it should be."""
    with running_broker(Path(__file__).parent) as broker:
        users = {user: broker.token("--user", user) for user in ("ada", "bob")}
        good = trio.run(play, broker, {**users, "platform": broker.token("--publish", "**")})
    print("\nAll as it should be." if good else "\nNOT as it should be.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
