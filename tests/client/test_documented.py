"""What docs/clients.md says of the Python client is so."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest

import broker.client
from broker.client import Client, Disconnected, Options, Refused
from broker.client.link import TIDY_SECONDS
from broker.client.messages import MOST_EARLY
from broker.client.retrying import Verdict, judge, may_pass
from broker.client.socket import SILENCE
from broker.core.backoff import FIRST_PAUSE, LONGEST_PAUSE

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
PYTHON = PAGE.partition("## Python")[2].partition("## JavaScript")[0]


def test_the_options_are_those_of_the_code() -> None:
    table = re.findall(r"^\| `([a-z_]+)` \| ([^|]*) \|", PYTHON, re.MULTILINE)
    defaults = {field.name: ast.literal_eval(repr(field.default)) for field in fields(Options)}
    assert {name: ast.literal_eval(default.strip("`")) for name, default in table} == defaults


def test_the_codes_that_end_a_client_are_those_of_the_code() -> None:
    (row,) = re.findall(r"^\| closed with ([0-9, ]+) \|", PYTHON, re.MULTILINE)
    codes = {int(code) for code in row.split(",")}
    assert codes == {code for code in range(1000, 5000) if judge(Disconnected(code), renewable=True) is Verdict.NEVER}


def test_so_are_the_statuses() -> None:
    assert "another HTTP status than 408, 429 or 5xx" in PYTHON
    passing = {status for status in range(200, 600) if may_pass(status)}
    assert passing == {408, 429, *range(500, 600)}
    assert judge(Refused(404), renewable=True) is Verdict.NEVER


def test_so_are_the_times() -> None:
    assert f"after {FIRST_PAUSE} seconds at first and up to {LONGEST_PAUSE:g} later" in PYTHON
    assert f"for\n{SILENCE:g} seconds has broken; the client asks for a sign of life every {TIDY_SECONDS:g}" in PYTHON


def test_so_is_what_is_kept_of_messages() -> None:
    assert f"waited, up to {MOST_EARLY} messages" in PYTHON
    assert signature(Client.messages).parameters["buffer"].default == 1024
    assert "at most `buffer` messages (1024)" in PYTHON


def test_every_error_and_value_is_exported_that_it_speaks_of() -> None:
    named = set(re.findall(r"`([A-Z][a-z]\w+)`", PYTHON)) - {"Authorization", "False", "None", "True"}
    assert named <= set(broker.client.__all__)


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PYTHON, re.DOTALL))
def test_every_example_is_python(example: str) -> None:
    compile(example, "docs/clients.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
