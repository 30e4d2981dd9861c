"""Events by HTTP: what is taken, what is refused and why, and that of a refused request nothing is taken."""

from __future__ import annotations

import json

import pytest

from tests.system.client import connected
from tests.system.harness import Answer, Broker, Brokers, unique
from tests.system.raw import Raw, dial

pytestmark = pytest.mark.system


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.json["error"]
    return answer.status, answer.json["code"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"event":"a.1","data":1}'),
        ("application/json; charset=utf-8", b' {"data":1 , "event":"a.1"}\n'),
        ("APPLICATION/JSON", b'{"event":"a.1","data":1,"id":null}'),
        ("application/x-ndjson", b'{"event":"a.1","data":1}'),
        ("application/json", b'[{"event":"a.1","data":1}]'),
    ],
)
async def test_one_event_is_taken(open_broker: Broker, content_type: str, body: bytes) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("a.*")
        answer = open_broker.post(body, content_type)
        assert answer.status == 202
        assert len(answer.json["ids"]) == 1
        assert await client.events() == [{"event": "a.1", "data": 1}]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'[{"event":"a.1"}, {"event":"a.2","data":{}} ,{"event":"a.3"}]'),
        ("application/x-ndjson", b'{"event":"a.1"}\n{"event":"a.2"}\r\n\n  \n{"event":"a.3"}\n'),
        ("application/ndjson", b'{"event":"a.1"}\n{"event":"a.2"}\n{"event":"a.3"}'),
    ],
)
async def test_many_events_are_taken_in_order(open_broker: Broker, content_type: str, body: bytes) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("a.*")
        answer = open_broker.post(body, content_type)
        assert answer.status == 202
        assert len(set(answer.json["ids"])) == 3
        assert await client.names() == ["a.1", "a.2", "a.3"]


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
async def test_none_at_all_is_taken_as_well(open_broker: Broker, content_type: str) -> None:
    answer = open_broker.post(b"[]" if content_type == "application/json" else b"", content_type)
    assert (answer.status, answer.json) == (202, {"ids": []})


async def test_the_publishers_ids_come_back_and_are_unique(open_broker: Broker) -> None:
    mine = unique("id")
    answer = open_broker.post(b'[{"event":"a.1","id":"%b"},{"event":"a.2"}]' % mine.encode())
    assert answer.json["ids"][0] == mine
    assert answer.json["ids"][1] != mine


async def test_the_same_id_is_delivered_once_within_a_request_and_later(open_broker: Broker) -> None:
    mine = unique("id")
    async with connected(open_broker, "ada") as client:
        await client.subscribe("a.*")
        event = b'{"event":"a.1","data":"first","id":"%b"}' % mine.encode()
        again = b'{"event":"a.2","data":"other","id":"%b"}' % mine.encode()
        assert open_broker.post(b"[%b,%b]" % (event, again)).json["ids"] == [mine, mine]
        assert open_broker.post(again).json["ids"] == [mine]
        assert [frame["data"] for frame in await client.events()] == ["first"]


BAD_EVENTS = [
    b"7",
    b"null",
    b"{}",
    b'{"event":7}',
    b'{"event":""}',
    b'{"event":"a..b"}',
    b'{"event":"a.*"}',
    b'{"event":"a b"}',
    b'{"event":"<userId>.x"}',
    b'{"event":"%b"}' % (b"a" * 256),
    b'{"event":"broker.started"}',
    b'{"event":"a.1","id":7}',
    b'{"event":"a.1","id":""}',
    b'{"event":"a.1","id":"%b"}' % (b"x" * 256),
    b'{"event":"a.1","extra":1}',
    b'{"event":"a.1","data":%b}' % (b"[" * 129 + b"]" * 129),
]
NO_JSON = [
    b'{"event":"a.1","data":"\\ud800"}',
    b'{"event":"a.1","data":"\\udc00\\ud800"}',
    b'{"event":"a.1","data":NaN}',
    b'{"event":"a.1","data":Infinity}',
    b'{"event":"a.1","data":01}',
    b'{"event":"a.1","data":1.}',
    b'{"event":"a.1","data":\'x\'}',
    b'{"event":"a.1","data":[1,]}',
    b'{"event":"a.1","data":"\xff"}',
    b'{"event":"a.1","data":"\xed\xa0\x80"}',
    b'{"event":"a.1","data":"\t"}',
    b'{"event":"a.1","data":}',
    b'{"event":"a.1"} garbage',
    b'{"event":"a.1"}{"event":"a.2"}',
    b'{"event":"a.1"',
    b'\xef\xbb\xbf{"event":"a.1"}',
    b"",
]


