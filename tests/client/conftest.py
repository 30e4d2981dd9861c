"""For all tests of the client: who is at the other end, and pauses that are not cut by chance."""

from __future__ import annotations

import pytest

from broker.client.session import Live
from tests.client.conversation import Conversation
from tests.client.server import FakeBroker


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> FakeBroker:
    """Whoever connects, connects to this."""
    broker = FakeBroker()
    monkeypatch.setattr("broker.client.socket.open_stream", broker.open_stream)
    monkeypatch.setattr("broker.client.retrying.new_backoff.__defaults__", (lambda: 1.0,))
    return broker


@pytest.fixture
def conversation() -> Conversation:
    """A session that is live."""
    conversation = Conversation()
    assert conversation.connect() == [Live()]
    return conversation
