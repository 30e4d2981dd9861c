"""What the product stands on: whatever was answered reaches everyone entitled to it, once, whoever is killed.

Publishers over HTTP and RabbitMQ repeat what got no answer, under the same ids; subscribers come back and resume; a
killer ends the broker by SIGKILL at moments chosen by chance. In the end everything is compared with a slow and obvious
model (`kills_judge.py`). More kills, and other ones:

    pytest tests/system/test_kills.py --kills=50 --kills-seed=7
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio

from tests.system.amqp import counts, source, wait_running
from tests.system.harness import Brokers, eventually, unique
from tests.system.kills import AUDITOR, BEGINNINGS, END, Ledger, Mortal, Progress, Sent, Stage, kill_again_and_again
from tests.system.kills_judge import Judge, Listener
from tests.system.kills_lines import HttpLine
from tests.system.kills_publishers import (
    FICKLE,
    AmqpPublisher,
    CarelessPublisher,
    HttpPublisher,
    Publisher,
    as_array,
    as_lines,
    as_one,
)
from tests.system.kills_subscribers import (
    EVERYTHING,
    Ear,
    Habits,
    ServerSentSubscriber,
    Subscriber,
    Wanderers,
    WebSocketSubscriber,
    look_back,
)
from tests.system.rabbitmq import RabbitMQ

pytestmark = pytest.mark.system

# Small, so that who is slow overflows, and RabbitMQ sees acknowledgements often.
CONFIG = """\
[websocket]
queue_size = 200
queue_bytes = 131072
"""
PREFETCH = 50

TALK = ("groups.*.messages.**", "groups.red.**", "games.*.members.*.*", END)
PRIVATE = ("users.*.inbox.*", END)
LATECOMERS: Sequence[tuple[str, Sequence[str]]] = (("una", [AUDITOR]), ("ada", []), ("bob", []), ("fay", []))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kills" in metafunc.fixturenames:
        kills, seed = metafunc.config.getoption("--kills"), metafunc.config.getoption("--kills-seed")
        longest = pytest.mark.longest(60 + 10 * kills)
        metafunc.parametrize(("kills", "seed"), [pytest.param(kills, seed, marks=longest, id=f"{kills}-seed-{seed}")])


async def test_what_was_answered_reaches_everyone_entitled_once_however_often_the_broker_is_killed(
    kills: int, seed: int, brokers: Brokers, rabbitmq: RabbitMQ
) -> None:
    queue = unique("kills")
    config = CONFIG + source("main", rabbitmq.url(), queue, prefetch=PREFETCH)
    stage = Stage(Mortal(brokers, config), Ledger(), Progress(), trio.Event(), seed)
    witness = Ear(stage, Listener("wes", EVERYTHING, [AUDITOR]))
    ears = {witness: WebSocketSubscriber(stage, witness), **cast(stage, witness.listener)}
    wanderers = Wanderers(stage, FICKLE, witness.listener)
    await stage.mortal.start_until(BEGINNINGS[0])
    stage.mortal.kill()
    await stage.mortal.start()
    await wait_running(stage.mortal.broker, "main")
    with telling(stage):
        async with trio.open_nursery() as listening:
            for subscriber in ears.values():
                await listening.start(subscriber.run)
            listening.start_soon(wanderers.run)
            beginning = str(witness.place)
            await publish_and_kill(stage, publishers(stage, rabbitmq.url(), queue), kills)
            await trio.to_thread.run_sync(eventually, lambda: counts(rabbitmq, queue) == (0, 0), "empty queue")
            await say_the_end(stage)
        late = [Ear(stage, Listener(user, EVERYTHING, roles), witness.listener) for user, roles in LATECOMERS]
        for ear in late:
            await look_back(stage, ear, beginning)
        check(stage, witness.listener, [*(ear.listener for ear in (*ears, *late)), *wanderers.listeners])


def cast(stage: Stage, witness: Listener) -> dict[Ear, Subscriber]:
    """Who else listens, to what, and how; `kills_publishers.py` says who is a member of what."""
    habits = (
        (Listener("una", EVERYTHING, [AUDITOR]), Habits(cuts=1500)),
        (Listener("ada", EVERYTHING), Habits()),
        (Listener("bob", EVERYTHING), Habits(cuts=1000)),
        (Listener("cid", TALK), Habits(asks=20)),
        (Listener("dan", EVERYTHING), Habits(naps=60)),
        (Listener("fay", PRIVATE), Habits(asks=3)),
    )
    ears = ((Ear(stage, listener, witness), how) for listener, how in habits)
    eve = Ear(stage, Listener("eve", EVERYTHING), witness)
    return {
        **{ear: WebSocketSubscriber(stage, ear, how) for ear, how in ears},
        eve: ServerSentSubscriber(stage, eve, cuts=1500),
    }


def publishers(stage: Stage, url: str, queue: str) -> Sequence[Publisher]:
    return (
        HttpPublisher(stage, "one", as_one),
        HttpPublisher(stage, "another", as_one),
        HttpPublisher(stage, "array", as_array, 20),
        HttpPublisher(stage, "lines", as_lines, 20),
        CarelessPublisher(stage, "careless", 40),
        CarelessPublisher(stage, "forgetful", 40),
        AmqpPublisher(stage, "amqp", url, queue),
        AmqpPublisher(stage, "other-amqp", url, queue),
    )


async def publish_and_kill(stage: Stage, publishers: Sequence[Publisher], kills: int) -> None:
    """Until all is answered, and seen by the one who sees everything."""
    async with trio.open_nursery() as publishing:
        for publisher in publishers:
            publishing.start_soon(publisher.run)
        await kill_again_and_again(stage.mortal, stage.progress, stage.chance("killer"), kills)
        stage.enough.set()
        stage.progress.end()
    await stage.ledger.settled()


async def say_the_end(stage: Stage) -> None:
    async with HttpLine(stage.mortal.port) as line:
        await HttpPublisher(stage, "last", as_one).publish(
            line, [Sent("last-1", END, {"number": "last-1"}, "the last")]
        )


def check(stage: Stage, witness: Listener, listeners: Sequence[Listener]) -> None:
    ledger = stage.ledger
    judge = Judge(ledger.sent, witness)
    judge.check_answered(ledger.answered, ledger.sent)
    for request in ledger.given_up:
        judge.check_whole(request)
    for teller in ("one", "another", "array", "lines", "careless", "forgetful"):
        judge.check_order_of(teller)
    for listener in listeners:
        judge.check(listener)
    stage.progress.steps["excused"] = judge.excused


@contextmanager
def telling(stage: Stage) -> Iterator[None]:
    """Say, if it goes wrong, what it takes to do it again, and how far it came."""
    try:
        yield
    finally:
        sys.stdout.write(f"seed {stage.seed}, {stage.mortal.deaths} kills: {dict(stage.progress.steps)}\n")
