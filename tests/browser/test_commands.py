"""Commands: who gets which reply, and what becomes of those that get none."""

from __future__ import annotations

from tests.browser.fake_broker import FakeBroker
from tests.browser.pages import Line, Page
from tests.browser.visits import SHORTEST, back, begun, ending


def failed(name: str, code: str, message: str) -> Line:
    return {"settled": name, "error": {"code": code, "message": message}}


def lost(name: str) -> Line:
    return failed(name, "connection_lost", "the connection ended before the reply came")


async def test_a_command_resolves_with_the_data_of_its_reply(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.command("one", "greet", {"name": "Ada"})
    await page.command("two", "greet")
    one = await visit.expect("greet", {"name": "Ada"})
    two = await visit.expect("greet", None)
    await visit.reply(two, [2])
    await visit.reply(one, None)
    assert await page.told() == {"settled": "two", "value": [2]}
    assert await page.told() == {"settled": "one", "value": None}
    assert await page.timers() == [1000, 30_000]


async def test_a_command_that_is_refused_rejects_with_the_broker_s_code(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.command("one")
    await visit.refuse(await visit.expect("greet", None), "unknown_command")
    assert await page.told() == failed("one", "unknown_command", "there is unknown_command")


async def test_a_command_waits_for_a_connection_and_for_what_was_missed(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.command("one")
    visit = await broker.visit()
    await visit.welcome("here")
    assert await page.told() == {"told": "open"}
    await visit.reply(await visit.expect("greet", None), 1)
    assert await page.told() == {"settled": "one", "value": 1}


async def test_a_command_without_a_reply_in_time_fails_and_a_late_reply_is_nobody_s(
    page: Page, broker: FakeBroker
) -> None:
    visit = await begun(page, broker)
    await page.command("one", timeout=700)
    number = await visit.expect("greet", None)
    await page.fire(700)
    assert await page.told() == failed("one", "timeout", "no reply to greet in 700 ms")
    await visit.refuse(number, "handler_failed")
    await page.command("two")
    await visit.reply(await visit.expect("greet", None), 2)
    assert await page.told() == {"settled": "two", "value": 2}


async def test_a_command_that_waited_too_long_is_never_sent(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.command("one", "first")
    await page.command("two", "second", timeout=700)
    await page.fire(700)
    assert await page.told() == failed("two", "timeout", "no reply to second in 700 ms")
    visit = await broker.visit()
    await visit.welcome("here")
    await visit.expect("first", None)
    await page.do("close")
    assert await visit.ended() == 1000


async def test_a_command_whose_connection_ends_is_not_given_again(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.command("one", "first")
    await visit.expect("first", None)
    await visit.vanish()
    told = [await page.told(), await page.told()]
    assert lost("one") in told
    assert ending(1006, "", SHORTEST) in told
    await page.command("two", "second")
    await page.fire(SHORTEST)
    visit = await broker.visit()
    await visit.welcome("here", since="here")
    await visit.expect("second", None)


async def test_commands_go_out_at_a_pace_that_is_no_flood(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.fire(1000)
    await page.several(*(given(number) for number in range(120)))
    for number in range(50):
        await visit.expect("count", number)
    await page.fire(1000)
    for number in range(50, 100):
        await visit.expect("count", number)
    await page.fire(1000)
    for number in range(100, 120):
        await visit.expect("count", number)
    await page.fire(1000)
    assert 1000 not in await page.timers()


async def test_a_command_that_waited_too_long_for_its_turn_is_never_sent(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.fire(1000)
    await page.several(*(given(number) for number in range(50)))
    await page.command("late", "late", timeout=700)
    await page.command("mark", "mark")
    await page.fire(700)
    assert await page.told() == failed("late", "timeout", "no reply to late in 700 ms")
    await page.fire(1000)
    for number in range(50):
        await visit.expect("count", number)
    await visit.expect("mark", None)


async def test_patterns_are_no_flood_however_many(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    patterns = [f"games.{number}" for number in range(300)]
    await page.several(*({"do": "subscribe", "pattern": pattern, "name": pattern} for pattern in patterns))
    await visit.confirm(*patterns)
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm(*patterns)
    await visit.expect("resume", "here")


async def test_commands_that_did_not_go_out_are_not_lost(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.fire(1000)
    await page.several(*(given(number) for number in range(51)))
    for number in range(50):
        await visit.expect("count", number)
    await visit.vanish()
    told = [await page.told() for _ in range(51)]
    assert all(lost(str(number)) in told for number in range(50))
    assert ending(1006, "", SHORTEST) in told
    await page.fire(SHORTEST)
    visit = await broker.visit()
    await visit.welcome("here", since="here")
    await visit.expect("count", 50)


async def test_only_so_many_commands_may_wait(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.several(*(given(number) for number in range(1001)))
    assert await page.told() == failed("1000", "too_many_commands", "too many wait already")


async def test_what_waits_is_rejected_when_the_client_is_closed(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.command("one")
    await visit.expect("greet", None)
    await page.subscribe("a")
    await page.do("ready", name="a")
    await page.do("close")
    told = [await page.told(), await page.told()]
    assert failed("one", "closed", "the client is closed") in told
    assert failed("a", "closed", "the client is closed") in told
    await page.command("two")
    assert await page.told() == failed("two", "closed", "the client is closed")
    assert await page.timers() == []


async def test_what_waits_is_rejected_when_the_broker_refuses_the_client(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.command("one")
    await page.do("listen", kind="error")
    visit = await broker.visit()
    await visit.close(4001, "a token is needed")
    told = [await page.told() for _ in range(3)]
    assert {line["error"]["code"] for line in told if "settled" in line} == {4001}
    await page.subscribe("a")
    assert (await page.told())["thrown"]["code"] == 4001
    await page.command("two")
    assert (await page.told())["error"]["code"] == 4001


async def test_what_is_no_json_is_not_sent(page: Page, broker: FakeBroker) -> None:
    await begun(page, broker)
    await page.command("one", "greet", {"$bigint": "7"})
    assert "BigInt" in (await page.told())["error"]["message"]
    await page.publish("two", "games.1", {"$bigint": "7"})
    assert "BigInt" in (await page.told())["error"]["message"]


def given(number: int) -> Line:
    return {"do": "command", "event": "count", "data": number, "name": str(number)}
