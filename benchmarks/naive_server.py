"""What one would write first: a trio-websocket server that sends each event to each socket with `send_message`.

It checks no token, matches no pattern and asks nobody who may see what. Prints its port when it serves.
"""

from __future__ import annotations

import json

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket


async def main() -> None:
    """Serve until killed."""
    subscribers: set[WebSocketConnection] = set()

    async def serve(request: WebSocketRequest) -> None:
        socket = await request.accept()
        try:
            while True:
                command = json.loads(await socket.get_message())
                if command["event"] == "subscribe":
                    subscribers.add(socket)
                for event in command["data"] if command["event"] == "publish" else ():
                    for subscriber in list(subscribers):
                        await subscriber.send_message(json.dumps(event, separators=(",", ":")))
                await socket.send_message(json.dumps({"reply": command["id"], "data": None}, separators=(",", ":")))
        except ConnectionClosed:
            subscribers.discard(socket)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, serve, "127.0.0.1", 0, None)
        print(server.port, flush=True)


if __name__ == "__main__":
    trio.run(main)
