"""From names in the configuration to the objects that they name."""

from __future__ import annotations

from pathlib import Path

from broker.app import Broker, Parts
from broker.config import Config
from broker.core.policy_file import load_policy
from broker.core.ports import Authenticator, Connector, Receiver
from broker.edge.memory_log import MemoryLog
from broker.edge.tokens import build_authenticator
from connectors.stdin import Stdin
from connectors.webhook import Webhook


def build_broker(config: Config) -> Broker:
    """Assemble the broker that `config` describes.

    Raises OperatorError for a policy, a key or a secret that can't be used.
    """
    authenticator = build_authenticator(config.auth)
    log = MemoryLog(
        retain_events=config.log.retain_events,
        retain_seconds=config.log.retain_seconds,
        retain_bytes=config.log.retain_bytes,
    )
    parts = Parts(
        policy=load_policy(Path(config.visibility.policy)),
        authenticator=authenticator,
        log=log,
        connectors=_connectors(config),
        receivers=_receivers(config, authenticator),
    )
    return Broker(config, parts)


def _connectors(config: Config) -> list[Connector]:
    return [Stdin()] if config.connectors.stdin.enabled else []


def _receivers(config: Config, authenticator: Authenticator) -> list[Receiver]:
    webhook = config.connectors.webhook
    if not webhook.enabled:
        return []
    authenticate = config.auth.mode != "none"
    return [Webhook(authenticator, path=webhook.path, max_body=webhook.max_body, authenticate=authenticate)]
