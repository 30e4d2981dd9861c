"""The lobby: who gets in, who hears what, and what happens when somebody is gone.

Two kinds of rooms: `lobby`, where everybody is, and `table.<number>`, for those who play there or watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from broker import Accepted, ClientError, Connection, Handlers, Refused, Request

LOBBY = "lobby"
NO_NAME, BAD_NAME, NAME_TAKEN = 4401, 4402, 4409  # close codes of our own

# A path of its own, where nobody needs a token, and where a network that is gone is noticed sooner.
app = Handlers(path="/lobby", heartbeat=10, heartbeat_timeout=5)


class Move(Enum):
    """What a player shows."""

    ROCK = "rock"
    PAPER = "paper"
    SCISSORS = "scissors"


BEATEN_BY = {Move.ROCK: Move.PAPER, Move.PAPER: Move.SCISSORS, Move.SCISSORS: Move.ROCK}


class AgainstTheRules(ClientError):
    """What can't be done now: answered with this code, and not logged as a failure."""

    code = "against_the_rules"


@dataclass(frozen=True)
class Guest:
    """What `authenticate` finds out; handlers have it as `connection.data`."""

    name: str
    colour: str


@dataclass
class Table:
    """Where two play. It knows nothing of connections."""

    players: list[str] = field(default_factory=list)
    moves: dict[str, Move] = field(default_factory=dict)

    def sit(self, player: str) -> None:
        """Take a seat, if there is one.

        Raises AgainstTheRules.
        """
        if len(self.players) == 2:
            raise AgainstTheRules("both seats are taken")
        if player not in self.players:
            self.players.append(player)

    def leave(self, player: str) -> None:
        """Leave the seat, if this one has it; the round is void then."""
        if player in self.players:
            self.players.remove(player)
            self.moves.clear()

    def show(self, player: str, move: Move) -> dict[str, Any] | None:
        """Show a move; returns how the round has ended, or None while the other one thinks.

        Raises AgainstTheRules.
        """
        if player not in self.players or len(self.players) < 2:
            raise AgainstTheRules("it takes two who sit at the table")
        self.moves.setdefault(player, move)  # the first one counts
        if len(self.moves) < 2:
            return None
        shown, self.moves = self.moves, {}
        (one, first), (other, second) = shown.items()
        winner = None if first is second else other if BEATEN_BY[first] is second else one
        return {"shown": {who: each.value for who, each in shown.items()}, "winner": winner}


tables = {number: Table() for number in ("1", "2", "3")}
here: dict[str, Connection] = {}  # by the name that it has taken


def table(number: str) -> Table:
    if number not in tables:
        raise AgainstTheRules(f"there is no table {number}")
    return tables[number]


def room_of(number: str) -> str:
    return f"table.{number}"


async def tell_of_table(connection: Connection, number: str) -> None:
    """To the lobby and to the table; who is in both rooms gets it once."""
    message = {"event": f"tables.{number}.players", "data": tables[number].players}
    await connection.broadcast(message, rooms=[LOBBY, room_of(number)], include_self=True)


@app.authenticate
async def who(request: Request) -> Accepted:
    """Asked before a connection is accepted; the page sees the code and the reason.

    A name that one chooses proves nothing: `player:Ada` does not get what is for the user `Ada`, who has a token.
    """
    name, colour = (request.query.get(key, [""])[0] for key in ("name", "colour"))
    if not name:
        raise Refused(NO_NAME, "say who you are")
    if not name.isalpha() or len(name) > 20:
        raise Refused(BAD_NAME, "a name is up to 20 letters")
    return Accepted(f"player:{name}", data=Guest(name, colour or "grey"))


@app.on_connect
async def come(connection: Connection) -> None:
    """Nothing is waited for between looking for the name and taking it, so that two can't both have it."""
    name = connection.data.name
    if name in here:
        raise Refused(NAME_TAKEN, f"there is a {name} already")
    here[name] = connection
    connection.join(LOBBY)
    seats = {number: each.players for number, each in tables.items()}
    await connection.send({"event": "welcome", "data": {"connection": connection.id, "tables": seats}})
    await connection.broadcast({"event": "lobby.came", "data": asdict(connection.data)}, rooms=[LOBBY])


@app.on_disconnect
async def go(connection: Connection, code: int) -> None:
    """The connection is still in its rooms, so that the others can be told; then the name is free."""
    name = connection.data.name
    if here.get(name) is not connection:  # it was refused: the name is another's
        return
    try:
        for number, each in tables.items():
            if name in each.players:
                each.leave(name)
                await tell_of_table(connection, number)
        message = {"event": "lobby.went", "data": {"name": name, "code": code}}
        await connection.broadcast(message, rooms=connection.rooms)
    finally:
        del here[name]


@app.on("tables.<number>.watch")
async def watch(connection: Connection, number: str) -> Sequence[str]:
    """The answer is who plays."""
    players = table(number).players
    connection.join(room_of(number))
    return players


@app.on("tables.<number>.sit")
async def sit(connection: Connection, number: str) -> None:
    table(number).sit(connection.data.name)
    connection.join(room_of(number))
    await tell_of_table(connection, number)


@app.on("tables.<number>.stand")
async def stand(connection: Connection, number: str) -> None:
    table(number).leave(connection.data.name)
    await tell_of_table(connection, number)


@app.on("tables.<number>.show", timeout=2)
async def show(connection: Connection, number: str, data: Move) -> None:
    """`data` is one of "rock", "paper" and "scissors": anything else never gets here."""
    name = connection.data.name
    ended = table(number).show(name, data)
    if ended is None:
        await connection.broadcast({"event": f"tables.{number}.thinks", "data": name}, rooms=[room_of(number)])
    else:
        message = {"event": f"tables.{number}.ended", "data": ended}
        await connection.broadcast(message, rooms=[room_of(number)], include_self=True)


@app.on("quit")
async def quit_lobby(connection: Connection) -> None:
    connection.close(4000, "see you")
