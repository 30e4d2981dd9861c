"""Resume that does not come to its end: the log fails, the client goes, somebody cancels. Nothing is left behind."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker.core.errors import Close, LogUnavailable
from broker.core.event import Record
from broker.core.ports import Identity
from broker.edge.memory_log import MemoryLog
from broker.runtime.connection import Connection
from broker.runtime.outbox import QueueLimits
from broker.runtime.party import PeerGone
from broker.runtime.services import ConnectionLimits
from tests.fakes import services
from tests.runtime.house import House, house
from tests.runtime.resumes import RESUMED, heard, numbers, resume, slow_reader
from tests.runtime.sockets import Socket

MISSED = 1000


def tasks(root: trio.lowlevel.Task | None = None) -> Iterator[trio.lowlevel.Task]:
    """All tasks that there are."""
    root = root or trio.lowlevel.current_root_task()
    assert root is not None
    yield root
    for nursery in root.child_nurseries:
        for child in nursery.child_tasks:
            yield from tasks(child)


def resuming() -> int:
    """How many are being resumed."""
    return sum(task.name.endswith("Resuming._run") for task in tasks())


def traces(home: House) -> dict[str, int]:
    """All places in which something of a connection could be left."""
    registry = home.registry
    return +Counter(
        connections=len(registry),
        members=len(registry.directory),
        live=len(registry.patterns),
        held=len(registry.held),
        resuming=resuming(),
        locked=not home.dispatcher.between_turns.value,
    )


# The log fails.


class FailingLog(MemoryLog):
    """A log that fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.reads_first = 0

    async def locate(self, place: str) -> int | None:
        offset = await super().locate(place)
        self._check()
        return offset

    async def read(self, after: int, most: int, max_bytes: int) -> Sequence[Record]:
        records = await super().read(after, most, max_bytes)
        self._check()
        return records

    def _check(self) -> None:
        if self.error is not None and self.reads_first == 0:
            raise self.error
        self.reads_first -= self.error is not None


FAILURES = [LogUnavailable("the disk is gone"), RuntimeError("a fault of ours")]


@pytest.mark.parametrize("error", FAILURES)
@pytest.mark.parametrize("reads_first", [0, 1, 2])
async def test_a_log_that_fails_is_told_and_live_events_go_on(error: Exception, reads_first: int) -> None:
    log = FailingLog()
    async with house(log=log) as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        log.error, log.reads_first = error, reads_first
        ada = await home.join("ada", "a")
        *_, told = await resume(ada, first)
        await home.publish(("a", "live"))
        assert [told, heard(ada)[-1]] == ["log_unavailable", "live"]


async def test_a_fault_of_ours_tells_the_client_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    log = FailingLog()
    async with house(log=log) as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        log.error = RuntimeError("a secret")
        ada = await home.join("ada", "a")
        with caplog.at_level(logging.ERROR):
            await resume(ada, first)
        assert "secret" not in str(ada.json())
        assert [record.message for record in caplog.records] == ["resume.failed"]


async def test_when_the_log_has_recovered_one_can_resume() -> None:
    log = FailingLog()
    async with house(log=log) as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        log.error = LogUnavailable("the disk is gone")
        ada = await home.join("ada", "a")
        await resume(ada, first)
        log.error = None
        assert await resume(ada, first) == [*range(1, MISSED), RESUMED]


# The client goes, or is sent away.


async def test_a_client_that_goes_while_it_reads_what_was_missed_leaves_no_trace() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        ada = await slow_reader(home, "ada", "a", "**")
        await resume(ada, first)
        await ada.reads()
        ada.hang_up()
        await wait_all_tasks_blocked()
        assert traces(home) == {}


@pytest.mark.parametrize("code", [Close.NORMAL, Close.GOING_AWAY, Close.TOO_SLOW])
async def test_a_client_that_is_closed_while_it_reads_what_was_missed_leaves_no_trace(code: Close) -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        ada = await slow_reader(home, "ada", "a", "**")
        await resume(ada, first)
        ada.connection.close(code)
        await wait_all_tasks_blocked()
        assert traces(home) == {}


@pytest.mark.parametrize("code", [Close.NORMAL, Close.GOING_AWAY, Close.TOKEN_EXPIRED])
async def test_a_client_that_is_closed_in_peace_still_gets_the_part_that_waits(code: Close) -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, MISSED))
        ada = await slow_reader(home, "ada", "a")
        await resume(ada, first)
        ada.connection.close(code)
        read = await ada.reads_all()
        assert (read == [*range(1, len(read) + 1)], len(read) > 0, ada.close_code()) == (True, True, code)


async def test_a_socket_that_fails_while_it_gets_what_was_missed_ends_the_replay() -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, MISSED))

        async def write(data: bytes) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

        ada = await home.join("ada", "a", write=write)
        await resume(ada, first)
        assert resuming() == 0


# Somebody cancels, at whatever moment.


class CancelAt(trio.abc.Instrument):
    """Cancels the tasks of a nursery when these, and those who resume, have made so many steps."""

    def __init__(self, steps: int, nursery: trio.Nursery) -> None:
        self._left = steps
        self._nursery = nursery
        self.happened = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.parent_nursery is self._nursery or task.name.endswith("Resuming._run"):
            self._left -= 1
            if self._left == 0:
                self.happened = True
                self._nursery.cancel_scope.cancel()


async def converse(home: House, place: str, socket: Socket, cancel_at: int) -> bool:
    """Come, resume and go, and be cancelled at that step; True if it came to that."""
    commands = iter(
        (
            '{"event": "subscribe", "data": "a"}',
            f'{{"event": "resume", "data": "{place}", "id": 1}}',
            '{"event": "subscribe", "data": "**", "id": 2}',
            '{"event": "unsubscribe", "data": "a", "id": 3}',
        )
    )

    async def receive() -> str:
        await trio.lowlevel.checkpoint()
        for command in commands:
            return command
        await wait_all_tasks_blocked()
        raise PeerGone(1000)

    limits = ConnectionLimits(queue=QueueLimits(bytes=4000))
    ada = Connection(Identity("ada"), services(home.registry, home.tokens, home.resuming), limits)
    async with trio.open_nursery() as nursery:
        cancellation = CancelAt(cancel_at, nursery)
        trio.lowlevel.add_instrument(cancellation)
        nursery.start_soon(ada.outbox.run, socket.write, socket)
        nursery.start_soon(ada.run, receive)
    trio.lowlevel.remove_instrument(cancellation)
    await wait_all_tasks_blocked()
    return cancellation.happened


class Halting(Socket):
    """Takes nothing at once, and makes the writer wait a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.failure = BlockingIOError()

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        await super().write(data)


@pytest.mark.parametrize("kind", [Socket, Halting])
async def test_a_resume_cancelled_at_any_checkpoint_leaves_nothing(kind: type[Socket]) -> None:
    async with house() as home:
        first, *_ = await home.publish(*numbers(0, 500))
        steps = 1
        while await converse(home, first, kind(), cancel_at=steps):
            assert traces(home) == {}, f"cancelled at step {steps}"
            steps += 1
        assert traces(home) == {}
        assert steps > 10
        ada = await home.join("ada", "a")
        assert await resume(ada, first) == [*range(1, 500), RESUMED]
