"""Whoever does not get on leaves the messages in RabbitMQ: no more than the prefetch is ever here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from connectors.amqp.codec import Basic, encode_publish
from connectors.amqp.connection import open_connection
from connectors.amqp.url import parse_url
from tests.system.amqp import counts, envelope, ready
from tests.system.harness import REPOSITORY, environ, eventually, unique
from tests.system.held_source import PREFETCH
from tests.system.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.system, pytest.mark.longest(240)]

WAITING = 1_000_000
MOST_GROWTH = 8 << 20


async def flood(url: str, queue: str, number: int) -> None:
    """Fill a queue as fast as RabbitMQ takes it; it has taken all when it answers the question that follows."""
    async with open_connection(parse_url(url), name="flood") as connection:
        channel = await connection.open_channel()
        await channel.declare_queue(queue)
        one = encode_publish(1, Basic.Publish(routing_key=queue), Basic.Properties(), envelope("a.b"), 4096)
        for _ in range(number // 1000):
            connection._outgoing.put(one * 1000)
            await connection._outgoing.wait_room()
        await channel.declare_queue(queue)


def resident_bytes(process: subprocess.Popen[bytes]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


async def test_a_million_messages_wait_in_rabbitmq_and_flow_when_the_dispatcher_is_released(
    own_rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    node, queue, released = own_rabbitmq, unique("flood"), tmp_path / "released"
    await flood(node.url(), queue, WAITING)
    command = [sys.executable, "-m", "tests.system.held_source", node.url(), queue, str(released)]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environ()) as process:  # noqa: ASYNC220
        try:
            held = (WAITING, PREFETCH)
            await trio.to_thread.run_sync(eventually, lambda: counts(node, queue) == held, "full prefetch")
            before = resident_bytes(process)
            for _ in range(3):
                await trio.sleep(0.3)
                assert await trio.to_thread.run_sync(counts, node, queue) == held
            assert resident_bytes(process) - before < MOST_GROWTH
            released.touch()
            with trio.fail_after(180):
                while left := await ready(node.url(), queue):
                    assert left <= WAITING
                    await trio.sleep(0.2)
            assert resident_bytes(process) - before < MOST_GROWTH
            await trio.to_thread.run_sync(eventually, lambda: counts(node, queue) == (0, 0), "empty queue")
        finally:
            process.terminate()
