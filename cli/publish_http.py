"""Publishing to a broker over HTTP: in batches, and where one event is refused the others go without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec import Raw
from msgspec import json as msgspec_json

from broker.core.event import Event
from cli.errors import refuse
from cli.http_client import Answer, EventsClient
from cli.lines import Line, Lines, read_chunk
from cli.tally import Tally
from cli.target import Target

_MAX_BATCH_EVENTS = 500
_MAX_BATCH_BYTES = 262_144


class OverHttp:
    """Publishes to the broker that `target` names."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def send(self, event: Event) -> str:
        """See `Way` in `cli/publish.py`."""
        with EventsClient(self._target) as client:
            answer = client.send([_encode(event)])
        if not answer.taken:
            raise refuse(answer.error)
        return answer.ids[0]

    def send_lines(self, tally: Tally) -> None:
        """See `Way` in `cli/publish.py`."""
        with EventsClient(self._target) as client:
            for batch in _batches(tally):
                _send(client, batch, tally)


@dataclass(frozen=True, slots=True)
class _Encoded:
    number: int
    text: bytes


def _send(client: EventsClient, batch: Sequence[_Encoded], tally: Tally) -> None:
    """Send a batch; where the broker refuses one event of it, send the others without it."""
    while batch:
        answer = client.send([line.text for line in batch])
        if answer.taken:
            tally.took(len(batch))
            return
        if answer.too_large and len(batch) > 1:
            _send(client, batch[: len(batch) // 2], tally)
            batch = batch[len(batch) // 2 :]
            continue
        batch = _without_the_refused(batch, answer, tally)


def _without_the_refused(batch: Sequence[_Encoded], answer: Answer, tally: Tally) -> Sequence[_Encoded]:
    index = 0 if answer.too_large else answer.index
    if index is None:  # it is not about one event, so the others would fare no better
        raise refuse(f"line {batch[0].number} and what follows: {answer.error}")
    tally.refuse(batch[index].number, answer.error)
    return [*batch[:index], *batch[index + 1 :]]


def _batches(tally: Tally) -> Iterator[list[_Encoded]]:
    """The good lines of standard input: what has come is a batch, so that a slow pipe is not held up."""
    lines = Lines(tally.refuse)
    while chunk := read_chunk():
        yield from _cut(lines.of(chunk))
    yield from _cut(lines.of(b""))


def _cut(lines: Iterator[Line]) -> Iterator[list[_Encoded]]:
    batch: list[_Encoded] = []
    size = 0
    for line in lines:
        text = _encode(line.event)
        if batch and (len(batch) >= _MAX_BATCH_EVENTS or size + len(text) > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(_Encoded(line.number, text))
        size += len(text)
    if batch:
        yield batch


def _encode(event: Event) -> bytes:
    data = event.data if b"\n" not in event.data else msgspec_json.format(event.data, indent=-1)
    return msgspec_json.encode({"event": event.name, "data": Raw(data), "id": event.id})
