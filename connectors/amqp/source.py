"""Events from a RabbitMQ queue.

A delivery is acknowledged only when the log has taken its event; one that is no event is rejected without requeue, so
that the dead-letter exchange gets it, once. While the log takes one batch RabbitMQ sends the next, up to the prefetch:
that is all that ever waits here, and so the back pressure reaches the queue.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.core.errors import PublisherError, Stopping
from broker.core.event import Event
from broker.core.ports import Publisher
from broker.core.telling import is_telling
from connectors.amqp.channel import Channel
from connectors.amqp.codec import Delivery
from connectors.amqp.connection import open_connection
from connectors.amqp.consuming import Consumer
from connectors.amqp.errors import ConnectionFailed
from connectors.amqp.reading import REASONS, Read, reason_of
from connectors.amqp.topology import QueueSettings, prepare
from connectors.amqp.url import Address

logger = logging.getLogger(__name__)

MAX_BATCH_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where a source consumes.

    name: what logs and counters call it. addresses: the nodes of a cluster, tried in turn.
    prefetch: how many deliveries may be unacknowledged at a time, 1 to 65,535.
    """

    name: str
    addresses: Sequence[Address]
    queue: QueueSettings
    prefetch: int = 256


class AmqpSource:
    """Publishes what comes out of one queue."""

    def __init__(self, settings: SourceSettings, read: Read) -> None:
        self._settings = settings
        self._read = read
        self._addresses = deque(settings.addresses)
        reasons = (f"refused_{reason}" for reason in REASONS)
        self.counters: Counter[str] = Counter(dict.fromkeys(("connections", "published", "redelivered", *reasons), 0))

    @property
    def name(self) -> str:
        """See `Connector` in `broker/core/ports.py`."""
        return self._settings.name

    async def run(self, publisher: Publisher, ready: Callable[[], None]) -> None:
        """Consume until cancelled, by one connection; see `Connector` in `broker/core/ports.py`.

        Raises AmqpError when the connection can't be made, or ends.
        """
        failures = []
        for address in tuple(self._addresses):
            try:
                await self._consume(address, publisher, ready)
            except ConnectionFailed as error:
                failures.append(str(error))
            except Stopping:  # what is not acknowledged comes again to whoever asks next
                return
            finally:
                self._addresses.rotate(-1)
        raise ConnectionFailed("; ".join(failures))

    async def _consume(self, address: Address, publisher: Publisher, ready: Callable[[], None]) -> None:
        queue, prefetch = self._settings.queue, self._settings.prefetch
        async with open_connection(address, name=f"broker {self.name}") as connection:
            await prepare(connection, queue)
            channel = await connection.open_channel()
            consumer = await channel.consume(queue.name, prefetch)
            self.counters["connections"] += 1
            logger.info("amqp.consuming", extra={"connector": self.name, "queue": queue.name, "node": str(address)})
            ready()
            await self._bring_in(consumer, channel, publisher)

    async def _bring_in(self, consumer: Consumer, channel: Channel, publisher: Publisher) -> None:
        while True:
            deliveries = await consumer.receive(MAX_BATCH_EVENTS)
            last = 0
            events = []
            for delivery in deliveries:
                event = self._event(delivery, channel)
                if event is not None:
                    events.append(event)
                    last = delivery.tag
            if events:
                await publisher.publish(events)
                channel.ack(last, multiple=True)
                self.counters["published"] += len(events)

    def _event(self, delivery: Delivery, channel: Channel) -> Event | None:
        """The event that a delivery is; None for one that is none, and is rejected."""
        self.counters["redelivered"] += delivery.redelivered
        try:
            return self._read(delivery)
        except PublisherError as error:
            channel.reject(delivery.tag, requeue=False)
            self._tell(delivery, error)
            return None

    def _tell(self, delivery: Delivery, error: PublisherError) -> None:
        counter = f"refused_{reason_of(error)}"
        self.counters[counter] += 1
        # Who publishes one bad message publishes many; the log is told at 1, 10, 100, …
        if is_telling(self.counters[counter]):
            routing_key = delivery.routing_key.decode(errors="replace")
            told = {"connector": self.name, "routing_key": routing_key, "reason": str(error)}
            logger.warning("amqp.refused", extra={**told, "so_far": self.counters[counter]})
