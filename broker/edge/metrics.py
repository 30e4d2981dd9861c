"""Metrics in Prometheus' text format. Numbers are read when somebody asks; counting costs the hot path nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

from broker.core.http import Request, Response, Route

Statistics = Callable[[], Mapping[str, int]]


class Metrics:
    """Answers `GET /metrics`.

    gauges, counters: give the present numbers by name; names become `broker_<name>`, and `_total` for counters.
    """

    def __init__(self, gauges: Statistics, counters: Statistics) -> None:
        self._gauges = gauges
        self._counters = counters
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What `prometheus_client` calls for the numbers."""
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"broker_{name}", f"{name.replace('_', ' ')} now", value=value)
        for name, value in self._counters().items():
            yield CounterMetricFamily(f"broker_{name}", f"{name.replace('_', ' ')} so far", value=value)

    def routes(self) -> list[Route]:
        """What the front end is to send here."""
        return [Route("GET", "/metrics", self._answer)]

    async def _answer(self, _request: Request) -> Response:
        return Response(200, generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST)
