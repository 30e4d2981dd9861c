"""docs/rabbitmq.md, pasted: its commands print what stands there, and its permissions are enough.

Blocks are marked behind the language, as in README.md (see `tests/test_readme.py`).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from broker.config import parse_config
from connectors.amqp.url import parse_urls
from tests.system.amqp import source, wait_state
from tests.system.harness import BROKER, REPOSITORY, Broker, Brokers, environ, eventually, unique
from tests.system.rabbitmq import RabbitMQ

pytestmark = pytest.mark.system

PAGE = (REPOSITORY / "docs" / "rabbitmq.md").read_text()
BLOCKS: list[tuple[str, str, str]] = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
INDENTED = re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)


def block(mark: str, language: str | None = None) -> str:
    (text,) = [text for found, marked, text in BLOCKS if marked == mark and language in (None, found)]
    return text


def paste(text: str, folder: Path, environment: dict[str, str]) -> str:
    """Paste into a shell; what it prints."""
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def without_ids(text: str) -> str:
    return re.sub(r"\b[0-9a-f]{32}\b", "ID", text)


def start(brokers: Brokers, folder: Path, environment: dict[str, str]) -> Broker:
    """A broker with the files that the page makes."""
    paste(BLOCKS[0][2], folder, environment)
    config, policy = (folder / name for name in ("config.toml", "policy.toml"))
    broker = brokers.start(config.read_text() + block("config"), policy.read_text() + block("policy"))
    wait_state(broker, "main", "running")
    return broker


def test_the_page_prints_what_it_says(
    brokers: Brokers, own_rabbitmq: RabbitMQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in block("ctl").splitlines():
        own_rabbitmq.ctl(*shlex.split(line)[1:])
    # The broker itself runs with the permissions that the page says are enough.
    monkeypatch.setenv("AMQP_URL", own_rabbitmq.url("broker-user", "a-password"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    broker = start(brokers, tmp_path, environ(PATH=path))
    environment = environ(PATH=path, BROKER_SERVER__PORT=str(broker.port))

    def here(text: str) -> str:
        return text.replace("amqp://guest:guest@localhost", own_rabbitmq.url()).replace(":8080", f":{broker.port}")

    tail = [*BROKER, *shlex.split(block("ada", "sh"))[1:], "--count", "4"]
    with subprocess.Popen(tail, cwd=broker.folder, env=environment, stdout=subprocess.PIPE) as ada:
        eventually(lambda: broker.metric("broker_subscriptions") == 1, "subscription")
        (export,) = re.findall("^export .*$", block("broker"), re.MULTILINE)
        printed = ""
        for _, mark, text in BLOCKS[1:]:
            if mark == "tour":
                printed = paste(here(f"{export}\n{text}"), broker.folder, environment)
            elif mark == "output":
                assert without_ids(printed) == without_ids(text)
        seen, _ = ada.communicate(timeout=60)
    *first, third, fourth = seen.decode().splitlines(keepends=True)
    assert "".join(first) == block("ada", "json")
    assert [json.loads(line)["event"] for line in (third, fourth)] == ["orders.3.created", "orders.3.paid"]


def test_every_piece_of_configuration_is_accepted() -> None:
    pieces = [piece for piece in INDENTED if re.match(r"    (bindings|arguments|url) = ", piece)]
    assert len(pieces) >= 5
    for piece in pieces:
        rest = {"name": '"m"', "queue": '"q"', "url": '{ env = "AMQP_URL" }'}
        for key in tomllib.loads(piece):
            rest.pop(key, None)
        others = "".join(f"{key} = {value}\n" for key, value in rest.items())
        config = parse_config(f"[[connectors.amqp]]\n{others}{piece}", "config.toml", Path("/"), {})
        if config.connectors.amqp[0].url.literal is not None:
            assert parse_urls(config.connectors.amqp[0].url.literal)


def test_the_counters_of_the_page_are_those_of_a_source(brokers: Brokers, rabbitmq: RabbitMQ) -> None:
    broker = brokers.start(source("main", rabbitmq.url(), unique("page")))
    described = set(re.findall(r"^\| `(broker_amqp_main_\w+)` \|", PAGE, re.MULTILINE))
    assert described == {name for name in broker.metrics() if name.startswith("broker_amqp_")}
