"""One consumer: the deliveries that RabbitMQ has sent and nobody has looked at yet."""

from __future__ import annotations

from collections import deque

import trio

from connectors.amqp.codec import Delivery
from connectors.amqp.errors import AmqpError, ProtocolError


class Consumer:
    """Deliveries of one queue, in order.

    prefetch: how many RabbitMQ sends at the most before they are acknowledged, which bounds what waits here.
    """

    def __init__(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self._waiting: deque[Delivery] = deque()
        self._arrived = trio.Event()
        self._error: AmqpError | None = None

    async def receive(self, most: int) -> list[Delivery]:
        """Wait for a delivery; return it with all others that wait, `most` at the most.

        Raises ConsumerCancelled, ChannelClosed or ChannelAbandoned when there will be no more.
        """
        while not self._waiting and self._error is None:
            if self._arrived.is_set():
                self._arrived = trio.Event()
            await self._arrived.wait()
        if self._error is not None:  # what still waits can't be acknowledged any more, and comes again
            raise self._error
        if len(self._waiting) <= most:
            taken = list(self._waiting)
            self._waiting.clear()
            return taken
        return [self._waiting.popleft() for _ in range(most)]

    def arrived(self, delivery: Delivery) -> None:
        """RabbitMQ has sent this.

        Raises ProtocolError where that is more than was agreed.
        """
        if len(self._waiting) >= self._prefetch:
            raise ProtocolError(f"RabbitMQ sent more than the {self._prefetch} deliveries that it may")
        self._waiting.append(delivery)
        self._arrived.set()

    def end(self, error: AmqpError) -> None:
        """There will be no more, because of `error`."""
        self._error = error
        self._arrived.set()
