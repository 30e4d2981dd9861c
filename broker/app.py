"""The broker as a whole: what it is made of, how it runs, and the order in which it stops.

The story is `Broker.run`: nurseries one inside another, so that what feeds ends before what is fed. Sources end
first; then the dispatcher, when it has given out all that came in; then the clients, when they have got it; and last
the log, of which all of them made use.
"""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from broker.config import Config, ServerConfig, WebSocketConfig
from broker.core.errors import Close, FaultyFile, LogUnavailable, OperatorError
from broker.core.health import health_routes
from broker.core.heartbeat import Heartbeat
from broker.core.http import Route
from broker.core.policy import Policy
from broker.core.policy_file import load_policy
from broker.core.ports import Authenticator, Connector, Log, Receiver
from broker.edge.browser import browser_routes
from broker.edge.front import Front, FrontSettings
from broker.edge.listener import open_listeners
from broker.edge.metrics import Metrics
from broker.handlers.attendance import RELATION, Attendance, Witness
from broker.handlers.declaring import Handlers
from broker.handlers.endpoints import build_endpoints
from broker.handlers.hooks import DEFAULT
from broker.handlers.house import House
from broker.handlers.lifespan import Lifespans
from broker.handlers.messages_api import MessagesApi
from broker.runtime.calls import Calls
from broker.runtime.connection import Connection
from broker.runtime.dispatcher import Dispatcher
from broker.runtime.heartbeat import keep_alive
from broker.runtime.ingest import Ingest
from broker.runtime.outbox import Overflow, QueueLimits
from broker.runtime.presence import Presence
from broker.runtime.registry import Registry
from broker.runtime.resuming import Resuming
from broker.runtime.rooms import Rooms
from broker.runtime.services import ConnectionLimits, Endpoint, Services
from broker.runtime.supervision import State, Supervisor

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the broker is given from outside: who knows the tokens, what keeps the events, where they come from."""

    policy: Policy
    authenticator: Authenticator
    log: Log
    connectors: Sequence[Connector] = ()
    receivers: Sequence[Receiver] = ()
    handlers: Sequence[Handlers] = ()


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker serves: a URL for HTTP (`ws` for `http` gives that of the WebSocket), and the port in it."""

    url: str
    port: int


