"""python-socketio on aiohttp: whoever subscribes gets what others publish. `python socketio_server.py PORT`."""

from __future__ import annotations

import sys
from importlib import import_module  # types of what may not be installed are nobody's business here
from typing import Any

socketio: Any = import_module("socketio")
web: Any = import_module("aiohttp.web")

server = socketio.AsyncServer(async_mode="aiohttp", transports=["websocket"])


async def subscribe(client: str) -> None:
    await server.enter_room(client, "subscribers")
    await server.emit("subscribed", to=client)


async def publish(_client: str, data: object) -> None:
    await server.emit("event", data, to="subscribers")


server.on("subscribe", subscribe)
server.on("publish", publish)
application = web.Application()
server.attach(application)
web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None)
