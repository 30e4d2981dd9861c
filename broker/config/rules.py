"""Rules that no single value can keep or break: what belongs together, what excludes each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from broker.config.reading import Problem
from broker.config.schema import (
    AmqpConfig,
    AuthConfig,
    Config,
    HandlersConfig,
    PresenceConfig,
    SourceConfig,
    WebSocketConfig,
)

_OWN_PATHS = ("/healthz", "/readyz", "/metrics", "/client.js", "/client.d.ts")


def check(config: Config) -> list[Problem]:
    """Everything about the configuration as a whole that is wrong."""
    return [
        *_websocket(config.websocket),
        *_auth(config.auth),
        *_paths(config),
        *_handlers(config.handlers),
        *_presence(config.presence),
        *_amqp(config.connectors.amqp),
        *_sources(config.connectors.webhook.sources),
    ]


def _websocket(websocket: WebSocketConfig) -> Iterator[Problem]:
    if websocket.heartbeat > 0 and websocket.heartbeat_timeout <= 0:
        yield Problem(
            ("websocket", "heartbeat_timeout"),
            "must be greater than 0 while there is a heartbeat",
            "say how many seconds to wait for a pong, or write heartbeat = 0",
            also=(("websocket", "heartbeat"),),
        )


def _auth(auth: AuthConfig) -> Iterator[Problem]:
    asymmetric = [name for name in auth.algorithms if not name.startswith("HS")]
    if not auth.algorithms:
        yield Problem(("auth", "algorithms"), "must name at least one algorithm", 'for example ["HS256"]')
    if len(set(auth.algorithms)) != len(auth.algorithms):
        yield Problem(("auth", "algorithms"), "names an algorithm twice", "name each once")
    if asymmetric and auth.public_key is None and auth.jwks is None:
        yield Problem(
            ("auth", "algorithms"),
            f"{', '.join(asymmetric)} needs a public key",
            'set public_key = { file = "…" } or jwks',
        )
    for key in ("public_key", "jwks"):
        source = getattr(auth, key)
        if source is not None and source.generate:
            yield Problem(("auth", key), "a public key can't be generated", "take out generate; name the issuer's key")
        if source is not None and auth.algorithms and not asymmetric:
            hint = 'add one to algorithms, such as "RS256"'
            yield Problem(("auth", key), "none of auth.algorithms uses it", hint, also=(("auth", "algorithms"),))
    if auth.audience == ():
        yield Problem(("auth", "audience"), "must name at least one audience", "or leave the key out")


def _handlers(handlers: HandlersConfig) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, said in enumerate(handlers.modules):
        module, _, attribute = said.partition(":")
        name = f"{module}:{attribute or 'app'}"  # as it is loaded
        if name in seen:
            yield Problem(("handlers", "modules", index), f"names {name} again", "name each once")
        seen.add(name)


def _presence(presence: PresenceConfig) -> Iterator[Problem]:
    if presence.online == presence.offline:
        online, offline = ("presence", "online"), ("presence", "offline")
        # Told of the one that was written down: a default has no line.
        path, other = (online, offline) if presence.offline == PresenceConfig().offline else (offline, online)
        hint = "who comes and who goes must be told apart"
        yield Problem(path, f"is the same as {'.'.join(other)}", hint, also=(other,))


def _amqp(sources: Sequence[AmqpConfig]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, source in enumerate(sources):
        metric = source.name.replace("-", "_")
        if metric in seen:
            yield Problem(("connectors", "amqp", index, "name"), "is the name of another source", "give each its own")
        seen.add(metric)


def _sources(sources: Mapping[str, SourceConfig]) -> Iterator[Problem]:
    for name, source in sources.items():
        path = ("connectors", "webhook", "sources", name)
        if not source.secret:
            yield Problem((*path, "secret"), "must name at least one secret", 'for example { env = "BILLING_SECRET" }')
        if any(secret.generate for secret in source.secret):
            hint = "take out generate; name the one that its sender has"
            yield Problem((*path, "secret"), "the secret of a source can't be generated", hint)
        if not source.events:
            yield Problem((*path, "events"), "must name at least one pattern", 'for example ["billing.**"]')


def _paths(config: Config) -> Iterator[Problem]:
    served = {"websocket": config.websocket.path, "webhook": config.connectors.webhook.path}
    places = {"websocket": ("websocket", "path"), "webhook": ("connectors", "webhook", "path")}
    for name, path in served.items():
        if path in _OWN_PATHS:
            yield Problem(places[name], f"{path} is the broker's own", "choose another path")
    if served["websocket"] == served["webhook"]:
        yield Problem(
            places["webhook"],
            "is the path of the WebSocket too",
            "choose another path for one",
            also=(("websocket", "path"),),
        )
