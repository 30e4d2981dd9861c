"""Sending over HTTP: who may, what the body is, and what is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from broker import Connection, Handlers
from broker.core.http import BodyTooLarge, Request, Response
from broker.core.ports import Identity
from broker.edge.paths import Paths
from broker.edge.site import Site
from broker.handlers.messages_api import MessagesApi
from tests.fakes import Client, Tokens
from tests.handlers.house import BINARY, Application, ask, running, texts

MAX_BODY = 1000
TOKENS = Tokens(
    {
        "all": Identity(None, {"publish": ["**"]}),
        "users": Identity(None, {"publish": ["users.*.messages"]}),
        "rooms": Identity(None, {"publish": "rooms.tea.messages"}),
        "events": Identity(None, {"publish": ["games.**"]}),
        "none": Identity("ada"),
    }
)


class Api:
    """The API of a running application, and how to ask it."""

    def __init__(self, application: Application, app: Handlers, *, authenticate: bool) -> None:
        self.application = application
        api = MessagesApi(app.house, TOKENS if authenticate else Anybody(), MAX_BODY, authenticate=authenticate)
        self._site = Site(api.routes(), [], Paths({}))

    async def ask(
        self,
        path: str,
        body: bytes | None = b'{"a": 1}',
        content_type: str | None = None,
        token: str | None = "all",
    ) -> tuple[int, Any]:
        async def read(limit: int) -> bytes:
            assert body is not None
            if len(body) > limit:
                raise BodyTooLarge(limit)
            return body

        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        headers += [(b"content-type", content_type.encode())] if content_type else []
        method = "GET" if body is None else "POST"
        answer = await self._site.answer(Request(method, path, {}, headers, b"1.1", read))
        assert isinstance(answer, Response)
        await wait_all_tasks_blocked()
        return answer.status, json.loads(answer.body)


class Anybody:
    """Knows nobody, and asks nobody."""

    def identify(self, token: str | None) -> Identity:
        raise NotImplementedError

    def publisher(self, token: str | None) -> Identity:
        assert token is None
        return Identity()


@asynccontextmanager
async def served(*, authenticate: bool = True) -> AsyncIterator[tuple[Api, Client]]:
    """The API, and ada, who is in the room `tea`."""
    app = Handlers()

    @app.on("join")
    async def join(connection: Connection, data: str) -> None:
        connection.join(data)

    async with running(app) as application:
        ada = await application.join("ada")
        await ask(ada, "join", "tea")
        ada.heard.clear()
        yield Api(application, app, authenticate=authenticate), ada


@pytest.mark.parametrize("path", ["/users/ada/messages", "/rooms/tea/messages"])
async def test_a_message_goes_to_those_it_is_for(path: str) -> None:
    async with served() as (api, ada):
        assert await api.ask(path) == (202, {"connections": 1})
        assert texts(ada) == ['{"a":1}']


@pytest.mark.parametrize("path", ["/users/nobody/messages", "/rooms/cake/messages"])
async def test_that_nobody_is_there_is_no_error(path: str) -> None:
    async with served() as (api, ada):
        assert await api.ask(path) == (202, {"connections": 0})
        assert ada.heard == []


@pytest.mark.parametrize("user", ["grace hopper", "a/b", "größer", "<user>", "%"])
async def test_a_name_may_be_anything_that_a_path_can_say(user: str) -> None:
    from urllib.parse import quote

    async with served() as (api, _):
        client = await api.application.join(user)
        assert await api.ask(f"/users/{quote(user, safe='')}/messages") == (202, {"connections": 1})
        assert texts(client) == ['{"a":1}']


@pytest.mark.parametrize(
    ("content_type", "body", "opcode", "said"),
    [
        ("application/json", b"[1, null]", 1, b"[1,null]"),
        ("application/json; charset=utf-8", b'"text"', 1, b"text"),
        (None, b"1.5", 1, b"1.5"),
        ("text/plain", "größer".encode(), 1, "größer".encode()),
        ("Text/Plain; charset=utf-8", b"", 1, b""),
        ("application/octet-stream", b"\x00\xff", BINARY, b"\x00\xff"),
    ],
)
async def test_the_body_is_the_message(content_type: str | None, body: bytes, opcode: int, said: bytes) -> None:
    async with served() as (api, ada):
        assert (await api.ask("/users/ada/messages", body, content_type))[0] == 202
        assert ada.heard == [(opcode, said)]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        (None, b"", 400, "bad_shape"),
        (None, b"{", 400, "bad_shape"),
        (None, b"NaN", 400, "bad_shape"),
        (None, b"[1e999]", 400, "bad_shape"),
        (None, b'"\\ud800"', 400, "bad_event"),
        (None, b'"\xff"', 400, "bad_shape"),
        (None, b"[" * 500, 400, "bad_event"),
        ("text/plain", b"\xff", 400, "bad_shape"),
        ("text/html", b"<p>", 415, "unsupported_media_type"),
        (None, b"1" * (MAX_BODY + 1), 413, "body_too_large"),
    ],
)
async def test_a_bad_body_is_told_what_is_wrong(content_type: str | None, body: bytes, status: int, code: str) -> None:
    async with served() as (api, ada):
        found, answer = await api.ask("/users/ada/messages", body, content_type)
        assert (found, answer["code"]) == (status, code)
        assert ada.heard == []


@pytest.mark.parametrize(
    ("token", "to_user", "to_room", "to_another_room"),
    [
        ("all", 202, 202, 202),
        ("users", 202, 403, 403),
        ("rooms", 403, 202, 403),
        ("events", 403, 403, 403),
        ("none", 403, 403, 403),
        (None, 401, 401, 401),
        ("unknown", 401, 401, 401),
    ],
)
async def test_the_token_says_who_may(token: str | None, to_user: int, to_room: int, to_another_room: int) -> None:
    async with served() as (api, _):
        paths = ("/users/ada/messages", "/rooms/tea/messages", "/rooms/cake/messages")
        found = [(await api.ask(path, token=token))[0] for path in paths]
        assert found == [to_user, to_room, to_another_room]
        assert (await api.ask("/users/ada", None, token=token))[0] == (200 if to_user == 202 else to_user)


async def test_without_users_anybody_may() -> None:
    async with served(authenticate=False) as (api, _):
        assert (await api.ask("/users/ada/messages", token="any"))[0] == 202


async def test_one_can_ask_whether_a_user_is_there() -> None:
    async with served() as (api, _):
        await api.application.join("ada")
        assert await api.ask("/users/ada", None) == (200, {"user": "ada", "online": True, "connections": 2})
        assert await api.ask("/users/bob", None) == (200, {"user": "bob", "online": False, "connections": 0})
