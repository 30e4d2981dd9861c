"""The opening of a connection (AMQP 0-9-1 section 2.2.4): what we answer to what RabbitMQ asks. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.amqp.codec import MAX_FRAME_BYTES, Connection
from connectors.amqp.errors import ConnectionFailed, ProtocolError
from connectors.amqp.url import Address

_CHANNEL_MAX = 2047
_MIN_FRAME_BYTES = 4096  # AMQP's frame-min-size
# What RabbitMQ does only for those who say that they know it.
_CAPABILITIES = (
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "publisher_confirms",
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What both sides agreed upon: channels, bytes of the largest frame, seconds of the heartbeat (0: none)."""

    channel_max: int = _CHANNEL_MAX
    frame_max: int = MAX_FRAME_BYTES
    heartbeat: float = 0.0


def answer_start(start: object, address: Address, name: str) -> Connection.StartOk:
    """Say who we are. `name`: what RabbitMQ's list of connections calls us.

    Raises ProtocolError where the question is another one, ConnectionFailed where RabbitMQ does not know our mechanism.
    """
    if not isinstance(start, Connection.Start):
        raise ProtocolError(f"the server began with {start!r} instead of connection.start")
    if address.mechanism not in start.mechanisms.split():
        raise ConnectionFailed(
            f"{address}: RabbitMQ offers the mechanisms {start.mechanisms!r}, not {address.mechanism}; "
            "for EXTERNAL enable rabbitmq_auth_mechanism_ssl and list it in auth_mechanisms"
        )
    response = "" if address.mechanism == "EXTERNAL" else f"\0{address.user}\0{address.password}"
    properties = {
        "product": "event-broker",
        "platform": "Python, Trio",
        "connection_name": name,
        "capabilities": dict.fromkeys(_CAPABILITIES, True),
    }
    return Connection.StartOk(properties, address.mechanism, response)  # type: ignore[arg-type]


def answer_tune(tune: object, address: Address) -> tuple[Connection.TuneOk, Terms]:
    """Agree on the smaller of what each side can do; 0 means that a side sets no bound.

    Raises ProtocolError where the question is another one, ConnectionFailed where RabbitMQ wants what we can't do.
    """
    if isinstance(tune, Connection.Secure):
        raise ConnectionFailed(f"{address}: RabbitMQ asks a challenge that {address.mechanism} has no answer to")
    if not isinstance(tune, Connection.Tune):
        raise ProtocolError(f"the server sent {tune!r} instead of connection.tune")
    terms = Terms(
        channel_max=min(tune.channel_max or _CHANNEL_MAX, _CHANNEL_MAX),
        frame_max=min(tune.frame_max or MAX_FRAME_BYTES, MAX_FRAME_BYTES),
        heartbeat=_heartbeat(tune.heartbeat, address.heartbeat),
    )
    if terms.frame_max < _MIN_FRAME_BYTES:
        raise ConnectionFailed(f"{address}: RabbitMQ's frame_max is below AMQP's least, {_MIN_FRAME_BYTES}")
    return Connection.TuneOk(terms.channel_max, terms.frame_max, round(terms.heartbeat)), terms


def check_opened(answer: object) -> None:
    """Raise ProtocolError unless RabbitMQ has opened the vhost."""
    if not isinstance(answer, Connection.OpenOk):
        raise ProtocolError(f"the server sent {answer!r} instead of connection.open-ok")


def _heartbeat(theirs: float, ours: float) -> float:
    if not ours:
        return 0.0
    return max(1.0, float(round(min(theirs or ours, ours))))
