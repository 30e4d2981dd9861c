"""Server-sent events, by real processes and sockets: what comes, to whom, and from where it goes on."""

from __future__ import annotations

import json
import random
import signal
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from tests.system.certificates import Certificates
from tests.system.client import connected
from tests.system.event_source import (
    EventSource,
    Message,
    Place,
    Retry,
    ask,
    dialled,
    hearing,
    listening,
    request,
)
from tests.system.harness import Broker, Brokers, unique

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def forgetful_broker(shared_brokers: Brokers) -> Broker:
    return shared_brokers.start("[log]\nretain_events = 3\n[websocket]\nheartbeat = 0.1\nmax_subscriptions = 3\n")


# --- What comes ------------------------------------------------------------------------------------------------------


async def test_an_event_comes_as_it_was_published_with_the_id_that_its_publisher_was_told(open_broker: Broker) -> None:
    async with hearing(open_broker, "ada", "sse.*", "sse.**") as source:
        assert 1000 <= source.retry <= 3000
        event_id = open_broker.publish_text("sse.one", b'{"a": 1.50,  "\\u00e9": "\xc3\xa9"}')
        open_broker.publish("other.one")
        assert await source.message() == Message('{"event":"sse.one","data":{"a": 1.50,  "\\u00e9": "é"}}', event_id)
        open_broker.publish_text("sse.two", b'{\r\n"lines":\n[1,\r2]}')
        assert (await source.message()).json == {"event": "sse.two", "data": {"lines": [1, 2]}}


@pytest.mark.parametrize("size", [1_000, 70_000, 900_000])
async def test_large_events_come_whole(open_broker: Broker, size: int) -> None:
    name = unique("large.")
    async with hearing(open_broker, "ada", name) as source:
        for _ in range(3):
            open_broker.publish_text(name, b'"%b"' % (b"x" * size))
            assert await source.data(1) == ["x" * size]


async def test_streams_and_websockets_get_the_same_events_in_the_same_order(open_broker: Broker) -> None:
    async with hearing(open_broker, "ada", "both.*") as source, connected(open_broker, "ada") as socket:
        await socket.subscribe("both.*")
        publish_numbers(open_broker, "both.number", 500)
        assert await source.data(500) == list(range(500))
        assert [(await socket.frame())["data"] for _ in range(500)] == list(range(500))


def publish_numbers(broker: Broker, name: str, total: int) -> None:
    for begin in range(0, total, 20):
        broker.publish_all([(name, json.dumps(number).encode()) for number in range(begin, begin + 20)])


async def test_each_user_hears_what_it_may_see_and_when_it_comes_back_what_it_might_and_may(broker: Broker) -> None:
    group, end = f"groups.{unique('g')}", f"users.{unique('end')}.online"
    at_once = {"ada": ["both", "without bob"], "bob": ["both"], "eve": ["without bob"]}
    async with AsyncExitStack() as stack:
        sources = {user: await stack.enter_async_context(hearing(broker, user, "**")) for user in at_once}
        places = {user: source.last_event_id for user, source in sources.items()}
        broker.publish(f"{group}.created", {"members": ["ada", "bob"]})
        broker.publish(f"{group}.messages.1.created", "both")
        broker.publish(f"{group}.updated", {"members": ["ada", "eve"]})
        broker.publish(f"{group}.messages.2.created", "without bob")
        broker.publish(end)
        assert {user: await messages_up_to(end, source) for user, source in sources.items()} == at_once
    for user, again in {**at_once, "bob": []}.items():
        async with listening(broker, user, "**", after=places[user]) as source:
            assert await messages_up_to(end, source) == again


async def messages_up_to(end: str, source: EventSource) -> list[object]:
    found = []
    while (event := (await source.message()).json)["event"] != end:
        if ".messages." in event["event"]:
            found.append(event["data"])
    return found


async def test_without_users_everybody_hears_what_is_for_everyone(brokers: Brokers) -> None:
    broker = brokers.start('[auth]\nmode = "none"\n')
    async with dialled(broker) as source:
        await source.send(request("a", token="whatever"))
        assert (await source.answer()).status == 200
        await source.place()
        assert (
            broker.request("POST", "/events", b'{"event":"a","data":1}', Content_Type="application/json").status == 202
        )
        assert await source.data(1) == [1]


async def test_over_tls_it_is_the_same(brokers: Brokers, tmp_path: Path) -> None:
    made = Certificates(tmp_path / "certificates")
    made.make("client")
    broker = brokers.start(f'[server.tls]\ncertificate = "{made.server}"\nprivate_key = "{made.server_key}"\n')
    trusted = ssl.create_default_context(cafile=str(made.ca))
    async with listening(broker, "ada", "a.*", tls=trusted) as source:
        place = await source.place()
        for number in range(3):
            await publish_over_tls(broker, trusted, "a.b", "x" * 100_000 + str(number))
        assert [data[100_000:] for data in await source.data(3)] == ["0", "1", "2"]
    async with listening(broker, "ada", "a.*", tls=trusted, after=place) as source:
        assert [data[100_000:] for data in await source.data(3)] == ["0", "1", "2"]
        broker.signal(signal.SIGTERM)
        assert [message.json["code"] for message in await source.rest()] == ["going_away"]


