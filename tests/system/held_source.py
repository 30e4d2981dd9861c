"""A process with an AMQP source whose dispatcher is held up until a file appears. Run as a module: URL, QUEUE, FILE."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from broker.core.event import Event
from connectors.amqp.reading import reader
from connectors.amqp.source import AmqpSource, SourceSettings
from connectors.amqp.topology import QueueSettings
from connectors.amqp.url import parse_urls

PREFETCH = 256


class HeldUp:
    """Takes nothing until it is released."""

    def __init__(self, released: Path) -> None:
        self._released = released

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        while not self._released.exists():
            await trio.sleep(0.05)
        return [""] * len(events)


async def main(url: str, queue: str, file: str) -> None:
    settings = SourceSettings("amqp_test", parse_urls(url), QueueSettings(queue), PREFETCH)
    await AmqpSource(settings, reader("envelope", "amqp_test")).run(HeldUp(Path(file)), lambda: None)


if __name__ == "__main__":
    _, url, queue, file = sys.argv
    trio.run(main, url, queue, file)
