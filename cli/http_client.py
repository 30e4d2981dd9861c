"""Sending events to a broker over HTTP, by the standard library; patient where the broker says that it is busy."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType

from broker.core.errors import BrokerError
from cli.target import Target

TIMEOUT = 30.0
_ATTEMPTS = 30  # of a batch that the broker has no room for, about a second apart
_MAX_RETRY_AFTER = 10.0
_MAX_ANSWER_BYTES = 16 * 1_048_576


class Unreachable(BrokerError):
    """There is no broker at that address, or it does not answer as one."""

    code = "unreachable"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the broker said to a batch: taken with ids, or an error and, where it names one, the event's index."""

    status: int
    ids: Sequence[str] = ()
    error: str = ""
    index: int | None = field(default=None)

    @property
    def taken(self) -> bool:
        """Whether the log has the whole batch."""
        return self.status == HTTPStatus.ACCEPTED

    @property
    def too_large(self) -> bool:
        """Whether a smaller batch might be taken."""
        return self.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class EventsClient:
    """One connection to a broker, opened when it is needed and again when it is lost."""

    def __init__(self, target: Target) -> None:
        kind = http.client.HTTPSConnection if target.url.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(target.url.hostname or "", target.url.port, timeout=TIMEOUT)
        self._shown = target.url.geturl()
        self._path = target.events_path
        self._headers = {"Content-Type": "application/x-ndjson"}
        if target.token is not None:
            self._headers["Authorization"] = f"Bearer {target.token}"

    def __enter__(self) -> EventsClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def send(self, events: Sequence[bytes]) -> Answer:
        """Publish a batch, each event as one line of JSON; waits and sends again while the broker is busy.

        Raises Unreachable.
        """
        body = b"\n".join(events) + b"\n"
        for _ in range(_ATTEMPTS):
            status, retry_after, text = self._exchange(body)
            if status != HTTPStatus.SERVICE_UNAVAILABLE:
                return _read(status, text, len(events))
            time.sleep(min(retry_after, _MAX_RETRY_AFTER))
        return _read(status, text, len(events))

    def _exchange(self, body: bytes) -> tuple[int, float, bytes]:
        # A broker closes idle connections; that shows only when we write to one, and is no reason to give up.
        try:
            return self._request(body)
        except (http.client.HTTPException, OSError):
            self._connection.close()
        try:
            return self._request(body)
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()
            reason = (
                error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
            )
            raise Unreachable(f"no broker answers at {self._shown}: {reason}; is it running?") from None

    def _request(self, body: bytes) -> tuple[int, float, bytes]:
        # Who refuses a body by the request's head need not read it to the end; the answer is there all the same.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request("POST", self._path, body, self._headers)
        response = self._connection.getresponse()
        retry_after = response.headers.get("Retry-After", "1")
        return response.status, float(retry_after) if retry_after.isdecimal() else 1.0, response.read(_MAX_ANSWER_BYTES)


def _read(status: int, text: bytes, number: int) -> Answer:
    """What was said to a batch of so many events."""
    try:
        answer = json.loads(text)
        if status != HTTPStatus.ACCEPTED:
            return Answer(status, error=str(answer["error"]), index=_index(answer.get("index"), number))
        if len(answer["ids"]) == number:
            return Answer(status, ids=[str(event_id) for event_id in answer["ids"]])
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Answer(status if status != HTTPStatus.ACCEPTED else 0, error=f"an answer of no broker: HTTP {status}")


def _index(value: object, number: int) -> int | None:
    return value if isinstance(value, int) and 0 <= value < number else None
