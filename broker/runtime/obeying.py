"""The broker's own commands, and whose the others are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from broker.core.commands import MAX_ID_LENGTH, Command, parse_command, problem, reply
from broker.core.errors import BadShape, BrokerError, ClientError, Close, LogGap, UnknownCommand
from broker.core.patterns import parse_pattern

if TYPE_CHECKING:
    from broker.runtime.connection import Connection
    from broker.runtime.services import Application

_LATER: Final[Mapping[str, Any]] = {}  # in the place of a reply's data: the reply comes when the command is done


def obey(client: Connection, message: str) -> None:
    """Carry out the command that a text of the client's is, and answer it."""
    try:
        command = parse_command(message)
    except ClientError as error:
        client.tell(problem(error, error.reply_id))
    else:
        answer(client, command, client.arrival.application if client.arrival else None)


def answer(client: Connection, command: Command, application: Application | None = None) -> None:
    """Carry out a command, and answer it. application: takes what is its own, and what has to wait for that."""
    try:
        data = _carry_out(client, command, application)
    except BrokerError as error:
        client.tell(problem(error, command.id))
    else:
        if command.id is not None and data is not _LATER:
            client.tell(reply(command.id, data))


def _carry_out(client: Connection, command: Command, application: Application | None) -> Mapping[str, Any]:
    match command.event:
        case "subscribe":
            pattern = parse_pattern(command.data)
            if application and application.subscribe(client, pattern, command):
                return _LATER
            return client.subscribe(pattern)
        case "unsubscribe" | "resume" if application and application.postpone(client, command):
            return _LATER
        case "unsubscribe":
            return client.unsubscribe(parse_pattern(command.data))
        case "resume":
            return _resume(client, command)
        case "authenticate":
            if command.data is not None and not isinstance(command.data, str):
                raise BadShape("authenticate takes a token, which is a text")
            data = client.authenticate(command.data)
            if application:
                application.authenticated(client)
            return data
        case _ if application and application.obey(client, command):
            return _LATER
        case unknown:
            known = "subscribe, unsubscribe, resume, authenticate"
            others = " and those of the application" if application else ""
            raise UnknownCommand(f"there is no command {unknown[:100]!r}; there are {known}{others}")


def _resume(client: Connection, command: Command) -> Mapping[str, Any]:
    place = command.data
    if place is not None and not (isinstance(place, str) and len(place) <= MAX_ID_LENGTH):
        raise BadShape("resume takes the id of an event or a position, which are texts, or null")

    def resumed(outcome: str | BrokerError) -> None:
        if isinstance(outcome, BrokerError):
            client.tell(problem(outcome, command.id))
            if client.form.listens_only and not isinstance(outcome, LogGap):
                client.close(Close.INTERNAL_ERROR, "try again")
        elif command.id is not None:
            client.tell(reply(command.id, {"id": outcome}))

    client.resume(place, resumed)
    return _LATER
