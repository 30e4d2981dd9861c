"""What can go wrong with RabbitMQ, each error with what RabbitMQ said and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from broker.core.errors import BrokerError

REPLY_SUCCESS = 200
CONNECTION_FORCED = 320
ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
NOT_ALLOWED = 530

# AMQP 0-9-1 section 1.2 has the codes; what RabbitMQ means by them is in its own words, which we pass on.
_REMEDIES: Mapping[int, str] = {
    CONNECTION_FORCED: "RabbitMQ ends the connection, perhaps to restart",
    ACCESS_REFUSED: "check user and password in the URL, and the user's permissions in this vhost",
    NOT_FOUND: "make what is missing, or correct its name",
    RESOURCE_LOCKED: "another connection has it for itself alone: end that one, or use another name",
    PRECONDITION_FAILED: "it exists with other settings: use the same here, or delete it and let it be made anew",
    NOT_ALLOWED: "check the vhost in the URL, and that it exists (rabbitmqctl list_vhosts)",
}


class AmqpError(BrokerError):
    """Anything that goes wrong between us and RabbitMQ."""

    code = "amqp"


class ConnectionFailed(AmqpError):
    """No connection could be made."""


class ConnectionLost(AmqpError):
    """A connection that stood is gone, without RabbitMQ having said why."""


class ProtocolError(AmqpError):
    """The peer sent what AMQP 0-9-1 does not have."""


class ClosedByServer(AmqpError):
    """RabbitMQ closed a channel or the connection, and said why.

    reply_code: AMQP's code, such as 404. reply_text: RabbitMQ's own words. said: both, as a clause.
    """

    def __init__(self, reply_code: int, reply_text: str) -> None:
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.said = f"RabbitMQ said {reply_text!r} ({reply_code})"
        remedy = _REMEDIES.get(reply_code)
        super().__init__(f"{self.said}; {remedy}" if remedy else self.said)


class ConnectionClosed(ClosedByServer):
    """RabbitMQ closed the connection, and said why."""


class ChannelClosed(ClosedByServer):
    """RabbitMQ closed the channel, and said why; the connection stands."""


class ChannelAbandoned(AmqpError):
    """The channel is closed by ourselves: left, or an operation on it was cancelled halfway."""


class NotPrepared(AmqpError):
    """A queue, an exchange or a binding that can't be had."""


class ConsumerCancelled(AmqpError):
    """RabbitMQ ended the consumer: its queue was deleted, or has moved to another node."""


class PublishRefused(AmqpError):
    """RabbitMQ did not take a message."""


class Unroutable(PublishRefused):
    """No queue wanted the message, and it was published as mandatory."""
