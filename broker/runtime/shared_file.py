"""Bytes for many sockets, of which the kernel makes no copy for each.

Theory. `send` copies what it is given into memory of the socket's own. With `sendfile` from a file in memory the socket
takes hold of the file's pages, for as long as its client has not read them. So what was put is never written over:
new bytes go behind it, and a file that has become long lets go of all its pages and begins anew. Whoever holds one
keeps it.

Source: memfd_create(2), sendfile(2).
"""

from __future__ import annotations

import os
from mmap import PAGESIZE
from typing import Final

WORTH_IT: Final = 12_288  # bytes; to copy fewer takes less time than to do without
MANY: Final = 8  # sockets, whose copies cost more than to put the bytes here
LONG: Final = 1_048_576  # bytes
_NONE: Final = -1  # as a descriptor


class SharedFile:
    """A file in memory, made when there is something to put. Where the system has none, nothing is put anywhere.

    descriptor: to send from, once something was put. Whoever made the file closes it.
    """

    def __init__(self) -> None:
        self.descriptor = _NONE
        self._end = 0
        self._usable = True

    def put(self, data: bytes, sockets: int) -> int | None:
        """Put in what goes to so many sockets; returns where that is, or None if they had better copy it."""
        if len(data) < WORTH_IT or sockets < MANY or not self._usable:
            return None
        begin = self._end
        try:
            if self.descriptor == _NONE:
                self.descriptor = os.memfd_create("events")
            written = os.pwrite(self.descriptor, data, begin)
        except (AttributeError, OSError):  # not on Linux, not allowed, or no memory
            self._usable = False
            return None
        self._end += -(-written // PAGESIZE) * PAGESIZE
        return begin if written == len(data) else None

    def clear(self) -> None:
        """Begin anew, if it has become long: nothing that was put so far will be sent any more."""
        if self._end >= LONG:
            os.ftruncate(self.descriptor, 0)
            self._end = 0

    def close(self) -> None:
        """Let go of it; nothing is put anywhere any more."""
        self._usable = False
        if self.descriptor != _NONE:
            os.close(self.descriptor)
            self.descriptor = _NONE