async def publish_over_tls(broker: Broker, trusted: ssl.SSLContext, name: str, data: object) -> None:
    body = json.dumps({"event": name, "data": data}).encode()
    token = broker.token(publish=["**"])
    async with dialled(broker, tls=trusted) as publisher:
        await publisher.send(
            b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (token.encode(), len(body), body)
        )
        assert (await publisher.answer()).status == 202


# --- Requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", ["authHeader", "authToken", "token", "access_token"])
@pytest.mark.parametrize("prefix", ["", "Bearer "])
async def test_a_token_in_the_query_says_who_it_is(broker: Broker, parameter: str, prefix: str) -> None:
    async with dialled(broker) as source:
        asked = request("groups.**", said=prefix + broker.token("ada"))
        await source.send(asked.replace(b"said=", parameter.encode() + b"="))
        assert (await source.answer()).status == 200
        await source.place()
        broker.publish(f"groups.{unique('g')}.created", {"members": ["ada"]})
        assert await source.data(1) == [{"members": ["ada"]}]


async def test_who_shows_no_good_token_is_answered_401(broker: Broker) -> None:
    good, other, expired = broker.token("ada"), broker.token("bob"), broker.token("ada", exp=1)
    for asked, code in {
        request("a"): "missing_token",
        request("a", token="garbage"): "invalid_token",
        request("a", token=good, access_token=other): "invalid_token",
        request("a", token=good, headers=[("Authorization", f"Bearer {other}")]): "invalid_token",
        request("a", token=good, headers=[("Authorization", "Basic YWRhOng=")]): "invalid_token",
        request("a", token=expired): "token_expired",
        request("a", headers=[("Authorization", f"Bearer {expired}")], token=good): "invalid_token",
        request("a", token=broker.token(publish=["**"])): "invalid_token",
    }.items():
        answer = await ask(broker, asked)
        assert (answer.status, answer.json["code"]) == (401, code)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_what_can_t_be_heard_is_answered_before_a_stream_begins(forgetful_broker: Broker) -> None:
    broker = forgetful_broker
    token = broker.token("ada")
    hundred = [f"a.{number}" for number in range(100)]
    for asked, expected in {
        request(token=token): (400, "bad_shape"),
        request("a..b", token=token): (400, "bad_pattern"),
        request("games.<id>", token=token): (400, "bad_pattern"),
        request("a", "b", "c", "d", token=token): (400, "too_many_subscriptions"),
        request(*hundred[:99], token=token): (400, "too_many_subscriptions"),
        request(*hundred, token=token): (400, "bad_request"),
        request("a", token=token, last_event_id="x" * 256): (400, "bad_shape"),
        request("a" * 17_000, token=token): (431, "bad_request"),
        request("a", version="1.0", token=token): (505, "bad_request"),
        request("a", method="PUT", token=token): (405, "bad_request"),
    }.items():
        answer = await ask(broker, asked)
        assert (answer.status, answer.json["code"]) == expected
    async with hearing(broker, "ada", "a", "b", "c", "a"):
        assert broker.metric("broker_subscriptions") == 3


async def test_as_many_patterns_as_a_url_may_have_are_heard(open_broker: Broker) -> None:
    names = [f"hundred.{number}" for number in range(99)]
    async with hearing(open_broker, "ada", *names) as source:
        open_broker.publish_all([(name, b"1") for name in names])
        assert [message.json["event"] for message in await source.messages(99)] == names


async def test_head_tells_whether_one_could_hear(open_broker: Broker) -> None:
    get = open_broker.request("HEAD", "/events?pattern=a", Authorization=f"Bearer {open_broker.token('ada')}")
    assert (get.status, get.body, get.headers["content-type"]) == (200, b"", "text/event-stream")
    assert "content-length" not in get.headers
    assert open_broker.request("HEAD", "/events?pattern=a").status == 401


async def test_what_comes_behind_the_request_is_passed_over(open_broker: Broker) -> None:
    async with dialled(open_broker) as source:
        asked = request("behind", token=open_broker.token("ada"))
        await source.send(asked + asked + b"anything")
        assert (await source.answer()).status == 200
        await source.place()
        await source.send(asked)
        open_broker.publish("behind", 1)
        assert await source.data(1) == [1]


# --- From where it goes on -------------------------------------------------------------------------------------------


