"""A page and a broker for each test, and what is done where there can be no page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.browser.fake_broker import FakeBroker, open_fake_broker
from tests.browser.pages import Page, open_page, why_no_page, why_no_ws
from tests.needing import needed


@pytest.fixture(scope="session")
def node() -> None:
    needed(why_no_page())


@pytest.fixture(scope="session")
def ws() -> None:
    needed(why_no_ws())


@pytest.fixture
async def page(ws: None) -> AsyncIterator[Page]:
    async with open_page() as page:
        yield page


@pytest.fixture
async def broker() -> AsyncIterator[FakeBroker]:
    async with open_fake_broker() as broker:
        yield broker
