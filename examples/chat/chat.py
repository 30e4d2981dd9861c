"""A chat: what its users may ask for, and who is told of it.

Everything that is sent has the form of an event, `{"event": …, "data": …}`, so that the page has one way to read it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker import ClientError, Connection, Handlers, Sent

logger = logging.getLogger(__name__)

LONGEST = 1000  # characters

app = Handlers()
history: dict[str, list[dict[str, str]]] = {}  # by room: what was said last


@dataclass(frozen=True)
class Text:
    """What somebody says."""

    text: str

    def __post_init__(self) -> None:
        if not 0 < len(self.text) <= LONGEST:
            raise ValueError(f"a text has 1 to {LONGEST} characters")


class NotInRoom(ClientError):
    """Somebody speaks in a room that they are not in: answered with this code, and not logged as a failure."""

    code = "not_in_room"


def told(name: str, **data: Any) -> dict[str, Any]:
    return {"event": name, "data": data}


# Rooms


@app.on("rooms.<room>.enter")
async def enter(connection: Connection, user: str, room: str) -> Sequence[dict[str, str]]:
    """The answer is what was said in the room last."""
    if room not in connection.rooms:
        connection.join(room)
        await connection.broadcast(told(f"rooms.{room}.entered", user=user), rooms=[room])
    return history.get(room, [])


@app.on("rooms.<room>.say")
async def say(connection: Connection, user: str, room: str, data: Text) -> None:
    if room not in connection.rooms:
        raise NotInRoom(f"enter {room} first")
    said = {"user": user, "text": data.text}
    history[room] = [*history.get(room, []), said][-20:]
    await connection.broadcast(told(f"rooms.{room}.said", **said), rooms=[room], include_self=True)


@app.on("rooms.<room>.leave")
async def leave(connection: Connection, user: str, room: str) -> None:
    connection.leave(room)
    await connection.broadcast(told(f"rooms.{room}.left", user=user), rooms=[room])


@app.on_disconnect
async def gone(connection: Connection, user: str) -> None:
    for room in connection.rooms:
        await connection.broadcast(told(f"rooms.{room}.left", user=user), rooms=[room])


# From user to user


@app.on("users.<to>.whisper")
async def whisper(user: str, to: str, data: Text) -> dict[str, bool]:
    """Reaches each device of the other user, and each of the sender's own."""
    whispered = told("whispered", user=user, to=to, text=data.text)
    await app.send(whispered)
    await app.to(to).send(whispered)
    return {"online": app.is_online(to)}


# Who is there; the page also gets the events `users.<userId>.online` and `.offline`, by the policy.


@app.on_online
async def online(user: str) -> None:
    logger.info("chat.online", extra={"user": user})


@app.on_offline
async def offline(user: str) -> None:
    logger.info("chat.offline", extra={"user": user})


# on_message_received=None: pages ask often, and nobody wants it in the log.
@app.on("who", on_message_received=None)
async def who() -> list[str]:
    """The answer is who is online now."""
    return sorted(app.online_users())


# What is logged: beside what comes and what fails, which is so by default, also what is sent.


@app.on_message_sent
async def log_sent(message: Sent) -> None:
    logger.info("chat.sent", extra={"to": message.to})
