"""What the application makes of the messages of one path's clients: which handler, with what, and what is answered."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import trio

from broker.core.commands import Command, problem, reply
from broker.core.errors import BrokerError, ClientError, Close
from broker.core.message import Message
from broker.handlers.channel import Channel
from broker.handlers.connection import Connection
from broker.handlers.data import plain
from broker.handlers.declaring import Handlers
from broker.handlers.errors import BadHandler, HandlerFailed, HandlerTimedOut, NotAuthorized, Refused, TooManyWaiting
from broker.handlers.hooks import Hooks, Received, call, chosen
from broker.handlers.house import House, current_client, current_hooks
from broker.handlers.naming import Names
from broker.handlers.place import CommandHandler, MessageHandler
from broker.handlers.signature import Signature
from broker.runtime.calls import MAX_WAITING, Call, Calls
from broker.runtime.connection import Connection as Client
from broker.runtime.obeying import answer

logger = logging.getLogger(__name__)

HOOK_TIMEOUT: Final = 10.0  # seconds for `authorize`, `on_connect` and `on_disconnect`


@dataclass(frozen=True, slots=True)
class _Asked:
    """A message of a client, and who is to answer it how."""

    received: Received
    signature: Signature
    offered: Mapping[str, Any]
    timeout: float
    hooks: Hooks
    answers: bool = False  # what the handler returns goes to the client

    async def call(self) -> Any:
        """What the handler returns.

        Raises HandlerTimedOut, and whatever it raises.
        """
        with trio.move_on_after(self.timeout):
            return await self.signature.call(self.offered)
        raise HandlerTimedOut(f"this took longer than {self.timeout:g} seconds")


class Application:
    """All handlers of one path.

    timeout: seconds for a handler that does not say how long it may take.

    Raises BadHandler where two of them want the same.
    """

    def __init__(self, handlers: Sequence[Handlers], house: House, calls: Calls, timeout: float) -> None:
        self._handlers = handlers
        self._house = house
        self._calls = calls
        self._timeout = timeout
        self._peers: dict[Client, None] = {}
        self._deciding: Counter[Client] = Counter()  # subscriptions that wait for `authorize`, and what waits for them
        for one in handlers:
            one.move_in(house, self._peers.keys())
        wider = [one.hooks for one in handlers]
        hooks = self._hooks = {one: chosen([one.hooks, *wider]) for one in handlers}
        places = [(place, place.hooks.before(hooks[one])) for one in handlers for place in (one, *one.channels)]
        commands = [replace(each, hooks=each.hooks.before(wide)) for place, wide in places for each in place.commands]
        self._commands = Names([(each.name, each) for each in commands])
        self._channels = Names([(each.template, (each, wide)) for each, wide in places if isinstance(each, Channel)])
        messages = [replace(each, hooks=each.hooks.before(hooks[one])) for one in handlers for each in one.messages]
        self._texts = _only([each for each in messages if each.takes_text])
        self._bytes = _only([each for each in messages if each.takes_bytes])

    # What the runtime calls; none of it waits.

    def connected(self, client: Client) -> None:
        """See `Application` in `runtime/services.py`."""
        connection = self._house.connections[client] = Connection(client, self._house, self._peers.keys())
        self._peers[client] = None
        for one in self._handlers:
            if one.connects is not None:
                self._calls.put(client, partial(self._connect, client, connection, one), always=True)

    def hear(self, client: Client, message: str | bytes) -> bool:
        """See `Application` in `runtime/services.py`."""
        handler = self._bytes if isinstance(message, bytes) else self._texts
        if handler is None:
            return False
        if not self._calls.put(client, partial(self._message, client, handler, message)):
            client.close(Close.POLICY_VIOLATION, "too many messages wait for their handler")
        return True

    def obey(self, client: Client, command: Command) -> bool:
        """See `Application` in `runtime/services.py`."""
        handler = self._commands.find(command.event)
        if handler is None:
            return False
        self._put(client, partial(self._command, client, handler, command))
        return True

    def subscribe(self, client: Client, name: str, command: Command) -> bool:
        """See `Application` in `runtime/services.py`."""
        channel, hooks = (None if "*" in name else self._channels.find(name)) or (None, Hooks())
        if channel is None or channel.permits is None:
            return self.postpone(client, command)  # lest it overtakes one of those
        connection = self._house.connections[client]
        received = Received(connection, command.event, command.data, command.id)
        offered = {"connection": connection, "user": client.user, **channel.template.read(name)}
        asked = _Asked(received, channel.permits, offered, HOOK_TIMEOUT, hooks)
        self._decide(client, partial(self._subscribe, client, name, asked))
        client.spare()
        return True

    def postpone(self, client: Client, command: Command) -> bool:
        """See `Application` in `runtime/services.py`."""
        if client not in self._deciding:
            return False
        self._decide(client, partial(self._postponed, client, command))
        return True

    def disconnected(self, client: Client, code: int, reason: str) -> None:
        """See `Application` in `runtime/services.py`."""
        self._calls.forget(client)
        if not self._calls.put(client, partial(self._disconnect, client, code, reason), always=True):
            self._forget(client)

    # What runs then.

    async def _connect(self, client: Client, connection: Connection, one: Handlers) -> None:
        match await self._hook(client, "on_connect", one, {"connection": connection, "user": client.user}):
            case Refused(code=code, reason=reason):
                client.close(code, reason)
            case Exception():
                client.close(Close.INTERNAL_ERROR, "on_connect failed")

    async def _disconnect(self, client: Client, code: int, reason: str) -> None:
        offered = {"connection": self._house.connections[client], "user": client.user, "code": code, "reason": reason}
        try:
            for one in self._handlers:
                await self._hook(client, "on_disconnect", one, offered)
        finally:
            self._forget(client)

    async def _hook(self, client: Client, name: str, one: Handlers, offered: Mapping[str, Any]) -> Exception | None:
        """Call this hook of theirs, if they have it; returns what it raised, of which the middleware has been told."""
        signature = one.connects if name == "on_connect" else one.disconnects
        hooks = self._hooks[one]
        with _current(client, hooks):
            try:
                if signature is not None:
                    with trio.fail_after(HOOK_TIMEOUT):
                        await signature.call(offered)
            except Refused as refused:
                return refused
            except Exception as error:
                await self._report(error, Received(self._house.connections[client], name, None), hooks)
                return error
        return None

    def _forget(self, client: Client) -> None:
        del self._peers[client], self._house.connections[client]
        self._deciding.pop(client, None)
        self._house.rooms.leave_all(client)

    async def _message(self, client: Client, handler: MessageHandler, message: str | bytes) -> None:
        connection = self._house.connections[client]
        received = Received(connection, None, message)
        offered = {"connection": connection, "user": client.user, "message": message}
        asked = _Asked(received, handler.signature, offered, handler.timeout or self._timeout, handler.hooks)
        try:
            await self._run(client, asked)
        except BrokerError as error:
            client.tell(problem(error))

    async def _command(self, client: Client, handler: CommandHandler, command: Command) -> None:
        connection = self._house.connections[client]
        received = Received(connection, command.event, command.data, command.id)
        try:
            if handler.channel is not None:
                _check_on_channel(client, handler.channel, command.event)
            offered = {
                **handler.name.read(command.event),
                "connection": connection,
                "user": client.user,
                "id": command.id,
                "request": received,
                "data": handler.read(command.data) if "data" in handler.signature.wants else None,
            }
            timeout = handler.timeout or self._timeout
            answers = command.id is not None
            asked = _Asked(received, handler.signature, offered, timeout, handler.hooks, answers)
            result = await self._run(client, asked)
        except BrokerError as error:
            client.tell(problem(error, command.id))
        else:
            if command.id is not None:
                await self._answer(client, asked, reply(command.id, result))

    async def _answer(self, client: Client, asked: _Asked, answer: Mapping[str, Any]) -> None:
        client.tell(answer)
        with _current(client, asked.hooks):
            try:
                await self._house.sent(answer, 1)
            except Exception as error:
                await self._report(error, asked.received, asked.hooks)

    async def _subscribe(self, client: Client, name: str, asked: _Asked) -> None:
        command_id, is_new = asked.received.id, False
        try:
            if await self._run(client, asked) is not True:
                client.unsubscribe(name)  # it may have been on it
                raise NotAuthorized(f"you may not be on {name}")
            is_new = name not in client.patterns
            data = client.subscribe(name, spared=True)
        except BrokerError as error:
            is_new = False
            client.tell(problem(error, command_id))
        else:
            if command_id is not None:
                client.tell(reply(command_id, data))
        if not is_new:
            client.charge()

    async def _postponed(self, client: Client, command: Command) -> None:
        await trio.lowlevel.checkpoint()
        if not client.ended:
            answer(client, command)

    async def _run(self, client: Client, asked: _Asked) -> Any:
        """What the handler returns, fit for JSON.

        Raises BrokerError for all that goes wrong; the middleware has been told then.
        """
        with _current(client, asked.hooks):
            try:
                await call(asked.hooks.received, asked.received)
                result = await asked.call()
                if asked.answers:
                    result = plain(result)
                    Message([result])  # in an answer there is no place for bytes
            except ClientError:  # of the application's own, for the client, such as BadRoom
                raise
            except HandlerTimedOut as error:
                await self._report(error, asked.received, asked.hooks)
                raise
            except Exception as error:
                await self._report(error, asked.received, asked.hooks)
                raise HandlerFailed(_text_of(error)) from None
        return result

    async def _report(self, error: Exception, received: Received, hooks: Hooks) -> None:
        try:
            await call(hooks.error, error, received)
        except Exception:  # one that fails itself
            logger.exception("hook.failed")

    def _decide(self, client: Client, what: Call) -> None:
        async def decided() -> None:
            try:
                await what()
            finally:
                self._deciding[client] -= 1
                if not self._deciding[client]:
                    del self._deciding[client]

        self._put(client, decided, client.limits.max_subscriptions)
        self._deciding[client] += 1

    def _put(self, client: Client, what: Call, most: int = MAX_WAITING) -> None:
        if not self._calls.put(client, what, most=most):
            raise TooManyWaiting("too many of your commands wait; wait for their answers")


@contextmanager
def _current(client: Client, hooks: Hooks) -> Iterator[None]:
    """What is called in the block knows whose message is being handled."""
    of_client, of_hooks = current_client.set(client), current_hooks.set(hooks)
    try:
        yield
    finally:
        current_hooks.reset(of_hooks)
        current_client.reset(of_client)


def _only(handlers: Sequence[MessageHandler]) -> MessageHandler | None:
    if len(handlers) > 1:
        names = " and ".join(handler.signature.name for handler in handlers)
        raise BadHandler(f"{names}: a path has one on_message for texts and one for bytes")
    return handlers[0] if handlers else None


def _check_on_channel(client: Client, channel: Channel, event: str) -> None:
    name = channel.template.beginning_of(event)
    if name not in client.patterns:
        raise NotAuthorized(f"subscribe to {name} first")


def _text_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:  # of a nursery in the handler
        error = error.exceptions[0]
    return str(error) or type(error).__name__
