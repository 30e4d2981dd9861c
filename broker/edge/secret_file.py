"""Secrets and keys as bytes: read from a file or the environment, made where the configuration says so."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from broker.config import SecretSource
from broker.core.errors import OperatorError

_RANDOM_BYTES = 64  # enough for the longest hash, HS512
_MAX_BYTES = 1_048_576

Warn = Callable[[str], None]


class SecretError(OperatorError):
    """A secret or a key that is not there, can't be read, or must not be used."""

    def __init__(self, key: str, message: str, remedy: str) -> None:
        super().__init__(f"{key}: {message} ({remedy})")


def read_secret(source: SecretSource, key: str, environ: Mapping[str, str]) -> bytes:
    """The secret's bytes, without the line end that editors put behind it.

    key: what the configuration calls it, for messages.

    Raises SecretError where there is none, or an empty one.
    """
    if source.file is not None:
        value, place = _read(source.file, key), f"the file {source.file}"
    elif source.env is not None:
        if source.env not in environ:
            raise SecretError(key, f"the environment variable {source.env} is not set", "export it before starting")
        value, place = os.fsencode(environ[source.env]), f"the environment variable {source.env}"
    else:
        value, place = (source.literal or "").encode(), "the value"
    value = value.rstrip(b"\r\n")
    if not value:
        raise SecretError(key, f"{place} is empty", "put the secret there, or delete it to have one generated")
    return value


def generate_if_missing(source: SecretSource, key: str) -> None:
    """Make the secret's file if the configuration says so and there is none.

    Several processes may do this at once: the file appears whole, and all of them read the same one.

    Raises SecretError where the file can't be made.
    """
    if source.file is None or not source.generate or source.file.exists():
        return
    try:
        source.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(source.file, secrets.token_urlsafe(_RANDOM_BYTES).encode() + b"\n")
    except OSError as error:
        remedy = "make its folder writable, or name another file"
        raise SecretError(key, f"{source.file} can't be made: {error.strerror}", remedy) from None


def readable_by_others(source: SecretSource) -> bool:
    """Whether other users of this machine may read the secret's file."""
    try:
        return source.file is not None and bool(source.file.stat().st_mode & 0o077)
    except OSError:
        return False


def _read(file: Path, key: str) -> bytes:
    try:
        with file.open("rb") as opened:
            value = opened.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        remedy = "make it, or set generate = true" if key == "auth.secret" else "make it, or name another"
        raise SecretError(key, f"there is no file {file}", remedy) from None
    except OSError as error:
        raise SecretError(key, f"{file} can't be read: {error.strerror}", "mend its permissions") from None
    if len(value) > _MAX_BYTES:
        raise SecretError(key, f"{file} has more than {_MAX_BYTES} bytes", "name a file that holds a key only")
    return value


def _create(file: Path, content: bytes) -> None:
    """Write beside it and link: whoever finds `file` finds all of it, and nobody's is replaced."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    _write_new(draft, content)
    try:
        with suppress(FileExistsError):
            _publish(draft, file, content)
    finally:
        draft.unlink()


def _publish(draft: Path, file: Path, content: bytes) -> None:
    try:
        os.link(draft, file)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        _write_new(file, content)


def _write_new(file: Path, content: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
