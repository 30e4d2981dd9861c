"""The servers that the tests share, and the one thing that is checked after every test: nobody has come to harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.needing import needed
from tests.system.harness import OPEN_POLICY, SHIPPED_CONFIG, SHIPPED_POLICY, Broker, Brokers
from tests.system.rabbitmq import RabbitMQ, why_not

StartBroker = Callable[..., Broker]


@pytest.fixture(scope="session")
def shared_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    brokers = Brokers(tmp_path_factory.mktemp("brokers"))
    yield brokers
    brokers.stop()


@pytest.fixture(scope="session")
def broker(shared_brokers: Brokers) -> Broker:
    """A broker with the files as they are shipped."""
    return shared_brokers.start(SHIPPED_CONFIG, SHIPPED_POLICY)


@pytest.fixture(scope="session")
def open_broker(shared_brokers: Brokers) -> Broker:
    """A broker where everybody may see everything."""
    return shared_brokers.start("", OPEN_POLICY)


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    """Starts brokers for one test; each has to end by SIGTERM, with status 0 and without a traceback."""
    brokers = Brokers(tmp_path)
    yield brokers
    brokers.stop()


@pytest.fixture(autouse=True)
def nobody_comes_to_harm(shared_brokers: Brokers) -> Iterator[None]:
    yield
    shared_brokers.check()


@pytest.fixture(scope="session")
def rabbitmq_is_here() -> None:
    """Skip the tests that need RabbitMQ where there is none; under CI, where there has to be one, fail them."""
    needed(why_not())


@pytest.fixture(scope="session")
def rabbitmq(rabbitmq_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A running RabbitMQ for every test that leaves it as it is; queues and exchanges need `unique` names."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq:
        yield rabbitmq


@pytest.fixture
def own_rabbitmq(rabbitmq_is_here: None, tmp_path: Path) -> Iterator[RabbitMQ]:
    """A running RabbitMQ for one test, which may stop it, kill it and start it again."""
    rabbitmq = RabbitMQ(tmp_path / "rabbitmq")
    rabbitmq.start()
    yield rabbitmq
    rabbitmq.kill()  # nobody wants what it would write down
