"""What waits to be written to one connection: frames in order, as many as there are in one write."""

from __future__ import annotations

import math

import trio

from connectors.amqp.codec import HEARTBEAT

HIGH_WATER_BYTES = 1_048_576  # of frames that wait; who publishes beyond that waits as well


class Outgoing:
    """The one outgoing queue of a connection. Acknowledgements and the like are few and never wait for room."""

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream
        self._parts: list[bytes] = []
        self._bytes = 0
        self._wanted = trio.Event()  # set: there is something to write
        self._room = trio.Event()
        self.broken = False  # a write was cut short, so that the peer has half a frame: no more may follow

    def put(self, frames: bytes) -> None:
        """Queue whole frames; they are written soon."""
        self._parts.append(frames)
        self._bytes += len(frames)
        self._wanted.set()

    async def wait_room(self) -> None:
        """Wait while very much waits to be written."""
        while self._bytes > HIGH_WATER_BYTES:
            if self._room.is_set():
                self._room = trio.Event()
            await self._room.wait()

    async def run(self, heartbeat: float) -> None:
        """Write what is put, and a heartbeat where nothing was for half of `heartbeat` seconds (0: none)."""
        pause = heartbeat / 2 or math.inf
        while True:
            with trio.move_on_after(pause):
                await self._wanted.wait()
            if not self._parts:
                self.put(HEARTBEAT)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits now.

        Raises trio.BrokenResourceError or trio.ClosedResourceError when the peer is gone.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # from here to the first byte nothing can cut in
        frames = b"".join(self._parts)
        self._parts.clear()
        self._bytes = 0
        self._wanted = trio.Event()
        self._room.set()
        self.broken = True
        await self._stream.send_all(frames)
        self.broken = False
