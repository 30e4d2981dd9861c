"""One channel: a question at a time to RabbitMQ, and what it sends of its own accord.

RabbitMQ answers the questions of a channel in order. Who is cancelled while it waits for an answer would leave the next
one with the wrong answer, so such a channel is closed; the connection and its other channels stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import trio

from connectors.amqp.codec import (
    FRAME_OVERHEAD,
    Basic,
    BindQueue,
    Confirm,
    Confirmed,
    Consume,
    DeclareExchange,
    DeclareQueue,
    Delivery,
    Exchange,
    Incoming,
    Method,
    Publish,
    Queue,
    Returned,
    encode_ack,
    encode_method,
    encode_publish,
    encode_reject,
)
from connectors.amqp.codec import Channel as ChannelMethods
from connectors.amqp.confirms import Confirms, Publication
from connectors.amqp.consuming import Consumer
from connectors.amqp.errors import (
    REPLY_SUCCESS,
    AmqpError,
    ChannelAbandoned,
    ChannelClosed,
    ConsumerCancelled,
    ProtocolError,
)
from connectors.amqp.outgoing import Outgoing

Answer = TypeVar("Answer", bound=Method)
Arguments = Mapping[str, str | int | float | bool]


class Channel:
    """One channel of a connection; `Connection.open_channel` makes them.

    number: AMQP's. frame_max: bytes of the largest frame that RabbitMQ takes. forget: called when the number is free.
    """

    def __init__(self, number: int, outgoing: Outgoing, frame_max: int, forget: Callable[[int], object]) -> None:
        self._number = number
        self._outgoing = outgoing
        self._frame_max = frame_max
        self._forget = forget
        self._one_question = trio.Lock()
        self._answer: Method | None = None
        self._answered = trio.Event()
        self._error: AmqpError | None = None
        self._leaving = False  # we have said goodbye, so that RabbitMQ will answer
        self._consumers: dict[bytes, Consumer] = {}
        self._consumed = 0
        self._confirms: Confirms | None = None
        self._unblocked = trio.Event()
        self._unblocked.set()

    # -- questions, each of which waits for its answer and raises ChannelClosed where RabbitMQ says no

    async def open(self) -> None:
        """Open it; nothing else may come before."""
        await self._ask(ChannelMethods.Open(), ChannelMethods.OpenOk)

    async def declare_exchange(self, name: str, kind: str, *, passive: bool = False) -> None:
        """Make a durable exchange of this kind if there is none; with `passive`, only check that there is one."""
        method = DeclareExchange(exchange=name, exchange_type=kind, passive=passive, durable=not passive)
        await self._ask(method, Exchange.DeclareOk)

    async def declare_queue(
        self, name: str, *, passive: bool = False, durable: bool = True, arguments: Arguments | None = None
    ) -> int:
        """Make a queue if there is none, or only check that there is one; how many messages wait in it."""
        method = DeclareQueue(queue=name, passive=passive, durable=durable, arguments=dict(arguments or {}))
        answer = await self._ask(method, Queue.DeclareOk)
        return answer.message_count or 0

    async def bind(self, queue: str, exchange: str, routing_key: str, arguments: Arguments | None = None) -> None:
        """Let the queue get what is published to the exchange under routing keys that match."""
        method = BindQueue(queue=queue, exchange=exchange, routing_key=routing_key, arguments=dict(arguments or {}))
        await self._ask(method, Queue.BindOk)

    async def consume(self, queue: str, prefetch: int) -> Consumer:
        """Have the queue's messages delivered, at most `prefetch` (1 to 65,535) unacknowledged at a time."""
        self._consumed += 1
        tag = f"broker.{self._consumed}"
        method = Consume(queue=queue, consumer_tag=tag)
        await self._ask(Basic.Qos(prefetch_count=prefetch), Basic.QosOk)
        consumer = Consumer(prefetch)
        self._consumers[tag.encode()] = consumer  # deliveries may come together with the answer
        await self._ask(method, Basic.ConsumeOk)
        return consumer

    async def confirm(self, window: int) -> None:
        """Have RabbitMQ answer for each message that is published here; at most `window` unanswered at a time."""
        self._confirms = Confirms(window)
        await self._ask(Confirm.Select(), Confirm.SelectOk)

    async def close(self) -> None:
        """Close it, and wait until RabbitMQ knows."""
        if self._error is None:
            await self._ask(_goodbye(), ChannelMethods.CloseOk)
            self.end(ChannelAbandoned("the channel is closed"))
            self._forget(self._number)

    # -- statements, which RabbitMQ does not answer

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """The delivery has been dealt with, or with `multiple` all up to it that are open."""
        self._check_open()
        self._outgoing.put(encode_ack(self._number, tag, multiple=multiple))

    def reject(self, tag: int, *, requeue: bool) -> None:
        """The delivery can't be dealt with: it is to come again, or else to go to the dead-letter exchange, if any."""
        self._check_open()
        self._outgoing.put(encode_reject(self._number, tag, requeue=requeue))

    async def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Basic.Properties, *, mandatory: bool = True
    ) -> Publication:
        """Send a message to an exchange. Waits while RabbitMQ is blocked, or the window of `confirm` is full.

        mandatory: have it refused where no queue wants it, instead of it being dropped.

        Raises ChannelClosed, ChannelAbandoned, or AmqpError for what can't be said in AMQP.
        """
        if self._confirms is None:
            raise AmqpError("publish() needs confirm() first, or nobody would know what has arrived")
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._unblocked.is_set():  # to wait for what is so already would be a turn for every message
            await self._unblocked.wait()
        await self._outgoing.wait_room()
        await self._confirms.wait_room()  # the last, so that none of those who waited goes beyond it
        self._check_open()
        method = Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
        frames = encode_publish(self._number, method, properties, body, self._frame_max - FRAME_OVERHEAD)
        self._outgoing.put(frames)
        return self._confirms.published(exchange, routing_key, properties.message_id)

    # -- what the connection brings

    def handle(self, incoming: Incoming) -> None:
        """Take what RabbitMQ sent on this channel.

        Raises ProtocolError for what has no place here.
        """
        if self._error is not None:
            self._finish(incoming)
        elif isinstance(incoming, Returned):
            if self._confirms is not None:
                self._confirms.returned(incoming)
        elif isinstance(incoming, Delivery):
            consumer = self._consumers.get(incoming.consumer_tag)
            if consumer is None:
                raise ProtocolError(f"RabbitMQ delivers to a consumer that nobody knows: {incoming.consumer_tag!r}")
            consumer.arrived(incoming)
        elif isinstance(incoming, Confirmed):
            if self._confirms is not None:
                self._confirms.confirmed(incoming)
        elif isinstance(incoming, Method):
            self._handle_method(incoming)

    def block(self, *, blocked: bool) -> None:
        """RabbitMQ takes no messages for the time being (`connection.blocked`), or takes them again."""
        if not blocked:
            self._unblocked.set()
        elif self._unblocked.is_set():
            self._unblocked = trio.Event()

    def end(self, error: AmqpError) -> None:
        """Nothing more will come; all who wait here are told why."""
        self._error = self._error or error
        self._answered.set()
        self._unblocked.set()
        for consumer in self._consumers.values():
            consumer.end(self._error)
        if self._confirms is not None:
            self._confirms.end(self._error)

    def _handle_method(self, method: Method) -> None:
        if isinstance(method, ChannelMethods.Close):
            self.end(ChannelClosed(method.reply_code or 0, method.reply_text))
            self._finish(method)
        elif isinstance(method, Basic.Cancel):
            consumer = self._consumers.pop((method.consumer_tag or "").encode(), None)
            if consumer is not None:
                consumer.end(ConsumerCancelled("RabbitMQ ended the consumer: its queue was deleted, or has moved"))
        elif isinstance(method, ChannelMethods.Flow):
            self.block(blocked=not method.active)
            self._outgoing.put(encode_method(self._number, ChannelMethods.FlowOk(method.active)))
        else:
            self._answer = method
            self._answered.set()

    def _finish(self, incoming: Incoming) -> None:
        """The channel is closed on our side; until it is on the other one, whatever comes is of no interest.

        Where both sides say goodbye at the same time, each also gets an answer.
        """
        if isinstance(incoming, ChannelMethods.Close):
            self._outgoing.put(encode_method(self._number, ChannelMethods.CloseOk()))
            if not self._leaving:
                self._forget(self._number)
        elif isinstance(incoming, ChannelMethods.CloseOk):
            self._forget(self._number)

    async def _ask(self, question: Method, kind: type[Answer]) -> Answer:
        async with self._one_question:
            self._check_open()
            frame = encode_method(self._number, question)
            self._answer = None
            self._answered = trio.Event()
            self._outgoing.put(frame)
            self._leaving = isinstance(question, ChannelMethods.Close)
            try:
                await self._answered.wait()
            except trio.Cancelled:
                self._abandon()
                raise
            self._check_open()
        if not isinstance(self._answer, kind):
            raise ProtocolError(f"RabbitMQ answered {question.name} with {getattr(self._answer, 'name', 'nothing')}")
        return self._answer

    def _abandon(self) -> None:
        if self._error is None:
            if not self._leaving:
                self._outgoing.put(encode_method(self._number, _goodbye()))
                self._leaving = True
            self.end(ChannelAbandoned("an operation on the channel was cancelled, so that the channel is closed"))

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error


def _goodbye() -> ChannelMethods.Close:
    return ChannelMethods.Close(reply_code=REPLY_SUCCESS, reply_text="done", class_id=0, method_id=0)
