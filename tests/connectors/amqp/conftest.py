"""For all tests of the client: who is at the other end."""

from __future__ import annotations

import pytest

from tests.connectors.amqp.server import Nodes, Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """Whoever connects, connects to this."""
    server = Server()
    monkeypatch.setattr("connectors.amqp.connection.open_stream", Nodes({"mq": [server]}).open_stream)
    return server
