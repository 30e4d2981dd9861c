"""`broker tail`: subscribe, and print what comes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import trio
import typer
from h11 import ProtocolError as HttpError
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    open_websocket_url,
)

from broker.core.errors import ADVICE, BadPattern, Close
from broker.core.patterns import parse_pattern
from cli.errors import refuse, reporting, tell
from cli.target import DEFAULT_CONFIG, ConfigOption, Target, TokenOption, UrlOption, find_target

CONNECT_TIMEOUT = 10.0  # the library does not notice a server that hangs up instead of answering
_MAX_MESSAGE_BYTES = 64 * 1_048_576


@reporting()
def tail(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="What to subscribe to; without any, everything.", metavar="[PATTERN]...")
    ] = None,
    user: Annotated[str | None, typer.Option("--as", help="The user as whom to look.", metavar="USER")] = None,
    count: Annotated[int | None, typer.Option(help="Stop after so many events.", min=1, metavar="N")] = None,
    url: UrlOption = None,
    token: TokenOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Subscribe and print each event as one line of JSON. What is printed is what that user may see.

    Examples:

      broker tail '**' --as ada

      broker tail 'games.*.created' 'users.**' --as ada | jq .event

      BROKER_URL=https://events.example BROKER_TOKEN=… broker tail 'orders.**'
    """
    wanted = _checked(patterns or ["**"])
    target = find_target(url, token, config, {"sub": user or "broker-tail"})
    try:
        complaint = trio.run(_tail, target, wanted, count)
    except ConnectionRejected as rejected:
        reason = f"HTTP {rejected.status_code} {_reason(rejected.body)}"
        raise refuse(f"{target.url.geturl()} refused: {reason}") from None
    except (HandshakeError, HttpError, OSError):
        raise refuse(f"no broker answers at {target.url.geturl()}; is it running?") from None
    if complaint is not None:
        raise refuse(complaint)


async def _tail(target: Target, patterns: Sequence[str], count: int | None) -> str | None:
    """Print events until there are enough of them; or return what ended it."""
    scheme = "wss" if target.url.scheme == "https" else "ws"
    url = target.url._replace(scheme=scheme, path=target.websocket_path).geturl()
    headers = [(b"authorization", f"Bearer {target.token}".encode())] if target.token else []
    opening = open_websocket_url(
        url, extra_headers=headers, max_message_size=_MAX_MESSAGE_BYTES, connect_timeout=CONNECT_TIMEOUT
    )
    async with opening as socket:
        try:
            return await _follow(socket, patterns, count)
        except ConnectionClosed as closed:
            return _ended(closed)


async def _follow(socket: WebSocketConnection, patterns: Sequence[str], count: int | None) -> str | None:
    for number, pattern in enumerate(patterns, start=1):
        await socket.send_message(json.dumps({"event": "subscribe", "data": pattern, "id": number}))
    printed = 0
    while printed != count:
        message = str(await socket.get_message())
        frame: dict[str, Any] = json.loads(message)
        if "error" in frame:
            return f"{frame['error']} ({frame['code']})"
        if frame.get("reply") == len(patterns):
            tell(f"subscribed to {', '.join(patterns)}")
        elif "event" in frame:
            printed += 1
            if not _print(message):
                return None
    return None


def _print(line: str) -> bool:
    """Print a line; False where nobody reads it any more."""
    try:
        sys.stdout.write(line.replace("\n", " ") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _checked(patterns: Sequence[str]) -> list[str]:
    try:
        return [parse_pattern(pattern) for pattern in patterns]
    except BadPattern as error:
        raise typer.BadParameter(str(error)) from None


def _ended(closed: ConnectionClosed) -> str:
    if closed.reason is None:
        return "the connection ended"
    code, reason = closed.reason.code, closed.reason.reason
    advice = f"; {ADVICE[Close(code)]}" if code in set(Close) else ""
    return f"the broker ended the connection: {code} {reason or ''}{advice}".replace(" ;", ";")


def _reason(body: bytes | None) -> str:
    try:
        return str(json.loads(body or b"{}").get("error", ""))
    except (ValueError, AttributeError):
        return ""
