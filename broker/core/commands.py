"""The client protocol as values: a text frame becomes a command, and what an answer holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from broker.core.errors import BadJSON, BadShape, BrokerError

MAX_ID_LENGTH = 255

CommandId = str | int


@dataclass(frozen=True, slots=True)
class Command:
    """What a client asks for. `id` is None where it wants no answer."""

    event: str
    data: Any
    id: CommandId | None = None


def parse_command(text: str) -> Command:
    """Read one text frame.

    Raises BadJSON or BadShape; `reply_id` of the error is the command's id where there is a usable one.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise BadJSON("this JSON is nested too deep") from None
    except ValueError as error:
        raise BadJSON(f"this is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadShape('a command is an object: {"event": COMMAND, "data": …}')
    command_id = value.get("id")
    if not _is_id(command_id):
        raise BadShape(f'"id" is a text of at most {MAX_ID_LENGTH} characters, or an integer')
    event = value.get("event")
    if not isinstance(event, str) or not event:
        raise BadShape('a command has an "event", which is a text: {"event": COMMAND, "data": …}', reply_id=command_id)
    return Command(event, value.get("data"), command_id)


def reply(command_id: CommandId, data: Any) -> dict[str, Any]:
    """The answer to a command that went well."""
    return {"reply": command_id, "data": data}


def problem(error: BrokerError, command_id: CommandId | None = None) -> dict[str, Any]:
    """The answer to a command that did not, with its id if it had one."""
    begin = {} if command_id is None else {"reply": command_id}
    return {**begin, "error": str(error), "code": error.code}


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_ID_LENGTH
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