async def test_what_was_missed_comes_first_then_the_place_then_what_happens(open_broker: Broker) -> None:
    async with hearing(open_broker, "ada", "again.*") as source:
        first, *_ = [open_broker.publish("again.one", number) for number in range(3)]
        assert (await source.message()).id == first
    async with listening(open_broker, "ada", "again.*", after=first) as source:
        assert isinstance(await source.item(), Retry)
        assert await source.data(2) == [1, 2]
        assert isinstance(await source.item(), Place)
        open_broker.publish("again.one", 3)
        assert await source.data(1) == [3]


@pytest.mark.parametrize("event_id", ["é…", "voilà", "Å", "a b", "☃\u00a0", "😀" * 63])
async def test_ids_that_publishers_choose_are_places_too(open_broker: Broker, event_id: str) -> None:
    chosen = event_id if len(event_id) > 60 else f"{unique('id')} {event_id}"
    name = unique("chosen.")
    body = json.dumps([{"event": name, "data": 1, "id": chosen}, {"event": name, "data": 2}], ensure_ascii=False)
    async with hearing(open_broker, "ada", name) as source:
        assert open_broker.post(body.encode()).json["ids"][0] == chosen
        assert (await source.message()).id == chosen
    async with listening(open_broker, "ada", name, after=chosen) as source:
        assert await source.data(1) == [2]
    answer = request(name, token=open_broker.token("ada"), last_event_id=chosen)
    async with dialled(open_broker) as source:
        await source.send(answer)
        await source.answer()
        assert await source.data(1) == [2]


@pytest.mark.longest(60)
async def test_every_event_comes_once_and_in_order_wherever_and_however_often_the_line_is_cut(
    open_broker: Broker,
) -> None:
    broker = open_broker
    total, cuts = 4000, 0
    chance = random.Random(20)  # whichever; the same each time
    async with hearing(broker, "ada", "numbers.*") as source:
        last = source.last_event_id
    heard: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, publish_numbers, broker, "numbers.next", total)
        while len(heard) < total:
            async with dialled(broker) as source:
                in_query = chance.random() < 0.3
                headers = [("Authorization", f"Bearer {broker.token('ada')}")]
                if in_query:
                    await source.send(request("numbers.*", headers=headers, last_event_id=last))
                else:
                    await source.send(request("numbers.*", headers=[*headers, ("Last-Event-ID", last)]))
                await source.answer()
                left = chance.randrange(1, 15_000)
                while left > 0 and len(heard) < total:
                    left -= await source.read(min(left, chance.randrange(1, 5_000)))
                    heard += [item.json["data"] for item in source.taken() if isinstance(item, Message)]
                last = source.last_event_id or last
                cuts += 1
                if chance.random() < 0.5:
                    source.reset()
    assert heard == list(range(total))
    assert cuts > 20


async def test_what_happened_while_the_broker_was_dead_or_the_client_away_is_made_up_for(brokers: Brokers) -> None:
    broker = brokers.start()
    async with hearing(broker, "ada", "a.*") as source:
        broker.publish("a.b", 0)
        assert await source.data(1) == [0]
        taken = [broker.publish("a.b", number) for number in range(1, 4)]
        brokers.kill(broker)
        with pytest.raises(trio.BrokenResourceError):
            await source.rest()  # which is no proper end
        assert not source.ended
        last = source.last_event_id
    broker = brokers.start_again(broker)
    async with listening(broker, "ada", "a.*", after=last) as source:
        expected = taken[taken.index(last) + 1 :] if last in taken else taken
        assert [message.id for message in await source.messages(len(expected))] == expected
        after = await source.place()
    async with listening(broker, "ada", "a.*", after=after) as source:
        broker.publish("a.b", 4)
        assert await source.data(1) == [4]


async def test_what_the_log_has_dropped_is_told_and_then_there_is_a_place_again(forgetful_broker: Broker) -> None:
    broker = forgetful_broker
    first, *_ = [broker.publish("a.b", number) for number in range(6)]
    async with listening(broker, "ada", "a.*", after=first) as source:
        told = await source.message()
        assert (told.json["code"], told.id) == ("resume_gap", "")
        place = await source.place()
        broker.publish("a.b", 6)
        assert await source.data(1) == [6]
    async with listening(broker, "ada", "a.*", after=place) as source:
        assert await source.data(1) == [6]


async def test_who_hears_nothing_for_long_loses_nothing_when_the_log_moves_on(forgetful_broker: Broker) -> None:
    broker = forgetful_broker
    async with hearing(broker, "ada", "quiet.*") as source:
        begun = source.last_event_id
        for number in range(10):
            broker.publish("noise", number)
        while (last := await source.place()) == begun:
            pass
        last = await source.place()
    broker.publish("quiet.one", 1)
    async with listening(broker, "ada", "quiet.*", after=last) as source:
        assert await source.data(1) == [1]
