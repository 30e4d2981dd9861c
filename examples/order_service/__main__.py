"""A shop publishes its orders to RabbitMQ by a pipe; its customers and its staff see different ones, and each once.

`python -m examples.order_service` prints it all. Exit status 1: somebody saw what they should not, or missed something.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio

from examples.order_service.shop import CLOSED, CUSTOMERS, events
from examples.rabbitmq import NoRabbitMQ, rabbitmq
from examples.stage import PATIENCE, Client, RunningBroker, connected, running_broker

STAFF = "sam"
USERS = (*CUSTOMERS, STAFF)
SHOP = [sys.executable, "-m", "examples.order_service.shop"]
PUBLISH = [sys.executable, "-m", "cli", "publish", "--exchange", "shop", "--amqp"]


def open_shop(url: str, first: int) -> str:
    """`python -m examples.order_service.shop | broker publish --amqp URL`; what that says at its end."""
    with subprocess.Popen([*SHOP, "--first", str(first)], stdout=subprocess.PIPE) as shop:
        published = subprocess.run(
            [*PUBLISH, url], stdin=shop.stdout, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
        )
    return published.stderr.strip()


async def day(url: str, users: dict[str, Client], first: int) -> dict[str, list[dict[str, Any]]]:
    """One day in the shop; what each user saw of it."""
    print(f"python -m examples.order_service.shop --first {first} | broker publish --amqp …")
    print(f"  {await trio.to_thread.run_sync(open_shop, url, first)}")
    return {name: await client.events_until(CLOSED) for name, client in users.items()}


def print_table(seen: dict[str, list[dict[str, Any]]], first: int) -> bool:
    """Print who saw which order; return whether it was as it should be."""
    orders = [{"event": event["event"], "data": event["data"]} for event in events(first) if event["event"] != CLOSED]
    print(f"  {'':22} {'customer':9} {'ada':5} {'bob':5} sam (staff)")
    for order in orders:
        marks = ["yes" if order in seen[user] else "-" for user in USERS]
        print(f"  {order['event']:22} {order['data']['customer']:9} {marks[0]:5} {marks[1]:5} {marks[2]}")
    return all(seen[user] == [order for order in orders if _may_see(user, order)] for user in USERS)


def _may_see(user: str, order: dict[str, Any]) -> bool:
    return user == STAFF or bool(order["data"]["customer"] == user)


async def play(broker: RunningBroker, url: str, tokens: dict[str, str]) -> bool:
    """Two days, and before the second one the first once more, as it would be after a lost connection."""
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as stack:
            users = {user: await stack.enter_async_context(connected(broker, tokens[user])) for user in USERS}
            for client in users.values():
                await client.command("subscribe", "**")
            good = [print_table(await day(url, users, first=1), first=1)]
            print("\nThe same once more: the ids are known, so nobody sees anything twice.")
            print(f"  {await trio.to_thread.run_sync(open_shop, url, 1)}\n")
            good.append(print_table(await day(url, users, first=4), first=4))
    return all(good)


def main() -> int:
    """Run the example; 0 if everything was as it should be."""
    try:
        with rabbitmq() as url, running_broker(Path(__file__).parent, environ={"AMQP_URL": url}) as broker:
            broker.wait_for_source("amqp_orders")
            tokens = {user: broker.token("--user", user) for user in CUSTOMERS}
            tokens[STAFF] = broker.token("--user", STAFF, "--claim", 'roles=["staff"]')
            good = trio.run(play, broker, url, tokens)
    except (NoRabbitMQ, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\nAll as it should be." if good else "\nNOT as it should be.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
