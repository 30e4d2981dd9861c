"""A client's stream, read and written with as few turns of Trio as that takes.

Trio's own stream lets others run after each call, also where the kernel took or had the bytes at once: each time a turn
of the loop, which costs more than the call. Here only waiting is one: for bytes before they are read, and for room
where the kernel has none.
"""

from __future__ import annotations

import os
from typing import Final

import trio

WRITE_TIMEOUT: Final = 30.0
_RECEIVE_BYTES = 65_536


class Line:
    """Reads and writes one stream: straight by the socket's descriptor where there is one; TLS goes by the stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None

    @property
    def wakes(self) -> bool:
        """Whether `wake` ends a `receive`; else that is to be cancelled, which costs more each time."""
        return self._socket is not None

    def wake(self) -> None:
        """Let whoever waits in `receive` go, as if no more came."""
        if self._socket is not None:
            trio.lowlevel.notify_closing(self._socket)

    async def receive(self) -> bytes:
        """Wait for bytes; nothing: no more will come."""
        try:
            if self._socket is None:
                return bytes(await self._stream.receive_some(_RECEIVE_BYTES))
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                try:
                    return os.read(self._socket.fileno(), _RECEIVE_BYTES)
                except BlockingIOError:  # nothing there, after all
                    continue
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return b""

    async def send(self, data: bytes) -> None:
        """Write all of it.

        Raises trio.BrokenResourceError where that can't be done, or not in time.
        """
        sent = self._write_now(data)
        if sent == len(data):
            return
        with trio.move_on_after(WRITE_TIMEOUT) as deadline:
            await self._stream.send_all(data[sent:])
        if deadline.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read its answer")

    def _write_now(self, data: bytes) -> int:
        """Write what the kernel takes at once."""
        if self._socket is None:
            return 0
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:  # full; or broken, which shows when it is waited for
            return 0
