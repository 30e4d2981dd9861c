"""The client loses connections and nothing else: what it says on each, and what it hands out."""

from __future__ import annotations

from contextlib import suppress

from trio_websocket import ConnectionClosed

from tests.browser.fake_broker import FakeBroker
from tests.browser.pages import Page
from tests.browser.visits import SHORTEST, back, begun, ending, handed


async def test_the_first_connection_asks_for_a_position_before_it_subscribes(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.subscribe("games.*", "games")
    visit = await broker.visit()
    assert (visit.path, visit.query) == ("/ws", {})
    await visit.welcome("start", since=None)
    await visit.confirm("games.*")
    await visit.welcome("here", since=None)
    assert await page.told() == {"told": "open"}


async def test_events_are_handed_out_as_they_come(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "games.*")
    await visit.event("games.1", "p1", {"name": "Blitz"})
    await visit.event("games.2", "p2", [1, "é", None])
    assert await page.told() == handed("games.*", "games.1", "p1", {"name": "Blitz"})
    assert await page.told() == handed("games.*", "games.2", "p2", [1, "é", None])


async def test_an_event_comes_once_to_each_subscription_that_it_matches(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "games.*", "**", "users.*")
    await page.subscribe("**", "the same again")
    await visit.event("games.1", "p1")
    await visit.event("users.1", "p2")
    assert [(await page.told())["handed"] for _ in range(6)] == [
        *("games.*", "**", "the same again"),
        *("**", "the same again", "users.*"),
    ]


async def test_after_a_loss_it_subscribes_and_resumes_behind_the_last_event(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "a.*", "b.*")
    await visit.event("a.1", "p1")
    assert await page.told() == handed("a.*", "a.1", "p1")
    await visit.vanish()
    visit = await back(page, broker)
    subscribed = [await visit.expect("subscribe", "a.*"), await visit.expect("subscribe", "b.*")]
    resumed = await visit.expect("resume", "p1")
    for number in subscribed:
        await visit.reply(number, {})
    await visit.event("b.1", None)  # slips in between, and comes again in its place
    await visit.event("a.2", "p2")
    await visit.event("b.1", "p3")
    await visit.reply(resumed, {"id": "p3"})
    assert await page.told() == handed("a.*", "a.2", "p2")
    assert await page.told() == handed("b.*", "b.1", "p3")
    assert await page.told() == {"told": "open"}


async def test_a_position_that_the_broker_names_later_counts(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "**")
    await visit.event("a", "p1")
    assert await page.told() == handed("**", "a", "p1")
    await page.fire(30_000)
    await visit.welcome("p7", since=None)
    await visit.event("b", "p8")  # not to be handed out twice, so it has to be behind the answer
    assert await page.told() == handed("**", "b", "p8")
    await page.fire(10_000)
    await page.fire(30_000)
    await visit.welcome("p9", since=None)
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("**")
    await visit.welcome("p9", since="p9")
    assert await page.told() == {"told": "open"}


async def test_a_loss_in_the_middle_of_a_replay_is_resumed_from_there(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "**")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("**")
    await visit.expect("resume", "here")
    await visit.event("a", "p1")
    assert await page.told() == handed("**", "a", "p1")
    await visit.vanish()
    assert await page.told() == ending(1006, "", 2 * SHORTEST)
    await page.fire(2 * SHORTEST)
    visit = await broker.visit()
    await visit.confirm("**")
    await visit.welcome("p1", since="p1")


async def test_many_subscriptions_of_one_turn_ask_for_one_position(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    patterns = [f"games.{number}" for number in range(200)]
    await page.several(*({"do": "subscribe", "pattern": pattern, "name": pattern} for pattern in patterns))
    await visit.confirm(*patterns)
    await visit.welcome("there", since=None)
    await page.do("close")
    assert await visit.ended() == 1000


async def test_what_is_subscribed_while_a_position_is_asked_for_asks_again(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.subscribe("a")
    await visit.confirm("a")
    asked = await visit.expect("resume", None)
    await page.subscribe("b")
    await visit.confirm("b")
    await page.command("mark", "mark")
    await visit.expect("mark", None)  # and no second `resume` before, which would be refused
    await visit.reply(asked, {"id": "p1"})
    await visit.welcome("p2", since=None)
    await page.do("close")
    assert await visit.ended() == 1000


async def test_what_is_subscribed_during_a_replay_begins_behind_it(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "a.*")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("a.*")
    resumed = await visit.expect("resume", "here")
    await page.subscribe("b.*")
    await visit.event("a.1", "p1")
    assert await page.told() == handed("a.*", "a.1", "p1")
    await visit.reply(resumed, {"id": "p1"})
    assert await page.told() == {"told": "open"}
    await visit.confirm("b.*")
    await visit.welcome("p1", since=None)


async def test_a_subscription_begins_when_the_broker_confirms_it(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "**")
    await page.subscribe("games.*", "games")
    await page.do("ready", name="games")
    number = await visit.expect("subscribe", "games.*")
    await visit.event("games.1", "p1")
    assert await page.told() == handed("**", "games.1", "p1")
    await visit.reply(number, {"pattern": "games.*"})
    await visit.event("games.2", "p2")
    told = [await page.told() for _ in range(3)]
    assert {"settled": "games"} in told
    assert [line for line in told if "handed" in line] == [
        handed("**", "games.2", "p2"),
        handed("games", "games.2", "p2"),
    ]


async def test_what_was_not_confirmed_is_no_part_of_what_is_resumed(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "a")
    await page.subscribe("b")
    await visit.expect("subscribe", "b")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("a")
    await visit.welcome("p1", since="here")
    await visit.confirm("b")
    await visit.welcome("p2", since=None)


async def test_a_gap_is_told_and_events_go_on(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "**")
    await page.do("listen", kind="gap")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("**")
    await visit.refuse(await visit.expect("resume", "here"), "resume_gap")
    told = await page.told()
    assert (told["told"], told["code"], told["fatal"]) == ("gap", "resume_gap", False)
    assert await page.told() == {"told": "open"}
    await visit.event("a", "p9")
    assert await page.told() == handed("**", "a", "p9")
    await visit.welcome("p10", since=None)


async def test_a_gap_that_is_not_left_behind_yet_is_a_gap_again(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.do("listen", kind="gap")
    for pause in (SHORTEST, 2 * SHORTEST):
        await visit.vanish()
        assert await page.told() == ending(1006, "", pause)
        await page.fire(pause)
        visit = await broker.visit()
        await visit.refuse(await visit.expect("resume", "here"), "resume_gap")
        assert (await page.told())["told"] == "gap"
        assert await page.told() == {"told": "open"}
        await visit.expect("resume", None)


async def test_a_gap_that_nobody_listens_to_is_seen_on_the_console(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.do("listenInVain", kind="gap")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.refuse(await visit.expect("resume", "here"), "resume_gap")
    assert await page.told() == {"warned": "broker: gap: there is resume_gap"}


async def test_a_log_that_cannot_be_read_is_asked_again_from_the_same_place(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "**")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("**")
    await visit.refuse(await visit.expect("resume", "here"), "log_unavailable")
    with suppress(ConnectionClosed):  # it may have gone already
        await visit.event("late", "p5")  # live events go on behind the answer, but not without what is missing
    assert await page.told() == ending(1006, "there is log_unavailable", 2 * SHORTEST)
    await page.fire(2 * SHORTEST)
    visit = await broker.visit()
    await visit.confirm("**")
    resumed = await visit.expect("resume", "here")
    await visit.event("early", "p4")
    await visit.reply(resumed, {"id": "p5"})
    assert await page.told() == handed("**", "early", "p4")


async def test_a_position_that_cannot_be_had_now_is_asked_for_later(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "**")
    await page.fire(30_000)
    await visit.refuse(await visit.expect("resume", None), "log_unavailable")
    await visit.event("a", "p1")
    assert await page.told() == handed("**", "a", "p1")
    await page.fire(10_000)
    await page.fire(30_000)
    await visit.welcome("p2", since=None)


async def test_a_sign_of_life_may_be_asked_for_in_the_middle_of_a_replay(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "**")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("**")
    resumed = await visit.expect("resume", "here")
    await page.fire(30_000)
    await visit.refuse(await visit.expect("resume", None), "resume_in_progress")
    await visit.event("a", "p1")
    assert await page.told() == handed("**", "a", "p1")
    await page.fire(10_000)
    await visit.reply(resumed, {"id": "p1"})
    assert await page.told() == {"told": "open"}


async def test_unsubscribing_is_told_to_the_broker_when_nobody_else_holds_the_pattern(
    page: Page, broker: FakeBroker
) -> None:
    visit = await begun(page, broker, "a.*")
    await page.subscribe("a.*", "second")
    await page.do("unsubscribe", name="a.*")
    await page.do("unsubscribe", name="a.*")
    await visit.event("a.1", "p1")
    assert await page.told() == handed("second", "a.1", "p1")
    await page.do("unsubscribe", name="second")
    await visit.expect("unsubscribe", "a.*")
    await visit.event("a.2", "p2")  # was on its way already
    await page.subscribe("**", "third")
    await visit.confirm("**")
    await visit.event("a.3", "p3")
    assert await page.told() == handed("third", "a.3", "p3")


async def test_a_pattern_that_goes_and_comes_in_one_turn_begins_anew(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "a")
    await page.several({"do": "unsubscribe", "name": "a"}, {"do": "subscribe", "pattern": "a", "name": "again"})
    await visit.expect("unsubscribe", "a")
    await visit.confirm("a")
    await visit.event("a", "p1")
    assert await page.told() == handed("again", "a", "p1")


async def test_a_subscription_that_ends_while_there_is_no_connection_is_not_resumed(
    page: Page, broker: FakeBroker
) -> None:
    visit = await begun(page, broker, "a", "b")
    await visit.vanish()
    assert (await page.told())["told"] == "close"
    await page.do("unsubscribe", name="a")
    await page.fire(SHORTEST)
    visit = await broker.visit()
    await visit.confirm("b")
    await visit.welcome("p1", since="here")


async def test_a_subscription_that_ends_during_a_replay_is_taken_back_behind_it(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker, "a")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("a")
    resumed = await visit.expect("resume", "here")
    await page.do("unsubscribe", name="a")
    await page.do("ready", name="a")
    assert await page.told() == {"settled": "a"}
    await visit.event("a", "p1")
    await visit.reply(resumed, {"id": "p1"})
    assert await page.told() == {"told": "open"}
    await visit.expect("unsubscribe", "a")


async def test_a_pattern_that_is_none_is_told_and_not_asked_for_again(page: Page, broker: FakeBroker) -> None:
    visit = await begun(page, broker)
    await page.do("listen", kind="error")
    await page.subscribe("a..b", "bad")
    await page.do("ready", name="bad")
    await visit.refuse(await visit.expect("subscribe", "a..b"), "bad_pattern")
    told = [await page.told(), await page.told()]
    assert {"settled": "bad", "error": {"code": "bad_pattern", "message": "there is bad_pattern"}} in told
    error = next(line for line in told if "told" in line)
    assert (error["code"], error["pattern"], error["fatal"]) == ("bad_pattern", "a..b", False)
    await visit.welcome("here")
    await page.subscribe("good")
    await visit.confirm("good")
    await visit.welcome("here")
    await visit.vanish()
    visit = await back(page, broker)
    await visit.confirm("good")
    await visit.welcome("here", since="here")


async def test_a_handler_that_fails_harms_nobody_and_is_not_passed_over(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.subscribe("*", "the first", handler="throw")
    await page.subscribe("**", "the second")
    visit = await broker.visit()
    await visit.welcome("start")
    assert await page.told() == {"told": "open"}
    await visit.confirm("*", "**")
    await visit.event("a", "p1")
    assert await page.told() == handed("the second", "a", "p1")
    assert await page.told() == {"uncaught": "the first has a fault"}
    await visit.event("b", "p2")
    assert await page.told() == handed("the second", "b", "p2")


async def test_a_handler_may_end_the_subscriptions_behind_it(page: Page, broker: FakeBroker) -> None:
    await page.connect(broker.url)
    await page.subscribe("*", "the first", handler="unsubscribeAll")
    await page.subscribe("*", "the second")
    await page.subscribe("**", "the third")
    visit = await broker.visit()
    await visit.welcome("start")
    assert await page.told() == {"told": "open"}
    await visit.confirm("*", "**")
    await visit.expect("resume", None)
    await visit.event("a", "p1")
    await visit.expect("unsubscribe", "*")
    await visit.expect("unsubscribe", "**")
    assert await page.timers() == [1000, 30_000]  # and nothing was handed out
