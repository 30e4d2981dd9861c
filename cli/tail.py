"""`broker tail`: subscribe, and print what comes, over restarts of the broker."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import trio
import typer

from broker.client import (
    Change,
    ClientFailure,
    CommandFailed,
    Connected,
    Event,
    Lost,
    NotConnected,
    Refused,
    ResumeGap,
    Token,
    connect,
)
from broker.core.errors import BadPattern
from broker.core.patterns import parse_pattern
from cli.errors import refuse, reporting, tell
from cli.target import DEFAULT_CONFIG, ConfigOption, Target, TokenOption, UrlOption, find_target


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

    It goes on when the broker was away, with what it has missed.

    Examples:

      broker tail '**' --as ada

      broker tail 'games.*.created' 'users.**' --as ada | jq .event

      BROKER_URL=https://events.example BROKER_TOKEN=… broker tail 'orders.**'
    """
    wanted = _checked(patterns or ["**"])
    find = partial(find_target, url, token, config, {"sub": user or "broker-tail"})
    target = find()
    try:
        trio.run(_tail, target, _tokens(target, find, given=token), wanted, count)
    except Refused as refused:
        raise refuse(f"{target.url.geturl()} refused: HTTP {refused.status} {refused.text}".rstrip()) from None
    except NotConnected:
        raise refuse(f"no broker answers at {target.url.geturl()}; is it running?") from None
    except CommandFailed as failed:
        raise refuse(f"{failed} ({failed.code})") from None
    except ClientFailure as failure:
        raise refuse(str(failure)) from None


async def _tail(target: Target, token: Token, patterns: Sequence[str], count: int | None) -> None:
    url = target.url._replace(path=target.websocket_path).geturl()
    teller = _Teller()
    connection = connect(url, token, on_gap=teller.missed, on_change=teller.changed)
    async with connection as client, client.subscribe(*patterns) as events:
        tell(f"subscribed to {', '.join(patterns)}")
        printed = 0
        async for event in events:
            printed += 1
            if not _print(event) or printed == count:
                return


def _tokens(target: Target, find: Callable[[], Target], *, given: str | None) -> Token:
    """The token; or where it is one of our own making, a function that makes another, since they do not last."""
    if given is not None or target.token is None:
        return target.token
    return lambda: find().token or ""


def _print(event: Event) -> bool:
    """Print an event, its payload as it was sent, as one line; False where nobody reads it any more."""
    name = json.dumps(event.name, ensure_ascii=False)
    line = f'{{"event":{name},"data":{event.raw.decode()}}}'
    try:
        sys.stdout.write(line.replace("\n", " ") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


class _Teller:
    """Tells people about the connection: once for each time that it is lost, however long that takes."""

    def __init__(self) -> None:
        self._lost = False

    def changed(self, change: Change) -> None:
        """The connection is lost, or there again."""
        if isinstance(change, Lost) and not self._lost:
            tell(f"connection lost: {change.reason}; trying again")
        elif isinstance(change, Connected) and change.again:
            tell("connected again")
        self._lost = isinstance(change, Lost)

    def missed(self, gap: ResumeGap) -> None:
        """Events are gone for good."""
        tell(f"events are missing here: {gap}")


def _checked(patterns: Sequence[str]) -> list[str]:
    try:
        return [parse_pattern(pattern) for pattern in patterns]
    except BadPattern as error:
        raise typer.BadParameter(str(error)) from None
