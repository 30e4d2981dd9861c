"""How a page and a broker get to where most tests begin."""

from __future__ import annotations

from tests.browser.fake_broker import FakeBroker, Visit
from tests.browser.pages import Line, Page

SHORTEST = 250  # milliseconds that the client waits after the first failure, when no random share is taken off


async def begun(page: Page, broker: FakeBroker, *patterns: str, **options: object) -> Visit:
    """A page that has subscribed to these patterns, each under its own name; the broker stands at `here`."""
    await page.connect(broker.url, **options)
    for pattern in patterns:
        await page.subscribe(pattern)
    visit = await broker.visit()
    await visit.welcome("start" if patterns else "here")
    assert await page.told() == {"told": "open"}
    if patterns:
        await visit.confirm(*patterns)
        await visit.welcome("here")
    return visit


async def back(page: Page, broker: FakeBroker) -> Visit:
    """The next connection of a page that has lost the one before without a word."""
    assert await page.told() == ending(1006, "", SHORTEST)
    await page.fire(SHORTEST)
    return await broker.visit()


def handed(name: str, event: str, place: str, data: object = None) -> Line:
    """What a page tells when an event is handed to the handler of this name."""
    return {"handed": name, "event": event, "data": data, "id": place}


def ending(code: int, reason: str, retry_in: float | None) -> Line:
    """What a page tells when a connection has ended."""
    return {"told": "close", "code": code, "reason": reason, "retryIn": retry_in}
