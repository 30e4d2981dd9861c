"""Desks of teams: who may be there, what is said there, and to whom it goes."""

from __future__ import annotations

from dataclasses import dataclass

from broker import ClientError, Connection, Handlers, Received, log_received

app = Handlers()
desk = app.channel("teams.<team>.desks.<topic>")
inbox = app.channel("inboxes.<owner>")


@dataclass(frozen=True)
class Post:
    """What somebody writes."""

    text: str


class Muted(ClientError):
    """Somebody may read and not write."""

    code = "muted"


# Who may be on a channel: without that nothing of it is received, and nothing can be sent to it.


@desk.authorize
async def in_the_team(connection: Connection, team: str) -> bool:
    """Teams stand in the token, as the login knows them."""
    return team in connection.claims.get("teams", [])


@inbox.authorize
async def own(user: str, owner: str) -> bool:
    return user == owner


# Middleware of one channel: it sees each subscription and each message before it is handled, and may refuse it.


@desk.on_message_received
async def no_posts_of_the_muted(request: Received) -> None:
    await log_received(request)
    if request.event != "subscribe" and request.connection.claims.get("muted"):
        raise Muted("you may read here, and not write")


# Commands on a channel: `teams.red.desks.news.post` and so on.


@desk.on("post")
async def post(user: str, team: str, topic: str, data: Post) -> int:
    """To everybody on the channel, the sender too."""
    return await desk.broadcast("posted", {"user": user, "text": data.text}, team=team, topic=topic)


@desk.on("ask.<whom>")
async def ask(user: str, whom: str, team: str, topic: str, data: Post) -> int:
    """To one user, where they are on this channel: not to the other tabs that they have open."""
    return await desk.broadcast("asked", {"user": user, "text": data.text}, to=whom, team=team, topic=topic)


@desk.on("save", on_message_received=None)
async def save(connection: Connection, team: str, topic: str, data: Post) -> None:
    """To this one connection: drafts are nobody else's business, and not that of the log either."""
    drafts = connection.state.setdefault("drafts", [])
    drafts.append(data.text)
    await connection.send({"event": desk.name(team=team, topic=topic) + ".saved", "data": {"drafts": len(drafts)}})


# Not on a channel, and yet sent to one: from any place in the application.


@app.on("notices.<owner>")
async def notify(user: str, owner: str, data: Post) -> dict[str, int]:
    """Into the inbox, to the tabs that show it; and a hint to all that the other one has open."""
    read = await inbox.broadcast("noticed", {"user": user, "text": data.text}, owner=owner)
    hinted = await app.to(owner).send({"event": "hint", "data": f"{user} has written to you"})
    return {"inboxes": read, "devices": hinted}
