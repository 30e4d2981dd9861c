"""Which broker a command speaks to, and as whom."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from broker.config import load_config
from broker.core.errors import OperatorError
from broker.edge.tokens import build_authenticator
from cli.target import Target, find_target

CLAIMS = {"sub": "ada"}
NOWHERE = Path("no/such/config.toml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text('default = "everyone"\n')
    return tmp_path


def configured(folder: Path, text: str) -> Path:
    (folder / "config.toml").write_text(text)
    return folder / "config.toml"


def shown(target: Target) -> str:
    return target.url.geturl()


def refused(
    capsys: pytest.CaptureFixture[str], url: str | None, token: str | None = "t", config: Path = NOWHERE
) -> str:
    """What is said to somebody who used it wrongly."""
    with pytest.raises(typer.Exit) as ended:
        find_target(url, token, config, CLAIMS)
    assert ended.value.exit_code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("http://b:1", "http://b:1"),
        ("https://b", "https://b"),
        ("ws://b:1", "http://b:1"),
        ("wss://b", "https://b"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://bücher.example", "http://bücher.example"),
    ],
)
def test_a_url_may_be_that_of_http_or_of_the_websocket(url: str, meant: str) -> None:
    assert shown(find_target(url, "t", NOWHERE, CLAIMS)) == meant


@pytest.mark.parametrize(
    "url",
    ["", "b", "b:8080", "ftp://b", "http://", "http://:80", "http://b:0", "http://b:x", "http://b:99999", "http://[::1",
     "http://a b", f"http://{'a' * 64}", "http://a..b"],
)  # fmt: skip
def test_what_is_no_url_is_refused_with_what_one_looks_like(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "http://127.0.0.1:8080" in refused(capsys, url)


@pytest.mark.parametrize("token", ["a\nb", "a b", "t…", " "])
def test_what_is_no_token_is_refused_and_not_shown(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "http://b", token)
    assert "--token" in said
    assert token.strip(" ") == "" or token not in said


def test_a_url_without_a_configuration_needs_no_token() -> None:
    assert find_target("http://b", None, NOWHERE, CLAIMS) == Target(
        find_target("http://b", None, NOWHERE, {}).url, None
    )


def test_a_url_and_a_token_leave_the_configuration_alone(folder: Path) -> None:
    config = configured(folder, "this is no TOML")
    assert find_target("http://b", "t", config, CLAIMS).token == "t"


def test_without_a_url_the_configured_address_counts(folder: Path) -> None:
    config = configured(folder, '[server]\nhost = "broker.example"\nport = 81\n[websocket]\npath = "/live"')
    target = find_target(None, "t", config, CLAIMS)
    assert (shown(target), target.websocket_path, target.events_path) == (
        "http://broker.example:81",
        "/live",
        "/events",
    )


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8080"), ("::", "http://[::1]:8080"), ("fe80::1", "http://[fe80::1]:8080")],
)
def test_an_address_to_listen_on_becomes_one_to_connect_to(host: str, url: str, folder: Path) -> None:
    assert shown(find_target(None, "t", configured(folder, f'[server]\nhost = "{host}"'), CLAIMS)) == url


def test_tls_is_spoken_where_it_is_configured(folder: Path) -> None:
    config = configured(folder, '[server.tls]\ncertificate = "c.pem"\nprivate_key = "k.pem"')
    assert shown(find_target(None, "t", config, CLAIMS)) == "https://127.0.0.1:8080"


def test_port_0_is_nowhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--url" in refused(capsys, None, "t", configured(folder, "[server]\nport = 0"))


def test_a_token_is_made_with_the_configured_secret_and_user_claim(folder: Path) -> None:
    config = configured(folder, '[auth]\nuser_claim = "user_id"')
    target = find_target(None, None, config, {"sub": "ada", "publish": ["a.*"]})
    identity = build_authenticator(load_config(config, {}).auth, {}).publisher(target.token)
    assert (identity.user, identity.claims["publish"]) == ("ada", ["a.*"])


def test_a_token_that_is_given_is_used_as_it_is(folder: Path) -> None:
    assert find_target(None, "mine", configured(folder, ""), CLAIMS).token == "mine"


def test_a_broker_without_users_is_spoken_to_without_a_token(folder: Path) -> None:
    config = configured(folder, '[auth]\nmode = "none"')
    assert find_target(None, None, config, CLAIMS).token is None


def test_a_missing_configuration_is_told() -> None:
    with pytest.raises(OperatorError, match=r"no/such/config\.toml"):
        find_target(None, None, NOWHERE, CLAIMS)


def test_a_token_is_in_no_representation() -> None:
    assert "secret" not in repr(find_target("http://b", "secret", NOWHERE, CLAIMS))
