"""Handlers in a real broker, spoken to by a client that is not made of our libraries."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.system.application import Applications, socket
from tests.system.harness import Broker, command, eventually

pytestmark = pytest.mark.system

LARGEST = 65_536
LEAK = 8_000_000  # bytes that are no leak: free lists, and what the collector has not come to
SIZES = (0, 1, 125, 126, 1023, 1024, 65_535, LARGEST)


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applications]:
    started = Applications(tmp_path_factory.mktemp("applications"))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def application(applications: Applications) -> Broker:
    return applications.start("websocket.commands_per_second = 100_000")


def ask(client: ClientConnection, event: str, data: Any = None) -> Any:
    client.send(json.dumps({"event": event, "data": data, "id": 1}))
    while True:
        found = json.loads(client.recv(timeout=20))
        if found.get("reply") == 1:
            return found.get("data", found.get("code"))


def code_of(client: ClientConnection) -> tuple[int, str]:
    with suppress(ConnectionClosed):
        while True:
            client.recv(timeout=20)
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("path", ["/echo", "/plain"])
def test_what_comes_is_what_was_sent_whatever_it_is(application: Broker, path: str, compressed: bool) -> None:
    chance = random.Random(1)
    with socket(application, path, compressed=compressed) as client:
        for size in SIZES:
            for message in ("x" * size, "ö" * (size // 2), chance.randbytes(size), b"\x00" * size):
                client.send(message)
                assert client.recv(timeout=20) == message


def test_compression_is_not_offered_where_a_path_has_none(application: Broker) -> None:
    with socket(application, "/echo") as echo, socket(application, "/plain") as plain:
        assert [len(each.protocol.extensions) for each in (echo, plain)] == [1, 0]


@pytest.mark.parametrize("compressed", [False, True])
def test_what_comes_in_parts_is_one_message(application: Broker, compressed: bool) -> None:
    chance = random.Random(2)
    with socket(application, "/echo", compressed=compressed) as client:
        for parts in (2, 3, 100):
            data = [chance.randbytes(chance.randrange(600)) for _ in range(parts)]
            client.send(iter(data))
            assert client.recv(timeout=20) == b"".join(data)
            texts = ["ö" * chance.randrange(300) for _ in range(parts)]
            client.send(iter(texts))
            assert client.recv(timeout=20) == "".join(texts)


def test_one_byte_more_than_may_be_ends_the_connection(application: Broker) -> None:
    with socket(application, "/echo") as client:
        client.send(random.Random(3).randbytes(LARGEST + 1))
        assert code_of(client)[0] == 1009


def test_commands_and_rooms_do_what_they_should(application: Broker) -> None:
    with socket(application, user="ada") as ada, socket(application, user="bob") as bob:
        assert ask(ada, "join.tea") == ["tea"]
        assert ask(bob, "join.tea") == ["tea"]
        assert ask(ada, "what") == "unknown_command"
        ada.close(4321, "bye")
        assert json.loads(bob.recv(timeout=20)) == {"gone": "ada", "code": 4321}
    eventually(lambda: application.metric("broker_rooms") == 0, "end of the room")


def test_the_door_asks_who_is_there(application: Broker) -> None:
    with socket(application, "/door", user=None) as client:
        assert code_of(client) == (4401, "who is there?")
    with socket(application, "/door?name=ada", user=None) as client:
        assert client.recv(timeout=20) == "welcome"


def test_a_path_may_have_placeholders(application: Broker) -> None:
    with socket(application, "/shops/tea%20%26%20cake") as client:
        assert client.recv(timeout=20) == "tea & cake"


def test_what_a_handler_publishes_goes_by_the_policy(applications: Applications) -> None:
    policy = '[[rules]]\nevents = "open"\nvisible_to = "everyone"\n'
    broker = applications.start(policy=policy)
    with socket(broker) as client:
        for name in ("open", "closed"):
            ask(client, "subscribe", name)
        for name in ("closed", "open"):
            client.send(json.dumps({"event": f"publish.{name}", "data": name}))
        assert json.loads(client.recv(timeout=20)) == {"event": "open", "data": "open"}


def test_at_the_end_what_runs_has_the_time_that_there_is(applications: Applications) -> None:
    broker = applications.start("server.shutdown_grace = 1.0")
    with socket(broker) as client:
        client.send('{"event": "wait.60"}')
        ask(client, "subscribe", "a")
        broker.signal(signal.SIGTERM)
        assert code_of(client)[0] == 1001
        assert broker.wait_ended(patience=5) == 0


LIFESPAN = """
from collections.abc import AsyncIterator
from pathlib import Path

