"""Sending to users and publishing, from handlers and from anywhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from broker import Connection, Handlers
from broker.core.ports import Identity
from broker.runtime.outbox import Overflow, QueueLimits
from broker.runtime.services import ConnectionLimits
from tests.fakes import Client
from tests.handlers.house import BINARY, ask, request, running, texts


@dataclass
class Greeting:
    text: str


def sending() -> Handlers:
    app = Handlers()

    @app.on("send")
    async def send(data: Any) -> int:
        return await app.send(data)

    @app.on("to")
    async def to(data: Any) -> int:
        return await app.to(data).send("hello")

    @app.on("direct")
    async def direct(connection: Connection) -> None:
        await connection.send("text")
        await connection.send(b"bytes")
        await connection.send(Greeting("typed"))
        await connection.send([None])

    @app.on("wrong.<kind>")
    async def wrong(kind: str) -> None:
        await app.send(object() if kind == "object" else float("nan"))

    @app.on("publish.<name>")
    async def publish(name: str, data: Any) -> str:
        return await app.publish(name, Greeting(data), id="given")

    return app


async def test_it_goes_to_every_device_of_the_user_who_asked() -> None:
    async with running(sending(), Handlers(path="/door")) as broker:
        phone, laptop = await broker.join("ada"), await broker.join("ada", path="/door")
        bob = await broker.join("bob")
        assert await ask(phone, "send", {"a": 1}) == 2
        assert (texts(phone)[0], texts(laptop), texts(bob)) == ('{"a":1}', ['{"a":1}'], [])


async def test_who_is_nobody_in_particular_gets_it_alone() -> None:
    async with running(sending()) as broker:
        one, other = await broker.join(None), await broker.join(None)
        assert await ask(one, "send", "a") == 1
        assert (texts(one)[0], texts(other)) == ("a", [])


@pytest.mark.parametrize(
    ("users", "count"),
    [
        ("bob", 2),
        (["bob"], 2),
        (["bob", "bob", "ada"], 3),
        ("nobody", 0),
        ([], 0),
        (["nobody", "ada"], 1),
        ([None], 0),
    ],
)
async def test_it_goes_to_each_device_of_several_users_once(users: Any, count: int) -> None:
    async with running(sending()) as broker:
        ada = await broker.join("ada")
        await broker.join(None)
        devices = [await broker.join("bob") for _ in range(2)]
        assert await ask(ada, "to", users) == count
        assert [texts(each) for each in devices] == [["hello"] if "bob" in users else []] * 2


async def test_each_kind_of_message_has_its_frame() -> None:
    async with running(sending()) as broker:
        client = await broker.join()
        await ask(client, "direct")
        assert texts(client)[:3] == ["text", '{"text":"typed"}', "[null]"]
        assert [payload for opcode, payload in client.heard if opcode == BINARY] == [b"bytes"]


@pytest.mark.parametrize("kind", ["object", "number"])
async def test_what_can_t_be_sent_is_a_fault_of_the_handler(kind: str) -> None:
    async with running(sending()) as broker:
        assert await ask(await broker.join(), f"wrong.{kind}") == "handler_failed"


async def test_a_task_that_belongs_to_no_handler_sends_by_name() -> None:
    app = sending()
    async with running(app) as broker:
        client = await broker.join("ada")
        assert await app.to("ada").send("hello") == 1
        await wait_all_tasks_blocked()
        assert texts(client) == ["hello"]


async def test_a_large_crowd_lets_others_run_between() -> None:
    app = Handlers()
    async with running(app) as broker:
        clients = [broker.come(Identity("ada"), request()) for _ in range(99)]
        await wait_all_tasks_blocked()
        assert await app.to(["ada"] * 10).send("hello") == 99
        for number in range(700):
            await app.to("ada").send(number)
        await wait_all_tasks_blocked()
        assert all(texts(client) == ["hello", *map(str, range(700))] for client in clients)


async def test_who_is_too_slow_is_ended_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Client.write

    async def unread(client: Client, data: bytes) -> None:
        if b"x" in data:
            await reads.wait()
        await write(client, data)

    reads = trio.Event()
    monkeypatch.setattr(Client, "write", unread)
    limits = ConnectionLimits(queue=QueueLimits(frames=2, overflow=Overflow.DISCONNECT))
    app = Handlers()
    async with running(app, limits=limits) as broker:
        slow, quick = await broker.join("slow"), await broker.join("quick")
        for _ in range(3):
            await app.to("slow").send("x")
        assert await app.to(["slow", "quick"]).send("hello") == 2
        reads.set()
        await wait_all_tasks_blocked()
        assert (slow.close_code(), quick.ending, texts(quick)) == (4008, None, ["hello"])


async def test_to_publish_goes_by_the_one_door() -> None:
    async with running(sending()) as broker:
        assert await ask(await broker.join(), "publish.greeted", "hello") == "1"
        (event,) = broker.published.events
        assert (event.name, event.data, event.id, event.source) == ("greeted", b'{"text":"hello"}', "given", "handler")
