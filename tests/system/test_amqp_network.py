"""A network that swallows everything without a FIN: noticed by the heartbeat, and healed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.system.amqp import envelope, publish, source, sources, wait_running, wait_state
from tests.system.client import connected
from tests.system.harness import Brokers, unique
from tests.system.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.system, pytest.mark.longest(90)]


def drop(action: str, port: int) -> subprocess.CompletedProcess[bytes]:
    """Begin (-I) or end (-D) to drop all packets to this port of loopback."""
    rule = ["INPUT", "-i", "lo", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
    return subprocess.run(["iptables", "-w", action, *rule], capture_output=True, check=False)


def why_not() -> str | None:
    if shutil.which("iptables") is None:
        return "there is no iptables to drop packets with"
    if drop("-I", 9).returncode != 0 or drop("-D", 9).returncode != 0:
        return "iptables may not be used here"
    return None


@contextmanager
def cut(port: int) -> Iterator[None]:
    assert drop("-I", port).returncode == 0
    try:
        yield
    finally:
        assert drop("-D", port).returncode == 0


async def test_dropped_packets_are_noticed_by_the_heartbeat_and_healed(
    brokers: Brokers, own_rabbitmq: RabbitMQ
) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    node, queue = own_rabbitmq, unique("cut")
    broker = brokers.start(source("main", node.url(heartbeat=1), queue))
    await wait_running(broker, "main")
    async with connected(broker, "ada") as client:
        await client.subscribe("a.*")
        await publish(node.url(), queue, envelope("a.before"), message_id="before")
        assert (await client.frame())["event"] == "a.before"
        with cut(node.port):
            told = await trio.to_thread.run_sync(broker.wait_logged, "connector.unavailable")
            assert "2 seconds, two heartbeats" in told["reason"]
            assert sources(broker)["amqp_main"] in ("waiting", "starting")
        await wait_running(broker, "main")
        await publish(node.url(), queue, envelope("a.after"), message_id="after")
        assert (await client.frame())["event"] == "a.after"


class Swallower:
    """Forwards TCP to a port, until it is told to swallow what comes from either side."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._swallowing = False

    async def serve(self, task_status: trio.TaskStatus[int]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._forward, listeners)
            task_status.started(port)

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        self._swallowing = True
        try:
            yield
        finally:
            self._swallowing = False

    async def _forward(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._target)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
            nursery.start_soon(self._pump, far, near, nursery.cancel_scope)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some():
                if not self._swallowing:
                    await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        both.cancel()


async def test_a_peer_that_falls_silent_is_noticed_and_healed(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    queue = unique("silent")
    network = Swallower(rabbitmq.port)
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(network.serve)
        url = f"amqp://127.0.0.1:{port}/?heartbeat=1"
        broker = await trio.to_thread.run_sync(brokers.start, source("main", url, queue))
        await wait_running(broker, "main")
        with network.swallowing():
            told = await trio.to_thread.run_sync(broker.wait_logged, "connector.unavailable")
            assert "2 seconds, two heartbeats" in told["reason"]
        await trio.to_thread.run_sync(wait_state, broker, "main", "running")
        async with connected(broker, "ada") as client:
            await client.subscribe("a.*")
            await publish(rabbitmq.url(), queue, envelope("a.after"), message_id="after")
            assert (await client.frame())["event"] == "a.after"
        nursery.cancel_scope.cancel()
