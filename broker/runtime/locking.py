"""Locks that nobody else has."""

from __future__ import annotations

import trio


async def acquire(lock: trio.Lock | trio.Semaphore) -> None:
    """As `lock.acquire`, which lets the others have a turn even where nobody has the lock; here only who waits does."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()
