"""A process with nothing but an AMQP source and a log: ids in a plain file. Run as a module: URL, QUEUE, FILE."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import trio

from broker.core.event import Event
from connectors.amqp.reading import reader
from connectors.amqp.source import AmqpSource, SourceSettings
from connectors.amqp.topology import QueueSettings
from connectors.amqp.url import parse_urls


class FileLog:
    """A log that takes a moment, as one on a disk does."""

    def __init__(self, file: str) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def publish(self, events: Sequence[Event], *, timeout: float | None = None) -> list[str]:
        await trio.sleep(0.005)
        ids = [event.id or "" for event in events]
        os.write(self._descriptor, "".join(f"{event_id}\n" for event_id in ids).encode())
        await trio.sleep(0.005)
        return ids


async def main(url: str, queue: str, file: str) -> None:
    settings = SourceSettings("amqp_test", parse_urls(url), QueueSettings(queue), prefetch=50)
    await AmqpSource(settings, reader("envelope", "amqp_test")).run(FileLog(file), lambda: None)


if __name__ == "__main__":
    _, url, queue, file = sys.argv
    trio.run(main, url, queue, file)
