"""Metrics: what a Prometheus server reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from broker.core.http import Request, Response
from broker.edge.metrics import Metrics


async def no_body(limit: int) -> bytes:
    return b""


async def samples(metrics: Metrics) -> dict[str, float]:
    """What is served: values by name, with the kind of each family before it."""
    (route,) = metrics.routes()
    answer = await route.handler(Request("GET", "/metrics", {}, [], b"1.1", no_body))
    assert isinstance(answer, Response)
    assert answer.status == 200
    families = text_string_to_metric_families(answer.body.decode())
    return {f"{family.type} {sample.name}": sample.value for family in families for sample in family.samples}


async def test_gauges_and_counters_have_the_broker_s_prefix() -> None:
    metrics = Metrics(lambda: {"connections": 3}, lambda: {"events": 7})
    assert await samples(metrics) == {"gauge broker_connections": 3, "counter broker_events_total": 7}


async def test_the_numbers_are_those_of_the_moment() -> None:
    gauges = {"connections": 3}
    metrics = Metrics(lambda: gauges, dict)
    await samples(metrics)
    gauges["connections"] = 4
    gauges["subscriptions"] = 1
    assert await samples(metrics) == {"gauge broker_connections": 4, "gauge broker_subscriptions": 1}


async def test_two_brokers_in_one_process_keep_their_numbers_apart() -> None:
    one, other = Metrics(lambda: {"connections": 1}, dict), Metrics(lambda: {"connections": 2}, dict)
    assert (await samples(one), await samples(other)) == (
        {"gauge broker_connections": 1},
        {"gauge broker_connections": 2},
    )


async def test_the_format_is_prometheus_text() -> None:
    (route,) = Metrics(dict, dict).routes()
    answer = await route.handler(Request("GET", "/metrics", {}, [], b"1.1", no_body))
    assert isinstance(answer, Response)
    assert (route.method, route.path) == ("GET", "/metrics")
    assert answer.content_type.startswith("text/plain; version=")