def shortened(body: object) -> str:
    return repr(body)[:40]


@pytest.mark.parametrize("bad", BAD_EVENTS + NO_JSON, ids=shortened)
async def test_a_bad_event_is_refused(open_broker: Broker, bad: bytes) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("**")
        assert refused(open_broker.post(bad)) == (400, "bad_event")
        assert [name for name in await client.names() if "mark" not in name] == []


@pytest.mark.parametrize("bad", BAD_EVENTS, ids=shortened)
async def test_a_bad_event_spoils_its_array_and_its_index_is_told(open_broker: Broker, bad: bytes) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("**")
        answer = open_broker.post(b'[{"event":"a.1"},{"event":"a.2"},%b,{"event":"a.3"}]' % bad)
        assert refused(answer) == (400, "bad_event")
        assert answer.json["index"] == 2
        assert await client.names() == []


@pytest.mark.parametrize("bad", [bad for bad in BAD_EVENTS + NO_JSON if bad], ids=shortened)
async def test_a_bad_line_spoils_its_request_and_its_index_is_told(open_broker: Broker, bad: bytes) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("**")
        answer = open_broker.post(b'{"event":"a.1"}\n\n%b\n{"event":"a.3"}\n' % bad, "application/x-ndjson")
        assert refused(answer) == (400, "bad_event")
        assert answer.json["index"] == 1
        assert await client.names() == []


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic eDp5", "garbage", "Bearer x.y.z"])
async def test_without_a_good_token_it_is_401(open_broker: Broker, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = open_broker.request("POST", "/events", b'{"event":"a.1"}', Content_Type="application/json", **headers)
    assert answer.status == 401
    assert answer.json["code"] in ("missing_token", "invalid_token")


async def test_an_expired_token_is_401(open_broker: Broker) -> None:
    token = open_broker.token(publish=["**"], exp=1)
    assert refused(open_broker.post(b'{"event":"a.1"}', token=token)) == (401, "token_expired")


@pytest.mark.parametrize("claims", [{}, {"publish": []}, {"publish": None}, {"publish": True}, {"publish": [7]}])
async def test_without_a_publish_claim_it_is_403(open_broker: Broker, claims: dict[str, object]) -> None:
    token = open_broker.token("ada", **claims)
    assert refused(open_broker.post(b'{"event":"a.1"}', token=token)) == (403, "not_permitted")


async def test_a_publisher_publishes_what_its_patterns_match_and_nothing_else(open_broker: Broker) -> None:
    token = open_broker.token(publish=["games.*.created", "users.**"])
    async with connected(open_broker, "ada") as client:
        await client.subscribe("games.**", "users.ada.**")
        for name in ("games.1.created", "users.ada.seen", "users.ada.a.b"):
            assert open_broker.post(b'{"event":"%b"}' % name.encode(), token=token).status == 202
        for name in ("games.created", "games.1.deleted", "games.1.created.x", "users", "broker.x", "other"):
            assert open_broker.post(b'{"event":"%b"}' % name.encode(), token=token).status in (400, 403)
        answer = open_broker.post(b'[{"event":"games.2.created"},{"event":"games.2.deleted"}]', token=token)
        assert refused(answer) == (403, "not_permitted")
        assert answer.json["index"] == 1
        assert await client.names() == ["games.1.created", "users.ada.seen", "users.ada.a.b"]


async def test_the_brokers_own_names_are_refused_whatever_the_token_says(open_broker: Broker) -> None:
    token = open_broker.token(publish=["**", "broker.**", "broker.started"])
    async with connected(open_broker, "ada") as client:
        await client.subscribe("broker.started")
        answer = open_broker.post(b'{"event":"broker.started"}', token=token)
        assert answer.status in (400, 403)
        assert await client.events() == []


async def test_a_publisher_need_not_be_a_user(open_broker: Broker) -> None:
    assert open_broker.post(b'{"event":"a.1"}', token=open_broker.token(None, publish=["a.*"])).status == 202


async def test_a_token_in_the_query_serves_publishers_too(open_broker: Broker) -> None:
    path = f"/events?access_token={open_broker.token(publish=['**'])}"
    answer = open_broker.request("POST", path, b'{"event":"a.1"}', Content_Type="application/json")
    assert answer.status == 202


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/xml"},
        {"Content_Type": "application/json; charset=latin-1"},
        {"Content_Type": "application/json", "Content_Encoding": "gzip"},
    ],
)
async def test_another_media_type_is_415(open_broker: Broker, headers: dict[str, str]) -> None:
    bearer = f"Bearer {open_broker.token(publish=['**'])}"
    answer = open_broker.request("POST", "/events", b'{"event":"a.1"}', Authorization=bearer, **headers)
    assert refused(answer) == (415, "unsupported_media_type")


