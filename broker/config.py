"""The configuration, a value: every section a frozen class with its defaults beside the fields.

Units: seconds and bytes throughout. `docs/configuration.md` says what each key means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from broker import config_environ, config_reading, config_rules
from broker.config_reading import Problem
from broker.config_values import (
    Algorithm,
    Bytes,
    BytesOrNone,
    Count,
    EventPattern,
    Origin,
    Port,
    PositiveSeconds,
    Prefetch,
    QueueBytes,
    Seconds,
    SecretOrLiteral,
    SecretSource,
    Subprotocol,
    Text,
    UrlPath,
    UserEvent,
    WholeSeconds,
)
from broker.core import toml
from broker.core.errors import Fault, FaultyFile

__all__ = [
    "AmqpConfig",
    "AuthConfig",
    "BindingConfig",
    "CompressionConfig",
    "Config",
    "ConnectorsConfig",
    "HandlersConfig",
    "IngestConfig",
    "LogConfig",
    "PresenceConfig",
    "SecretSource",
    "ServerConfig",
    "SourceConfig",
    "StdinConfig",
    "TlsConfig",
    "VisibilityConfig",
    "WebSocketConfig",
    "WebhookConfig",
    "load_config",
    "parse_config",
]

_JWT_SECRET = SecretSource(file=Path(".broker/jwt.secret"), generate=True)


@attrs.frozen(kw_only=True)
class TlsConfig:
    """`[server.tls]`: certificate chain and private key, both PEM files."""

    certificate: Path
    private_key: Path


@attrs.frozen(kw_only=True)
class ServerConfig:
    """`[server]`: where the broker listens and how it stops."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    allowed_origins: tuple[Origin, ...] = ()
    shutdown_grace: Seconds = 10.0
    tls: TlsConfig | None = None


@attrs.frozen(kw_only=True)
class CompressionConfig:
    """`[websocket.compression]`: permessage-deflate, for messages of at least `threshold` bytes."""

    enabled: bool = True
    threshold: BytesOrNone = 1024


@attrs.frozen(kw_only=True)
class WebSocketConfig:
    """`[websocket]`: one client's path, bounds and heartbeat."""

    path: UrlPath = "/ws"
    subprotocols: tuple[Subprotocol, ...] = ()
    queue_size: Count = 1024
    queue_bytes: QueueBytes = 1_048_576
    overflow: Literal["disconnect", "drop_oldest", "drop_newest", "latest"] = "disconnect"
    heartbeat: Seconds = 30.0
    heartbeat_timeout: Seconds = 10.0
    max_message_size: Bytes = 65_536
    max_subscriptions: Count = 1000
    max_connections: Count = 20_000
    max_connections_per_user: Count = 100
    commands_per_second: Count = 100
    compression: CompressionConfig = CompressionConfig()


@attrs.frozen(kw_only=True)
class AuthConfig:
    """`[auth]`: whose tokens count, and by which keys."""

    mode: Literal["jwt", "none"] = "jwt"
    algorithms: tuple[Algorithm, ...] = ("HS256",)
    secret: SecretSource = _JWT_SECRET
    public_key: SecretSource | None = None
    jwks: SecretSource | None = None
    user_claim: Text = "sub"
    audience: Text | tuple[Text, ...] | None = None
    issuer: Text | None = None
    leeway: Seconds = 0.0
    on_failure: Literal["close", "reject"] = "close"


@attrs.frozen(kw_only=True)
class VisibilityConfig:
    """`[visibility]`: the policy file."""

    policy: Path = Path("policy.toml")


@attrs.frozen(kw_only=True)
class LogConfig:
    """`[log]`: where accepted events are kept, and how much of them."""

    path: Text = ":memory:"
    retain_events: Count = 1_000_000
    retain_seconds: WholeSeconds = 86_400
    retain_bytes: Bytes = 268_435_456


@attrs.frozen(kw_only=True)
class IngestConfig:
    """`[ingest]`: how many batches may wait at the one door before it makes its sources wait."""

    queue_size: Count = 1024


@attrs.frozen(kw_only=True)
class HandlersConfig:
    """`[handlers]`: the application's modules, and how long one handler may take."""

    modules: tuple[Text, ...] = ()
    timeout: PositiveSeconds = 30.0


