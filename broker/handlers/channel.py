"""Channels: conversations under a name, for those who may be on them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from broker.handlers.data import plain
from broker.handlers.errors import BadHandler
from broker.handlers.place import COMMAND, F, Place, only_one, template
from broker.handlers.signature import Signature, read_signature
from broker.runtime.connection import Connection as Client

if TYPE_CHECKING:
    from broker.handlers.connection import Connection
    from broker.handlers.declaring import Handlers

_BROADCAST: Final = ("event", "data", "to")  # what `Channel.broadcast` takes beside the placeholders


class Channel(Place):
    """A conversation of its own under a name, `chat.<room>`: who subscribes to that name is on it, if it may.

    Its handlers answer commands whose names begin with the channel's: `chat.<room>.say` is `@channel.on("say")`. They
    are called only for connections that are on it. `on` and the middleware are those of `Handlers`.
    """

    def __init__(self, name: str, handlers: Handlers) -> None:
        super().__init__(f"{name}.", self)
        self.template = template(name, (*COMMAND, *_BROADCAST))
        if len(self.template.patterns) > 1 or "*" in name:
            raise BadHandler(f"{name!r}: a channel's name has literals and placeholders only")
        self._handlers = handlers
        self.permits: Signature | None = None

    def authorize(self, function: F) -> F:
        """Let this say, by True or False, whether a connection may be on the channel; asked when it subscribes.

        It may take `connection`, `user` and each placeholder.
        """
        signature = read_signature(function, ("connection", "user", *self.template.placeholders))
        self.permits = only_one(self.permits, signature)
        return function

    def name(self, **placeholders: str) -> str:
        """The name of one of its channels: `chat.42` for room="42".

        Raises ValueError for other placeholders than it has, and for what is no single segment.
        """
        return self.template.fill(placeholders)

    def members(self, **placeholders: str) -> Collection[Connection]:
        """The connections that are on one of its channels now.

        Raises ValueError for other placeholders than it has.
        """
        return self._handlers.house.seen(self._clients(self.name(**placeholders)))

    async def broadcast(
        self, event: str, data: Any = None, *, to: str | Iterable[str] | None = None, **placeholders: str
    ) -> int:
        """Send `{"event": CHANNEL.EVENT, "data": DATA}` to all on the channel, or to these users of them.

        Returns how many connections there are.

        Raises TypeError or ValueError for what can't be sent, and for other placeholders than the channel has.
        """
        name = self.name(**placeholders)
        members = self._clients(name)
        if to is not None:
            users = {to} if isinstance(to, str) else set(to)
            members = [client for client in members if client.user in users]
        return await self._handlers.house.send({"event": f"{name}.{event}", "data": plain(data)}, members)

    def _clients(self, name: str) -> Sequence[Client]:
        # On other paths anybody may subscribe to this name, as to one of events: nobody has asked whether it may.
        peers = self._handlers.peers
        return [client for client in self._handlers.house.registry.following(name) if client in peers]
