"""Queues, exchanges and bindings: what must be there before anything can be consumed, and how it is made.

An exchange that exists is used as it is: it belongs to those who publish. A queue that exists must be as declared,
since it is ours, unless it is only to be checked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from connectors.amqp.channel import Arguments
from connectors.amqp.connection import Connection
from connectors.amqp.errors import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, ChannelClosed, NotPrepared

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Binding:
    """What the queue is to get: what is published to `exchange` under routing keys that match.

    kind: `topic`, `direct`, `fanout` or `headers`, for the case that there is no such exchange yet.
    routing_key: as AMQP writes it, where in a topic `*` is one word and `#` any number; `**` is one or more, as in
    patterns.
    """

    exchange: str
    kind: str = "topic"
    routing_key: str = "#"
    arguments: Arguments = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The routing key as RabbitMQ understands it."""
        if self.kind != "topic":
            return self.routing_key
        return ".".join("*.#" if word == "**" else word for word in self.routing_key.split("."))


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """A queue and what leads into it.

    declare: whether to make what is missing; otherwise the queue is only checked.
    dead_letter_exchange: where what we reject goes; made, with a queue behind it, if there is none.
    """

    name: str
    declare: bool = True
    durable: bool = True
    arguments: Arguments = field(default_factory=dict)
    bindings: Sequence[Binding] = ()
    dead_letter_exchange: str | None = None

    @property
    def all_arguments(self) -> Arguments:
        """What the queue is declared with."""
        if self.dead_letter_exchange is None:
            return self.arguments
        return {**self.arguments, "x-dead-letter-exchange": self.dead_letter_exchange}


async def prepare(connection: Connection, queue: QueueSettings) -> None:
    """See to it that the queue is there and gets what it should.

    Raises NotPrepared, with what RabbitMQ said and what to change.
    """
    if queue.declare:
        await _make_dead_letters(connection, queue)
        for name, kind in {binding.exchange: binding.kind for binding in queue.bindings}.items():
            await _make_exchange(connection, name, kind)
    channel = await connection.open_channel()
    with _explained(f"queue {queue.name!r}", _queue_remedies(queue)):
        await channel.declare_queue(
            queue.name, passive=not queue.declare, durable=queue.durable, arguments=queue.all_arguments
        )
    for binding in queue.bindings:
        what = f"the binding of queue {queue.name!r} to exchange {binding.exchange!r}"
        with _explained(what, _BINDING_REMEDIES):
            await channel.bind(queue.name, binding.exchange, binding.key, binding.arguments)
    await channel.close()


_BINDING_REMEDIES = {
    NOT_FOUND: "make the exchange, or set declare = true to have it made",
    ACCESS_REFUSED: "give the user the rights to write to the queue and to read from the exchange",
}


async def _make_exchange(connection: Connection, name: str, kind: str) -> None:
    """Make an exchange if there is none."""
    with _explained(f"exchange {name!r}", _EXCHANGE_REMEDIES):
        if await _exists(connection, name):
            return
        channel = await connection.open_channel()
        await channel.declare_exchange(name, kind)
        await channel.close()


async def _exists(connection: Connection, exchange: str) -> bool:
    channel = await connection.open_channel()
    try:
        await channel.declare_exchange(exchange, "", passive=True)
    except ChannelClosed as error:
        if error.reply_code != NOT_FOUND:
            raise
        return False
    await channel.close()
    return True


async def _make_dead_letters(connection: Connection, queue: QueueSettings) -> None:
    """An exchange that does not exist, or has no queue, would lose what is rejected without a word.

    The queue is made first: once there is the exchange, nobody asks any more whether it has one.
    """
    exchange = queue.dead_letter_exchange
    if not exchange:
        return
    with _explained(f"exchange {exchange!r}", _EXCHANGE_REMEDIES):
        if await _exists(connection, exchange):
            return
    name = f"{queue.name}.dead"
    channel = await connection.open_channel()
    with _explained(f"queue {name!r} for dead letters", {}):
        await channel.declare_queue(name)
        await _make_exchange(connection, exchange, "fanout")
        await channel.bind(name, exchange, "")
    await channel.close()
    logger.info("amqp.dead_letters_made", extra={"exchange": exchange, "queue": name})


_EXCHANGE_REMEDIES = {ACCESS_REFUSED: "give the user the right to configure it, or make it yourself"}


def _queue_remedies(queue: QueueSettings) -> Mapping[int, str]:
    return {
        NOT_FOUND: "make the queue, or set declare = true to have it made",
        PRECONDITION_FAILED: (
            "it exists with other settings: make durable, dead_letter_exchange and arguments equal to them, delete the "
            "queue to have it made anew, or set declare = false to use it as it is"
        ),
        ACCESS_REFUSED: f"give the user the rights to configure and read {queue.name!r} (rabbitmqctl set_permissions)",
    }


@contextmanager
def _explained(what: str, remedies: Mapping[int, str]) -> Iterator[None]:
    try:
        yield
    except ChannelClosed as error:
        remedy = remedies.get(error.reply_code)
        raise NotPrepared(f"{what}: {error.said}; {remedy}" if remedy else f"{what}: {error}") from error
