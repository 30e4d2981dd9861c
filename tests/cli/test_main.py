"""The `broker` command as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

import broker as package
from tests.cli.invoke import broker

COMMANDS = [
    "run",
    "publish",
    "tail",
    "token",
    "policy check",
    "policy explain",
    "policy test",
    "config check",
    "config show",
    "config init",
]


def test_the_version_is_printed() -> None:
    result = broker("--version")
    assert (result.status, result.out) == (0, f"broker {package.__version__}\n")


def test_it_runs_as_a_module_too() -> None:
    process = subprocess.run([sys.executable, "-m", "cli", "--version"], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, f"broker {package.__version__}\n")


def test_without_a_command_the_commands_are_shown() -> None:
    result = broker()
    shown = result.out + result.err
    assert result.status == 2
    assert all(command.split()[0] in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_s_help_has_an_example(command: str) -> None:
    result = broker(*command.split(), "--help")
    assert result.status == 0
    _, _, examples = result.out.partition("Example")
    assert f"broker {command}" in examples


@pytest.mark.parametrize("arguments", [["publsih"], ["--verbose"], ["run", "--port", "1"], ["tail", "--count", "0"]])
def test_what_there_is_not_is_used_wrongly(arguments: list[str]) -> None:
    assert broker(*arguments).status == 2
