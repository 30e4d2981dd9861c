"""From names in the configuration to the objects that they name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from broker.app import Broker, Parts
from broker.config import AmqpConfig, Config, LogConfig
from broker.core.policy_file import load_policy
from broker.core.ports import Authenticator, Connector, Log, Receiver
from broker.edge.memory_log import MemoryLog
from broker.edge.retention import Retention
from broker.edge.secret_file import read_secret
from broker.edge.sqlite_log import SqliteLog
from broker.edge.tokens import build_authenticator
from broker.handlers.loading import load_handlers
from cli.sources import build_signatures
from connectors.amqp.reading import reader
from connectors.amqp.source import AmqpSource, SourceSettings
from connectors.amqp.topology import Binding, QueueSettings
from connectors.amqp.url import Address, BadUrl, parse_urls
from connectors.stdin import Stdin
from connectors.webhook import Webhook

IN_MEMORY = ":memory:"  # in the place of a file


def build_broker(config: Config, folder: Path) -> Broker:
    """Assemble the broker that `config` describes. `folder`: where the relative paths in it begin.

    Raises OperatorError for a policy, a key or a secret that can't be used.
    """
    authenticator = build_authenticator(config.auth)
    parts = Parts(
        policy=load_policy(Path(config.visibility.policy)),
        authenticator=authenticator,
        connectors=_connectors(config, folder),
        receivers=_receivers(config, authenticator),
        handlers=load_handlers(config.handlers.modules, folder),
        log=_open_log(config.log, folder),  # after what may be refused: it is open then
    )
    return Broker(config, parts)


def _open_log(config: LogConfig, folder: Path) -> Log:
    retention = Retention(config.retain_events, config.retain_seconds, config.retain_bytes)
    return MemoryLog(retention) if config.path == IN_MEMORY else SqliteLog(folder / config.path, retention)


def _connectors(config: Config, folder: Path) -> list[Connector]:
    sources: list[Connector] = [_amqp_source(source, folder) for source in config.connectors.amqp]
    return [*sources, Stdin()] if config.connectors.stdin.enabled else sources


def _amqp_source(config: AmqpConfig, folder: Path) -> AmqpSource:
    name = f"amqp_{config.name}"
    queue = QueueSettings(
        name=config.queue,
        declare=config.declare,
        durable=config.durable,
        arguments=config.arguments,
        bindings=[Binding(each.exchange, each.type, each.routing_key, each.arguments) for each in config.bindings],
        dead_letter_exchange=config.dead_letter_exchange,
    )
    settings = SourceSettings(name, amqp_addresses(config, folder), queue, config.prefetch)
    return AmqpSource(settings, reader(config.format, name, config.cloudevents_name))


def amqp_addresses(config: AmqpConfig, folder: Path) -> Sequence[Address]:
    """Where a source connects.

    Raises OperatorError for a URL that is not there or is none.
    """
    key = f"connectors.amqp.{config.name}.url"
    url = read_secret(config.url, key, os.environ).decode(errors="replace")
    try:
        return parse_urls(url, folder)
    except BadUrl as error:
        raise BadUrl(f"{key}: {error}") from None


def _receivers(config: Config, authenticator: Authenticator) -> list[Receiver]:
    webhook = config.connectors.webhook
    if not webhook.enabled:
        return []
    return [
        Webhook(
            authenticator,
            path=webhook.path,
            max_body=webhook.max_body,
            authenticate=config.auth.mode != "none",
            signatures=build_signatures(webhook.sources, os.environ),
            cloudevents_name=webhook.cloudevents_name,
        )
    ]
