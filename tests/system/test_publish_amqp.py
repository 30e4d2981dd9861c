"""`broker publish --amqp` with a real RabbitMQ: what is in the queue, what is refused, and what is said of the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import trio

import cli.publish_amqp
from connectors.amqp.connection import MAX_BODY_BYTES, open_connection
from connectors.amqp.url import parse_url
from tests.cli.invoke import Result
from tests.cli.invoke import broker as broker_here
from tests.system.amqp import ready, source, take, wait_running
from tests.system.client import connected
from tests.system.harness import BROKER, Brokers, command, environ, eventually, unique
from tests.system.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.system, pytest.mark.longest(120)]

MANY = 2000


async def lay_out(url: str, *, key: str = "#", arguments: Mapping[str, Any] | None = None) -> str:
    """Make an exchange, and a queue of the same name that gets what fits `key`."""
    name = unique("publish")
    async with open_connection(parse_url(url), name="test") as connection:
        channel = await connection.open_channel()
        await channel.declare_exchange(name, "topic")
        await channel.declare_queue(name, arguments=arguments)
        await channel.bind(name, name, key)
    return name


async def publish(url: str, exchange: str, *arguments: str, stdin: bytes = b"") -> Result:
    """Run `broker publish --amqp` in a process of its own."""

    def run() -> Result:
        options = ("--amqp", url, "--exchange", exchange)
        done = command("publish", *arguments, *options, folder=Path("/"), stdin=stdin)
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    return await trio.to_thread.run_sync(run)


def lines(*names: str) -> bytes:
    return b"".join(b'{"event":"%b"}\n' % name.encode() for name in names)


def numbered(number: int) -> bytes:
    """Lines with ids."""
    return b"".join(b'{"event":"a.b","data":%d,"id":"number-%d"}\n' % (each, each) for each in range(number))


@contextmanager
def a_pipe(url: str, exchange: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A `broker publish --amqp` process, and the pipe that it reads."""
    with subprocess.Popen(
        [*BROKER, "publish", "--amqp", url, "--exchange", exchange],
        env=environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        try:
            yield process, process.stdin
        finally:
            process.kill()  # of no effect on one that has ended


async def until_ready(url: str, queue: str, number: int) -> None:
    """Wait until so many messages are in a queue."""
    with trio.fail_after(30):
        while await ready(url, queue) < number:
            await trio.sleep(0.01)


# --- What is in the queue --------------------------------------------------------------------------------------------


async def test_an_event_is_a_message_as_the_broker_reads_it(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url())
    result = await publish(rabbitmq.url(), exchange, "games.ä.created", '{"big": 1e999999,\n "t":"\\u00e4"}')
    assert (result.status, result.err) == (0, "")
    (message,) = await take(rabbitmq.url(), exchange, 1)
    assert message.routing_key.decode() == "games.ä.created"
    assert message.exchange.decode() == exchange
    assert message.body == '{"event":"games.ä.created","data":{"big": 1e999999,\n "t":"\\u00e4"}}'.encode()
    assert message.properties.content_type == "application/json"
    assert message.properties.message_id + "\n" == result.out


async def test_an_event_outlives_rabbitmq(own_rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(own_rabbitmq.url())
    assert (await publish(own_rabbitmq.url(), exchange, "a.b", "1")).status == 0
    await trio.to_thread.run_sync(own_rabbitmq.kill)
    await trio.to_thread.run_sync(own_rabbitmq.start)
    (message,) = await take(own_rabbitmq.url(), exchange, 1)
    assert message.body == b'{"event":"a.b","data":1}'


async def test_an_id_is_the_message_s(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url())
    assert (await publish(rabbitmq.url(), exchange, "a.b", "--id", "order 1")).out == "order 1\n"
    (message,) = await take(rabbitmq.url(), exchange, 1)
    assert message.properties.message_id == "order 1"


async def test_the_longest_name_and_id_there_may_be_arrive(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url())
    name, event_id = "ä" * 127 + "a", "i" + "ö" * 127
    assert (await publish(rabbitmq.url(), exchange, name, "--id", event_id)).status == 0
    (message,) = await take(rabbitmq.url(), exchange, 1)
    assert (message.routing_key.decode(), message.properties.message_id) == (name, event_id)


async def test_each_line_of_a_pipe_is_a_message_with_an_id_of_its_own(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url())
    names = [f"a.{number}" for number in range(MANY)]
    result = await publish(rabbitmq.url(), exchange, stdin=lines(*names) + b'\n{"event":"a.b","id":"mine"}')
    assert (result.status, result.out, result.err) == (0, "", f"{MANY + 1} published, 0 refused\n")
    messages = await take(rabbitmq.url(), exchange, MANY + 1)
    assert [message.routing_key.decode() for message in messages] == [*names, "a.b"]
    assert [json.loads(message.body)["event"] for message in messages] == [*names, "a.b"]
    assert messages[-1].properties.message_id == "mine"
    assert len({message.properties.message_id for message in messages}) == MANY + 1


async def test_an_empty_pipe_publishes_nothing(rabbitmq: RabbitMQ) -> None:
    result = await publish(rabbitmq.url(), await lay_out(rabbitmq.url()), stdin=b"\n")
    assert (result.status, result.out, result.err) == (0, "", "0 published, 0 refused\n")


async def test_a_line_is_published_before_the_next_has_come(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url())
    with a_pipe(rabbitmq.url(), exchange) as (process, pipe):
        for number in (1, 2, 3):
            os.write(pipe.fileno(), lines("a.b"))
            await until_ready(rabbitmq.url(), exchange, number)
        pipe.close()
        assert await trio.to_thread.run_sync(process.wait, 30) == 0


async def test_the_exchange_is_called_events_if_nobody_says_otherwise(own_rabbitmq: RabbitMQ, brokers: Brokers) -> None:
    """And what is published twice with one id a broker behind RabbitMQ delivers once."""
    binding = {"bindings": [{"exchange": "events"}]}
    broker = brokers.start(source("main", own_rabbitmq.url(), "broker", **binding))
    await wait_running(broker, "main")
    async with connected(broker, "ada") as client:
        await client.subscribe("**")
        for arguments in (("a.1", "1", "--id", "x"), ("a.1", "1", "--id", "x"), ("a.2", "2")):
            await trio.to_thread.run_sync(
                lambda words: command("publish", *words, "--amqp", own_rabbitmq.url(), folder=Path("/")), arguments
            )
        assert [await client.frame() for _ in range(2)] == [{"event": "a.1", "data": 1}, {"event": "a.2", "data": 2}]


async def test_a_certificate_is_all_that_is_needed(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url())
    assert (await publish(rabbitmq.external_url(), exchange, "a.b")).status == 0


async def test_who_may_only_write_to_the_exchange_may_publish(rabbitmq: RabbitMQ) -> None:
    exchange, user = await lay_out(rabbitmq.url()), unique("writer")
    rabbitmq.ctl("add_user", user, "writes")
    rabbitmq.ctl("set_permissions", user, "^$", f"^{exchange}$", "^$")
    assert (await publish(rabbitmq.url(user, "writes"), exchange, "a.b")).status == 0


# --- What is refused -------------------------------------------------------------------------------------------------


async def test_an_event_that_no_queue_wants_is_refused(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url(), key="games.#")
    result = await publish(rabbitmq.url(), exchange, "a.b", "1")
    assert (result.status, result.out) == (1, "")
    assert result.err == "no queue is bound for it: RabbitMQ said NO_ROUTE (312)\n"


async def test_lines_that_are_bad_or_wanted_by_no_queue_are_told_and_the_rest_is_published(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url(), key="a.#")
    stdin = lines("a.1") + b"nonsense\n\n" + lines("b.1", "a.2", "broker.x") + lines("b.1") + lines("a.3")
    result = await publish(rabbitmq.url(), exchange, stdin=stdin)
    assert (result.status, result.out) == (1, "")
    *told, summary = result.err.splitlines()
    reasons = dict(line.split(": ", 1) for line in told)
    assert set(reasons) == {"line 2", "line 4", "line 6", "line 7"}
    assert reasons["line 4"] == reasons["line 7"] == "no queue is bound for it: RabbitMQ said NO_ROUTE (312)"
    assert summary == "3 published, 4 refused"
    assert [message.routing_key for message in await take(rabbitmq.url(), exchange, 3)] == [b"a.1", b"a.2", b"a.3"]


async def test_lines_that_a_full_queue_does_not_take_are_told_and_the_rest_is_published(rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url(), arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    result = await publish(rabbitmq.url(), exchange, stdin=lines("a", "b", "c", "d", "e"))
    assert result.status == 1
    assert [line.split(":")[0] for line in result.err.splitlines()[:-1]] == ["line 4", "line 5"]
    assert "basic.nack" in result.err
    assert result.err.endswith("3 published, 2 refused\n")


async def test_an_event_that_no_broker_would_take_is_not_published(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    exchange, large = await lay_out(rabbitmq.url()), tmp_path / "large.json"
    large.write_text(json.dumps("x" * MAX_BODY_BYTES))
    result = await publish(rabbitmq.url(), exchange, "a.b", f"@{large}")
    assert (result.status, result.out) == (1, "")
    assert f"a broker takes at most {MAX_BODY_BYTES}" in result.err
    assert await ready(rabbitmq.url(), exchange) == 0


@pytest.mark.parametrize(("arguments", "stdin"), [(("a.b", "1"), b""), ((), lines("a.b"))])
async def test_an_exchange_that_is_missing_is_told_with_what_to_do(
    arguments: tuple[str, ...], stdin: bytes, rabbitmq: RabbitMQ
) -> None:
    result = await publish(rabbitmq.url(), "nowhere", *arguments, stdin=stdin)
    assert (result.status, result.out) == (1, "")
    assert "no exchange 'nowhere' in vhost '/'" in result.err
    assert "start a broker with a binding to the exchange 'nowhere'" in result.err


async def test_a_wrong_password_is_told_and_not_repeated(rabbitmq: RabbitMQ) -> None:
    result = await publish(rabbitmq.url(password="hunter2"), "events", "a.b", "1")
    assert (result.status, result.out) == (1, "")
    assert "check user and password" in result.err
    assert "hunter2" not in result.err


async def test_who_may_not_write_to_the_exchange_is_told(rabbitmq: RabbitMQ) -> None:
    exchange, user = await lay_out(rabbitmq.url()), unique("reader")
    rabbitmq.ctl("add_user", user, "reads")
    rabbitmq.ctl("set_permissions", user, "^$", "^$", ".*")
    result = await publish(rabbitmq.url(user, "reads"), exchange, "a.b", "1")
    assert (result.status, result.out) == (1, "")
    assert f"access to exchange '{exchange}'" in result.err
    assert "permissions" in result.err


# --- When RabbitMQ goes away -----------------------------------------------------------------------------------------


async def test_of_a_connection_that_is_lost_it_is_told_what_is_certain(own_rabbitmq: RabbitMQ) -> None:
    """And the same again, with the same ids, makes it whole."""
    exchange = await lay_out(own_rabbitmq.url())
    stdin = numbered(15 * MANY)
    with a_pipe(own_rabbitmq.url(), exchange) as (process, _):
        async with trio.open_nursery() as nursery:
            told: list[bytes] = []
            nursery.start_soon(trio.to_thread.run_sync, lambda: told.extend(process.communicate(stdin)))
            await until_ready(own_rabbitmq.url(), exchange, MANY)
            await trio.to_thread.run_sync(own_rabbitmq.kill)
        out, err = told
    assert (process.returncode, out) == (1, b"")
    *_, summary, advice = err.decode().splitlines()
    published = int(summary.split()[0])
    assert MANY <= published < 15 * MANY
    assert f"{published} published, 0 refused; " in summary
    assert 'safe only if each line has an "id"' in advice or summary.endswith("no other event was sent")
    await trio.to_thread.run_sync(own_rabbitmq.start)
    assert (await publish(own_rabbitmq.url(), exchange, stdin=stdin)).status == 0
    there = await ready(own_rabbitmq.url(), exchange)
    assert there >= published + 15 * MANY
    ids = [message.properties.message_id for message in await take(own_rabbitmq.url(), exchange, there)]
    assert set(ids) == {f"number-{number}" for number in range(15 * MANY)}
    assert set(ids[: -15 * MANY]) >= {f"number-{number}" for number in range(published)}


async def test_a_pipe_that_waits_ends_with_the_connection(own_rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(own_rabbitmq.url())
    with a_pipe(own_rabbitmq.url(), exchange) as (process, pipe):
        os.write(pipe.fileno(), lines("a.b"))
        await until_ready(own_rabbitmq.url(), exchange, 1)
        await trio.to_thread.run_sync(own_rabbitmq.stop)
        assert await trio.to_thread.run_sync(process.wait, 30) == 1
        assert process.stderr is not None
        assert process.stderr.read().endswith(b"\n1 published, 0 refused; no other event was sent\n")


async def test_while_rabbitmq_takes_nothing_no_more_of_the_pipe_is_read(
    own_rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = await lay_out(own_rabbitmq.url())
    own_rabbitmq.ctl("set_vm_memory_high_watermark", "0")
    monkeypatch.setattr(cli.publish_amqp, "PATIENCE", 1.0)
    read, reads = os.read, []

    def counted(descriptor: int, most: int) -> bytes:
        chunk = read(descriptor, most)
        if most == 65_536:  # Trio reads as well
            reads.append(chunk)
        return chunk

    monkeypatch.setattr(os, "read", counted)
    options = ("--amqp", own_rabbitmq.url(), "--exchange", exchange)
    result = await trio.to_thread.run_sync(lambda: broker_here("publish", *options, stdin=lines(*["a.b"] * 50_000)))
    assert (result.status, len(reads)) == (1, 1)
    reason, summary, advice = result.err.splitlines()
    assert (
        reason == "RabbitMQ has not answered for 1 seconds, being short of memory or disk (rabbitmq-diagnostics alarms)"
    )
    assert summary.startswith("0 published, 0 refused; what became of ")
    assert summary.endswith("from line 1 on, nobody knows; no other was sent")
    assert advice == 'to publish the same again is safe only if each line has an "id": then it is delivered once'


async def test_of_one_event_without_an_answer_the_id_is_told(
    own_rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = await lay_out(own_rabbitmq.url())
    own_rabbitmq.ctl("set_vm_memory_high_watermark", "0")
    monkeypatch.setattr(cli.publish_amqp, "PATIENCE", 0.5)
    options = ("--amqp", own_rabbitmq.url(), "--exchange", exchange)
    result = await trio.to_thread.run_sync(lambda: broker_here("publish", "a.b", "--id", "order 1", *options))
    assert (result.status, result.out) == (1, "")
    assert "with --id 'order 1' it may be published again" in result.err


@pytest.mark.parametrize("first", [b"", lines("a.b")])
async def test_ctrl_c_ends_a_pipe_that_waits(first: bytes, rabbitmq: RabbitMQ) -> None:
    exchange = await lay_out(rabbitmq.url())
    with a_pipe(rabbitmq.url(), exchange) as (process, pipe):
        os.write(pipe.fileno(), first)
        await trio.to_thread.run_sync(
            eventually, lambda: "broker publish" in rabbitmq.ctl("list_connections", "client_properties"), "connection"
        )
        await until_ready(rabbitmq.url(), exchange, len(first) // len(lines("a.b")))
        process.send_signal(signal.SIGINT)
        assert await trio.to_thread.run_sync(process.wait, 10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
