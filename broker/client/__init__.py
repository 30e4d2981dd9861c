"""A client of the broker for Trio: connect, subscribe, and get every event once, over restarts and bad networks.

    async with connect("https://events.example", token) as client:
        async for event in client.subscribe("games.**"):
            print(event.name, event.data)

docs/clients.md has the whole of it. Read `session` first (what is said when; no I/O), then `link` (keeps it
connected), `client` (what users see).
"""

from broker.client.client import Client, ClientStatistics, connect
from broker.client.errors import (
    BadUrl,
    ClientClosed,
    ClientFailure,
    CommandFailed,
    CommandLost,
    CommandTimedOut,
    Disconnected,
    NotConnected,
    PublishFailed,
    Refused,
    ResumeGap,
    TokenUnavailable,
)
from broker.client.frames import Event
from broker.client.messages import Messages
from broker.client.options import Change, Connected, Lost, Options
from broker.client.publishing import Publisher, open_publisher
from broker.client.subscription import Subscription
from broker.client.tokens import Token

__all__ = [
    "BadUrl",
    "Change",
    "Client",
    "ClientClosed",
    "ClientFailure",
    "ClientStatistics",
    "CommandFailed",
    "CommandLost",
    "CommandTimedOut",
    "Connected",
    "Disconnected",
    "Event",
    "Lost",
    "Messages",
    "NotConnected",
    "Options",
    "PublishFailed",
    "Publisher",
    "Refused",
    "ResumeGap",
    "Subscription",
    "Token",
    "TokenUnavailable",
    "connect",
    "open_publisher",
]