def address_of(server: ServerConfig, port: int) -> Address:
    """The address at which a program on the same machine reaches a broker that listens on `port`."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(server.host, server.host)  # noqa: S104
    shown = f"[{host}]" if ":" in host else host
    return Address(f"{'https' if server.tls else 'http'}://{shown}:{port}", port)


class Broker:
    """One broker, assembled from a configuration and the parts that it names."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._sources = [Supervisor(connector) for connector in parts.connectors]
        self._registry: Registry[Connection] = Registry(
            max_per_user=config.websocket.max_connections_per_user, indexed_claims=parts.policy.claims
        )
        self._ingest = Ingest(config.ingest.queue_size)
        self._log = parts.log
        self._dispatcher = Dispatcher(parts.log, parts.policy, self._registry)
        self._resuming = Resuming(parts.log, self._dispatcher, self._registry)
        self._counters = Counter(policy_reloads=0, policy_reloads_failed=0)
        self._stopping = trio.Event()
        self._calls = Calls()
        self._witness = Witness(parts.handlers, self._calls)
        self._lifespans = Lifespans(each for one in parts.handlers for each in one.lifespans)
        presence = config.presence
        self._attendance = Attendance(self._ingest, presence.online, presence.offline) if presence.enabled else None
        self._presence = Presence(presence.grace, self._announce)
        self._rooms: Rooms[Connection] = Rooms()
        house = self._house = House(self._registry, self._rooms, self._presence, self._ingest, DEFAULT)
        usual = Endpoint(_limits(config.websocket), config.websocket.subprotocols)
        self._endpoints = build_endpoints(
            parts.handlers, (config.websocket.path, usual), house, self._calls, config.handlers.timeout
        )
        self._adopt(parts.policy)
        authenticate = config.auth.mode != "none"
        api = MessagesApi(house, parts.authenticator, config.connectors.webhook.max_body, authenticate=authenticate)
        services = Services(self._registry, parts.authenticator, self._resuming, self._presence)
        self._front = Front(
            _front_settings(config, self._endpoints), services, [*self._routes(parts.receivers), *api.routes()]
        )

    async def run(self, started: Callable[[Address], None]) -> None:
        """Serve until SIGINT or SIGTERM; SIGHUP reads the policy anew. A second SIGINT or SIGTERM ends it at once.

        started: called once, when clients can connect.

        Raises OperatorError where it can't begin to serve.
        """
        with closing(self._log):
            await self._recall()
            server = self._config.server
            tls = (server.tls.certificate, server.tls.private_key) if server.tls else None
            listeners, port = await open_listeners(server.host, server.port, tls)
            address = address_of(server, port)
            failure: OperatorError | None = None
            with trio.open_signal_receiver(*STOP_SIGNALS, signal.SIGHUP) as signals:
                async with trio.open_nursery() as watch:
                    await watch.start(self._resuming.run)
                    watch.start_soon(self._obey, signals, watch.cancel_scope)
                    await watch.start(self._calls.run)
                    watch.start_soon(self._front.watch)
                    watch.start_soon(
                        keep_alive, self._registry, [each.limits.heartbeat for each in self._endpoints.values()]
                    )
                    async with trio.open_nursery() as clients:
                        async with trio.open_nursery() as heart:
                            heart.start_soon(self._dispatcher.run, self._ingest)
                            failure = await watch.start(self._lifespans.run)
                            if failure is None:
                                serve = partial(trio.serve_listeners, self._front.serve, listeners)
                                await self._take_in(partial(serve, handler_nursery=clients), address, started)
                            self._front.stop()
                            self._ingest.close()
                        deadline = clients.cancel_scope.deadline = trio.current_time() + server.shutdown_grace
                        self._bid_farewell()
                    with trio.move_on_at(deadline):
                        await self._calls.finish()
                        await self._lifespans.finish()
                    watch.cancel_scope.cancel()
        if failure is not None:
            raise failure
        logger.info("broker.stopped")

    async def _take_in(
        self, serve: Callable[[], Awaitable[object]], address: Address, started: Callable[[Address], None]
    ) -> None:
        """Let events and clients come, until it is time to stop."""
        async with trio.open_nursery() as sources:
            sources.start_soon(serve)
            sources.start_soon(self._presence.run)
            for source in self._sources:
                sources.start_soon(source.run, self._ingest)
            logger.info("broker.serving", extra={"url": address.url})
            started(address)
            await self._stopping.wait()
            logger.info("broker.stopping", extra={"connections": len(self._registry)})
            sources.cancel_scope.cancel()

    async def _recall(self) -> None:
        try:
            await self._dispatcher.recall()
            self._presence.recall(self._dispatcher.visibility.facts.all_members(RELATION))
        except LogUnavailable as error:
            raise OperatorError(f"log.path: {error}") from error

    def gauges(self) -> Mapping[str, int]:
        """How things are now, by name."""
        registry = self._registry.statistics()
        return {
            "connections": registry.connections,
            "subscriptions": registry.subscriptions,
            "users_online": len(self._presence.online()),
            "rooms": len(self._rooms),
            "calls_waiting": self._calls.waiting(),
            "ingest_waiting_batches": self._ingest.waiting(),
            **{f"log_{name}": value for name, value in self._log.statistics().items()},
            **{f"relation_{name}": value for name, value in self._dispatcher.statistics().items()},
            **{f"{_metric(source)}_running": source.state is State.RUNNING for source in self._sources},
        }

    def counters(self) -> Mapping[str, int]:
        """What has happened so far, by name."""
        connectors = {
            f"{_metric(source)}_{name}": value
            for source in self._sources
            for name, value in source.connector.counters.items()
        }
        failed = sum(source.failures for source in self._sources)
        return {
            **self._dispatcher.counters,
            **self._resuming.counters,
            **self._house.counters,
            **self._counters,
            "connectors_failed": failed,
            **connectors,
        }

    def _routes(self, receivers: Iterable[Receiver]) -> list[Route]:
        routes = health_routes(
            lambda: "stopping" if self._stopping.is_set() else None,
            lambda: {source.connector.name: source.state.value for source in self._sources},
        )
        routes += [*Metrics(self.gauges, self.counters).routes(), *browser_routes()]
        for receiver in receivers:
            routes += receiver.routes(self._ingest)
        return routes

    async def _obey(self, signals: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._reload_policy(self._config.visibility.policy)
            elif self._stopping.is_set():
                logger.warning("broker.stopped_at_once")
                everything.cancel()
            else:
                self._stopping.set()

    def _reload_policy(self, file: Path) -> None:
        try:
            policy = load_policy(file)
        except FaultyFile as error:
            self._counters["policy_reloads_failed"] += 1
            logger.error("policy.refused", extra={"file": str(file), "faults": list(map(str, error.faults))})  # noqa: TRY400
        else:
            self._adopt(policy)
            self._counters["policy_reloads"] += 1
            logger.info("policy.reloaded", extra={"file": str(file), "rules": len(policy.rules)})

    def _adopt(self, policy: Policy) -> None:
        self._dispatcher.adopt(policy.with_relation(self._attendance.relation) if self._attendance else policy)

    async def _announce(self, news: Mapping[str, bool]) -> None:
        if self._attendance:
            await self._attendance.publish(news)
        self._witness.tell(news)

    def _bid_farewell(self) -> None:
        for connection in self._registry:
            connection.close(Close.GOING_AWAY, "the server is stopping")


def _metric(source: Supervisor) -> str:
    return source.connector.name.replace("-", "_")


def _limits(websocket: WebSocketConfig) -> ConnectionLimits:
    queue = QueueLimits(websocket.queue_size, websocket.queue_bytes, Overflow(websocket.overflow))
    heartbeat = Heartbeat(websocket.heartbeat, websocket.heartbeat_timeout)
    return ConnectionLimits(websocket.max_subscriptions, websocket.commands_per_second, queue, heartbeat)


def _front_settings(config: Config, endpoints: Mapping[str, Endpoint]) -> FrontSettings:
    websocket = config.websocket
    return FrontSettings(
        websocket_path=websocket.path,
        subprotocols=websocket.subprotocols,
        allowed_origins=config.server.allowed_origins,
        max_connections=websocket.max_connections,
        max_message_size=websocket.max_message_size,
        compression_threshold=websocket.compression.threshold if websocket.compression.enabled else None,
        authenticate=config.auth.mode != "none",
        reject_unauthenticated=config.auth.on_failure == "reject",
        limits=endpoints[websocket.path].limits,
        endpoints=endpoints,
    )
