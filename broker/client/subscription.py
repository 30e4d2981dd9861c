"""One subscription, as its user sees it."""

from __future__ import annotations

from broker.client.frames import Event
from broker.client.inbox import Handle


class Subscription(Handle[Event]):
    """Events as they come: iterate over it. `Client.subscribe` makes them.

    As a context manager it begins with the broker's confirmation, and ends with the block. `aclose` unsubscribes.
    """

    async def __aenter__(self) -> Subscription:
        """Wait until the broker has confirmed it: from here on every event comes.

        Raises CommandFailed where it refuses, or what ended the client.
        """
        try:
            await self._inbox.wait_started()
        except BaseException:
            self._leave()
            raise
        return self

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises ResumeGap once for each gap; CommandFailed where the broker refused the subscription; Disconnected,
        or whatever else ended the client; ClientClosed when its block has been left.
        """
        return await self._inbox.take()
