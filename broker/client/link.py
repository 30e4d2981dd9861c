"""Keeps a session connected: one connection after the other, until the broker says that it is of no use.

A connection has one task that reads and acts, one that writes what the session wants to say, one that keeps the
position young and the connection alive, and one that renews the token. The reader is never cancelled but at the very
end: an event that the session has counted must get into its buffers. So whoever finds the connection dead closes it
under the reader's feet, and the reader ends by itself.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import trio

from broker.client.address import Address
from broker.client.beside import beside
from broker.client.errors import (
    ClientFailure,
    CommandLost,
    Disconnected,
    NotConnected,
    ResumeGap,
    no_answer_within,
)
from broker.client.frames import Event, Message
from broker.client.inbox import Inbox
from broker.client.messages import Hearers
from broker.client.options import Change, Connected, Listeners, Lost, Options
from broker.client.retrying import Verdict, judge, new_backoff
from broker.client.session import Action, Answered, Broken, Deliver, Failed, Gap, Live, Session, Started
from broker.client.socket import Socket, open_socket
from broker.client.tokens import Tokens

logger = logging.getLogger(__name__)

TIDY_SECONDS = 30.0  # between two questions for the position
_TIDY_PAUSE = 1.0  # at least, where subscriptions come and go
_LAST_WORDS_SECONDS = 1.0  # for a close frame to be read, where a write has failed
_RENEW_SECONDS = 30.0  # before a token expires; a tenth of what is left where that is less


class Waiting:
    """A command whose sender waits for the answer."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._data: Any = None
        self._error: Exception | None = None

    def answer(self, data: Any, error: Exception | None = None) -> None:
        """Tell who waits."""
        self._data, self._error = data, error
        self._done.set()

    async def wait(self) -> Any:
        """The answer's data, or what is raised instead."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._data


class Link:
    """One client's link to its broker, over all its connections.

    error: why it is of no use any more. block: the user's, which is cancelled where nobody else waits for that.
    """

    def __init__(self, address: Address, tokens: Tokens, listeners: Listeners, options: Options) -> None:
        self._address = address
        self._tokens = tokens
        self._listeners = listeners
        self.options = options
        self._session: Session[Inbox[Event], Waiting] = Session(options.commands_per_second)
        self._turns = trio.Semaphore(options.max_commands)
        self._next_turn = -math.inf
        self._changed = trio.Event()
        self._to_say = trio.lowlevel.ParkingLot()
        self._to_tidy = trio.lowlevel.ParkingLot()
        self._live_since: float | None = None
        self.inboxes: set[Inbox[Event]] = set()
        self.hearers = Hearers(options.buffer_bytes)
        self.connections = 0
        self.gaps = 0
        self.error: Exception | None = None
        self.block = trio.CancelScope()

    # -- what the user wants

    @property
    def connected(self) -> bool:
        """Whether there is a connection that is of use."""
        return self._session.live

    @property
    def held_up(self) -> bool:
        """Whether a buffer is full, so that nothing is read."""
        return self.hearers.full or any(inbox.full for inbox in self.inboxes)

    async def wait_connected(self) -> None:
        """Wait until there is a connection that is of use; raises why there will be none."""
        while not self._session.live:
            if self.error is not None:
                raise self.error
            await self._changed.wait()

    async def wait_first(self) -> None:
        """Wait for the first connection, no longer than the options say."""
        timeout = math.inf if self.options.keep_trying else self.options.connect_timeout
        with trio.move_on_after(timeout) as patience:
            await self.wait_connected()
        if patience.cancelled_caught:
            raise NotConnected(no_answer_within(self._address, self.options.connect_timeout))
        self.hearers.begin()

    def hear(self, inbox: Inbox[Message]) -> None:
        """Begin to take messages; `hearers.remove` ends it."""
        if self.error is not None:
            raise self.error
        self.hearers.add(inbox)

    def subscribe(self, inbox: Inbox[Event], patterns: Sequence[str]) -> None:
        """Begin a subscription."""
        if self.error is not None:
            raise self.error
        self.inboxes.add(inbox)
        for action in self._session.subscribe(inbox, patterns):
            self._note(action)
        self._say()

    def unsubscribe(self, inbox: Inbox[Event]) -> None:
        """End a subscription, if it is not over already."""
        inbox.close()
        self.inboxes.discard(inbox)
        self._session.unsubscribe(inbox)
        self._say()

    async def command(self, event: str, data: Any) -> Any:
        """Send a command when it is its turn and there is a connection; the answer's data.

        Raises CommandFailed, CommandLost, or why there will be no connection any more.
        """
        async with self._turns:
            await self._wait_turn()
            await self.wait_connected()
            waiting = Waiting()
            self._session.command(waiting, event, data)
            self._say()
            try:
                return await waiting.wait()
            finally:
                self._session.forget(waiting)

    async def _wait_turn(self) -> None:
        """Wait until a second has room for one more command: a flood of them costs the connection."""
        self._next_turn = max(self._next_turn, trio.current_time() - 1) + 1 / self.options.commands_per_second
        await trio.sleep_until(self._next_turn)

    def end(self, error: Exception) -> None:
        """Nothing more will come, because of `error`; the first one counts."""
        if self.error is None:
            self.error = error
            self._lose(error)
            for inbox in self.inboxes:
                inbox.end(error)
            self.hearers.end(error)
            self._change()

    # -- the connections

    async def run(self) -> None:
        """Stay connected until that makes no sense any more."""
        try:
            await self._stay_connected()
        except Exception as error:  # whatever it is, those who wait must hear of it
            self.end(error)
            if not (self.inboxes or self.hearers):
                self.block.cancel()

    async def _stay_connected(self) -> None:
        backoff = new_backoff()
        while True:
            error = await self._connection()
            verdict = judge(error, renewable=self._tokens.renewable)
            if verdict is Verdict.NEVER or not (self.connections or self.options.keep_trying):
                raise error
            self._lose(CommandLost("the connection ended before the answer came"))
            since, self._live_since = self._live_since, None
            pause = backoff.next_pause(0.0 if since is None else trio.current_time() - since)
            if verdict is Verdict.AT_ONCE and since is not None:
                pause = 0.0
            self._tell(Lost(error, pause))
            await trio.sleep(pause)

    async def _connection(self) -> Exception:
        """One connection, from the token to its end; what ended it."""
        try:
            async with open_socket(self._address, self._tokens.fresh, self.options) as socket:
                self._session.connected()
                async with beside(partial(self._write, socket), partial(self._keep, socket), self._renew):
                    await self._read(socket)
        except Exception as error:
            ended = error
        return ended

    def _lose(self, error: Exception) -> None:
        for waiting in self._session.disconnected():
            waiting.answer(None, error)

    async def _read(self, socket: Socket) -> NoReturn:
        while True:
            content = await socket.receive()
            for action in self._session.received(content):
                if isinstance(action, Deliver):
                    for inbox in action.subscriptions:
                        await inbox.put(action.event)
                elif isinstance(action, Message):
                    await self.hearers.put(action)
                else:
                    self._note(action)
            self._say()

    async def _write(self, socket: Socket) -> None:
        with suppress(Disconnected):
            while True:
                while texts := self._session.take_outgoing():
                    await socket.send(texts)
                await self._to_say.park()
        await trio.sleep(_LAST_WORDS_SECONDS)
        await socket.break_off()

    async def _keep(self, socket: Socket) -> None:
        with suppress(Disconnected):  # the reader finds out by itself
            while True:
                if not self._session.untidy:
                    with trio.move_on_after(TIDY_SECONDS):
                        await self._to_tidy.park()
                self._session.tidy()
                self._say()
                await socket.ping()  # answered even while a long replay keeps the answer to `resume` waiting
                await trio.sleep(_TIDY_PAUSE)

    async def _renew(self) -> None:
        while self._tokens.renewable and (expires_at := self._tokens.expires_at) is not None:
            left = max(0.0, expires_at - time.time())
            await trio.sleep(left - min(_RENEW_SECONDS, left / 10))
            try:
                await self.command("authenticate", await self._tokens.fresh())
            except ClientFailure as error:  # then the broker closes with 4003, and the next connection has a fresh one
                logger.info("client.token_not_renewed", extra={"reason": str(error)})
                return
            if (self._tokens.expires_at or 0.0) <= expires_at:
                return

    # -- what comes of it

    def _note(self, action: Action[Inbox[Event], Waiting]) -> None:
        match action:
            case Started(inbox):
                inbox.start()
            case Failed(inbox, error):
                self.inboxes.discard(inbox)
                inbox.end(error)
            case Gap(text, inboxes):
                self._gap(text, inboxes)
            case Answered(waiting, data, error):
                waiting.answer(data, error)
            case Live():
                self._went_live()
            case Broken(error):
                raise error

    def _gap(self, text: str, inboxes: Sequence[Inbox[Event]]) -> None:
        self.gaps += 1
        logger.info("client.gap", extra={"reason": text})
        if self._listeners.on_gap is not None:
            self._listeners.on_gap(ResumeGap(text))
            return
        for inbox in inboxes:
            inbox.put_gap(ResumeGap(text))

    def _went_live(self) -> None:
        self._live_since = trio.current_time()
        self.connections += 1
        self._change()
        self._tell(Connected(again=self.connections > 1))

    def _say(self) -> None:
        self._to_say.unpark_all()
        if self._session.untidy:
            self._to_tidy.unpark_all()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _tell(self, change: Change) -> None:
        if isinstance(change, Lost):
            logger.info("client.lost", extra={"reason": change.reason, "pause": change.pause})
        if self._listeners.on_change is not None:
            self._listeners.on_change(change)
