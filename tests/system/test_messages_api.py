"""Sending over HTTP, by a real broker: one walk through what tests/handlers has in full."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.system.application import Applications, socket
from tests.system.harness import Broker, Brokers, unique

pytestmark = pytest.mark.system


def test_a_message_reaches_every_device_of_a_user(brokers: Brokers) -> None:
    broker = brokers.start()
    user = f"{unique('gr')} ö/ß"
    bearer = f"Bearer {broker.token(publish=['users.*.messages'])}"
    path = f"/users/{quote(user, safe='')}/messages"
    with socket(broker, user=user) as phone, socket(broker, user=user) as laptop:
        answer = broker.request("POST", path, b'{"a": "\xc3\xb6"}', Authorization=bearer)
        assert (answer.status, answer.json) == (202, {"connections": 2})
        assert [json.loads(each.recv(timeout=20)) for each in (phone, laptop)] == [{"a": "ö"}] * 2
        answer = broker.request(
            "POST", path, b"\x00\xff", Authorization=bearer, Content_Type="application/octet-stream"
        )
        assert (answer.status, phone.recv(timeout=20)) == (202, b"\x00\xff")


def test_a_message_reaches_a_room(brokers: Brokers) -> None:
    applications = Applications(brokers.folder)
    broker = applications.start()
    bearer = f"Bearer {broker.token(publish=['rooms.tea.messages'])}"
    with socket(broker) as ada:
        ada.send('{"event": "join.tea", "id": 1}')
        ada.recv(timeout=20)
        answer = broker.request("POST", "/rooms/tea/messages", b"hi", Authorization=bearer, Content_Type="text/plain")
        assert (answer.status, answer.json, ada.recv(timeout=20)) == (202, {"connections": 1}, "hi")
    applications.stop()


@pytest.mark.parametrize(
    ("claims", "path", "body", "status"),
    [
        (None, "/users/ada/messages", b"1", 401),
        ({}, "/users/ada/messages", b"1", 403),
        ({"publish": ["rooms.*.messages"]}, "/users/ada/messages", b"1", 403),
        ({"publish": ["users.*.messages"]}, "/users/ada/messages", b"{", 400),
        ({"publish": ["users.*.messages"]}, "/users/ada/messages", b"NaN", 400),
        ({"publish": ["**"]}, "/users/ada/messages/more", b"1", 404),
        ({"publish": ["**"]}, "/users//messages", b"1", 404),
        ({"publish": ["**"]}, "/rooms/tea", b"1", 404),
        ({"publish": ["**"]}, "/users/ada", b"1", 405),
        ({"publish": ["**"]}, "/users/ada/messages", b"1" * 1_048_577, 413),
    ],
)
def test_what_can_t_be_is_refused(
    broker: Broker, claims: dict[str, object] | None, path: str, body: bytes, status: int
) -> None:
    headers = {} if claims is None else {"Authorization": f"Bearer {broker.token('eve', **claims)}"}
    assert broker.request("POST", path, body, **headers).status == status
