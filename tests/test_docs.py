"""What the documentation says is so: tables equal the code, files and links are there."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import broker.core.http
from broker.app import Broker, Parts
from broker.config import Config
from broker.core.errors import ADVICE, AuthenticationError, BrokerError, ClientError
from broker.core.policy import Policy
from broker.edge.memory_log import MemoryLog
from broker.edge.tokens import Anonymous
from broker.runtime.outbox import Fate
from connectors.stdin import Stdin

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
    key=lambda page: str(page.relative_to(ROOT)),
)
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LIMIT = re.compile(r"^\|[^|]*\| ([0-9.]+) \| `((?:broker|connectors)\.[a-z_.]+)\.([A-Z_]+)` \|$", re.MULTILINE)


def every_page() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def kinds(error: type[BrokerError]) -> Iterator[type[BrokerError]]:
    """Its kinds in the broker; applications, and their tests, have some of their own."""
    for kind in error.__subclasses__():
        if kind.__module__.startswith("broker."):
            yield kind
        yield from kinds(kind)


def test_the_table_of_close_codes_is_that_of_the_code() -> None:
    table = re.findall(r"^\| ([0-9]{4}) \| (.*) \|$", PROTOCOL, re.MULTILINE)
    assert table == [(str(int(code)), advice) for code, advice in ADVICE.items()]


@pytest.mark.parametrize("error", [*kinds(ClientError), *kinds(AuthenticationError)])
def test_the_protocol_names_every_code_that_a_client_may_see(error: type[BrokerError]) -> None:
    assert re.search(rf"^\| `{error.code}` \|", PROTOCOL, re.MULTILINE)


def test_the_protocol_names_every_code_that_a_publisher_may_see() -> None:
    errors: list[type[BrokerError]] = [
        broker.core.errors.BadEvent,
        broker.core.errors.NotPermitted,
        broker.core.errors.Overloaded,
        broker.core.errors.Stopping,
        broker.core.errors.LogUnavailable,
        broker.core.http.BodyTooLarge,
        broker.core.errors.UnsupportedMediaType,
        *kinds(AuthenticationError),
    ]
    publishers = PROTOCOL.partition("## Publishers")[2]
    assert [error.code for error in errors if f"`{error.code}`" not in publishers.replace('"', "`")] == []


def test_the_limits_are_those_of_the_code() -> None:
    limits = LIMIT.findall(OPERATIONS)
    assert len(limits) > 15
    found = [(module, name, getattr(importlib.import_module(module), name)) for _, module, name in limits]
    assert found == [(module, name, pytest.approx(float(value))) for value, module, name in limits]


def test_every_metric_is_described() -> None:
    served = Broker(Config(), Parts(Policy(), Anonymous(), MemoryLog(), connectors=[Stdin()]))
    described = set(re.findall(r"^\| `broker_(\w+)` \|", OPERATIONS, re.MULTILINE))
    counted = {"events", "repeated", "failed", "visibility_faults", "deliveries", "connectors_failed"}
    counted |= {"calls", "calls_failed", "calls_timed_out"}
    counted |= {"resumes", "resumes_failed", "replayed"}
    counted |= {"policy_reloads", "policy_reloads_failed", "stdin_published", "stdin_refused"}
    counted |= {f"deliveries_{fate.value}" for fate in Fate if fate is not Fate.QUEUED}
    assert counted >= set(served.counters())
    assert described == {*served.gauges(), *(f"{name}_total" for name in counted)}


def test_every_behaviour_of_the_systems_that_are_replaced_has_a_row() -> None:
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| ([GQEVD]\d+) \|", page, re.MULTILINE)
    counts = {"G": 12, "Q": 31, "E": 12, "V": 14, "D": 15}
    assert sorted(found) == sorted(f"{letter}{n}" for letter, last in counts.items() for n in range(1, last + 1))


@every_page()
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*)[^)]*\)", page.read_text(encoding="utf-8")):
        if target and not target.startswith("http"):
            assert (page.parent / target).exists(), target


@every_page()
def test_links_into_a_page_meet_a_heading(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#]*)#([^)]*)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert heading in {re.sub(r"[^a-z0-9 -]", "", words.lower()).replace(" ", "-") for words in headings}


@every_page()
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(
        r"(?<![./\w])((?:broker|connectors|cli|examples|benchmarks)/[\w/]+\.\w+)", page.read_text(encoding="utf-8")
    )
    assert [path for path in named if not (ROOT / path).exists()] == []
