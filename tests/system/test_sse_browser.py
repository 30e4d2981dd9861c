"""Server-sent events and CORS in a real browser: pages of the broker's own origin, and of others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.needing import needed
from tests.system.chromium import Chromium, Tab, open_chromium, why_not
from tests.system.harness import Broker, Brokers, unique

pytestmark = [pytest.mark.system, pytest.mark.longest(90)]

LISTEN = """
const told = [];
const source = new EventSource(URL_OF_EVENTS);
source.onmessage = ({ data, lastEventId }) => told.push([JSON.parse(data), lastEventId]);
"""
FETCH = """
await (async () => {
  const answer = await fetch(TARGET, { method: "POST", body: EVENT, headers: {
    Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json", "Ce-Something": "else" } });
  return [answer.status, Object.keys(await answer.json())];
})().catch((error) => error.name)
"""


@pytest.fixture
async def chromium() -> AsyncIterator[Chromium]:
    needed(why_not())
    async with open_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def public_broker(shared_brokers: Brokers) -> Broker:
    return shared_brokers.start('[server]\nallowed_origins = ["*"]\n')


async def listen(tab: Tab, broker: Broker, pattern: str, token: str | None = None) -> None:
    query = f"pattern={pattern}&token={token or broker.token('ada')}"
    await tab.evaluate(f"const URL_OF_EVENTS = {json.dumps(f'{broker.url}/events?{query}')};{LISTEN}")


async def post(tab: Tab, broker: Broker, token: str) -> object:
    given = {"TARGET": f"{broker.url}/events", "EVENT": json.dumps({"event": "a.b"}), "TOKEN": token}
    constants = "".join(f"globalThis.{name} = {json.dumps(value)};" for name, value in given.items())
    return await tab.evaluate(constants + FETCH)


def elsewhere(broker: Broker) -> str:
    """A page whose origin is another one than that of the broker's URL."""
    return f"http://localhost:{broker.port}/healthz"


async def test_a_page_of_the_same_origin_listens_and_no_other(chromium: Chromium, open_broker: Broker) -> None:
    tab = await chromium.tab(f"{open_broker.url}/healthz")
    name = unique("page.")
    await listen(tab, open_broker, name)
    await tab.until("source.readyState === EventSource.OPEN")
    expected = [[{"event": name, "data": number}, open_broker.publish(name, number)] for number in range(3)]
    await tab.until("told.length >= 3")
    assert await tab.evaluate("told") == expected
    tab = await chromium.tab(elsewhere(open_broker))
    await listen(tab, open_broker, "**")
    await tab.until("source.readyState === EventSource.CLOSED")
    assert await post(tab, open_broker, open_broker.token(publish=["**"])) == "TypeError"


async def test_a_page_of_another_origin_listens_publishes_and_reads_errors_where_it_may(
    chromium: Chromium, public_broker: Broker
) -> None:
    tab = await chromium.tab(elsewhere(public_broker))
    await listen(tab, public_broker, "a.*")
    await tab.until("source.readyState === EventSource.OPEN")
    assert await post(tab, public_broker, public_broker.token(publish=["**"])) == [202, ["ids"]]
    await tab.until("told.length")
    assert await tab.evaluate("told[0][0]") == {"event": "a.b", "data": None}
    assert await post(tab, public_broker, public_broker.token(publish=["c"])) == [403, ["error", "code", "index"]]
    assert await post(tab, public_broker, "garbage") == [401, ["error", "code"]]
