"""The configuration, a value: every section a frozen class with its defaults beside the fields.

Units: seconds and bytes throughout. `docs/configuration.md` says what each key means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from broker.config.values import (
    Algorithm,
    AmqpArgument,
    Bytes,
    BytesOrNone,
    CloudEventsName,
    Count,
    EventPattern,
    Label,
    Origin,
    Port,
    PositiveSeconds,
    Prefetch,
    QueueBytes,
    Seconds,
    SecretOrLiteral,
    Secrets,
    SecretSource,
    Subprotocol,
    Text,
    UrlPath,
    UserEvent,
    WholeSeconds,
)

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

    path: Text = ".broker/log.db"
    retain_events: Count = 1_000_000
    retain_seconds: WholeSeconds = 86_400
    retain_bytes: Bytes = 1_073_741_824


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
    """`[presence]`: the events that tell of a user's first connection and, `grace` seconds later, of the last's end.

    Without the table there are such events only beside handlers: to a broker that just hands on the events of others,
    they would be events that nobody has published.
    """

    enabled: bool = True
    online: UserEvent = "users.<userId>.online"
    offline: UserEvent = "users.<userId>.offline"
    grace: Seconds = 5.0


@attrs.frozen(kw_only=True)
class SourceConfig:
    """`[connectors.webhook.sources.NAME]`: one publisher that signs what it sends, with any of its secrets."""

    signature: Literal["standard-webhooks", "github"]
    secret: Secrets
    events: tuple[EventPattern, ...]


@attrs.frozen(kw_only=True)
class WebhookConfig:
    """`[connectors.webhook]`: events over HTTP POST."""

    enabled: bool = True
    path: UrlPath = "/events"
    max_body: Bytes = 1_048_576
    cloudevents_name: CloudEventsName = "type"
    sources: Mapping[Label, SourceConfig] = attrs.field(factory=dict)


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
    arguments: Mapping[str, AmqpArgument] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class AmqpConfig:
    """`[[connectors.amqp]]`: one RabbitMQ queue."""

    name: Label
    url: SecretOrLiteral
    queue: Text
    declare: bool = True
    durable: bool = True
    arguments: Mapping[str, AmqpArgument] = attrs.field(factory=dict)
    prefetch: Prefetch = 256
    bindings: tuple[BindingConfig, ...] = ()
    format: Literal["envelope", "routing_key", "cloudevents"] = "envelope"
    cloudevents_name: CloudEventsName = "type"
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
    presence: PresenceConfig = PresenceConfig(enabled=False)
    connectors: ConnectorsConfig = ConnectorsConfig()
