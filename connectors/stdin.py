"""Events by a pipe: one JSON event a line of standard input. Back pressure is a pipe that is not read."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import trio

from broker.core.errors import BadEvent, PublisherError
from broker.core.event import Event, check_publishable
from broker.core.ports import Publisher
from connectors.decode import decode_event, decode_lines

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 1_048_576
_READ_BYTES = 65_536


class LineReader:
    """Cuts chunks of bytes into numbered lines; a line beyond the bound comes out as None."""

    def __init__(self, max_line: int = MAX_LINE_BYTES) -> None:
        self._max_line = max_line
        self._rest = b""
        self._skipping = False
        self._number = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that end in this chunk, each with its number, counted from 1."""
        *ended, self._rest = (self._rest + chunk).split(b"\n")
        for line in ended:
            yield self._line(line)
        if len(self._rest) > self._max_line:
            self._rest = b""
            self._skipping = True

    def end(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, where it does not end in a newline."""
        if self._rest or self._skipping:
            yield self._line(self._rest)
            self._rest = b""

    def _line(self, line: bytes) -> tuple[int, bytes | None]:
        self._number += 1
        too_long = self._skipping or len(line) > self._max_line
        self._skipping = False
        return self._number, None if too_long else line


class Stdin:
    """Publishes the lines of a file descriptor until its end. Bad lines are reported with their number, and skipped.

    descriptor: where to read; any kind of file will do.
    """

    name = "stdin"

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._is_pipe = _is_pipe(descriptor)
        self._buffer = bytearray(_READ_BYTES if self._is_pipe else 0)
        self.counters: Counter[str] = Counter(published=0, refused=0)

    async def run(self, publisher: Publisher, ready: Callable[[], None]) -> None:
        """See `Connector` in `broker/core/ports.py`."""
        ready()
        lines = LineReader()
        while chunk := await self._read():
            await self._publish(publisher, list(lines.feed(chunk)))
        await self._publish(publisher, list(lines.end()))
        logger.info("stdin.ended", extra=dict(self.counters))

    async def _read(self) -> bytes:
        try:
            if (data := await self._read_pipe()) is not None:
                return data
            # A file or a terminal can't be waited for in any other way.
            return await trio.to_thread.run_sync(os.read, self._descriptor, _READ_BYTES, abandon_on_cancel=True)
        except OSError as error:  # a terminal that has gone, or no standard input at all: nothing will come any more
            logger.warning("stdin.unreadable", extra={"reason": error.strerror})
            return b""

    async def _read_pipe(self) -> bytes | None:
        """What comes; None where there is no pipe, or the kernel can't do this for pipes (Linux before 6.5)."""
        # To make descriptor 0 non-blocking would change it for the shell that shares it as well; and to read in a
        # thread costs more than all that becomes of an event.
        while self._is_pipe:
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                length = os.preadv(self._descriptor, [self._buffer], -1, os.RWF_NOWAIT)
                return bytes(memoryview(self._buffer)[:length])
            except BlockingIOError:  # somebody else has read it
                continue
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._is_pipe = False
        return None

    async def _publish(self, publisher: Publisher, lines: Sequence[tuple[int, bytes | None]]) -> None:
        """Publish the events of those lines that are good: of all at once, where all are."""
        with suppress(BadEvent):
            await self._hand_in(publisher, self._decode_all(lines))
            return
        await self._hand_in(publisher, self._decode_each(lines))

    async def _hand_in(self, publisher: Publisher, events: Sequence[Event]) -> None:
        if events:
            await publisher.publish(events)
            self.counters["published"] += len(events)

    def _decode_all(self, lines: Sequence[tuple[int, bytes | None]]) -> list[Event]:
        texts = [line for _, line in lines if line is not None]
        events = decode_lines([text for text in texts if text.strip()], self.name)
        return self._decode_each(lines) if events is None or len(texts) < len(lines) else events

    def _decode_each(self, lines: Sequence[tuple[int, bytes | None]]) -> list[Event]:
        return [event for number, line in lines if (event := self._decode(number, line)) is not None]

    def _decode(self, number: int, line: bytes | None) -> Event | None:
        if line is not None and not line.strip():
            return None
        try:
            if line is None:
                raise PublisherError(f"longer than {MAX_LINE_BYTES} bytes")
            event = decode_event(line, self.name)
            check_publishable(event)
        except PublisherError as error:
            self.counters["refused"] += 1
            logger.warning("stdin.refused", extra={"line": number, "reason": str(error)})
            return None
        return event


def _is_pipe(descriptor: int) -> bool:
    """Whether it can be read without waiting, and without making it so for others."""
    try:
        return hasattr(os, "RWF_NOWAIT") and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:  # there is none; reading will say so
        return False
