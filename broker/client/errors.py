"""What can go wrong for a user of the client, each under a name of its own; nobody else's errors come out of it."""

from __future__ import annotations

from broker.core.errors import ADVICE, Close


class ClientFailure(Exception):
    """Everything that the client raises on purpose. What breaks the rules for names and patterns is the core's."""


class BadUrl(ClientFailure, ValueError):
    """A URL that names no broker."""


class NotConnected(ClientFailure):
    """Nobody answers at the broker's address, or somebody who is no broker."""


def no_answer_within(address: object, seconds: float) -> str:
    """What is said where nobody answers in time."""
    return f"no broker answers at {address} within {seconds:g} seconds"


class Refused(NotConnected):
    """The handshake was answered by another HTTP status. `status` and `text` are what the answer said."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(f"the broker refused the connection: HTTP {status} {text}".rstrip())
        self.status = status
        self.text = text


class Disconnected(ClientFailure):
    """A connection has ended. `code` and `reason` are those of the close frame, 1006 where there was none."""

    def __init__(self, code: int, reason: str = "", advice: str | None = None) -> None:
        if advice is None and code in set(Close):
            advice = ADVICE[Close(code)]
        super().__init__(f"the connection ended: {code} {reason}".rstrip() + (f"; {advice}" if advice else ""))
        self.code = code
        self.reason = reason


class TokenUnavailable(ClientFailure):
    """The function that gives tokens failed, or gave what is no token. Its own error is the `__cause__`."""


class ClientClosed(ClientFailure):
    """The `async with` block of the client has been left."""


class ResumeGap(ClientFailure):
    """Events are gone: the broker's log no longer reached back to where the client was. What follows is live."""


class CommandFailed(ClientFailure):
    """The broker's answer to a command is an error; `code` tells which (docs/protocol.md)."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class CommandLost(ClientFailure):
    """The connection ended before the answer came: the command may or may not have been carried out."""


class CommandTimedOut(ClientFailure):
    """There was no answer in time: the command may or may not have been carried out, or never have been sent."""


class PublishFailed(ClientFailure):
    """An event was not taken. `status` and `code` are those of the last answer, if there was one."""

    def __init__(self, text: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
