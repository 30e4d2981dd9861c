"""`broker publish` and `broker tail` as they are used: processes with arguments, pipes and an exit status."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.system.client import connected
from tests.system.harness import BROKER, Broker, Brokers, command, environ, eventually, unique

pytestmark = pytest.mark.system


def publish(broker: Broker, *arguments: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    """`broker publish`, configured as the broker itself but for its port."""
    ended = command(
        "publish", *arguments, folder=broker.folder, stdin=stdin, **{"BROKER_SERVER__PORT": str(broker.port), **more}
    )
    assert b"Traceback" not in ended.stderr
    return ended


@contextmanager
def tail(broker: Broker, *arguments: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`broker tail`, from when it has subscribed."""
    process = subprocess.Popen(
        [*BROKER, "tail", *arguments],
        cwd=broker.folder,
        env=environ(**{"BROKER_SERVER__PORT": str(broker.port), **more}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        with process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith(b"subscribed to ")
            yield process
    finally:
        process.kill()


async def test_one_event_is_published_and_its_id_is_printed(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("games.**")
        ended = publish(open_broker, "games.42.created", '{"name": "Chess"}')
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert len(ended.stdout.split()) == 1
        assert await client.events() == [{"event": "games.42.created", "data": {"name": "Chess"}}]


async def test_its_data_may_come_from_a_file_or_a_pipe_and_is_null_without(open_broker: Broker) -> None:
    (open_broker.folder / "data.json").write_text('["from", "a", "file"]')
    async with connected(open_broker, "ada") as client:
        await client.subscribe("games.**")
        assert publish(open_broker, "games.1", "@data.json").returncode == 0
        assert publish(open_broker, "games.2", "-", stdin=b'"from a pipe"').returncode == 0
        assert publish(open_broker, "games.3").returncode == 0
        received = [event["data"] for event in await client.events()]
        assert received == [["from", "a", "file"], "from a pipe", None]


async def test_one_event_with_the_same_id_is_delivered_once(open_broker: Broker) -> None:
    event_id = unique("id")
    async with connected(open_broker, "ada") as client:
        await client.subscribe("games.**")
        for _ in range(2):
            assert publish(open_broker, "games.1", "--id", event_id).stdout.decode().strip() == event_id
        assert await client.names() == ["games.1"]


async def test_a_pipe_of_events_is_published_in_order(open_broker: Broker) -> None:
    lines = b"".join(b'{"event":"order.%d","data":%d}\n' % (number % 3, number) for number in range(2000))
    async with connected(open_broker, "ada") as client:
        await client.subscribe("order.*")
        ended = publish(open_broker, stdin=lines)
        assert ended.returncode == 0
        assert b"2000 published, 0 refused" in ended.stderr
        assert [event["data"] for event in await client.events()] == list(range(2000))


async def test_refused_lines_are_reported_with_their_numbers_the_others_published_and_the_status_is_1(
    open_broker: Broker,
) -> None:
    lines = b'{"event":"a.1"}\nnonsense\n\n{"event":"a..2"}\n{"event":"a.3"}\n{"event":"broker.4"}\n'
    async with connected(open_broker, "ada") as client:
        await client.subscribe("**")
        ended = publish(open_broker, stdin=lines)
        assert ended.returncode == 1
        assert [line.split(b":")[0] for line in ended.stderr.splitlines()[:3]] == [b"line 2", b"line 4", b"line 6"]
        assert b"2 published, 3 refused" in ended.stderr
        assert await client.names() == ["a.1", "a.3"]


async def test_lines_that_the_token_may_not_publish_are_refused_one_by_one(open_broker: Broker) -> None:
    token = open_broker.token(publish=["a.*"])
    async with connected(open_broker, "ada") as client:
        await client.subscribe("**")
        ended = publish(open_broker, stdin=b'{"event":"a.1"}\n{"event":"b.1"}\n{"event":"a.2"}\n', BROKER_TOKEN=token)
        assert ended.returncode == 1
        assert ended.stderr.startswith(b"line 2: ")
        assert await client.names() == ["a.1", "a.2"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["a..b"], 2),
        (["broker.x"], 2),
        (["a.b", "{nonsense"], 2),
        (["a.b", "@missing.json"], 2),
        (["a.b", "--id", ""], 2),
    ],
)
async def test_what_can_be_no_event_is_refused_before_it_is_sent(
    open_broker: Broker, arguments: list[str], status: int
) -> None:
    before = open_broker.metric("broker_events_total")
    ended = publish(open_broker, *arguments)
    assert (ended.returncode, ended.stdout) == (status, b"")
    assert ended.stderr
    assert open_broker.metric("broker_events_total") == before


async def test_where_nothing_listens_it_says_so_and_the_status_is_1(open_broker: Broker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    for arguments in (["publish", "a.1"], ["tail", "a.*"]):
        ended = command(*arguments, folder=open_broker.folder, BROKER_SERVER__PORT=port)
        assert (ended.returncode, ended.stdout) == (1, b"")
        assert f"no broker answers at http://127.0.0.1:{port}".encode() in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("token", ["garbage", "a.b.c"])
async def test_with_a_bad_token_it_says_so_and_the_status_is_1(open_broker: Broker, token: str) -> None:
    ended = publish(open_broker, "a.1", BROKER_TOKEN=token)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"token" in ended.stderr
    assert token.encode() not in ended.stderr
    tailed = command("tail", "a.*", folder=open_broker.folder, BROKER_URL=open_broker.url, BROKER_TOKEN=token)
    assert (tailed.returncode, tailed.stdout) == (1, b"")
    assert b"4002" in tailed.stderr


async def test_the_broker_may_be_named_by_url_and_token_alone(open_broker: Broker, tmp_path: Path) -> None:
    token = open_broker.token(publish=["a.*"])
    ended = command("publish", "a.1", "--url", open_broker.url, "--token", token, folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, b"")


async def test_tail_prints_each_event_as_one_line_of_json_and_ends_after_so_many(open_broker: Broker) -> None:
    with tail(open_broker, "--count", "3", "a.*", "b.**") as process:
        open_broker.publish("c.1")
        open_broker.publish_all(
            [("a.1", b'{"text":\n"two\\nlines"}'), ("b.1.2", '"größer"'.encode()), ("a.2", b"1E400")]
        )
        output, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors == b""
    assert [line.encode() for line in output.decode().split("\n")] == [
        b'{"event":"a.1","data":{"text": "two\\nlines"}}',
        '{"event":"b.1.2","data":"größer"}'.encode(),
        b'{"event":"a.2","data":1E400}',
        b"",
    ]


async def test_tail_sees_what_its_user_sees(broker: Broker) -> None:
    with tail(broker, "**", "--as", "ada", "--count", "1") as process:
        group = unique("group")
        broker.publish(f"groups.{group}.updated", {"members": ["bob"]})
        broker.publish(f"groups.{group}.created", {"members": ["ada"]})
        output, _ = process.communicate(timeout=10)
    assert json.loads(output)["event"] == f"groups.{group}.created"


async def test_tail_says_why_the_connection_ended_and_waits_for_another(brokers: Brokers) -> None:
    broker = brokers.start()
    with tail(broker, "**") as process:
        broker.signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"connection lost: 1001 ")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (130, b"", b"")


async def test_tail_ends_quietly_when_nobody_reads_on(open_broker: Broker) -> None:
    with tail(open_broker, "a.*") as process:
        assert process.stdout is not None
        process.stdout.close()
        eventually(lambda: open_broker.publish("a.1") and process.poll() is not None, "end of tail")
        assert process.stderr is not None
        assert process.stderr.read() == b""


async def test_tail_ends_on_ctrl_c_without_a_traceback(open_broker: Broker) -> None:
    with tail(open_broker, "a.*") as process:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, output) == (130, b"")
    assert b"Traceback" not in errors


@pytest.mark.parametrize("pattern", ["a..b", "{a,b}", "<x>"])
async def test_tail_refuses_what_is_no_pattern(open_broker: Broker, pattern: str) -> None:
    ended = command("tail", pattern, folder=open_broker.folder)
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr


async def test_a_pipe_from_publish_to_tail_loses_nothing(brokers: Brokers) -> None:
    broker = brokers.start("[websocket]\nqueue_size = 100000\nqueue_bytes = 100000000\n")
    with tail(broker, "flood", "--count", "10000") as process:
        lines = b"".join(b'{"event":"flood","data":%d}\n' % number for number in range(10_000))
        published = await trio.to_thread.run_sync(partial(publish, broker, stdin=lines))
        output, _ = process.communicate(timeout=20)
    assert published.returncode == 0
    assert [json.loads(line)["data"] for line in output.splitlines()] == list(range(10_000))
