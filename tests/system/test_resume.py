"""Resume, by real processes and sockets: what was missed comes first, in order, once; then what happens now."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.system.client import Client, connected
from tests.system.harness import OPEN_POLICY, SHIPPED_CONFIG, SHIPPED_POLICY, Broker, Brokers

pytestmark = pytest.mark.system


async def position(broker: Broker, user: str = "ada") -> str:
    """A place behind all that was published up to now."""
    async with connected(broker, user) as client:
        return str((await client.ask("resume"))["data"]["id"])


async def heard(client: Client, number: int) -> list[Any]:
    return [(await client.frame())["data"] for _ in range(number)]


async def test_without_resume_an_event_has_no_id_and_with_it_the_one_that_its_publisher_was_told(
    broker: Broker,
) -> None:
    async with connected(broker, "ada") as ada:
        await ada.subscribe("users.*.online")
        broker.publish("users.bob.online", 1)
        assert await ada.frame() == {"event": "users.bob.online", "data": 1}
        answer = await ada.ask("resume")
        assert set(answer) == {"reply", "data"}
        assert set(answer["data"]) == {"id"}
        event_id = broker.publish("users.bob.online", 2)
        assert await ada.frame() == {"event": "users.bob.online", "data": 2, "id": event_id}


async def test_what_was_missed_comes_first_then_the_reply_then_what_happens(open_broker: Broker) -> None:
    first = open_broker.publish("replay.one", 1)
    for number in (2, 3, 4):
        open_broker.publish("replay.one", number)
    async with connected(open_broker, "ada") as ada:
        await ada.command("subscribe", "replay.*")
        await ada.command("resume", first, id="back")
        assert await heard(ada, 3) == [2, 3, 4]
        assert (await ada.frame())["reply"] == "back"
        open_broker.publish("replay.one", 5)
        assert await heard(ada, 1) == [5]


async def test_who_was_not_there_resumes_from_the_position_of_a_reply(open_broker: Broker) -> None:
    open_broker.publish("quiet.before")
    place = await position(open_broker)
    event_id = open_broker.publish("quiet.after", 1)
    async with connected(open_broker, "ada") as ada:
        await ada.subscribe("quiet.*")
        await ada.command("resume", place, id=1)
        assert await ada.frame() == {"event": "quiet.after", "data": 1, "id": event_id}


async def test_an_id_that_was_never_given_is_a_gap_and_live_events_go_on(open_broker: Broker) -> None:
    async with connected(open_broker, "ada") as ada:
        await ada.subscribe("gap.*")
        answer = await ada.ask("resume", "nobody gave this")
        assert answer["code"] == "resume_gap"
        open_broker.publish("gap.after", 1)
        assert await heard(ada, 1) == [1]


@pytest.mark.parametrize("data", [1, True, [], {}, "x" * 256])
async def test_what_is_no_id_is_refused(open_broker: Broker, data: object) -> None:
    async with connected(open_broker, "ada") as ada:
        assert (await ada.ask("resume", data))["code"] == "bad_shape"


async def test_what_the_log_has_dropped_is_a_gap(brokers: Brokers) -> None:
    broker = brokers.start("[log]\nretain_events = 3")
    first = broker.publish("a.b", 1)
    for number in range(2, 6):
        broker.publish("a.b", number)
    async with connected(broker, "ada") as ada:
        await ada.subscribe("a.*")
        assert (await ada.ask("resume", first))["code"] == "resume_gap"


async def test_a_position_outlives_the_broker(brokers: Brokers) -> None:
    broker = brokers.start()
    place = await position(broker)
    taken = [broker.publish("a.b", number) for number in range(3)]
    brokers.kill(broker)
    broker = brokers.start_again(broker)
    async with connected(broker, "ada") as ada:
        await ada.subscribe("a.*")
        await ada.command("resume", place, id=1)
        assert [(await ada.frame())["id"] for _ in range(3)] == taken


async def test_only_what_one_might_see_then_and_may_see_now_is_sent_again(brokers: Brokers) -> None:
    broker = brokers.start(SHIPPED_CONFIG, SHIPPED_POLICY)
    place = await position(broker)
    broker.publish("groups.1.created", {"members": ["ada", "bob"]})
    broker.publish("groups.1.messages.1.created", "both")
    broker.publish("groups.1.updated", {"members": ["ada", "eve"]})
    broker.publish("groups.1.messages.2.created", "without bob")
    expected = {"ada": ["both", "without bob"], "bob": [], "eve": ["without bob"]}
    for user, messages in expected.items():
        async with connected(broker, user) as client:
            await client.subscribe("groups.*.messages.**")
            await client.command("resume", place, id=1)
            assert await heard(client, len(messages)) == messages
            assert "reply" in await client.frame()


@pytest.mark.longest(60)
async def test_there_is_no_gap_and_no_repetition_while_events_keep_coming(brokers: Brokers) -> None:
    broker = brokers.start("", OPEN_POLICY)
    place = await position(broker)
    total = 3000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, publish_numbers, broker, total)
        seen = 0
        while seen < total:
            async with connected(broker, "ada") as ada:
                await ada.command("subscribe", "numbers.*")
                await ada.command("resume", place, id=1)
                for _ in range(200):
                    frame = await ada.frame()
                    if "event" in frame and "id" not in frame:  # slipped in before the resume: it comes again
                        continue
                    place = frame["id"] if "id" in frame else frame["data"]["id"]
                    if "event" in frame:
                        assert frame["data"] == seen
                        seen += 1
                    if seen == total:
                        break


def publish_numbers(broker: Broker, total: int) -> None:
    for begin in range(0, total, 20):
        broker.publish_all([("numbers.next", json.dumps(number).encode()) for number in range(begin, begin + 20)])
