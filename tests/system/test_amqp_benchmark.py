"""The benchmark of RabbitMQ runs, here with few messages: its numbers mean nothing, but they come."""

from __future__ import annotations

import pytest

from benchmarks import amqp
from tests.system.rabbitmq import RabbitMQ

pytestmark = pytest.mark.system


def test_our_client_and_our_source_are_measured_beside_aio_pika(rabbitmq: RabbitMQ) -> None:
    report = amqp.consuming(rabbitmq.url(), messages=300, rounds=1)
    assert [row[0] for row in report.rows] == ["aio-pika", "our client", "our source"]
    assert report.rows[0][1] == 1
    assert all(float(row[1]) > 0 for row in report.rows)


def test_a_window_of_confirms_is_measured_beside_one_at_a_time(rabbitmq: RabbitMQ) -> None:
    report = amqp.publishing(rabbitmq.url(), messages=300, rounds=1)
    assert [row[0] for row in report.rows] == ["one at a time", "window of 100"]
    assert all(float(row[1]) > 0 for row in report.rows)
