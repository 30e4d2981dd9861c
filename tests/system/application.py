"""The application of the system tests, and brokers that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from websockets.sync.client import ClientConnection, connect

from tests.system.harness import OPEN_POLICY, Broker, Brokers, unique

MODULE: Final = """
from broker import Accepted, Connection, Handlers, Refused

app = Handlers()
echo = Handlers(path="/echo")
plain = Handlers(path="/plain", compression=False)
shop = Handlers(path="/shops/<shop>")
door = Handlers(path="/door", heartbeat=0.2, heartbeat_timeout=0.2)


@app.on("join.<room>")
async def join(connection: Connection, room: str):
    connection.join(room)
    return list(connection.rooms)


@app.on("wait.<seconds>", timeout=60)
async def wait(seconds: str):
    import trio
    await trio.sleep(float(seconds))


@app.on("publish.<name>")
async def publish(name: str, data):
    return await app.publish(name, data)


@app.on("online")
async def online():
    return sorted(app.online_users())


@app.on_disconnect
async def gone(connection: Connection, user, code):
    await connection.broadcast({"gone": user, "code": code}, rooms=connection.rooms)


@echo.on_message
@plain.on_message
async def send_back(connection: Connection, message):
    await connection.send(message)


@door.authenticate
async def authenticate(request):
    if "name" not in request.query:
        raise Refused(4401, "who is there?")
    return Accepted(request.query["name"][0])


@door.on_connect
async def welcome(connection: Connection):
    await connection.send("welcome")


@shop.on_connect
async def enter(connection: Connection):
    await connection.send(connection.request.params["shop"])
"""


@dataclass
class Applications(Brokers):
    """Starts brokers with an application beside their configuration."""

    def start(  # type: ignore[override]
        self,
        config: str = "",
        policy: str = OPEN_POLICY,
        *,
        module: str = MODULE,
        handlers: Sequence[str] = ("app", "echo", "plain", "door", "shop"),
    ) -> Broker:
        name = unique("application")
        modules = [f"{name}:{each}" for each in handlers]
        folder = self.place(f"handlers.modules = {modules}\n{config}", policy, {f"{name}.py": module})
        broker = self._run(folder)
        broker.wait_ready()
        return broker

    def place(self, config: str, policy: str, files: Mapping[str, str]) -> Path:
        """A folder with these files."""
        folder = self.folder / unique("application")
        folder.mkdir()
        for name, text in {"config.toml": config, "policy.toml": policy, **files}.items():
            (folder / name).write_text(text)
        return folder


def socket(broker: Broker, path: str = "/ws", user: str | None = "ada", *, compressed: bool = True) -> ClientConnection:
    """A client that is not made of our libraries."""
    headers = {"Authorization": f"Bearer {broker.token(user)}"} if user else {}
    compression = "deflate" if compressed else None
    url = f"ws://127.0.0.1:{broker.port}{path}"
    return connect(url, additional_headers=headers, compression=compression, max_size=None, proxy=None)
