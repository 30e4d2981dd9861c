"""The log's file in trouble, seen from outside: what publishers and clients are told, and that it heals by itself.

No room comes in two ways: a limit on the size of the broker's files, which anybody may set, and a small disk, which
only root can mount. What a broker says of a failing log is an error with a traceback, so it is ended here by hand.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from broker.edge.sqlite_file import KEPT_FREE
from tests.system.amqp import counts, declare, envelope, publish, source, wait_running
from tests.system.client import connected
from tests.system.harness import OPEN_POLICY, Answer, Broker, Brokers, command, eventually, unique
from tests.system.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.system, pytest.mark.longest(90)]

PAYLOAD = "x" * 5000
LARGEST_FILE = 500_000
Crowding = Callable[[Broker], None]


@dataclass
class Publisher:
    """Publishes numbered events one after the other, and keeps count of which were answered how."""

    broker: Broker
    taken: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def publish(self) -> Answer:
        """The next event."""
        number = len(self.taken) + len(self.refused)
        body = {"event": f"numbers.{number}", "data": {"number": number, "more": PAYLOAD}, "id": f"number {number}"}
        answer = self.broker.post(json.dumps(body).encode())
        (self.taken if answer.status == 202 else self.refused).append(number)
        return answer

    def publish_until_refused(self) -> Answer:
        """Until there is no room, for good."""
        for _ in range(5000):
            answer = self.publish()
            if answer.status != 202 and self.publish().status != 202:
                return answer
        pytest.fail("there is always room")

    def check(self) -> None:
        """The log has what was answered, once, and nothing of what was refused."""
        assert self.broker.metric("broker_log_events") == len(self.taken)
        for number in (*self.taken[-3:], *self.refused[-3:]):
            body = {"event": "users.again.online", "id": f"number {number}"}
            assert self.broker.post(json.dumps(body).encode()).status == 202
        assert self.broker.metric("broker_repeated_total") == len(self.taken[-3:])


def end(brokers: Brokers, broker: Broker) -> None:
    """End a broker that has complained."""
    brokers.running.remove(broker)
    broker.signal(signal.SIGTERM)
    assert broker.wait_ended() == 0


@contextmanager
def limited_files(broker: Broker) -> Iterator[None]:
    """The broker can't write a file beyond a size."""
    before = resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, (LARGEST_FILE, before[1]))
    yield
    resource.prlimit(broker.process.pid, resource.RLIMIT_FSIZE, before)


