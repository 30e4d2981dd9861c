"""`broker publish`: events to a broker or to RabbitMQ, one by its arguments or many from a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Protocol

import typer

from broker.core.errors import PublisherError
from broker.core.event import Event, check_publishable, utf8_length
from cli.errors import FAILED, USED_WRONGLY, refuse, reporting, tell
from cli.lines import SOURCE, with_id
from cli.publish_amqp import OverAmqp
from cli.publish_http import OverHttp
from cli.tally import Tally
from cli.target import DEFAULT_CONFIG, ConfigOption, TokenOption, UrlOption, find_target
from connectors.amqp.url import parse_urls
from connectors.decode import decode_payload

_MAX_EXCHANGE_BYTES = 255
_HTTP_ONLY = ("url", "token", "config")


@reporting()
def publish(
    context: typer.Context,
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
    amqp: Annotated[
        str | None,
        typer.Option(help="Publish to RabbitMQ instead: amqp://user:password@host/vhost", metavar="URL"),
    ] = None,
    exchange: Annotated[
        str | None, typer.Option(help="RabbitMQ's exchange, if not events.", metavar="NAME", show_default=False)
    ] = None,
) -> None:
    """Publish one event; or, without EVENT, each line of standard input, which is {"event": NAME, "data": PAYLOAD}.

    Exit status: 0 if everything was taken, 1 if anything was refused, 2 if used wrongly.

    Examples:

      broker publish games.42.created '{"name": "Chess"}'

      broker publish games.42.created @game.json

      generate-events | broker publish

      generate-events | broker publish --amqp amqp://localhost
    """
    _check_pipe(event, event_id)
    single = _single(event, data, event_id) if event is not None else None
    if amqp is None:
        if exchange is not None:
            raise typer.BadParameter("--exchange goes with --amqp URL")
        way: Way = OverHttp(find_target(url, token, config, {"publish": [event or "**"]}))
    else:
        _check_without_http(context)
        way = OverAmqp(parse_urls(amqp), _checked_exchange(exchange))
    if single is not None:
        typer.echo(way.send(single))
    else:
        _publish_lines(way)


class Way(Protocol):
    """Where events go. Both raise BrokerError, or typer.Exit after having said why, where they can't go on."""

    def send(self, event: Event) -> str:
        """Publish an event that has an id; returns the id that it goes by."""
        ...

    def send_lines(self, tally: Tally) -> None:
        """Publish standard input, an event a line; what is refused is told to the tally, and the rest goes on."""
        ...


def _publish_lines(way: Way) -> None:
    tally = Tally()
    with tally.progress:
        way.send_lines(tally)
    tell(str(tally))
    if tally.refused:
        raise typer.Exit(FAILED)


def _check_pipe(event: str | None, event_id: str | None) -> None:
    if event is None:
        if event_id is not None:
            raise typer.BadParameter('--id goes with one EVENT; in a pipe each line has an "id" of its own')
        if sys.stdin is None or sys.stdin.isatty():
            raise typer.BadParameter("give EVENT and DATA, or pipe events in, one JSON object a line")


def _check_without_http(context: typer.Context) -> None:
    """The environment may name a broker all the same: it speaks to every command."""
    for name in _HTTP_ONLY:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--{name} is for a broker, --amqp for RabbitMQ: give one of them")


def _checked_exchange(name: str | None) -> str:
    if (utf8_length(name or "") or 0) > _MAX_EXCHANGE_BYTES:
        raise typer.BadParameter(f"--exchange: a name has at most {_MAX_EXCHANGE_BYTES} bytes")
    if name == "":
        raise typer.BadParameter("--exchange must name one: the default exchange knows queues, and no events")
    return name or "events"


def _single(name: str, data: str | None, event_id: str | None) -> Event:
    text = _payload(data)
    try:
        event = Event(name, decode_payload(text), event_id, SOURCE)
    except PublisherError as error:
        raise refuse(f'DATA: {error}; quote it for the shell: \'{{"key": "value"}}\'', USED_WRONGLY) from None
    try:
        check_publishable(event)
    except PublisherError as error:
        raise refuse(f"EVENT: {error}", USED_WRONGLY) from None
    return with_id(event)


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
