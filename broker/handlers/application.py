"""What the application makes of the messages of one path's clients: which handler, with what, and what is answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import trio

from broker.core.commands import Command, problem, reply
from broker.core.errors import BadName, BrokerError, Close
from broker.core.event import check_name
from broker.handlers.asking import Asked, handling
from broker.handlers.channel import Channel
from broker.handlers.connection import Connection
from broker.handlers.declaring import Handlers
from broker.handlers.errors import BadHandler, HandlerTimedOut, NotAuthorized, Refused, TooManyWaiting
from broker.handlers.hooks import Hooks, Received, chosen, report
from broker.handlers.house import House
from broker.handlers.naming import Names
from broker.handlers.place import CommandHandler, MessageHandler
from broker.runtime.calls import MAX_WAITING, Call, Calls
from broker.runtime.connection import Connection as Client
from broker.runtime.obeying import answer

HOOK_TIMEOUT: Final = 10.0  # seconds for `authorize`, `on_connect` and `on_disconnect`


class Application:
    """All handlers of one path.

    timeout: seconds for a handler that does not say how long it may take.

    Raises BadHandler where two of them want the same.
    """

    def __init__(self, handlers: Sequence[Handlers], house: House, calls: Calls, timeout: float) -> None:
        self._handlers = handlers
        self._calls = calls
        self._timeout = timeout
        self._peers: dict[Client, None] = {}
        self._deciding: Counter[Client] = Counter()  # calls behind which the broker's own commands have to wait
        self._doubted: set[Client] = set()  # those that have another token than when they were permitted
        wider = [one.hooks for one in handlers]
        hooks = self._hooks = {one: chosen([one.hooks, *wider]) for one in handlers}
        self._house = replace(house, hooks=chosen(wider))
        for one in handlers:
            one.move_in(replace(house, hooks=hooks[one]), self._peers.keys())
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
                self._decide(client, partial(self._connect, client, connection, one), always=True)

    def hear(self, client: Client, message: str | bytes) -> bool:
        """See `Application` in `runtime/services.py`."""
        handler = self._bytes if isinstance(message, bytes) else self._texts
        if handler is None:
            return False
        if not self._calls.put(client, partial(self._message, client, handler, message), user=client.user):
            client.close(Close.POLICY_VIOLATION, "too many messages wait for their handler")
        return True

    def obey(self, client: Client, command: Command) -> bool:
        """See `Application` in `runtime/services.py`."""
        handler = self._commands.find(command.event) if _is_name(command.event) else None
        if handler is None:
            return False
        self._put(client, partial(self._command, client, handler, command))
        return True

    def subscribe(self, client: Client, name: str, command: Command) -> bool:
        """See `Application` in `runtime/services.py`."""
        asked = self._asked_to_permit(client, name, command)
        if asked is None:
            return self.postpone(client, command)  # lest it overtakes one of those
        self._decide(client, partial(self._subscribe, client, name, asked))
        client.spare()
        return True

    def postpone(self, client: Client, command: Command) -> bool:
        """See `Application` in `runtime/services.py`."""
        if client not in self._deciding:
            return False
        self._decide(client, partial(self._postponed, client, command))
        return True

    def authenticated(self, client: Client) -> None:
        """See `Application` in `runtime/services.py`."""
        if client not in self._doubted:
            self._doubted.add(client)
            self._decide(client, partial(self._permit_again, client), always=True)

    def disconnected(self, client: Client, code: int, reason: str) -> None:
        """See `Application` in `runtime/services.py`."""
        self._calls.forget(client)
        end = partial(self._disconnect, client, code, reason)
        if not self._calls.put(client, end, user=client.user, always=True):
            self._forget(client)

    # What runs then.

    async def _connect(self, client: Client, connection: Connection, one: Handlers) -> None:
        match await self._hook(client, "on_connect", one, {"connection": connection, "user": client.user}):
            case Refused(code=code, reason=reason):
                client.close(code, reason)
            case Exception():
                client.close(Close.INTERNAL_ERROR, "on_connect failed")

    async def _disconnect(self, client: Client, code: int, reason: str) -> None:
        connection = self._house.connections[client]
        offered = {"connection": connection, "user": client.user, "code": code, "reason": reason}
        try:
            for one in self._handlers:
                await self._hook(client, "on_disconnect", one, offered)
        finally:
            self._forget(client)

    async def _hook(self, client: Client, name: str, one: Handlers, offered: Mapping[str, Any]) -> Exception | None:
        """Call this hook of theirs, if they have it; returns what it raised, of which the middleware has been told."""
        signature = one.connects if name == "on_connect" else one.disconnects
        if signature is None:
            return None
        hooks, received = self._hooks[one], Received(self._house.connections[client], name, None)
        with handling(client, hooks, received):
            try:
                with trio.move_on_after(HOOK_TIMEOUT):
                    await signature.call(offered)
                    return None
                raise HandlerTimedOut(f"{signature.name} took longer than {HOOK_TIMEOUT:g} seconds")
            except Refused as refused:
                return refused
            except Exception as error:
                await report(error, received, hooks)
                return error

    def _forget(self, client: Client) -> None:
        del self._peers[client], self._house.connections[client]
        self._deciding.pop(client, None)
        self._doubted.discard(client)
        self._house.rooms.leave_all(client)

    async def _message(self, client: Client, handler: MessageHandler, message: str | bytes) -> None:
        if client.ended:
            return
        connection = self._house.connections[client]
        received = Received(connection, None, message)
        offered = {"connection": connection, "user": client.user, "message": message}
        asked = Asked(received, handler.signature, offered, handler.timeout or self._timeout, handler.hooks)
        try:
            await asked.run(client, self._house.counters)
        except BrokerError as error:
            client.tell(problem(error))

    async def _command(self, client: Client, handler: CommandHandler, command: Command) -> None:
        if client.ended:
            return
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
            asked = Asked(received, handler.signature, offered, timeout, handler.hooks, answers)
            result = await asked.run(client, self._house.counters)
        except BrokerError as error:
            client.tell(problem(error, command.id))
        else:
            if command.id is not None:
                said = reply(command.id, result)
                client.tell(said)
                with handling(client, handler.hooks, received):
                    await self._house.sent(said, 1)

    def _asked_to_permit(self, client: Client, name: str, command: Command) -> Asked | None:
        """The question whether a client may be on the channel of this name, where there is one that asks."""
        channel, hooks = (None if "*" in name else self._channels.find(name)) or (None, Hooks())
        if channel is None or channel.permits is None:
            return None
        connection = self._house.connections[client]
        received = Received(connection, command.event, command.data, command.id)
        offered = {"connection": connection, "user": client.user, **channel.template.read(name)}
        return Asked(received, channel.permits, offered, HOOK_TIMEOUT, hooks)

    async def _subscribe(self, client: Client, name: str, asked: Asked) -> None:
        if client.ended:
            return
        command_id, is_new = asked.received.id, False
        try:
            await self._permit(client, name, asked)
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

    async def _permit_again(self, client: Client) -> None:
        self._doubted.discard(client)
        for name in [*client.patterns]:
            asked = self._asked_to_permit(client, name, Command("authenticate", None))
            if asked is None or client.ended:
                continue
            try:
                await self._permit(client, name, asked)
            except BrokerError as error:
                client.tell(problem(error))

    async def _permit(self, client: Client, name: str, asked: Asked) -> None:
        """Ask whether a client may be on a channel. Who may not is off it then.

        Raises BrokerError.
        """
        permitted = False
        try:
            permitted = await asked.run(client, self._house.counters) is True
        finally:
            if not permitted:
                client.unsubscribe(name)
        if not permitted:
            raise NotAuthorized(f"you may not be on {name}")

    async def _postponed(self, client: Client, command: Command) -> None:
        await trio.lowlevel.checkpoint()
        if not client.ended:
            answer(client, command)

    def _decide(self, client: Client, what: Call, *, always: bool = False) -> None:
        async def decided() -> None:
            try:
                await what()
            finally:
                self._deciding[client] -= 1
                if not self._deciding[client]:
                    del self._deciding[client]

        if self._put(client, decided, client.limits.max_subscriptions, always=always):
            self._deciding[client] += 1

    def _put(self, client: Client, what: Call, most: int = MAX_WAITING, *, always: bool = False) -> bool:
        put = self._calls.put(client, what, user=client.user, most=most, always=always)
        if not put and not always:
            raise TooManyWaiting("too many of your commands wait; wait for their answers")
        return put


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except BadName:
        return False
    return True


def _only(handlers: Sequence[MessageHandler]) -> MessageHandler | None:
    if len(handlers) > 1:
        names = " and ".join(handler.signature.name for handler in handlers)
        raise BadHandler(f"{names}: a path has one on_message for texts and one for bytes")
    return handlers[0] if handlers else None


def _check_on_channel(client: Client, channel: Channel, event: str) -> None:
    name = channel.template.beginning_of(event)
    if name not in client.patterns:
        raise NotAuthorized(f"subscribe to {name} first")
