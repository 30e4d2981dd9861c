"""Nothing lost and nothing doubled, whoever dies: RabbitMQ or the broker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.system.amqp import Numbers, counts, declare, ready, source, wait_running
from tests.system.client import Client, connected
from tests.system.harness import REPOSITORY, Broker, Brokers, environ, eventually, unique
from tests.system.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.system, pytest.mark.longest(180)]

MESSAGES = 20_000
FEW = 5000
PREFETCH = 50


class Collector:
    """The numbers that a subscriber saw, in order."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def collect(self, client: Client) -> None:
        """Until the connection ends."""
        try:
            while True:
                self.seen.append((await client.frame(patience=100))["data"])
        except ConnectionClosed:
            pass

    async def wait_for(self, number: int) -> None:
        with trio.fail_after(100):
            while len(self.seen) < number:
                await trio.sleep(0.02)


async def end_and_start(node: RabbitMQ, numbers: Numbers) -> None:
    """While the numbers are published RabbitMQ is stopped and started, and then killed and started."""
    for end, share in ((node.stop, 0.3), (node.kill, 0.6)):
        while numbers.confirmed < share * MESSAGES:
            await trio.sleep(0.01)
        await trio.to_thread.run_sync(end)
        await trio.to_thread.run_sync(node.start)


async def test_each_number_is_seen_once_while_rabbitmq_is_stopped_and_killed(
    brokers: Brokers, own_rabbitmq: RabbitMQ
) -> None:
    node, queue = own_rabbitmq, unique("survival")
    broker = brokers.start("[websocket]\nqueue_size = 20000\n" + source("main", node.url(), queue))
    await wait_running(broker, "main")
    one, other = Collector(), Collector()
    numbers = Numbers(node.url(), queue, MESSAGES)
    async with trio.open_nursery() as nursery, connected(broker, "ada") as ada, connected(broker, "bob") as bob:
        for client, collector in ((ada, one), (bob, other)):
            await client.subscribe("numbers.*")
            nursery.start_soon(collector.collect, client)
        nursery.start_soon(end_and_start, node, numbers)
        await numbers.publish()
        for collector in (one, other):
            await collector.wait_for(MESSAGES)
        await wait_running(broker, "main")
        await trio.to_thread.run_sync(eventually, lambda: counts(node, queue) == (0, 0), "queue with nothing in it")
        nursery.cancel_scope.cancel()
    for collector in (one, other):
        assert sorted(collector.seen) == list(range(MESSAGES))


async def test_what_a_killed_source_had_not_logged_it_had_not_acknowledged(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    queue, log = unique("killed"), tmp_path / "log"
    await declare(rabbitmq.url(), queue)
    await Numbers(rabbitmq.url(), queue, FEW).publish()

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.system.logging_source", rabbitmq.url(), queue, str(log)]
        return subprocess.Popen(command, cwd=REPOSITORY, env=environ())

    def logged() -> list[str]:
        return log.read_text().split() if log.exists() else []

    with start() as process:
        await trio.to_thread.run_sync(eventually, lambda: len(logged()) > 1000, "thousand that are logged")
        process.kill()
    taken = logged()
    await trio.to_thread.run_sync(eventually, lambda: counts(rabbitmq, queue)[1] == 0, "end of the killed consumer")
    acknowledged = FEW - await ready(rabbitmq.url(), queue)
    assert acknowledged <= len(taken) < FEW

    with start() as process:
        await trio.to_thread.run_sync(eventually, lambda: counts(rabbitmq, queue) == (0, 0), "empty queue")
        process.terminate()
    again = logged()[len(taken) :]
    assert len(again) == FEW - acknowledged
    assert {*taken, *again} == {f"number-{number}" for number in range(FEW)}


async def test_a_broker_that_is_killed_and_started_again_gets_what_it_had_not_acknowledged(
    brokers: Brokers, own_rabbitmq: RabbitMQ
) -> None:
    node, queue = own_rabbitmq, unique("restart")
    configuration = source("main", node.url(), queue, prefetch=PREFETCH)
    before, after = Collector(), Collector()
    numbers = Numbers(node.url(), queue, FEW)
    killed = brokers.start(configuration)
    await wait_running(killed, "main")
    async with trio.open_nursery() as nursery, connected(killed, "ada") as client:
        await client.subscribe("numbers.*")
        nursery.start_soon(before.collect, client)
        nursery.start_soon(numbers.publish)
        await before.wait_for(1000)
        brokers.kill(killed)
    held = await ready(node.url(), queue)
    await trio.to_thread.run_sync(node.stop)  # so that the subscriber can be there before the first event

    broker: Broker = brokers.start(configuration)
    async with trio.open_nursery() as nursery, connected(broker, "ada") as client:
        await client.subscribe("numbers.*")
        nursery.start_soon(after.collect, client)
        await trio.to_thread.run_sync(node.start)
        await after.wait_for(held)
        await trio.to_thread.run_sync(eventually, lambda: counts(node, queue) == (0, 0), "empty queue")
        nursery.cancel_scope.cancel()
    # What the log in memory had taken and the subscriber had not read died with the process; all else is here, once.
    assert held
    assert len(after.seen) == len(set(after.seen)) == held
