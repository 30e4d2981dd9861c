"""What is prepared before anything can be consumed: only what is missing is made, and a refusal says what to change."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pamqp.frame import FrameTypes

from connectors.amqp.codec import Channel, Exchange, Queue
from connectors.amqp.errors import NotPrepared
from connectors.amqp.topology import Binding, QueueSettings, prepare
from tests.connectors.amqp.server import Server, connected, refusing

Refusals = dict[str, tuple[int, str]]


class Rabbit:
    """What there is at a server, by name; and what it refuses, by the name that is asked about."""

    def __init__(self, server: Server, exchanges: set[str], refused: Refusals | None = None) -> None:
        self.exchanges = exchanges
        self.refused = refused or {}
        self.asked: list[str] = []
        server.answers[Exchange.Declare] = self._declare_exchange
        server.answers[Queue.Declare] = self._declare_queue
        server.answers[Queue.Bind] = self._bind

    def _declare_exchange(self, asked: Exchange.Declare) -> FrameTypes:
        if asked.exchange in self.refused:
            return closing(*self.refused[asked.exchange])
        if asked.passive and asked.exchange not in self.exchanges:
            return closing(404, f"NOT_FOUND - no exchange '{asked.exchange}' in vhost '/'")
        if not asked.passive:
            self.asked.append(f"exchange {asked.exchange} {asked.exchange_type}{' durable' if asked.durable else ''}")
            self.exchanges.add(asked.exchange)
        return Exchange.DeclareOk()

    def _declare_queue(self, asked: Queue.Declare) -> FrameTypes:
        if asked.queue in self.refused:
            return closing(*self.refused[asked.queue])
        settings = f"{' durable' if asked.durable else ''}{' passive' if asked.passive else ''} {asked.arguments}"
        self.asked.append(f"queue {asked.queue}{settings}")
        return Queue.DeclareOk(asked.queue, 0, 0)

    def _bind(self, asked: Queue.Bind) -> FrameTypes:
        if asked.exchange not in self.exchanges:
            return closing(404, f"NOT_FOUND - no exchange '{asked.exchange}' in vhost '/'")
        self.asked.append(f"bind {asked.queue} {asked.exchange} {asked.routing_key} {asked.arguments}")
        return Queue.BindOk()


def closing(code: int, text: str) -> Channel.Close:
    return Channel.Close(code, text, 0, 0)


async def prepared(queue: QueueSettings) -> None:
    async with connected() as connection:
        await prepare(connection, queue)


async def refusal(queue: QueueSettings) -> str:
    async with connected() as connection:
        with pytest.raises(NotPrepared) as caught:
            await prepare(connection, queue)
    return str(caught.value)


# --- Bindings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "routing_key", "key"),
    [
        ("topic", "#", "#"),
        ("topic", "games.*.created", "games.*.created"),
        ("topic", "games.**", "games.*.#"),
        ("topic", "**", "*.#"),
        ("topic", "**.created", "*.#.created"),
        ("topic", "a.**.b.**", "a.*.#.b.*.#"),
        ("topic", "a.b**", "a.b**"),
        ("topic", "", ""),
        ("direct", "games.**", "games.**"),
        ("fanout", "**", "**"),
        ("headers", "**", "**"),
    ],
)
def test_a_binding_means_what_a_pattern_means(kind: str, routing_key: str, key: str) -> None:
    assert Binding("events", kind, routing_key).key == key


def test_the_queue_is_declared_with_its_dead_letter_exchange() -> None:
    arguments = {"x-queue-type": "quorum"}
    assert QueueSettings("q", arguments=arguments).all_arguments == arguments
    with_letters = QueueSettings("q", arguments=arguments, dead_letter_exchange="rejected")
    assert with_letters.all_arguments == {**arguments, "x-dead-letter-exchange": "rejected"}
    assert QueueSettings("q", dead_letter_exchange="").all_arguments == {"x-dead-letter-exchange": ""}


# --- What is made ----------------------------------------------------------------------------------------------------


async def test_a_queue_is_declared_and_no_channel_stays_open(server: Server) -> None:
    rabbit = Rabbit(server, set())
    await prepared(QueueSettings("q", durable=False, arguments={"x-max-length": 5}))
    assert rabbit.asked == ["queue q {'x-max-length': 5}"]
    assert server.names() == ["Channel.Open", "Queue.Declare", "Channel.Close", "Connection.Close"]


async def test_a_queue_is_bound_to_exchanges_that_are_there(server: Server) -> None:
    rabbit = Rabbit(server, {"events", "orders"})
    bindings = [Binding("events", routing_key="a.**"), Binding("events", "topic", "b"), Binding("orders", "fanout", "")]
    await prepared(QueueSettings("q", bindings=bindings))
    assert rabbit.asked == [
        "queue q durable {}",
        "bind q events a.*.# {}",
        "bind q events b {}",
        "bind q orders  {}",
    ]


async def test_an_exchange_that_is_missing_is_made_once_as_the_binding_says(server: Server) -> None:
    rabbit = Rabbit(server, set())
    bindings = [Binding("e", "headers", "", {"x-match": "any"}), Binding("e", "headers", "", {"a": 1}), Binding("t")]
    await prepared(QueueSettings("q", bindings=bindings))
    assert rabbit.asked == [
        "exchange e headers durable",
        "exchange t topic durable",
        "queue q durable {}",
        "bind q e  {'x-match': 'any'}",
        "bind q e  {'a': 1}",
        "bind q t # {}",
    ]


async def test_dead_letters_that_would_be_lost_are_given_a_queue(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    rabbit = Rabbit(server, set())
    with caplog.at_level(logging.INFO, "connectors.amqp"):
        await prepared(QueueSettings("q", dead_letter_exchange="rejected"))
    assert rabbit.asked == [
        "queue q.dead durable {}",
        "exchange rejected fanout durable",
        "bind q.dead rejected  {}",
        "queue q durable {'x-dead-letter-exchange': 'rejected'}",
    ]
    told: dict[str, Any] = vars(caplog.records[0])
    assert (told["msg"], told["exchange"], told["queue"]) == ("amqp.dead_letters_made", "rejected", "q.dead")


@pytest.mark.parametrize("exchange", ["rejected", ""])
async def test_dead_letters_that_go_somewhere_already_are_left_alone(server: Server, exchange: str) -> None:
    rabbit = Rabbit(server, {"rejected"})
    await prepared(QueueSettings("q", dead_letter_exchange=exchange))
    assert rabbit.asked == [f"queue q durable {{'x-dead-letter-exchange': '{exchange}'}}"]


async def test_what_is_only_to_be_checked_is_only_checked_and_bound(server: Server) -> None:
    rabbit = Rabbit(server, {"events"})
    bindings = [Binding("events")]
    await prepared(QueueSettings("q", declare=False, bindings=bindings, dead_letter_exchange="rejected"))
    assert rabbit.asked == [
        "queue q durable passive {'x-dead-letter-exchange': 'rejected'}",
        "bind q events # {}",
    ]


# --- What is refused -------------------------------------------------------------------------------------------------

MISSING = (404, "NOT_FOUND - no queue 'q' in vhost '/'")
DIFFERENT = (406, "PRECONDITION_FAILED - inequivalent arg 'durable'")
FORBIDDEN = (403, "ACCESS_REFUSED - access refused")


@pytest.mark.parametrize(
    ("declare", "answer", "remedy"),
    [
        (False, MISSING, "make the queue, or set declare = true to have it made"),
        (True, DIFFERENT, "it exists with other settings: make durable, dead_letter_exchange and arguments equal"),
        (True, FORBIDDEN, "give the user the rights to configure and read 'q' (rabbitmqctl set_permissions)"),
        (True, (405, "RESOURCE_LOCKED - exclusive"), "another connection has it for itself alone"),
    ],
)
async def test_a_queue_that_can_not_be_had_is_told_with_what_to_change(
    server: Server, declare: bool, answer: tuple[int, str], remedy: str
) -> None:
    Rabbit(server, set(), {"q": answer})
    message = await refusal(QueueSettings("q", declare=declare))
    assert message.startswith(f"queue 'q': RabbitMQ said {answer[1]!r} ({answer[0]}); {remedy}")


async def test_a_code_that_nobody_has_a_remedy_for_is_told_as_it_is(server: Server) -> None:
    Rabbit(server, set(), {"q": (541, "INTERNAL_ERROR")})
    assert await refusal(QueueSettings("q")) == "queue 'q': RabbitMQ said 'INTERNAL_ERROR' (541)"


async def test_an_exchange_that_may_not_be_looked_at_is_told(server: Server) -> None:
    Rabbit(server, set(), {"events": FORBIDDEN})
    assert await refusal(QueueSettings("q", bindings=[Binding("events")])) == (
        "exchange 'events': RabbitMQ said 'ACCESS_REFUSED - access refused' (403); "
        "give the user the right to configure it, or make it yourself"
    )
    assert [declare.passive for declare in server.heard_of(Exchange.Declare)] == [True]


async def test_an_exchange_that_may_not_be_made_is_told(server: Server) -> None:
    Rabbit(server, set())
    missing = server.answers[Exchange.Declare]
    refuse = refusing(*FORBIDDEN)
    server.answers[Exchange.Declare] = lambda asked: missing(asked) if asked.passive else refuse(asked)
    message = await refusal(QueueSettings("q", dead_letter_exchange="rejected"))
    assert "exchange 'rejected': RabbitMQ said 'ACCESS_REFUSED" in message
    assert "or make it yourself" in message


async def test_a_binding_to_what_is_missing_is_told(server: Server) -> None:
    Rabbit(server, set())
    message = await refusal(QueueSettings("q", declare=False, bindings=[Binding("events")]))
    assert message == (
        "the binding of queue 'q' to exchange 'events': "
        "RabbitMQ said \"NOT_FOUND - no exchange 'events' in vhost '/'\" (404); "
        "make the exchange, or set declare = true to have it made"
    )


async def test_a_queue_for_dead_letters_that_can_not_be_had_is_told(server: Server) -> None:
    Rabbit(server, set(), {"q.dead": DIFFERENT})
    message = await refusal(QueueSettings("q", dead_letter_exchange="rejected"))
    assert message.startswith("queue 'q.dead' for dead letters: RabbitMQ said \"PRECONDITION_FAILED")
    assert "it exists with other settings" in message


async def test_without_a_queue_for_dead_letters_their_exchange_is_not_made(server: Server) -> None:
    """Or else the next try would find it, and lose what is rejected without a word."""
    rabbit = Rabbit(server, set(), {"q.dead": DIFFERENT})
    queue = QueueSettings("q", dead_letter_exchange="rejected")
    assert await refusal(queue) == await refusal(queue)
    assert rabbit.exchanges == set()
