"""The opening of a connection: what is answered to what RabbitMQ asks, and what it must not ask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pamqp import frame as pamqp_frame

from connectors.amqp.codec import Channel, Connection
from connectors.amqp.errors import ConnectionFailed, ProtocolError
from connectors.amqp.handshake import Terms, answer_start, answer_tune, check_opened
from connectors.amqp.url import Address, parse_url

ADDRESS = parse_url("amqp://ada:hunter2@mq/games")
START = Connection.Start(mechanisms="AMQPLAIN PLAIN EXTERNAL")


def on_the_wire(method: Any) -> Any:
    """The same method, after a journey."""
    return pamqp_frame.unmarshal(pamqp_frame.marshal(method, 0))[2]


def terms(address: Address, channel_max: int = 2047, frame_max: int = 131_072, heartbeat: int = 60) -> Terms:
    """What is agreed upon; what we tell RabbitMQ must be the same."""
    tune_ok, agreed = answer_tune(Connection.Tune(channel_max, frame_max, heartbeat), address)
    told = on_the_wire(tune_ok)
    assert (told.channel_max, told.frame_max, told.heartbeat) == (
        agreed.channel_max,
        agreed.frame_max,
        agreed.heartbeat,
    )
    return agreed


# --- Who we are ------------------------------------------------------------------------------------------------------


def test_plain_gives_user_and_password() -> None:
    answer = on_the_wire(answer_start(START, ADDRESS, "broker main"))
    assert (answer.mechanism, answer.response) == ("PLAIN", "\0ada\0hunter2")


def test_external_gives_neither() -> None:
    answer = on_the_wire(answer_start(START, replace(ADDRESS, mechanism="EXTERNAL"), "broker main"))
    assert (answer.mechanism, answer.response) == ("EXTERNAL", "")


def test_rabbitmq_is_told_who_connects_and_what_we_know_of_its_extensions() -> None:
    told = on_the_wire(answer_start(START, ADDRESS, "broker main")).client_properties
    assert (told["product"], told["connection_name"]) == ("event-broker", "broker main")
    assert told["capabilities"] == {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "publisher_confirms": True,
    }


@pytest.mark.parametrize("mechanisms", ["AMQPLAIN", "", "PLAINER EXTERNAL"])
def test_a_mechanism_that_rabbitmq_does_not_offer_is_told_without_the_password(mechanisms: str) -> None:
    with pytest.raises(ConnectionFailed, match=r"amqp://mq:5672 .* not PLAIN; for EXTERNAL enable") as caught:
        answer_start(Connection.Start(mechanisms=mechanisms), ADDRESS, "broker")
    assert repr(mechanisms) in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("start", [Connection.Tune(), Channel.OpenOk(), None])
def test_rabbitmq_begins_with_start(start: object) -> None:
    with pytest.raises(ProtocolError, match=r"instead of connection\.start"):
        answer_start(start, ADDRESS, "broker")


# --- Terms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("theirs", "agreed"), [(0, 2047), (65_535, 2047), (2047, 2047), (5, 5)])
def test_the_smaller_number_of_channels_holds_and_0_is_no_bound(theirs: int, agreed: int) -> None:
    assert terms(ADDRESS, channel_max=theirs).channel_max == agreed


@pytest.mark.parametrize(("theirs", "agreed"), [(0, 131_072), (2**31, 131_072), (131_072, 131_072), (4096, 4096)])
def test_the_smaller_frame_holds_and_0_is_no_bound(theirs: int, agreed: int) -> None:
    assert terms(ADDRESS, frame_max=theirs).frame_max == agreed


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [
        (60, 20.0, 20.0),
        (10, 20.0, 10.0),
        (0, 20.0, 20.0),
        (60, 0.0, 0.0),
        (0, 0.0, 0.0),
        (60, 0.2, 1.0),
        (60, 2.4, 2.0),
    ],
)
def test_the_shorter_heartbeat_holds_in_whole_seconds_and_none_of_ours_is_none(
    theirs: int, ours: float, agreed: float
) -> None:
    assert terms(replace(ADDRESS, heartbeat=ours), heartbeat=theirs).heartbeat == agreed


def test_a_frame_below_amqp_s_least_is_no_offer() -> None:
    with pytest.raises(ConnectionFailed, match="frame_max is below AMQP's least, 4096"):
        terms(ADDRESS, frame_max=4095)


def test_a_challenge_has_no_answer() -> None:
    with pytest.raises(ConnectionFailed, match="a challenge that PLAIN has no answer to"):
        answer_tune(Connection.Secure("?"), ADDRESS)


@pytest.mark.parametrize("tune", [Connection.OpenOk(), START])
def test_rabbitmq_goes_on_with_tune(tune: object) -> None:
    with pytest.raises(ProtocolError, match=r"instead of connection\.tune"):
        answer_tune(tune, ADDRESS)


def test_rabbitmq_ends_with_open_ok() -> None:
    check_opened(Connection.OpenOk())
    with pytest.raises(ProtocolError, match=r"instead of connection\.open-ok"):
        check_opened(Connection.Tune())
