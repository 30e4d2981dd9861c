"""How what goes to a client gets from its outbox into its socket."""

from __future__ import annotations

import os
import socket

import trio

from broker.core.errors import Close
from broker.runtime.party import Party


class _Plain(socket.socket):
    __slots__ = ()

    def send_from(self, descriptor: int, place: int, size: int, /) -> int:
        """See `Socket` in `runtime/outbox.py`."""
        return os.sendfile(self.fileno(), descriptor, place, size)


async def write_out(party: Party, stream: trio.abc.Stream) -> None:
    """Write what goes to `party` until its last word has gone, or nothing goes any more; then the party is told."""
    if isinstance(stream, trio.SocketStream):
        # The same socket by a second name, since Trio's own sends may wait. Nobody else writes while the outbox lives.
        plain = _Plain(stream.socket.family, stream.socket.type, stream.socket.proto, stream.socket.fileno())
        try:
            await party.outbox.run(stream.send_all, plain)
        finally:
            plain.detach()  # it is the stream's to close
    else:  # TLS: its records are not ours to cut
        await party.outbox.run(stream.send_all)
    # Of no effect where the end was agreed on; where the writer failed or got stuck, nobody else would notice.
    party.close(Close.TOO_SLOW, "too slow: a write did not end in time")
