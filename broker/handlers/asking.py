"""One message of a client on its way through middleware and handler, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

from broker.core.errors import ClientError
from broker.core.message import Message
from broker.handlers.data import plain
from broker.handlers.errors import HandlerFailed, HandlerTimedOut
from broker.handlers.hooks import Hooks, Received, call, report
from broker.handlers.house import Current, current
from broker.handlers.signature import Signature
from broker.runtime.connection import Connection as Client

MAX_ERROR_LENGTH: Final = 1000  # characters of what an exception says that a client is told


@dataclass(frozen=True, slots=True)
class Asked:
    """A message of a client, and who is to answer it how.

    timeout: seconds. answers: what the handler returns goes to the client.
    """

    received: Received
    signature: Signature
    offered: Mapping[str, Any]
    timeout: float
    hooks: Hooks
    answers: bool = False

    async def run(self, client: Client, counters: Counter[str]) -> Any:
        """What the handler returns, fit for JSON.

        Raises BrokerError for all that goes wrong; the middleware has been told then.
        """
        counters["calls"] += 1
        with handling(client, self.hooks, self.received):
            try:
                await call(self.hooks.received, self.received)
                return await self._call()
            except ClientError:  # of the application's own, for the client, such as BadRoom
                raise
            except HandlerTimedOut as error:
                counters["calls_timed_out"] += 1
                await report(error, self.received, self.hooks)
                raise
            except Exception as error:
                counters["calls_failed"] += 1
                await report(error, self.received, self.hooks)
                raise HandlerFailed(_text_of(error)) from None

    async def _call(self) -> Any:
        with trio.move_on_after(self.timeout):
            result = await self.signature.call(self.offered)
            if self.answers:
                result = plain(result)
                Message([result])  # in an answer there is no place for bytes
            return result
        raise HandlerTimedOut(f"this took longer than {self.timeout:g} seconds")


@contextmanager
def handling(client: Client, hooks: Hooks, received: Received) -> Iterator[None]:
    """What is called in the block knows whose message is being handled."""
    before = current.set(Current(hooks, received, client))
    try:
        yield
    finally:
        current.reset(before)


def _text_of(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # what it says is made by the application too
        text = ""
    return text[:MAX_ERROR_LENGTH] or type(error).__name__
