"""The one port, spoken to in HTTP: what is there, what is not, and heads that are refused."""

from __future__ import annotations

import pytest

from tests.system.harness import Broker, Brokers
from tests.system.raw import dial, upgrade

pytestmark = pytest.mark.system


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/healthz?verbose=1"])
async def test_supervisors_are_told_that_all_is_well(open_broker: Broker, path: str) -> None:
    assert open_broker.request("GET", path).status == 200


async def test_metrics_are_in_prometheus_text_format(open_broker: Broker) -> None:
    answer = open_broker.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"# TYPE broker_connections gauge" in answer.body


async def test_head_is_get_without_the_body(open_broker: Broker) -> None:
    get, head = (open_broker.request(method, "/healthz") for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


@pytest.mark.parametrize("path", ["/nowhere", "/ws/", "/events/", "/healthz/..", "//healthz", "/WS"])
async def test_what_is_not_there_is_404(open_broker: Broker, path: str) -> None:
    assert open_broker.request("GET", path).status == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/events", "GET, POST"),
        ("POST", "/healthz", "GET"),
        ("PUT", "/metrics", "GET"),
    ],
)
async def test_another_method_is_405_and_told_which_are_allowed(
    open_broker: Broker, method: str, path: str, allow: str
) -> None:
    answer = open_broker.request(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


async def test_http_on_the_websockets_path_is_told_to_upgrade(open_broker: Broker) -> None:
    answer = open_broker.request("GET", "/ws")
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")


@pytest.mark.parametrize(
    ("handshake", "status"),
    [
        (upgrade(version="1.0"), 400),
        (upgrade(Connection="keep-alive"), 400),
        (upgrade(Sec_WebSocket_Version="8"), 426),
        (upgrade(Sec_WebSocket_Version=""), 426),
        (upgrade(Sec_WebSocket_Key=""), 400),
        (upgrade(Sec_WebSocket_Key="c2hvcnQ="), 400),
        (upgrade(Sec_WebSocket_Key="not base64 at all!"), 400),
        (upgrade(Content_Length="5"), 400),
        (upgrade(Transfer_Encoding="chunked"), 400),
        (upgrade("/nowhere"), 404),
        (upgrade().replace(b"GET", b"POST"), 400),
        (upgrade(host=""), 400),
    ],
)
async def test_a_bad_handshake_is_refused_and_the_connection_ends(
    open_broker: Broker, handshake: bytes, status: int
) -> None:
    async with dial(open_broker) as raw:
        await raw.send(handshake)
        head, _ = await raw.answer()
        assert head.status == status
        assert await raw.rest() == b""


async def test_a_head_beyond_16_kib_is_refused(open_broker: Broker) -> None:
    async with dial(open_broker) as raw:
        await raw.send(upgrade(X_Fill="x" * 17_000))
        assert (await raw.answer())[0].status == 431
        assert await raw.rest() == b""


async def test_a_head_of_almost_16_kib_is_served(open_broker: Broker) -> None:
    async with dial(open_broker) as raw:
        await raw.send(upgrade(X_Fill="x" * 15_000, Authorization=f"Bearer {open_broker.token('ada')}"))
        assert (await raw.head()).status == 101


async def handshake_status(broker: Broker, host: str, origin: str) -> int:
    async with dial(broker) as raw:
        await raw.send(upgrade(host=host, Origin=origin, Authorization=f"Bearer {broker.token('ada')}"))
        return (await raw.head()).status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("broker.example:8080", "http://broker.example:8080", 101),
        ("broker.example", "https://broker.example", 101),
        ("BROKER.example", "https://broker.EXAMPLE", 101),
        ("broker.example", "", 101),
        ("broker.example", "https://evil.example", 403),
        ("broker.example", "https://broker.example.evil.example", 403),
        ("broker.example:8080", "http://broker.example:9090", 403),
        ("broker.example", "null", 403),
        ("broker.example", "garbage", 403),
    ],
)
async def test_without_a_list_only_pages_of_the_same_host_connect(
    open_broker: Broker, host: str, origin: str, status: int
) -> None:
    assert await handshake_status(open_broker, host, origin) == status


async def test_a_list_of_origins_says_which_pages_connect(brokers: Brokers) -> None:
    broker = brokers.start('[server]\nallowed_origins = ["https://app.example"]\n')
    assert await handshake_status(broker, "broker.example", "https://app.example") == 101
    assert await handshake_status(broker, "broker.example", "") == 101
    assert await handshake_status(broker, "broker.example", "http://app.example") == 403
    assert await handshake_status(broker, "broker.example", "https://broker.example") == 403


async def test_a_star_lets_every_page_connect(brokers: Brokers) -> None:
    broker = brokers.start('[server]\nallowed_origins = ["*"]\n')
    assert await handshake_status(broker, "broker.example", "https://anywhere.example") == 101


async def test_a_foreign_page_may_not_publish_either(open_broker: Broker) -> None:
    answer = open_broker.request(
        "POST",
        "/events",
        b'{"event":"a.1"}',
        Content_Type="application/json",
        Origin="https://evil.example",
        Authorization=f"Bearer {open_broker.token(publish=['**'])}",
    )
    assert answer.status == 403
