"""websockets, with `broadcast()`: whoever subscribes gets what the others send. `python websockets_server.py PORT`."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module  # types of what may not be installed are nobody's business here
from typing import Any

library: Any = import_module("websockets.asyncio.server")
subscribers: set[Any] = set()


async def serve(socket: Any) -> None:
    try:
        async for message in socket:
            if message == "subscribe":
                subscribers.add(socket)
                await socket.send("subscribed")
            else:
                library.broadcast(subscribers, message)
    finally:
        subscribers.discard(socket)


async def main() -> None:
    async with library.serve(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()


asyncio.run(main())
