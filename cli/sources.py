"""The publishers that sign what they send: from the configuration, with their secrets read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from broker.config import SourceConfig
from broker.core.permissions import Permission
from broker.edge.secret_file import Warn, read_secret, readable_by_others
from connectors.signatures import Key, Signatures, Source, read_keys

_log = logging.getLogger(__name__)


def build_signatures(
    sources: Mapping[str, SourceConfig], environ: Mapping[str, str], warn: Warn = _log.warning
) -> Signatures:
    """What tells these sources by their signatures.

    Raises OperatorError for a secret that is not there or can't be one, and for one that two sources have in common.
    """
    return Signatures(
        Source(name, source.signature, tuple(_keys(name, source, environ, warn)), Permission(source.events))
        for name, source in sources.items()
    )


def _keys(name: str, source: SourceConfig, environ: Mapping[str, str], warn: Warn) -> Iterator[Key]:
    config_key = f"connectors.webhook.sources.{name}.secret"
    for secret in source.secret:
        yield from read_keys(source.signature, read_secret(secret, config_key, environ), config_key)
        if readable_by_others(secret):
            warn(f"{config_key}: other users may read {secret.file} (chmod 600 it)")