@attrs.frozen(kw_only=True)
class PresenceConfig:
    """`[presence]`: the events that tell of a user's first connection and of the end of the last."""

    online: UserEvent = "users.<userId>.online"
    offline: UserEvent = "users.<userId>.offline"


@attrs.frozen(kw_only=True)
class SourceConfig:
    """`[connectors.webhook.sources.NAME]`: one publisher that signs what it sends."""

    signature: Literal["standard-webhooks", "github"]
    secret: SecretSource
    events: tuple[EventPattern, ...]


@attrs.frozen(kw_only=True)
class WebhookConfig:
    """`[connectors.webhook]`: events over HTTP POST."""

    enabled: bool = True
    path: UrlPath = "/events"
    max_body: Bytes = 1_048_576
    sources: Mapping[str, SourceConfig] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class StdinConfig:
    """`[connectors.stdin]`: one event a line on standard input."""

    enabled: bool = False


@attrs.frozen(kw_only=True)
class BindingConfig:
    """One binding of a RabbitMQ queue to an exchange."""

    exchange: Text
    type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    routing_key: str = "#"


@attrs.frozen(kw_only=True)
class AmqpConfig:
    """`[[connectors.amqp]]`: one RabbitMQ queue."""

    name: Text
    url: SecretOrLiteral
    queue: Text
    declare: bool = True
    durable: bool = True
    prefetch: Prefetch = 256
    bindings: tuple[BindingConfig, ...] = ()
    format: Literal["envelope", "routing_key", "cloudevents"] = "envelope"
    dead_letter_exchange: Text | None = None


@attrs.frozen(kw_only=True)
class ConnectorsConfig:
    """`[connectors]`: where events come from."""

    webhook: WebhookConfig = WebhookConfig()
    stdin: StdinConfig = StdinConfig()
    amqp: tuple[AmqpConfig, ...] = ()


@attrs.frozen(kw_only=True)
class Config:
    """The whole of `config.toml`."""

    server: ServerConfig = ServerConfig()
    websocket: WebSocketConfig = WebSocketConfig()
    auth: AuthConfig = AuthConfig()
    visibility: VisibilityConfig = VisibilityConfig()
    log: LogConfig = LogConfig()
    ingest: IngestConfig = IngestConfig()
    handlers: HandlersConfig = HandlersConfig()
    presence: PresenceConfig = PresenceConfig()
    connectors: ConnectorsConfig = ConnectorsConfig()


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read the configuration file at `path`, and what `environ` overrides of it.

    Raises FaultyFile with every fault at once, also where there is no such file.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise FaultyFile(
            str(path), [Fault("", "there is no such file", hint="`broker config init` writes one")]
        ) from None
    except UnicodeDecodeError as error:
        raise FaultyFile(
            str(path), [Fault("", f"is not UTF-8, at byte {error.start}", hint="save it as UTF-8")]
        ) from None
    except OSError as error:
        raise FaultyFile(str(path), [Fault("", f"can't be read: {error.strerror}")]) from None
    return parse_config(text, str(path), path.absolute().parent, environ)


def parse_config(text: str, file: str, folder: Path, environ: Mapping[str, str]) -> Config:
    """Read configuration from `text`; `file` names it in faults, relative paths are taken from `folder`.

    Raises FaultyFile with every fault at once.
    """
    document = toml.parse(text, file)
    overridden = config_environ.override(document.data, Config, environ)
    refused = config_rules.not_in_this_release(overridden.data)
    config, misread = config_reading.structure(overridden.data, Config)
    problems = overridden.problems + refused + [problem for problem in misread if not _beneath(problem, refused)]
    spoiled = {problem.key for problem in problems}
    problems += [problem for problem in config_rules.check(config) if not spoiled & {problem.key, *problem.also}]
    if problems:
        raise FaultyFile(file, [_fault(problem, document, overridden.origins) for problem in problems])
    return config_reading.resolve(config, folder)


def _beneath(problem: Problem, others: list[Problem]) -> bool:
    return any(problem.path[: len(other.path)] == other.path for other in others)


def _fault(problem: Problem, document: toml.Document, origins: Mapping[toml.Path, str]) -> Fault:
    for end in range(len(problem.path), 0, -1):
        variable = origins.get(problem.path[:end])
        if variable is not None:
            return Fault(variable, problem.message, None, problem.hint)
    return Fault(toml.show_path(problem.path), problem.message, document.line(problem.path), problem.hint)