def mounted(folder: Path, options: str) -> bool:
    """Whether a disk in memory could be mounted there."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(mount, check=False, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, on which little more is free than what the log leaves free."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, f"size={KEPT_FREE + 4_000_000}"):
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def test_without_room_publishers_are_told_and_nobody_gets_what_was_not_taken(brokers: Brokers) -> None:
    broker = brokers.start()
    publisher = Publisher(broker)
    async with connected(broker, "ada") as ada:
        await ada.subscribe("numbers.*")
        with limited_files(broker):
            answer = await trio.to_thread.run_sync(publisher.publish_until_refused)
            assert (answer.status, answer.json["code"]) == (503, "log_unavailable")
            assert "retry-after" in answer.headers
            assert broker.request("GET", "/healthz").status == 200
        publisher.publish()
        assert [event["data"]["number"] for event in await ada.events()] == publisher.taken
    # One event more: the mark that `events` has sent.
    publisher.taken.insert(0, -1)
    publisher.refused.append(-2)
    assert broker.metric("broker_log_events") == len(publisher.taken)
    end(brokers, broker)
    again = brokers.start_again(broker)
    assert again.metric("broker_log_events") == len(publisher.taken)


async def test_a_full_disk_heals_when_there_is_room(brokers: Brokers, small_disk: Path) -> None:
    broker = brokers.start(f'[log]\npath = "{small_disk}/log.db"')
    publisher = Publisher(broker)
    answer = publisher.publish_until_refused()
    assert (answer.status, answer.json["code"]) == (503, "log_unavailable")
    assert "no room left on its disk" in answer.json["error"]
    assert publisher.taken
    assert mounted(small_disk, f"remount,size={KEPT_FREE + 40_000_000}")
    for _ in range(20):
        assert publisher.publish().status == 202
    brokers.kill(broker)
    publisher.broker = brokers.start_again(broker)
    publisher.check()


async def test_a_disk_that_is_full_has_room_again_when_events_are_due(brokers: Brokers, small_disk: Path) -> None:
    broker = brokers.start(f'[log]\npath = "{small_disk}/log.db"\nretain_seconds = 3')
    publisher = Publisher(broker)
    publisher.publish_until_refused()
    taken = len(publisher.taken)
    eventually(lambda: publisher.publish().status == 202, "room by itself")
    for _ in range(taken // 4):
        publisher.publish()
    assert len(publisher.taken) > taken + taken // 8
    end(brokers, broker)


async def test_what_rabbitmq_sends_while_there_is_no_room_is_not_acknowledged_and_comes_again(
    brokers: Brokers, rabbitmq: RabbitMQ
) -> None:
    queue = unique("full")
    await declare(rabbitmq.url(), queue)
    broker = brokers.start(source("main", rabbitmq.url(), queue))
    await wait_running(broker, "main")
    async with connected(broker, "ada") as ada:
        await ada.subscribe("orders.*")
        with limited_files(broker):
            publisher = Publisher(broker)
            await trio.to_thread.run_sync(publisher.publish_until_refused)
            await publish(rabbitmq.url(), queue, envelope("orders.1", PAYLOAD), envelope("orders.2", PAYLOAD))
            await trio.to_thread.run_sync(broker.wait_logged, "connector.unavailable")
            messages, _ = await trio.to_thread.run_sync(counts, rabbitmq, queue)
            assert messages == 2
            assert broker.metric("broker_amqp_main_published_total") == 0
        assert [(await ada.frame())["event"] for _ in range(2)] == ["orders.1", "orders.2"]
        assert await ada.names() == []

    def empty() -> bool:
        return counts(rabbitmq, queue) == (0, 0)

    await trio.to_thread.run_sync(eventually, empty, "queue that is empty")
    end(brokers, broker)


async def test_a_file_that_another_program_holds_is_waited_for_and_then_told(brokers: Brokers) -> None:
    broker = brokers.start()
    broker.publish("numbers.1")
    with closing(sqlite3.connect(broker.folder / ".broker/log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = broker.post(b'{"event": "numbers.2"}')
        assert (answer.status, answer.json["code"]) == (503, "log_unavailable")
        assert "is locked by another program" in answer.json["error"]
    broker.publish("numbers.3")
    assert broker.metric("broker_log_events") == 2
    end(brokers, broker)


async def test_a_log_that_is_damaged_while_it_is_used_harms_nobody_else(brokers: Brokers) -> None:
    broker = brokers.start()
    first, *_ = broker.publish_all([(f"numbers.{number}", b'"%b"' % PAYLOAD.encode()) for number in range(200)])
    broker.signal(signal.SIGTERM)
    assert broker.wait_ended() == 0
    brokers.running.remove(broker)
    broker = brokers.start_again(broker)
    log = broker.folder / ".broker/log.db"
    with log.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(log.stat().st_size - 4096))
    async with connected(broker, "ada") as ada, connected(broker, "bob") as bob:
        await bob.subscribe("news.*")
        await ada.subscribe("**")
        answer = await ada.ask("resume", first)
        assert answer["code"] == "log_unavailable"
        posted = broker.post(b'{"event": "news.first"}')
        assert posted.status in (202, 503)
        if posted.status == 503:
            assert posted.json["code"] == "log_unavailable"
        else:
            assert (await bob.frame())["event"] == "news.first"
        assert (await bob.ask("subscribe", "other.*"))["data"] is not None
    assert "is damaged" in broker.wait_logged("log.unreadable")["reason"]
    assert broker.request("GET", "/healthz").status == 200
    end(brokers, broker)
    ended = command("run", folder=broker.folder)
    assert ended.returncode == 2
    assert "log.db is damaged" in ended.stderr.decode()


def refused(folder: Path, config: str) -> str:
    """What `broker run` says, which does not begin to serve."""
    (folder / "config.toml").write_text(config)
    (folder / "policy.toml").write_text(OPEN_POLICY)
    ended = command("run", folder=folder)
    said = ended.stderr.decode()
    assert (ended.returncode, ended.stdout) == (2, b""), said
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder into which nobody can write, not even root."""
    folder = tmp_path / "unwritable"
    folder.mkdir()
    if mounted(folder, "ro"):
        yield folder
        subprocess.run(["umount", "--lazy", folder], check=True)
    else:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)


async def test_a_folder_that_can_t_be_written_is_told(tmp_path: Path, unwritable: Path) -> None:
    said = refused(tmp_path, f'[log]\npath = "{unwritable}/log.db"')
    assert f"log.path: {unwritable}/log.db can't be opened: " in said
    assert "the broker's user must be able to write there" in said
    assert "can't be opened" in refused(tmp_path, f'[log]\npath = "{unwritable}/new/log.db"')


async def test_a_folder_that_is_missing_is_made(brokers: Brokers) -> None:
    broker = brokers.start('[log]\npath = "deep/er/log.db"')
    broker.publish("news.first")
    folder = broker.folder / "deep/er"
    assert (folder / "log.db").exists()
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_a_file_that_is_no_log_of_ours_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE invoices (number INTEGER)")
    assert "is a database, but no log of a broker" in refused(tmp_path, '[log]\npath = "other.db"')


async def test_a_log_of_a_later_release_is_left_alone(brokers: Brokers) -> None:
    broker = brokers.start()
    broker.publish("news.first")
    end(brokers, broker)
    log = broker.folder / ".broker/log.db"
    with closing(sqlite3.connect(log)) as later:
        later.execute("PRAGMA user_version = 99")
    before = log.read_bytes()
    ended = command("run", folder=broker.folder)
    assert ended.returncode == 2
    assert "was written by a later release, in version 99 (run that release)" in ended.stderr.decode()
    assert log.read_bytes() == before


async def test_a_copy_that_was_made_while_it_ran_is_a_log(brokers: Brokers) -> None:
    broker = brokers.start()
    publisher = Publisher(broker)
    for _ in range(20):
        publisher.publish()
    copy = broker.folder / "copy.db"
    with closing(sqlite3.connect(broker.folder / ".broker/log.db")) as backup:
        backup.execute("VACUUM INTO ?", (str(copy),))
    lost = [broker.publish("numbers.lost") for _ in range(3)]
    brokers.kill(broker)
    for file in (broker.folder / ".broker").glob("log.db*"):
        file.unlink()
    copy.rename(broker.folder / ".broker/log.db")
    publisher.broker = broker = brokers.start_again(broker)
    async with connected(broker, "ada") as ada:
        for event_id in lost:
            assert (await ada.ask("resume", event_id))["code"] == "resume_gap"
    publisher.check()
