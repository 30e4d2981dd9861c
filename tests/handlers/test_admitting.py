"""Authentication by the application: what it may return, and what becomes of those who are refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from broker import Accepted, Connection, Handlers, Refused, Request
from broker.handlers.errors import BadHandler
from tests.handlers.house import ask, request, running


class Door:
    """A path whose application decides who may in."""

    def __init__(self, outcome: Any) -> None:
        self.app = Handlers(path="/door")
        self.outcome = outcome
        self.asked: list[Request] = []
        self.app.authenticate(self.authenticate)
        self.app.on("who")(self.who)

    async def authenticate(self, request: Request) -> Any:
        self.asked.append(request)
        await trio.lowlevel.checkpoint()
        if isinstance(self.outcome, Exception) and not isinstance(self.outcome, Refused):
            raise self.outcome
        return self.outcome

    async def who(self, connection: Connection) -> Any:
        return [connection.user, dict(connection.claims), connection.data]


@pytest.mark.parametrize(
    ("outcome", "who"),
    [
        ("ada", ["ada", {}, None]),
        (None, [None, {}, None]),
        (True, [None, {}, None]),
        (Accepted("ada"), ["ada", {}, None]),
        (Accepted(), [None, {}, None]),
        (Accepted("ada", data={"a": 1}, claims={"role": "admin"}), ["ada", {"role": "admin"}, {"a": 1}]),
    ],
)
async def test_who_is_accepted_comes_as_whom_it_said(outcome: Any, who: Any) -> None:
    async with running(Door(outcome).app) as broker:
        client = await broker.knock(request("/door"))
        assert await ask(client, "who") == who
        assert await ask(client, "subscribe", "a") == {"pattern": "a"}


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (False, (4002, "not accepted")),
        (Refused(4401, "who is there?"), (4401, "who is there?")),
        (Refused(), (4002, "")),
        (ValueError("inner detail"), (1011, "authenticate failed")),
        ("", (1011, "authenticate failed")),
        (42, (1011, "authenticate failed")),
        (0, (1011, "authenticate failed")),
        (Accepted(""), (1011, "authenticate failed")),
        (Accepted(42), (1011, "authenticate failed")),  # type: ignore[arg-type]
        (Accepted("ada", claims=["role"]), (1011, "authenticate failed")),  # type: ignore[arg-type]
        (Accepted("ada", expires_at="1e9"), (1011, "authenticate failed")),  # type: ignore[arg-type]
        (Accepted("ada", expires_at=True), (1011, "authenticate failed")),
        (Accepted("ada", expires_at=float("nan")), (1011, "authenticate failed")),
        (Accepted("ada", expires_at=float("inf")), (1011, "authenticate failed")),
        (Accepted("ada", expires_at=10**400), (1011, "authenticate failed")),
    ],
    ids=str,
)
async def test_who_is_refused_is_told_why(outcome: Any, ending: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with running(Door(outcome).app) as broker:
        client = await broker.knock(request("/door"))
        assert client.ending == ending
        assert client.close_code() == ending[0]
    logged = [record.getMessage() for record in caplog.records]
    assert logged == (["authenticate.failed"] if ending[0] == 1011 else [])


async def test_a_refusal_may_be_raised() -> None:
    app = Handlers(path="/door")

    @app.authenticate
    async def authenticate() -> str:
        raise Refused(4403, "not you")

    async with running(app) as broker:
        assert (await broker.knock(request("/door"))).ending == (4403, "not you")


@pytest.mark.parametrize("code", [1000, 1008, 3999, 5000])
def test_a_refusal_has_a_code_of_the_application_s(code: int) -> None:
    with pytest.raises(ValueError, match="from 4000 to 4999"):
        Refused(code)


async def test_who_takes_too_long_lets_nobody_in(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    app = Handlers(path="/door")

    @app.authenticate
    async def authenticate() -> str:
        await trio.sleep_forever()
        raise AssertionError

    async with running(app) as broker:
        assert (await broker.knock(request("/door"))).ending == (1011, "authenticate failed")


async def test_who_is_accepted_until_then_is_ended_as_with_a_token(autojump_clock: MockClock) -> None:
    async with running(Door(Accepted("ada", expires_at=time.time() + 60)).app) as broker:
        client = await broker.knock(request("/door"))
        await trio.sleep(58)
        assert await ask(client, "who") == ["ada", {}, None]
        await trio.sleep(3)
        assert client.close_code() == 4003


@pytest.mark.parametrize("expires_at", [0, -1, 1.5])
async def test_who_was_accepted_until_some_time_ago_is_ended_at_once(expires_at: float) -> None:
    async with running(Door(Accepted("ada", expires_at=expires_at)).app) as broker:
        assert (await broker.knock(request("/door"))).close_code() == 4003


async def test_it_decides_by_header_cookie_query_and_address() -> None:
    app = Handlers(path="/door")

    @app.authenticate
    async def authenticate(request: Request) -> Accepted:
        query = request.query["name"][0]
        return Accepted(
            query, data=[request.header("x-key"), request.cookies["session"], request.address, request.path]
        )

    @app.on("who")
    async def who(connection: Connection) -> Any:
        return [connection.user, *connection.data]

    async with running(app) as broker:
        client = await broker.knock(request("/door?name=ada", x_key="k", cookie="session=s; other=o"))
        assert await ask(client, "who") == ["ada", "k", "s", "192.0.2.1", "/door"]


async def test_one_path_has_one_of_it() -> None:
    another = Handlers(path="/door")
    another.authenticate(Door("bob").authenticate)
    with pytest.raises(BadHandler, match=r"authenticate: a path has one `authenticate`"):
        async with running(Door("ada").app, another):
            pass
