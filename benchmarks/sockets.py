"""Many WebSocket clients for little: they shake hands, subscribe, and then only count bytes.

Everything is as RFC 6455 has it, but nothing is parsed that need not be, so that one process can be a thousand clients.
"""

from __future__ import annotations

import json
import os
import resource

import trio

_KEY = b"c2l4dGVlbiByYW5kb20gYg=="
_MASK = b"\x01\x02\x03\x04"


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class RawClient:
    """One connection. `unread` is what has come after the handshake and was not asked for yet."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.unread = b""

    @classmethod
    async def connect(cls, port: int, token: str | None = None) -> RawClient:
        """Connect to a server on this machine."""
        client = cls(await trio.open_tcp_stream("127.0.0.1", port))
        authorization = f"Authorization: Bearer {token}\r\n".encode() if token else b""
        await client._stream.send_all(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b\r\n" % (_KEY, authorization)
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += await client._more()
        status, _, client.unread = head.partition(b"\r\n\r\n")
        if not status.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"no WebSocket: {status.decode(errors='replace')}")
        return client

    async def send(self, value: object) -> None:
        """Send a JSON text frame."""
        payload = json.dumps(value).encode()
        masked = bytes(byte ^ _MASK[place % 4] for place, byte in enumerate(payload))
        length = len(payload)
        size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
        await self._stream.send_all(b"\x81" + size + _MASK + masked)

    async def subscribe(self, *patterns: str) -> None:
        """Subscribe, and wait until it is done."""
        for number, pattern in enumerate(patterns):
            await self.send({"event": "subscribe", "data": pattern, "id": number})
        await self.skip_until(b'{"reply":%d,' % (len(patterns) - 1))
        while not self.unread.endswith(b"}"):
            self.unread += await self._more()
        self.unread = b""

    async def skip_until(self, text: bytes) -> None:
        """Read until this text has come, and forget what stands before it."""
        while (at := self.unread.find(text)) < 0:
            self.unread = self.unread[-len(text) :] + await self._more()
        self.unread = self.unread[at:]

    async def read(self, number: int) -> None:
        """Read exactly so many bytes, and forget them."""
        number -= len(self.unread)
        self.unread = b""
        while number > 0:
            number -= len(await self._more(number))

    async def close(self) -> None:
        """End it without many words."""
        await trio.aclose_forcefully(self._stream)

    async def _more(self, most: int = 65_536) -> bytes:
        data = bytes(await self._stream.receive_some(min(most, 65_536)))
        if not data:
            raise RuntimeError("the server ended the connection")
        return data


def resident_kib(pid: int) -> int:
    """The resident memory of a process (Linux)."""
    return _status(pid, "VmRSS:")


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used so far (Linux)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as opened:  # noqa: PTH123
        fields = opened.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, key: str) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as opened:  # noqa: PTH123
        return next(int(line.split()[1]) for line in opened if line.startswith(key))
