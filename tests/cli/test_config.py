"""`broker config`: check, show, init."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broker.config import load_config, parse_config
from cli.config import app

POLICY = 'default = "nobody"\n'


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "config.toml").write_text("")
    return tmp_path / "config.toml"


def test_check_says_what_a_good_configuration_serves_and_makes_nothing(config: Path) -> None:
    result = run("check", "--config", config)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "ws://127.0.0.1:8080/ws" in result.stderr
    assert {each.name for each in config.parent.iterdir()} == {"config.toml", "policy.toml"}


def test_check_reports_every_fault_of_the_file(config: Path) -> None:
    config.write_text('[server]\nprot = 1\nhost = 3\n[auth]\nsecret = "hunter2"\n')
    result = run("check", "--config", config)
    assert (result.exit_code, result.stdout) == (2, "")
    for expected in ('line 2: server.prot: unknown key (did you mean "port"?)', "line 3: server.host", "line 5: auth"):
        assert expected in result.stderr
    assert "hunter2" not in result.stderr
    assert "Traceback" not in result.stderr


def test_check_reports_policy_keys_and_tls_together(config: Path) -> None:
    (config.parent / "policy.toml").write_text('defualt = "nobody"\n')
    config.write_text('[server.tls]\ncertificate = "c"\nprivate_key = "k"\n[auth]\nsecret = { file = "s" }\n')
    result = run("check", "--config", config)
    assert result.exit_code == 2
    for expected in (
        "policy.toml: line 1",
        "auth.secret: there is no file",
        "server.tls.certificate",
        "server.tls.private_key",
    ):
        assert expected in result.stderr


def test_check_imports_the_handlers_and_reports_each_that_can_t_be(config: Path) -> None:
    text = config.read_text()
    config.write_text(text + '[handlers]\nmodules = ["good_handlers:app", "no_handlers", "good_handlers:other"]\n')
    (config.parent / "good_handlers.py").write_text("from broker import Handlers\napp = Handlers()\n")
    result = run("check", "--config", config)
    assert result.exit_code == 2
    assert "'no_handlers' can't be imported" in result.stderr
    assert "'good_handlers:other': there is no such name in it" in result.stderr
    assert "'good_handlers:app'" not in result.stderr


def test_check_without_a_file_says_how_to_get_one(tmp_path: Path) -> None:
    result = run("check", "--config", tmp_path / "config.toml")
    assert result.exit_code == 2
    assert "broker config init" in result.stderr


def test_check_in_mode_none_says_so(config: Path) -> None:
    assert "without users" in run("check", "--config", config, env={"BROKER_AUTH__MODE": "none"}).stderr


def test_show_prints_what_is_in_effect_and_it_reads_back(config: Path) -> None:
    config.write_text(
        '[server]\nhost = "h\\u007F\\"ä"\nallowed_origins = ["*"]\n[server.tls]\ncertificate = "c"\nprivate_key = "k"\n'
        '[auth]\naudience = ["a"]\nsecret = { env = "S" }\n'
    )
    environ = {"BROKER_SERVER__PORT": "9000", "S": "hunter2"}
    result = run("show", "--config", config, env=environ)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "port = 9000" in result.stdout
    assert 'secret = { env = "S" }' in result.stdout
    assert "hunter2" not in result.stdout
    assert parse_config(result.stdout, "shown", Path("/elsewhere"), {}) == load_config(config, environ)


def test_show_prints_the_defaults_of_an_empty_file(config: Path) -> None:
    shown = run("show", "--config", config).stdout
    assert f'secret = {{ file = "{config.parent}/.broker/jwt.secret", generate = true }}' in shown
    assert parse_config(shown, "shown", Path("/elsewhere"), {}) == load_config(config, {})


def test_show_reports_faults(config: Path) -> None:
    result = run("show", "--config", config, env={"BROKER_SERVER__PORT": "x"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert "BROKER_SERVER__PORT: must be a whole number" in result.stderr


def test_init_writes_files_that_are_good_as_they_are(tmp_path: Path) -> None:
    result = run("init", tmp_path / "new/broker")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "broker run --config" in result.stderr
    assert run("check", "--config", tmp_path / "new/broker/config.toml").exit_code == 0


def test_init_never_replaces_a_file(config: Path) -> None:
    config.unlink()
    result = run("init", config.parent)
    assert result.exit_code == 1
    assert "policy.toml exists already" in result.stderr
    assert not config.exists()
    assert (config.parent / "policy.toml").read_text() == POLICY


def test_init_says_why_it_can_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("init", tmp_path / "file/inside")
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
