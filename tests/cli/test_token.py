"""`broker token`, durations, and how commands fail."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from broker.config import load_config
from broker.core.errors import ExpiredToken, Fault, FaultyFile, Overloaded
from broker.core.ports import Identity
from broker.edge.tokens import build_authenticator
from cli.durations import parse_duration
from cli.errors import reporting
from cli.token import token

app = typer.Typer()
app.command("token")(token)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text("")
    return tmp_path / "config.toml"


def run(config: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--config", str(config)])


def identity(config: Path, result: Result) -> Identity:
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    return build_authenticator(load_config(config, {}).auth, {}).publisher(result.stdout.strip())


def test_a_token_for_a_user_lasts_an_hour(config: Path) -> None:
    found = identity(config, run(config, "--user", "ada"))
    assert found.user == "ada"
    assert found.expires_at is not None
    assert 3590 < found.expires_at - time.time() <= 3600


def test_the_secret_is_generated_where_the_configuration_says_so(config: Path) -> None:
    run(config, "--user", "ada")
    assert (config.parent / ".broker/jwt.secret").stat().st_mode & 0o777 == 0o600


def test_claims_are_json_or_else_text(config: Path) -> None:
    found = identity(
        config, run(config, "--user", "ada", "--claim", 'roles=["admin"]', "--claim", "team=red", "--claim", "n=a=b")
    )
    assert (found.claims["roles"], found.claims["team"], found.claims["n"]) == (["admin"], "red", "a=b")


def test_a_publisher_s_token_has_its_patterns(config: Path) -> None:
    found = identity(config, run(config, "--publish", "games.**", "--publish", "a.*", "--ttl", "7d"))
    assert (found.user, found.claims["publish"]) == (None, ["games.**", "a.*"])


def test_the_configured_claim_names_the_user(config: Path) -> None:
    config.write_text('[auth]\nuser_claim = "uid"\n')
    assert identity(config, run(config, "--user", "ada")).claims["uid"] == "ada"
    assert run(config, "--user", "ada", "--claim", "uid=eve").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--claim", "a=b"),
        *(("--user", "a", "--claim", f"{name}=1") for name in ("sub", "exp", "iat", "nbf", "iss", "aud", "publish")),
        ("--user", "a", "--claim", "nothing"),
        ("--user", "a", "--claim", "=1"),
        ("--user", "a", "--claim", "x=1", "--claim", "x=2"),
        ("--publish", "a..b"),
        ("--publish", "a.<b>"),
        ("--user", "a", "--ttl", "soon"),
        ("--user", "a", "--ttl", "0s"),
    ],
)
def test_what_makes_no_sense_is_used_wrongly(config: Path, arguments: tuple[str, ...]) -> None:
    result = run(config, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert not (config.parent / ".broker").exists()


def test_without_users_there_are_no_tokens(config: Path) -> None:
    config.write_text('[auth]\nmode = "none"\n')
    result = run(config, "--user", "ada")
    assert (result.exit_code, result.stdout) == (1, "")
    assert 'auth.mode is "none"' in result.stderr


def test_with_a_public_key_only_tokens_come_from_elsewhere(config: Path) -> None:
    config.write_text('[auth]\nalgorithms = ["RS256"]\npublic_key = { file = "k.pem" }\n')
    result = run(config, "--user", "ada")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "private key that is not here" in result.stderr


def test_a_user_that_would_be_refused_gets_no_token(config: Path) -> None:
    result = run(config, "--user", "a\nb")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the token's user" in result.stderr


def test_faulty_configuration_is_reported(config: Path) -> None:
    config.write_text("[server]\nprot = 1\n")
    result = run(config, "--user", "ada")
    assert result.exit_code == 2
    assert "line 2: server.prot" in result.stderr


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), (" 1s ", 1)])
def test_durations_have_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "h", "-1h", "1.5h", "1w", "0s", "1h30m", "999999999d", "٣h", "9" * 5000 + "s"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write for example"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (FaultyFile("f", [Fault("a", "is bad", 3)]), 2, "f: line 3: a: is bad\n"),
        (ExpiredToken("the token has expired"), 1, "the token has expired\n"),
        (Overloaded(), 1, "the broker is busy: its ingest queue is full\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_messages_and_statuses(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, reporting():
        raise error
    assert caught.value.exit_code == status
    assert capsys.readouterr() == ("", message)
