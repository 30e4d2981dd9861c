"""Who is at the other end: tokens in all the places where they may be, and every way in which they may be bad."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from urllib.parse import quote

import jwt
import pytest
import trio
from trio_websocket import ConnectionRejected

from tests.system.client import connected
from tests.system.harness import Broker, Brokers
from tests.system.raw import dial, upgrade

pytestmark = pytest.mark.system

QUERY_PARAMETERS = ("authHeader", "authToken", "token", "access_token")
BadToken = Callable[[Broker], str]


def _unsigned(broker: Broker) -> str:
    return jwt.encode({"sub": "ada", "exp": time.time() + 60}, "", algorithm="none")


def _forged(broker: Broker) -> str:
    return jwt.encode({"sub": "ada", "exp": time.time() + 60}, "x" * 64, algorithm="HS256")


def _of_another_algorithm(broker: Broker) -> str:
    return jwt.encode({"sub": "ada", "exp": time.time() + 60}, broker.secret, algorithm="HS512")


def _altered(broker: Broker) -> str:
    header, _, signature = broker.token("ada").split(".")
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "root"}).encode()).decode().rstrip("=")
    return f"{header}.{claims}.{signature}"


def _of_nobody(broker: Broker) -> str:
    return broker.token(None)


def _of_a_number(broker: Broker) -> str:
    return jwt.encode({"sub": 7}, broker.secret, algorithm="HS256")


def _not_valid_yet(broker: Broker) -> str:
    return broker.token("ada", nbf=time.time() + 60)


def _for_somebody_else(broker: Broker) -> str:
    return broker.token("ada", aud="another-service")


def _cut(broker: Broker) -> str:
    return broker.token("ada")[:-1]


def _padded(broker: Broker) -> str:
    return broker.token("ada") + "="


def _garbage(broker: Broker) -> str:
    return "garbage"


def _enormous(broker: Broker) -> str:
    return broker.token("ada", fill="x" * 9000)


BAD_TOKENS = (
    _unsigned,
    _forged,
    _of_another_algorithm,
    _altered,
    _of_nobody,
    _of_a_number,
    _not_valid_yet,
    _for_somebody_else,
    _cut,
    _padded,
    _garbage,
    _enormous,
)


def _expired(broker: Broker) -> str:
    return broker.token("ada", exp=time.time() - 1)


async def test_a_token_in_the_header_says_who_it_is(broker: Broker) -> None:
    async with connected(broker, "ada") as client:
        await client.subscribe("groups.*.created")
        broker.publish("groups.mine.created", {"members": ["ada"]})
        broker.publish("groups.theirs.created", {"members": ["bob"]})
        assert await client.names() == ["groups.mine.created"]


@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer "], ids=["bare", "Bearer", "bearer"])
@pytest.mark.parametrize("parameter", QUERY_PARAMETERS)
async def test_a_token_in_the_query_says_who_it_is(broker: Broker, parameter: str, prefix: str) -> None:
    async with connected(broker, query=f"?{parameter}={quote(prefix + broker.token('ada'))}") as client:
        await client.subscribe("groups.*.created")
        broker.publish("groups.mine.created", {"members": ["ada"]})
        assert await client.names() == ["groups.mine.created"]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
async def test_the_headers_scheme_is_in_any_case(broker: Broker, scheme: str) -> None:
    async with dial(broker) as raw:
        await raw.send(upgrade(Authorization=f"{scheme} {broker.token('ada')}"))
        assert (await raw.head()).status == 101


@pytest.mark.parametrize("query", ["", "?token=", "?authHeader=&bearer=x"])
async def test_without_a_token_the_socket_is_closed_with_4001(broker: Broker, query: str) -> None:
    async with connected(broker, query=query) as client:
        assert await client.closed() == 4001


@pytest.mark.parametrize("make", BAD_TOKENS, ids=lambda make: make.__name__.strip("_"))
async def test_a_bad_token_is_closed_with_4002(broker: Broker, make: BadToken) -> None:
    async with connected(broker, token=make(broker)) as client:
        assert await client.closed() == 4002


@pytest.mark.parametrize("parameter", QUERY_PARAMETERS)
async def test_a_bad_token_in_the_query_is_closed_with_4002(broker: Broker, parameter: str) -> None:
    async with connected(broker, query=f"?{parameter}={_forged(broker)}") as client:
        assert await client.closed() == 4002


async def test_an_expired_token_is_closed_with_4003(broker: Broker) -> None:
    async with connected(broker, token=_expired(broker)) as client:
        assert await client.closed() == 4003


async def test_a_bad_header_does_not_fall_back_to_the_query(broker: Broker) -> None:
    async with connected(broker, token="garbage", query=f"?token={broker.token('ada')}") as client:
        assert await client.closed() == 4002


async def test_a_header_of_another_scheme_does_not_fall_back_to_the_query(broker: Broker) -> None:
    async with dial(broker) as raw:
        await raw.send(upgrade(f"/ws?token={broker.token('ada')}", Authorization="Basic YWRhOnNlY3JldA=="))
        assert (await raw.head()).status == 101
        assert await raw.close_code() == 4002


async def test_two_different_tokens_are_closed_with_4002(broker: Broker) -> None:
    async with connected(broker, "ada", query=f"?token={broker.token('bob')}") as client:
        assert await client.closed() == 4002
    async with connected(broker, query=f"?token={broker.token('ada')}&authToken={broker.token('bob')}") as client:
        assert await client.closed() == 4002
    async with connected(broker, query=f"?token={broker.token('ada')}&token={broker.token('bob')}") as client:
        assert await client.closed() == 4002


async def test_the_same_token_twice_is_one_token(broker: Broker) -> None:
    token = broker.token("ada")
    async with connected(broker, token=token, query=f"?authHeader=Bearer%20{token}") as client:
        await client.subscribe("users.*.online")


async def test_what_is_refused_is_never_served(broker: Broker) -> None:
    async with dial(broker) as raw:
        subscribe = b'\x81\xa1\0\0\0\0{"event":"subscribe","data":"**"} '
        await raw.send(upgrade() + subscribe)
        assert (await raw.head()).status == 101
        broker.publish("users.ada.online")
        assert await raw.until_close() == (4001, [])


async def test_a_token_that_expires_ends_the_connection_with_4003(broker: Broker) -> None:
    expires_at = time.time() + 0.7
    async with connected(broker, "ada", exp=expires_at) as client:
        await client.subscribe("users.*.online")
        assert await client.closed() == 4003
        assert 0 <= time.time() - expires_at < 2


async def test_authenticate_renews_the_token(broker: Broker) -> None:
    expires_at = time.time() + 0.7
    async with connected(broker, "ada", exp=expires_at) as client:
        answer = await client.ask("authenticate", broker.token("ada", exp=expires_at + 0.7))
        assert "error" not in answer
        await trio.sleep(expires_at + 0.2 - time.time())
        await client.subscribe("users.*.online")
        assert await client.closed() == 4003
        assert time.time() > expires_at + 0.7


async def test_authenticate_renews_the_claims(brokers: Brokers) -> None:
    rule = '[[rules]]\nevents = "{}"\nvisible_to = {}\n'
    admins = rule.format("admin.**", '{ claim = "roles", contains = "admin" }')
    broker = brokers.start(policy=admins + rule.format("users.**", '"everyone"'))
    async with connected(broker, "ada", roles=["admin"]) as client:
        await client.subscribe("admin.**")
        broker.publish("admin.first")
        assert await client.names() == ["admin.first"]
        await client.ask("authenticate", broker.token("ada", roles=[]))
        broker.publish("admin.second")
        assert await client.names() == []
        await client.ask("authenticate", broker.token("ada", roles=["admin"]))
        broker.publish("admin.third")
        assert await client.names() == ["admin.third"]


@pytest.mark.parametrize("make", [*BAD_TOKENS, lambda broker: broker.token("bob")])
async def test_a_bad_renewal_is_an_error_and_the_old_token_still_counts(broker: Broker, make: BadToken) -> None:
    async with connected(broker, "ada") as client:
        await client.subscribe("groups.*.created")
        assert (await client.ask("authenticate", make(broker)))["code"] == "invalid_token"
        broker.publish("groups.mine.created", {"members": ["ada"]})
        broker.publish("groups.theirs.created", {"members": ["bob"]})
        assert await client.names() == ["groups.mine.created"]


async def test_an_expired_renewal_is_an_error_and_the_old_token_still_counts(broker: Broker) -> None:
    async with connected(broker, "ada") as client:
        assert (await client.ask("authenticate", _expired(broker)))["code"] == "token_expired"
        await client.subscribe("users.*.online")


async def test_on_failure_reject_answers_401_before_any_websocket(brokers: Brokers) -> None:
    broker = brokers.start('[auth]\non_failure = "reject"\n')
    for token in (None, "garbage", _forged(broker), _expired(broker)):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with connected(broker, token=token):
                pass
        rejected = _only(caught.value)
        assert isinstance(rejected, ConnectionRejected)
        assert rejected.status_code == 401
        assert (b"www-authenticate", b"Bearer") in [(name.lower(), value) for name, value in rejected.headers or ()]
    async with connected(broker, "ada") as client:
        await client.subscribe("**")


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    return error


async def test_mode_none_serves_anybody_and_lets_anybody_publish(brokers: Brokers) -> None:
    broker = brokers.start('[auth]\nmode = "none"\n')
    async with connected(broker) as client:
        await client.subscribe("message.*")
        answer = broker.request("POST", "/events", b'{"event":"message.created"}', Content_Type="application/json")
        assert answer.status == 202
        assert (await client.frame())["event"] == "message.created"


async def test_a_token_appears_in_no_log_no_metric_and_no_answer(brokers: Brokers) -> None:
    broker = brokers.start()
    tokens = [broker.token("ada"), _forged(broker), _expired(broker), _unsigned(broker), "notatoken"]
    said = []
    for token in tokens:
        for query in (f"?token={token}", f"?authHeader=Bearer%20{token}", f"?other={token}"):
            async with dial(broker) as raw:
                await raw.send(upgrade(f"/ws{query}", Authorization=f"Bearer {token}"))
                assert (await raw.head()).status == 101
                await raw.stream.send_eof()
                said.append(await raw.rest())
            said.append(broker.request("GET", f"/nowhere{query}", Authorization=f"Bearer {token}").body)
            said.append(broker.request("GET", "/ws", Authorization=token).body)
        said.append(broker.post(b"{}", token=token).body)
        async with connected(broker, "ada") as client:
            said.append(json.dumps(await client.ask("authenticate", token)).encode())
    said.append(broker.request("GET", "/metrics").body)
    said.append((broker.errors() + broker.output()).encode())
    for token in tokens:
        for part in filter(None, token.split(".")):
            assert not any(part.encode() in text for text in said)