async def test_a_body_beyond_the_bound_is_413_and_one_at_the_bound_is_taken(brokers: Brokers) -> None:
    broker = brokers.start("[connectors.webhook]\nmax_body = 1000\n")
    event = b'{"event":"a.1","data":"%b"}'
    fill = 1000 - len(event % b"")
    assert broker.post(event % (b"x" * fill)).status == 202
    assert refused(broker.post(event % (b"x" * (fill + 1)))) == (413, "body_too_large")
    assert broker.post(b"x" * 3_000_000).status == 413


def head(broker: Broker, **headers: str) -> bytes:
    named = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {broker.token(publish=['**'])}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = ["POST /events HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def ids(raw: Raw) -> list[str]:
    answer, body = await raw.answer()
    assert answer.status == 202, body
    taken: list[str] = json.loads(body)["ids"]
    return taken


async def test_whoever_expects_100_continue_gets_it_before_the_body(open_broker: Broker) -> None:
    body = b'{"event":"a.1"}'
    async with dial(open_broker) as raw:
        await raw.send(head(open_broker, Content_Length=str(len(body)), Expect="100-continue"))
        assert (await raw.head()).status == 100
        await raw.send(body)
        assert len(await ids(raw)) == 1


async def test_whoever_expects_100_continue_is_refused_before_the_body(open_broker: Broker) -> None:
    async with dial(open_broker) as raw:
        await raw.send(head(open_broker, Content_Length="999999999", Expect="100-continue"))
        assert (await raw.answer())[0].status == 413


async def test_chunked_bodies_are_read(open_broker: Broker) -> None:
    body = b'[{"event":"a.1"},{"event":"a.2"}]'
    async with dial(open_broker) as raw:
        for size in (1, 7, 1000):
            await raw.send(head(open_broker, Transfer_Encoding="chunked") + chunked(body, size))
            assert len(await ids(raw)) == 2


async def test_a_chunked_body_beyond_the_bound_is_413(open_broker: Broker) -> None:
    async with dial(open_broker) as raw:
        await raw.send(head(open_broker, Transfer_Encoding="chunked") + chunked(b" " * 1_100_000, 50_000))
        assert (await raw.answer())[0].status == 413


async def test_one_connection_serves_many_requests(open_broker: Broker) -> None:
    body = b'{"event":"a.1"}'
    async with dial(open_broker) as raw:
        for _ in range(20):
            await raw.send(head(open_broker, Content_Length=str(len(body))) + body)
            assert len(await ids(raw)) == 1


async def test_requests_that_are_sent_ahead_are_answered_in_order(open_broker: Broker) -> None:
    mine = [unique("ahead") for _ in range(50)]
    bodies = [b'{"event":"a.1","id":"%b"}' % event_id.encode() for event_id in mine]
    async with connected(open_broker, "ada") as client:
        await client.subscribe("a.1")
        async with dial(open_broker) as raw:
            await raw.send(b"".join(head(open_broker, Content_Length=str(len(body))) + body for body in bodies))
            assert [(await ids(raw))[0] for _ in mine] == mine
        assert len(await client.events()) == 50


async def test_a_refused_event_does_not_cost_the_connection(open_broker: Broker) -> None:
    async with dial(open_broker) as raw:
        for body, status in ((b'{"event":""}', 400), (b'{"event":"a.1"}', 202)):
            await raw.send(head(open_broker, Content_Length=str(len(body))) + body)
            assert (await raw.answer())[0].status == status


@pytest.mark.parametrize("order", [("Content_Length", "Transfer_Encoding"), ("Transfer_Encoding", "Content_Length")])
async def test_a_body_with_two_lengths_is_refused_and_what_follows_is_not_read(
    open_broker: Broker, order: tuple[str, str]
) -> None:
    values = {"Content_Length": "4", "Transfer_Encoding": "chunked"}
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with dial(open_broker) as raw:
        await raw.send(head(open_broker, **{name: values[name] for name in order}) + b"0\r\n\r\n" + smuggled)
        answer, _ = await raw.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await raw.rest() == b""


async def test_a_body_that_ends_too_early_publishes_nothing(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as client:
        await client.subscribe("a.*")
        async with dial(open_broker) as raw:
            await raw.send(head(open_broker, Content_Length="1000") + b'{"event":"a.1"}')
            await raw.stream.send_eof()
            assert (await raw.answer())[0].status == 400
        assert await client.events() == []
