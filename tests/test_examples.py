"""Each example runs as a process of its own, prints who saw what, and ends by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import examples.game_platform.__main__ as game_platform
import examples.order_service.__main__ as order_service
import examples.rabbitmq
from broker.config import load_config
from broker.core.policy_file import load_policy
from tests.needing import needed

pytestmark = pytest.mark.system

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(file.parent.name for file in (ROOT / "examples").glob("*/__main__.py"))


def run(example: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"examples.{example}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_users_of_the_game_platform_see_different_things() -> None:
    ran = run("game_platform")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert ["groups.chess.created", "yes", "-"] in lines
    assert ["groups.chess.messages.1.created", "yes", "-"] in lines
    assert ["groups.chess.messages.2.created", "yes", "yes"] in lines
    assert ["groups.chess.messages.3.created", "-", "yes"] in lines
    assert ["games.42.created", "yes", "yes"] in lines
    assert ["games.42.messages.2.created", "-", "yes"] in lines
    assert ["games.42.messages.3.created", "-", "-"] in lines
    assert ["invoices.7.created", "-", "-"] in lines
    assert "he sees games.43.created, users.ada.online\n" in ran.stdout
    assert "is closed: 4001 a token is needed" in ran.stdout
    assert "is closed: 4002 the token is not signed by a key that is known here" in ran.stdout


def test_users_of_the_first_edition_see_what_their_patterns_match() -> None:
    ran = run("first_edition")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "  and sees user.created, message.created, message.deleted, user.deleted\n" in ran.stdout
    assert "  and sees user.created, message.created, game.created, member.created\n" in ran.stdout
    table = [line.split() for line in ran.stdout.splitlines() if " yes" in line]
    assert table == [
        ["message", "yes", "-", "-", "-"],
        ["message.created", "-", "yes", "-", "-"],
        ["message.*", "-", "yes", "-", "-"],
        ["*.created", "-", "yes", "-", "yes"],
        ["message.**", "-", "yes", "yes", "-"],
        ["**", "yes", "yes", "yes", "yes"],
    ]


def test_customers_of_the_order_service_see_their_own_orders_and_staff_sees_all() -> None:
    if not os.environ.get("AMQP_URL") and examples.rabbitmq.script("rabbitmq-server") is None:
        needed("RabbitMQ is not installed (on Debian: apt-get install rabbitmq-server)")
    ran = run("order_service")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = [line.split() for line in ran.stdout.splitlines() if line.startswith("  orders.")]
    assert len(table) == 18
    assert table[:2] == [
        ["orders.1.created", "ada", "yes", "-", "yes"],
        ["orders.2.created", "bob", "-", "yes", "yes"],
    ]
    assert ran.stdout.count("  10 published, 0 refused\n") == 3
    assert '"event": "broker.stopped"' in ran.stderr


def test_without_rabbitmq_the_order_service_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    monkeypatch.setattr(examples.rabbitmq, "script", lambda _name: None)
    assert order_service.main() == 1
    told = capsys.readouterr().err
    assert "set AMQP_URL" in told
    assert "apt-get install rabbitmq-server" in told


@pytest.mark.parametrize("example", ["game_platform", "first_edition"])
def test_an_example_stops_the_broker_that_it_started(example: str) -> None:
    assert '"event": "broker.stopped"' in run(example).stderr


def test_an_example_fails_when_somebody_sees_what_they_should_not(tmp_path: Path) -> None:
    """Shown with the rule for messages of groups opened to everyone."""
    # A copy of the packages, so that nothing in the checkout is touched.
    copied = tmp_path / "examples" / "game_platform"
    copied.mkdir(parents=True)
    for source in (ROOT / "examples", ROOT / "examples" / "game_platform"):
        for file in (*source.glob("*.py"), *source.glob("*.toml")):
            (tmp_path / file.relative_to(ROOT)).write_bytes(file.read_bytes())
    policy = copied / "policy.toml"
    member, everyone = '{ relation = "group", key = "<groupId>" }', '"everyone"'
    assert member in policy.read_text()
    policy.write_text(policy.read_text().replace(member, everyone))
    command = [sys.executable, "-m", "examples.game_platform"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1
    assert ran.stdout.endswith("\nNOT as it should be.\n")


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_files_of_an_example_are_in_order(example: str) -> None:
    config = load_config(ROOT / "examples" / example / "config.toml", {})
    assert load_policy(config.visibility.policy).rules
    assert (ROOT / "examples" / example / "README.md").read_text().startswith("# ")
    assert "new WebSocket(" in (ROOT / "examples" / example / "index.html").read_text()


@pytest.mark.parametrize("example", ["game_platform", "order_service"])
def test_the_table_in_a_policy_names_every_rule(example: str) -> None:
    config = load_config(ROOT / "examples" / example / "config.toml", {})
    policy = load_policy(config.visibility.policy)
    text = config.visibility.policy.read_text()
    assert all(f"#   {rule.shape.text} " in text for rule in policy.rules)


def test_every_rule_of_the_game_platform_is_played() -> None:
    config = load_config(ROOT / "examples" / "game_platform" / "config.toml", {})
    policy = load_policy(config.visibility.policy)
    played = {policy.ruling(line.event).rule for line in game_platform.PLAY}
    assert played == {*policy.rules, None}  # None: an event that no rule names, which nobody sees
