"""`broker policy`: check a policy, explain what it decides, and test it by cases."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.core.errors import BadName, BadPayload, FaultyFile
from broker.core.event import Event, check_name
from broker.core.explain import Explanation, Finding, explain
from broker.core.happening import Happening
from broker.core.payload import check_text
from broker.core.policy import Policy
from broker.core.policy_cases import Failure, failures, learn, parse_cases
from broker.core.policy_file import load_policy
from broker.core.ports import Identity
from broker.core.relations import Action, Change, Facts
from cli.errors import FAILED, USED_WRONGLY, refuse, reporting, tell

app = typer.Typer(help="Check, explain or test the policy: who may see which event.", no_args_is_help=True)

_VERDICTS = {True: "yes", False: "no", None: "unknown"}

ConfigFile = Annotated[
    Path, typer.Option(help="The configuration that names the policy, if there is one.", metavar="FILE")
]
PolicyFile = Annotated[
    Path | None, typer.Option(help="The policy; default: the configuration's, or policy.toml.", metavar="FILE")
]


@app.command()
@reporting()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The policy; default: the configuration's, or policy.toml.", metavar="[FILE]")
    ] = None,
    config: ConfigFile = Path("config.toml"),
) -> None:
    """Check a policy. Every fault is reported at once, with its line and a hint. Exit status 1 if there are any.

    Examples:

      broker policy check

      broker policy check other.toml
    """
    path = _existing(file or _configured(config))
    try:
        policy = load_policy(path)
    except FaultyFile as error:
        tell(str(error))
        raise refuse(_count(len(error.faults), "fault")) from None
    tell(f"{path} is in order: {_summary(policy)}")


@app.command(name="explain")
@reporting()
def explain_command(
    event: Annotated[str, typer.Argument(help="The event's name.", metavar="EVENT")],
    data: Annotated[str, typer.Option(help="Its payload: JSON, @FILE, or - for standard input.")] = "{}",
    user: Annotated[str | None, typer.Option(help="Who looks; without it, somebody without a user.")] = None,
    claim: Annotated[
        list[str] | None, typer.Option(help="A claim of theirs; V is JSON if it parses, else text.", metavar="K=V")
    ] = None,
    fact: Annotated[
        list[str] | None,
        typer.Option(help="Members of a relation that are known already.", metavar="RELATION:KEY=USER,…"),
    ] = None,
    after: Annotated[
        Path | None, typer.Option(help="Events that came before, one JSON a line: relations learn.", metavar="FILE")
    ] = None,
    policy: PolicyFile = None,
    config: ConfigFile = Path("config.toml"),
) -> None:
    """Tell who sees an event and why, or why not. Exit status 0 if it is visible, 1 if it is not.

    Examples:

      broker policy explain groups.42.created --data '{"members": ["alice"]}' --user alice

      broker policy explain groups.42.messages.1.created --user bob --fact group:42=alice,bob

      broker policy explain admin.report --user eve --claim roles='["admin"]' --after events.ndjson
    """
    path = _existing(policy or _configured(config))
    rules = load_policy(path)
    happening = Happening(_event(event, _argument(data)))
    viewer = Identity(user, dict(_pair("--claim", text) for text in claim or []))
    facts = Facts()
    _take_facts(facts, fact or [], rules)
    changes = rules.changes(happening)
    facts.add(changes, learn(rules, facts, _events(after) if after else []))
    explanation = explain(rules, happening, facts, viewer)
    for line in _story(path, explanation, changes):
        typer.echo(line)
    if not explanation.visible:
        raise typer.Exit(FAILED)


@app.command(name="test")
@reporting()
def run_cases(
    files: Annotated[list[Path], typer.Argument(help="Files of cases.", metavar="FILE…")],
    policy: PolicyFile = None,
    config: ConfigFile = Path("config.toml"),
) -> None:
    """Run cases: events, and who must and must not see them. Prints each expectation that fails, and a count.

    Examples:

      broker policy test policy.test.toml

      broker policy test tests/*.toml --policy new.toml
    """
    rules = load_policy(_existing(policy or _configured(config)))
    suites = [(file, parse_cases(_text(file), str(file))) for file in files]
    failed = 0
    for file, cases in suites:
        for failure in (failure for case in cases for failure in failures(rules, case)):
            failed += 1
            typer.echo(_failure(file, failure))
    expectations = sum(len(case.expectations) for _, cases in suites for case in cases)
    tell(
        f"{_count(sum(len(cases) for _, cases in suites), 'case')}, {expectations - failed} of "
        f"{_count(expectations, 'expectation')} met, {failed} failed"
    )
    if failed:
        raise typer.Exit(FAILED)


def _configured(config: Path) -> Path:
    if not config.exists():
        if config != Path("config.toml"):
            raise refuse(f"{config}: there is no such file", USED_WRONGLY)
        return Path("policy.toml")
    from broker.config import load_config  # late: a policy named on the command line needs no configuration

    path, here = load_config(config, os.environ).visibility.policy, Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise refuse(f"{path}: there is no such file", USED_WRONGLY)
    return path


def _text(path: Path) -> str:
    try:
        return _existing(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(f"{path}: can't be read: {error}", USED_WRONGLY) from None


def _argument(data: str) -> str:
    if data == "-":
        try:
            return sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise refuse(f"standard input is not UTF-8: {error}", USED_WRONGLY) from None
    return _text(Path(data[1:])) if data.startswith("@") else data


def _event(name: str, data: str) -> Event:
    try:
        check_name(name)
        return Event(name, _checked(data))
    except BadName as error:
        raise typer.BadParameter(f"EVENT: {error}") from None
    except (ValueError, RecursionError, BadPayload) as error:
        raise typer.BadParameter(f"--data: this is no JSON: {error}") from None


def _checked(data: str) -> bytes:
    json.loads(data)
    raw = data.encode()
    check_text(raw)
    return raw


def _events(path: Path) -> list[Event]:
    events: list[Event] = []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            check_name(found["event"])
            events.append(Event(found["event"], _checked(json.dumps(found.get("data")))))
        except (ValueError, TypeError, KeyError, RecursionError, BadName, BadPayload) as error:
            message = f'line {number}: an event, {{"event": …, "data": …}}, is expected: {error}'
            raise refuse(f"{path}: {message}", USED_WRONGLY) from None
    return events


def _pair(option: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{option} {text}: write it as name=value")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _take_facts(facts: Facts, given: list[str], policy: Policy) -> None:
    for text in given:
        place, equals, users = text.partition("=")
        relation, colon, key = place.partition(":")
        if not (equals and colon and key):
            raise typer.BadParameter(f"--fact {text}: write it as relation:key=user,user")
        if relation not in policy.relations:
            known = ", ".join(policy.relations) or "none"
            raise typer.BadParameter(f"--fact {text}: there is no relation {relation!r} (there are: {known})")
        named = frozenset(user for user in users.split(",") if user)
        facts.add([Change(relation, Action.ADD, key, named)], 0)


def _story(path: Path, explanation: Explanation, changes: Sequence[Change]) -> list[str]:
    rule = explanation.rule
    where = f"{path}:{rule.line}: {rule.shape.text}" if rule else f"{path}: none matches; the default counts"
    learned = [f"learns  {_learned(change)}" for change in changes]
    verdict = "visible" if explanation.visible else "not visible"
    findings = [line for finding in explanation.findings for line in _finding(finding)]
    return [f"event   {explanation.event}", f"rule    {where}", *learned, *findings, verdict]


def _finding(finding: Finding) -> list[str]:
    indent = "  " * finding.depth
    lines = [f"  {indent}{_VERDICTS[finding.verdict]}: {finding.condition}"]
    return [*lines, f"    {indent}{finding.because}"] if finding.because else lines


def _learned(change: Change) -> str:
    users = ", ".join(sorted(change.users))
    what = change.fault or users
    return f"{change.relation}({change.key}): {change.action.name.lower()} {what}".rstrip()


def _failure(file: Path, failure: Failure) -> str:
    expected, viewer = failure.expectation, failure.expectation.viewer
    who = viewer.user or "somebody without a user"
    wrong = "must see it and does not" if expected.visible else "must not see it and does"
    rule = failure.explanation.rule
    counted = f"rule {rule.shape.text!r}" if rule else "default"
    reasons = f": {failure.explanation.reasons}" if failure.explanation.reasons else ""
    return f"{file}:{expected.line}: {failure.case.event.name}: {who} {wrong} ({counted}{reasons})"


def _summary(policy: Policy) -> str:
    relations = _count(len(policy.relations), "relation")
    return f"{_count(len(policy.rules), 'rule')}, {relations}, default {policy.default}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
