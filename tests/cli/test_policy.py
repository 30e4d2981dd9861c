"""`broker policy`: what it prints, where, and its exit status."""

from __future__ import annotations

import pathlib

import pytest
from typer.testing import CliRunner, Result

from cli.policy import app

ROOT = pathlib.Path(__file__).resolve().parents[2]
POLICY = str(ROOT / "policy.toml")


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- check


def test_check_sums_up_a_good_policy_on_standard_error() -> None:
    result = run("check", POLICY)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert '6 rules, 2 relations, default "nobody"' in result.stderr


def test_check_tells_every_fault_with_file_and_line(elsewhere: pathlib.Path) -> None:
    (elsewhere / "policy.toml").write_text('default = "nobdy"\n[[rules]]\nevents = "a..b"\nvisible_to = "everyone"\n')
    result = run("check")
    assert result.exit_code == 1
    assert "policy.toml: line 1: default: 'nobdy'" in result.stderr
    assert "did you mean 'nobody'?" in result.stderr
    assert "policy.toml: line 3: rules[0].events" in result.stderr
    assert "2 faults" in result.stderr


def test_check_of_a_file_that_is_not_there_is_wrong_use() -> None:
    for arguments in (["check"], ["check", "none.toml"], ["check", "--config", "none.toml"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "there is no such file" in result.stderr


def test_check_takes_the_policy_that_the_configuration_names(elsewhere: pathlib.Path) -> None:
    (elsewhere / "conf").mkdir()
    (elsewhere / "conf" / "config.toml").write_text('[visibility]\npolicy = "mine.toml"\n')
    (elsewhere / "conf" / "mine.toml").write_text('default = "everyone"\n')
    result = run("check", "--config", "conf/config.toml")
    assert result.exit_code == 0, result.stderr
    assert 'mine.toml is in order: 0 rules, 0 relations, default "everyone"' in result.stderr


# --- explain


def test_explain_tells_rule_facts_and_verdict() -> None:
    arguments = ["explain", "groups.42.messages.1.created", "--policy", POLICY, "--fact", "group:42=alice,bob"]
    result = run(*arguments, "--user", "alice")
    assert result.exit_code == 0
    assert "groups.<groupId>.messages.<messageId>.{created,updated,deleted}" in result.stdout
    assert 'yes: { relation = "group", key = "<groupId>" }' in result.stdout
    assert "group(42) is [alice, bob]" in result.stdout
    assert result.stdout.splitlines()[-1] == "visible"
    result = run(*arguments, "--user", "carol")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "not visible"


def test_explain_learns_from_the_event_itself_and_says_so() -> None:
    result = run(
        "explain", "groups.1.created", "--policy", POLICY, "--data", '{"members": ["alice"]}', "--user", "alice"
    )
    assert result.exit_code == 0
    assert "learns  group(1): set alice" in result.stdout
    faulty = run("explain", "groups.1.created", "--policy", POLICY, "--user", "alice")
    assert faulty.exit_code == 1
    assert "unknown: " in faulty.stdout
    assert "data.members: 'members' is missing" in faulty.stdout


def test_explain_learns_from_events_that_came_before(elsewhere: pathlib.Path) -> None:
    (elsewhere / "before.ndjson").write_text(
        '{"event": "games.7.members.alice.created", "data": {}}\n\n{"event": "games.7.members.bob.created"}\n'
        '{"event": "games.7.members.bob.deleted", "data": "\u2028"}\n',
        encoding="utf-8",
    )
    arguments = ["explain", "games.7.messages.1.created", "--policy", POLICY, "--after", "before.ndjson"]
    assert run(*arguments, "--user", "alice").exit_code == 0
    assert run(*arguments, "--user", "bob").exit_code == 1


def test_explain_reads_data_from_a_file_or_standard_input(elsewhere: pathlib.Path) -> None:
    (elsewhere / "data.json").write_text('{"members": ["alice"]}')
    arguments = ["explain", "groups.1.created", "--policy", POLICY, "--user", "alice", "--data"]
    assert run(*arguments, "@data.json").exit_code == 0
    assert run(*arguments, "-", stdin=b'{"members": ["alice"]}').exit_code == 0
    assert run(*arguments, "-", stdin=b"\xff").exit_code == 2


def test_explain_takes_claims_as_json_or_text(elsewhere: pathlib.Path) -> None:
    (elsewhere / "policy.toml").write_text(
        '[[rules]]\nevents = "admin"\nvisible_to = { claim = "roles", contains = "admin" }\n'
    )
    assert run("explain", "admin", "--claim", 'roles=["admin"]').exit_code == 0
    assert run("explain", "admin", "--claim", "roles=dev admin").exit_code == 0
    assert run("explain", "admin", "--claim", "roles=dev").exit_code == 1
    nobody = run("explain", "other")
    assert nobody.exit_code == 1
    assert "none matches; the default counts" in nobody.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["a..b"], "empty"),
        (["a", "--data", "{"], "no JSON"),
        (["a", "--data", '"\\ud800"'], "surrogate"),
        (["a", "--data", "@none"], "no such file"),
        (["a", "--claim", "roles"], "name=value"),
        (["a", "--fact", "group=alice"], "relation:key=user"),
        (["a", "--fact", "grup:1=alice"], "no relation 'grup'"),
        (["a", "--after", "none"], "no such file"),
        (["a", "--after", "bad"], "line 2"),
        (["a", "--after", "binary"], "can't be read"),
    ],
)
def test_explain_used_wrongly(elsewhere: pathlib.Path, arguments: list[str], complaint: str) -> None:
    (elsewhere / "bad").write_text('{"event": "a"}\n[]\n')
    (elsewhere / "binary").write_bytes(b"\xff")
    result = run("explain", *arguments, "--policy", POLICY)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output


# --- test


def test_the_shipped_cases_pass() -> None:
    result = run("test", str(ROOT / "policy.test.toml"), "--policy", POLICY)
    assert result.exit_code == 0, result.stdout
    assert result.stdout == ""
    assert "0 failed" in result.stderr


def test_failed_expectations_are_told_with_file_line_and_reason(elsewhere: pathlib.Path) -> None:
    (elsewhere / "cases.toml").write_text(
        '[[cases]]\nevent = "groups.1.created"\ndata = { members = ["alice"] }\nvisible_to = ["bob"]\n'
        'hidden_from = ["alice", {}]\n[[cases]]\nevent = "x"\nvisible_to = [{}]\n'
    )
    result = run("test", "cases.toml", "--policy", POLICY)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "cases.toml:4: groups.1.created: bob must see it and does not "
        "(rule 'groups.<groupId>.{created,updated,deleted}': data.members is [alice])",
        "cases.toml:5: groups.1.created: alice must not see it and does "
        "(rule 'groups.<groupId>.{created,updated,deleted}': data.members is [alice])",
        "cases.toml:8: x: somebody without a user must see it and does not (default)",
    ]
    assert "2 cases, 1 of 4 expectations met, 3 failed" in result.stderr


def test_a_faulty_file_of_cases_is_wrong_use(elsewhere: pathlib.Path) -> None:
    (elsewhere / "cases.toml").write_text("[[cases]]\nevnt = 1\n")
    result = run("test", "cases.toml", "--policy", POLICY)
    assert result.exit_code == 2
    assert "cases.toml: line 2: cases[0].evnt" in result.stderr


@pytest.mark.parametrize("command", ["check", "explain", "test"])
def test_help_has_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
