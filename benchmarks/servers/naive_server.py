"""What one would write first with Trio: each event goes to each socket with `send_message`.

It checks no token, matches no pattern and asks nobody who may see what. `python naive_server.py PORT`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

subscribers: set[WebSocketConnection] = set()


async def serve(request: WebSocketRequest) -> None:
    socket = await request.accept()
    try:
        while True:
            await obey(socket, json.loads(await socket.get_message()))
    except ConnectionClosed:
        subscribers.discard(socket)


async def obey(socket: WebSocketConnection, command: dict[str, Any]) -> None:
    if command["event"] == "subscribe":
        subscribers.add(socket)
    for event in command["data"] if command["event"] == "publish" else ():
        text = json.dumps(event, separators=(",", ":"))
        for subscriber in list(subscribers):
            await subscriber.send_message(text)
    await socket.send_message(json.dumps({"reply": command["id"], "data": None}, separators=(",", ":")))


if __name__ == "__main__":
    trio.run(serve_websocket, serve, "127.0.0.1", int(sys.argv[1]), None)
