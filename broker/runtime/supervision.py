"""Keeps a source running: whoever ends by an error is started again, after a pause that grows and is never the same.

The jitter is there so that the brokers of a fleet do not all come back in the same moment to a source that has just
come back itself.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from enum import Enum

import trio

from broker.core.backoff import Backoff
from broker.core.errors import BrokerError
from broker.core.ports import Connector, Publisher
from broker.core.telling import is_telling

logger = logging.getLogger(__name__)


class State(Enum):
    """How a source is, in the words of `/readyz`."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    ENDED = "ended"


class Supervisor:
    """Runs one connector for as long as it has something to bring.

    jitter: gives the share of a pause that is really waited for, from 0.5 to 1.
    """

    def __init__(self, connector: Connector, jitter: Callable[[], float] = lambda: random.uniform(0.5, 1)) -> None:  # noqa: S311
        self.connector = connector
        self.state = State.STARTING
        self.failures = 0
        self._jitter = jitter
        self._running_since = 0.0
        self._reason = ""
        self._same_reason = 0  # times in a row

    async def run(self, publisher: Publisher) -> None:
        """Run the connector until it says that it is at its end."""
        backoff = Backoff(self._jitter)
        while not await self._run_once(publisher):
            ran_well = trio.current_time() - self._running_since if self.state is State.RUNNING else 0.0
            self.state = State.WAITING
            await trio.sleep(backoff.next_pause(ran_well))
            self.state = State.STARTING

    async def _run_once(self, publisher: Publisher) -> bool:
        """Whether it came to its end."""
        try:
            await self.connector.run(publisher, self._ready)
        except BrokerError as error:
            self._tell(str(error))
        except Exception:  # a fault of ours in one source must not be the end of it, and never of the others
            logger.exception("connector.failed", extra={"connector": self.connector.name})
        else:
            self.state = State.ENDED
            return True
        self.failures += 1
        return False

    def _tell(self, reason: str) -> None:
        # The same reason every few seconds, perhaps for days, is told at 1, 10, 100, …
        self._same_reason = self._same_reason + 1 if reason == self._reason else 1
        self._reason = reason
        if is_telling(self._same_reason):
            told = {"connector": self.connector.name, "reason": reason, "times": self._same_reason}
            logger.warning("connector.unavailable", extra=told)

    def _ready(self) -> None:
        self.state = State.RUNNING
        self._reason = ""
        self._running_since = trio.current_time()
