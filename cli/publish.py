"""`broker publish`: events over HTTP, one by its arguments or many from a pipe."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Raw
from msgspec import json as msgspec_json
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from broker.core.errors import PublisherError
from broker.core.event import Event, check_publishable
from cli.errors import FAILED, USED_WRONGLY, refuse, reporting, tell
from cli.http_client import Answer, EventsClient
from cli.target import DEFAULT_CONFIG, ConfigOption, TokenOption, UrlOption, find_target
from connectors.decode import decode_event, decode_payload
from connectors.stdin import LineReader

_SOURCE = "publish"
_MAX_BATCH_EVENTS = 500
_MAX_BATCH_BYTES = 262_144
_READ_BYTES = 65_536


@reporting()
def publish(
    event: Annotated[str | None, typer.Argument(help="The event's name.", metavar="EVENT")] = None,
    data: Annotated[
        str | None,
        typer.Argument(help="Its payload: JSON, - for standard input, @FILE for a file's text.", metavar="DATA"),
    ] = None,
    event_id: Annotated[
        str | None, typer.Option("--id", help="The event's id; the same id is delivered once.", metavar="ID")
    ] = None,
    url: UrlOption = None,
    token: TokenOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Publish one event; or, without EVENT, each line of standard input, which is {"event": NAME, "data": PAYLOAD}.

    Exit status: 0 if the broker took everything, 1 if it or we refused anything, 2 if used wrongly.

    Examples:

      broker publish games.42.created '{"name": "Chess"}'

      broker publish games.42.created @game.json

      generate-events | broker publish
    """
    if event is None:
        if event_id is not None:
            raise typer.BadParameter('--id goes with one EVENT; in a pipe each line has an "id" of its own')
        if sys.stdin.isatty():
            raise typer.BadParameter("give EVENT and DATA, or pipe events in, one JSON object a line")
        claims = {"publish": ["**"]}
    else:
        claims = {"publish": [event]}
        single = _single(event, data, event_id)
    target = find_target(url, token, config, claims)
    with EventsClient(target) as client:
        if event is None:
            if not _publish_lines(client):
                raise typer.Exit(FAILED)
        else:
            answer = client.send([_encode(single)])
            if not answer.taken:
                raise refuse(answer.error)
            typer.echo(answer.ids[0])


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: bytes


class _Tally:
    """Counts, and shows the count on a terminal while it grows."""

    def __init__(self) -> None:
        self.published = 0
        self.refused = 0
        console = Console(stderr=True)
        count = TextColumn("{task.completed} events published")
        self.progress = Progress(
            count, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._task = self.progress.add_task("", total=None)

    def took(self, number: int) -> None:
        self.published += number
        self.progress.update(self._task, completed=self.published)

    def refuse(self, number: int, reason: str) -> None:
        self.refused += 1
        tell(f"line {number}: {reason}")


def _publish_lines(client: EventsClient) -> bool:
    """Publish standard input; whether everything was taken."""
    tally = _Tally()
    with tally.progress:
        for batch in _batches(tally):
            _send(client, batch, tally)
    tell(f"{tally.published} published, {tally.refused} refused")
    return tally.refused == 0


def _send(client: EventsClient, batch: Sequence[_Line], tally: _Tally) -> None:
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


def _without_the_refused(batch: Sequence[_Line], answer: Answer, tally: _Tally) -> Sequence[_Line]:
    index = 0 if answer.too_large else answer.index
    if index is None:  # it is not about one event, so the others would fare no better
        raise refuse(f"line {batch[0].number} and what follows: {answer.error}")
    tally.refuse(batch[index].number, answer.error)
    return [*batch[:index], *batch[index + 1 :]]


def _batches(tally: _Tally) -> Iterator[list[_Line]]:
    """The good lines of standard input: what has come is a batch, so that a slow pipe is not held up."""
    reader = LineReader()
    while chunk := os.read(sys.stdin.fileno(), _READ_BYTES):
        yield from _cut(_good(reader.feed(chunk), tally))
    yield from _cut(_good(reader.end(), tally))


def _good(lines: Iterator[tuple[int, bytes | None]], tally: _Tally) -> Iterator[_Line]:
    for number, line in lines:
        if line is None:
            tally.refuse(number, "the line is too long")
        elif line.strip():
            try:
                event = decode_event(line, _SOURCE)
                check_publishable(event)
            except PublisherError as error:
                tally.refuse(number, str(error))
            else:
                yield _Line(number, _encode(event))


def _cut(lines: Iterator[_Line]) -> Iterator[list[_Line]]:
    batch: list[_Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) >= _MAX_BATCH_EVENTS or size + len(line.text) > _MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.text)
    if batch:
        yield batch


def _encode(event: Event) -> bytes:
    # An id of our own lets us send the same again after a lost connection, and have it delivered once.
    data = event.data if b"\n" not in event.data else msgspec_json.format(event.data, indent=-1)
    return msgspec_json.encode({"event": event.name, "data": Raw(data), "id": event.id or uuid.uuid4().hex})


def _single(name: str, data: str | None, event_id: str | None) -> Event:
    text = _payload(data)
    try:
        event = Event(name, decode_payload(text), event_id, _SOURCE)
    except PublisherError as error:
        raise refuse(f'DATA: {error}; quote it for the shell: \'{{"key": "value"}}\'', USED_WRONGLY) from None
    try:
        check_publishable(event)
    except PublisherError as error:
        raise refuse(f"EVENT: {error}", USED_WRONGLY) from None
    return event


def _payload(data: str | None) -> bytes:
    if data is None:
        return b"null"
    if data == "-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode(errors="surrogateescape")
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise refuse(f"can't read {data[1:]}: {error.strerror}", USED_WRONGLY) from None
