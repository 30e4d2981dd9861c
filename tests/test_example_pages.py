"""The pages of the examples that have handlers, in a real browser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from examples.showing import Shown, shown
from tests.needing import needed
from tests.system.chromium import Chromium, Tab, open_chromium, why_not
from tests.test_example_applications import ROOT, token

pytestmark = pytest.mark.system


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Iterator[Shown]:
    """The one that the test names."""
    with shown(ROOT / "examples" / request.param) as app:
        yield app


@pytest.fixture
async def chromium() -> AsyncIterator[Chromium]:
    needed(why_not())
    async with open_chromium() as chromium:
        yield chromium


@pytest.mark.parametrize("example", ["chat"], indirect=True)
async def test_two_people_chat_in_their_browsers(example: Shown, chromium: Chromium) -> None:
    ada = await chromium.tab(f"{example.link}#{token(example, sub='ada')}")
    await ada.until('find("connection").textContent === "in the lobby"')
    bob = await chromium.tab(f"{example.link}#{token(example, sub='bob')}")
    await ada.until('online.has("bob") && find("said").innerText.includes("bob has entered")')
    await say(bob, "", "hello <b>Ada</b>")
    await ada.until('find("said").innerText.includes("bob: hello <b>Ada</b>")')
    await say(ada, "bob", "only you")
    for tab in (ada, bob):
        await tab.until('find("said").innerText.includes("ada to bob: only you")')
    await bob.evaluate("socket.close(1000)")  # the page connects again by itself
    await ada.until('find("said").innerText.includes("bob has left")')
    await bob.until('find("said").innerText.includes("bob: hello")')  # what was said last is there again
    assert ada.complaints == bob.complaints == []


async def say(tab: Tab, to: str, text: str) -> None:
    """As if it were typed in and sent off."""
    fill = f'find("to").value = {json.dumps(to)}; find("text").value = {json.dumps(text)};'
    await tab.evaluate(fill + 'find("say").requestSubmit()')


@pytest.mark.parametrize("example", ["game_lobby"], indirect=True)
async def test_two_people_play_in_their_browsers(example: Shown, chromium: Chromium) -> None:
    ada, bob = await chromium.tab(example.link), await chromium.tab(example.link)
    for tab, name in ((ada, "Ada"), (bob, "Bob")):
        await tab.evaluate(f'find("name").value = "{name}"; find("enter").requestSubmit()')
        await click(tab, "table-1", "Sit down")
    for tab, move in ((ada, "rock"), (bob, "paper")):
        await tab.until('document.querySelector("#table-1 h2").textContent === "Table 1: Ada and Bob"')
        await click(tab, "table-1", move)
    for tab in (ada, bob):
        await tab.until('find("table-1").innerText.includes("Ada: rock, Bob: paper. Bob wins.")')
    await ada.evaluate("socket.onclose = null; socket.close(1000)")
    await bob.until('find("news").innerText.includes("Ada has gone (1000)")')
    await bob.until('find("table-1").innerText.includes("Table 1: Bob")')
    assert ada.complaints == bob.complaints == []


async def click(tab: Tab, place: str, text: str) -> None:
    """Press the button with this text, as soon as it can be pressed."""
    button = f'[...document.querySelectorAll("#{place} button")].find((each) => each.textContent === "{text}")'
    await tab.until(f"{button}?.disabled === false")
    await tab.evaluate(f"{button}.click()")


@pytest.mark.parametrize("example", ["channels"], indirect=True)
async def test_a_page_shows_what_its_user_may_do_on_a_channel(example: Shown, chromium: Chromium) -> None:
    ada = await chromium.tab(f"{example.link}#{token(example, sub='ada', teams=['red'])}")
    await ada.until('find("connection").textContent === "at teams.red.desks.news"')
    await post(ada, "", "hello")
    await ada.until('find("seen").innerText === "ada: hello"')
    await post(ada, "ada", "how are you?")
    await ada.until('find("seen").innerText.includes("ada asks you: how are you?")')
    await ada.evaluate('find("team").value = "green"; find("team").onchange()')
    await ada.until('find("seen").innerText === "you may not be on teams.green.desks.news"')
    assert ada.complaints == []


async def post(tab: Tab, whom: str, text: str) -> None:
    """As if it were typed in and sent off."""
    fill = f"find('post').whom.value = {json.dumps(whom)}; find('post').text.value = {json.dumps(text)};"
    await tab.evaluate(f"{fill} find('post').requestSubmit()")
