"""The configuration, a value: what there is to set (`schema`), and how it is read and checked (`load`)."""

from broker.config.load import load_config, parse_config
from broker.config.schema import (
    AmqpConfig,
    AuthConfig,
    BindingConfig,
    CompressionConfig,
    Config,
    ConnectorsConfig,
    HandlersConfig,
    IngestConfig,
    LogConfig,
    PresenceConfig,
    ServerConfig,
    SourceConfig,
    StdinConfig,
    TlsConfig,
    VisibilityConfig,
    WebhookConfig,
    WebSocketConfig,
)
from broker.config.values import SecretSource

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
