"""The order service: what happens to a few orders, an event a line, for `broker publish --amqp`.

Each event has an id of its own that says what happened, and not when it was told: whoever publishes it again, after a
lost connection perhaps, publishes the same event.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

CUSTOMERS = ("ada", "bob")
CLOSED = "shop.closed"  # the last event of all


def events(first: int = 1, orders: int = 3) -> Iterator[dict[str, Any]]:
    """The events of so many orders, which have numbers from `first` on."""
    numbers = range(first, first + orders)
    for state in ("created", "paid", "shipped"):
        for number in numbers:
            order = {"customer": CUSTOMERS[(number - 1) % 2], "total": f"{7 * number}.50"}
            yield {"event": f"orders.{number}.{state}", "data": order, "id": f"order-{number}-{state}"}
    yield {"event": CLOSED, "id": f"closed-after-{numbers[-1]}"}


def main() -> None:
    """Print them, one a line."""
    parser = argparse.ArgumentParser(prog="python -m examples.order_service.shop", description=__doc__)
    parser.add_argument("--first", type=int, default=1, help="the number of the first order")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two events")
    options = parser.parse_args()
    for event in events(options.first):
        print(json.dumps(event), flush=True)
        time.sleep(options.pause)


if __name__ == "__main__":
    main()
