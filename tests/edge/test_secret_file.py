"""Secrets in files and in the environment: made once, whole, for their owner only."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.config import AuthConfig, SecretSource
from broker.edge.secret_file import SecretError, generate_if_missing, read_secret
from broker.edge.tokens import build_authenticator, check_keys, issue_token

LONG = "x" * 64


def test_a_secret_is_generated_once_for_its_owner_only(tmp_path: Path) -> None:
    auth = AuthConfig(secret=SecretSource(file=tmp_path / "deep/er/jwt.secret", generate=True))
    warnings: list[str] = []
    made = issue_token(auth, {"sub": "ada"}, 60, {}, warnings.append)
    file = tmp_path / "deep/er/jwt.secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert len(file.read_bytes().strip()) >= 64
    assert [each.name for each in file.parent.iterdir()] == ["jwt.secret"]
    assert build_authenticator(auth, {}, warnings.append).identify(made).user == "ada"
    assert not warnings


def test_all_who_generate_at_once_get_the_same_secret(tmp_path: Path) -> None:
    for attempt in range(20):
        source = SecretSource(file=tmp_path / f"{attempt}/s", generate=True)

        def both(source: SecretSource = source) -> bytes:
            generate_if_missing(source, "auth.secret")
            return read_secret(source, "auth.secret", {})

        with ThreadPoolExecutor(8) as pool:
            secrets = {future.result() for future in [pool.submit(both) for _ in range(8)]}
        assert len(secrets) == 1


def test_without_hard_links_it_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    source = SecretSource(file=tmp_path / "s", generate=True)
    generate_if_missing(source, "auth.secret")
    assert read_secret(source, "auth.secret", {})
    assert [each.name for each in tmp_path.iterdir()] == ["s"]


def test_a_secret_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(LONG)
    source = SecretSource(file=tmp_path / "s", generate=True)
    generate_if_missing(source, "auth.secret")
    assert read_secret(source, "auth.secret", {}) == LONG.encode()


def test_the_line_end_is_not_part_of_a_secret(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(f" {LONG} \r\n")
    assert read_secret(SecretSource(file=tmp_path / "s"), "k", {}) == f" {LONG} ".encode()


def test_a_secret_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "s"
    file.write_text(LONG)
    file.chmod(0o644)
    warnings: list[str] = []
    build_authenticator(AuthConfig(secret=SecretSource(file=file)), {}, warnings.append)
    assert warnings == [f"auth.secret: other users may read {file} (chmod 600 it)"]


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"auth\.secret: there is no file .*generate = true"):
        read_secret(SecretSource(file=tmp_path / "s"), "auth.secret", {})
    with pytest.raises(SecretError, match=r"auth\.jwks: there is no file .*name another"):
        read_secret(SecretSource(file=tmp_path / "s"), "auth.jwks", {})
    with pytest.raises(SecretError, match="the environment variable S is not set"):
        read_secret(SecretSource(env="S"), "auth.secret", {})


def test_what_is_empty_too_large_or_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_bytes(b"x" * 1_048_577)
    for name, message in (("empty", "is empty"), ("large", "more than 1048576 bytes"), ("", "can't be read")):
        with pytest.raises(SecretError, match=message):
            read_secret(SecretSource(file=tmp_path / name), "auth.secret", {})
    with pytest.raises(SecretError, match="S is empty"):
        read_secret(SecretSource(env="S"), "auth.secret", {"S": ""})


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretError, match=r"auth\.secret: .* can't be made"):
        generate_if_missing(SecretSource(file=tmp_path / "file/s", generate=True), "auth.secret")


def test_checking_makes_nothing(tmp_path: Path) -> None:
    auth = AuthConfig(secret=SecretSource(file=tmp_path / "s", generate=True))
    check_keys(auth, {}, print)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SecretError, match="there is no file"):
        check_keys(AuthConfig(secret=SecretSource(file=tmp_path / "s")), {}, print)