from broker import Handlers

app = Handlers()
told = Path(__file__).with_name("told")


@app.lifespan
async def life() -> AsyncIterator[None]:
    await app.publish("opened")
    told.write_text("open")
    yield
    told.write_text("closed")


@app.on_disconnect
async def gone():
    told.write_text(told.read_text() + ", and somebody went")
"""


def test_what_the_application_opens_is_open_until_the_last_has_gone(applications: Applications) -> None:
    broker = applications.start(module=LIFESPAN, handlers=["app"])
    told = broker.folder / "told"
    assert broker.metric("broker_events_total") == 1
    with socket(broker) as client:
        assert told.read_text() == "open"
        broker.signal(signal.SIGTERM)
        assert code_of(client)[0] == 1001
    assert broker.wait_ended() == 0
    assert told.read_text() == "closed"


def test_what_can_t_be_opened_is_told_and_nothing_is_started(tmp_path: Path) -> None:
    module = LIFESPAN.replace('await app.publish("opened")', 'raise ConnectionError("no database")')
    folder = Applications(tmp_path).place('handlers.modules = ["late:app"]\nserver.port = 0', "", {"late.py": module})
    ended = command("run", folder=folder)
    assert ended.returncode == 2
    assert "late.life: ConnectionError: no database" in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr
    assert b"broker.serving" not in ended.stderr


WRONG = {
    "nowhere:app": "can't be imported: ModuleNotFoundError",
    "wrong:other": "there is no such name in it",
    "wrong:number": "is no Handlers but int",
    "broken:app": "takes 'x'; there are",
    "twice:app": "handlers.modules[1]: names twice:app again",
    "twins:app": "it has two handlers",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_module_is_told_and_nothing_is_started(tmp_path: Path, name: str) -> None:
    files = {
        "wrong.py": "number = 1\n",
        "broken.py": 'from broker import Handlers\napp = Handlers()\n@app.on("a")\nasync def f(x): ...\n',
        "twice.py": "from broker import Handlers\napp = Handlers()\n",
        "twins.py": 'from broker import Handlers\napp = Handlers()\n@app.on("a.<b>")\nasync def f(b): ...\n',
        "other.py": 'from broker import Handlers\napp = Handlers()\n@app.on("a.<c>")\nasync def f(c): ...\n',
    }
    names = {"twice:app": [name, name], "twins:app": [name, "other:app"]}.get(name, [name])
    folder = Applications(tmp_path).place(f"handlers.modules = {names}", "", files)
    ended = command("run", folder=folder)
    assert ended.returncode == 2
    assert WRONG[name] in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr


def test_thousands_who_come_call_and_leave_leave_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    total = request.config.getoption("--soak")
    applications = Applications(tmp_path)
    broker = applications.start("presence.grace = 0.1\nlog.retain_events = 100")
    _soak(broker, 100)
    before, files = broker.resident_bytes(), broker.open_files()
    _soak(broker, total)
    eventually(lambda: _nothing_is_left(broker), "end of the last")
    assert broker.open_files() <= files + 1
    assert broker.resident_bytes() - before < LEAK
    applications.stop()


def _soak(broker: Broker, total: int) -> None:
    for number in range(total):
        with socket(broker, user=f"user{number}", compressed=False) as client:
            assert ask(client, f"join.room{number % 7}") == [f"room{number % 7}"]
            if number % 3 == 0:  # goes without a word
                client.socket.shutdown(SHUT_RDWR)


def _nothing_is_left(broker: Broker) -> bool:
    metrics = broker.metrics()
    names = ("connections", "subscriptions", "rooms", "users_online", "calls_waiting")
    return all(metrics[f"broker_{name}"] == 0 for name in names)
