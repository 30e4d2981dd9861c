"""The configuration of publishers that sign: what must be said of each, and that its secrets stay where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import Config, SecretSource, SourceConfig, parse_config
from broker.core.errors import Fault, FaultyFile, OperatorError
from broker.core.http import Request
from cli.config_toml import render
from cli.sources import build_signatures
from connectors.signatures import Key, headers_of
from tests.connectors.posting import EVENT, post, signed_by_github, signed_by_standard_webhooks

SECRETS = {"ONE": "whsec_b25lb25lb25l", "TWO": "dHdvdHdvdHdv", "BOTH": "whsec_b25lb25lb25l\ndHdvdHdvdHdv", "HUB": "a b"}
KEYS = {"ONE": b"oneoneone", "TWO": b"twotwotwo"}


def source(secret: str = '{ env = "ONE" }', signature: str = "standard-webhooks", name: str = "billing") -> str:
    return (
        f'[connectors.webhook.sources.{name}]\nsignature = "{signature}"\nsecret = {secret}\nevents = ["billing.**"]\n'
    )


def read(text: str, folder: Path = Path("/etc/broker")) -> Config:
    return parse_config(text, "config.toml", folder, {})


def faults(text: str) -> list[Fault]:
    with pytest.raises(FaultyFile) as caught:
        read(text)
    return caught.value.faults


def owner(text: str, request: Request, folder: Path = Path("/etc/broker")) -> str:
    signatures = build_signatures(read(text, folder).connectors.webhook.sources, SECRETS)
    (kind,) = signatures.kinds
    return signatures.source_of(kind, headers_of(request, kind), EVENT).name


def signed(key: Key) -> Request:
    return post(**signed_by_standard_webhooks(key, EVENT))  # type: ignore[arg-type]


# --- What it says ----------------------------------------------------------------------------------------------------


def test_a_secret_is_one_or_several() -> None:
    one, two = SecretSource(env="ONE"), SecretSource(file=Path("/etc/broker/two"))
    assert read(source()).connectors.webhook.sources["billing"] == SourceConfig(
        signature="standard-webhooks", secret=(one,), events=("billing.**",)
    )
    listed = read(source('[{ env = "ONE" }, { file = "two" }]')).connectors.webhook.sources["billing"]
    assert listed.secret == (one, two)


@pytest.mark.parametrize("secret", ['{ env = "ONE" }', '[{ env = "ONE" }]', '[{ env = "ONE" }, { file = "two" }]'])
def test_what_is_shown_reads_back_and_holds_no_secret(secret: str) -> None:
    config = read(source(secret))
    shown = render(config)
    assert read(shown) == config
    assert "b25l" not in f"{shown}{config!r}"


def test_a_cloudevent_is_named_by_its_type_or_its_subject() -> None:
    assert read("").connectors.webhook.cloudevents_name == "type"
    assert read('[connectors.webhook]\ncloudevents_name = "subject"').connectors.webhook.cloudevents_name == "subject"
    (fault,) = faults('[connectors.webhook]\ncloudevents_name = "id"')
    assert (fault.path, fault.line) == ("connectors.webhook.cloudevents_name", 2)


@pytest.mark.parametrize(
    ("text", "path", "line", "message"),
    [
        (source().replace("signature", "signatur"), "billing.signatur", 2, "unknown key"),
        (source(signature="githib"), "billing.signature", 2, "must be one of standard-webhooks, github"),
        (source("{}"), "billing.secret", 3, 'needs either "file" or "env"'),
        (source("[]"), "billing.secret", 3, "must name at least one secret"),
        (source('"hunter2"'), "billing.secret", 3, "a secret does not stand in this file"),
        (source('["hunter2"]'), "billing.secret[0]", 3, "a secret does not stand in this file"),
        (source('[{ env = "ONE" }, { env = "" }]'), "billing.secret[1]", 3, "is no name of an environment variable"),
        (source('{ file = "s", generate = true }'), "billing.secret", 3, "the secret of a source can't be generated"),
        (source().replace('"billing.**"', ""), "billing.events", 4, "must name at least one pattern"),
        (source().replace("**", "**b"), "billing.events[0]", 4, "is no pattern"),
        (source(name='"a.b"'), '"a.b"', 1, "must be made of letters, digits, _ and -"),
        (source(name='""'), '""', 1, "must be made of letters, digits, _ and -"),
        ("[connectors.webhook.sources]\nbilling = 3", "billing", 2, "must be a table"),
    ],
)
def test_a_fault_tells_key_line_and_reason(text: str, path: str, line: int, message: str) -> None:
    found = {(each.path, each.line): each.message for each in faults(text)}
    assert message in found[f"connectors.webhook.sources.{path}", line]
    assert "hunter2" not in str(found)


def test_faults_of_a_name_and_of_what_it_names_are_reported_at_once() -> None:
    found = faults(source(name='"a b"', secret='"hunter2"') + source(signature="no"))
    assert [each.line for each in found] == [1, 3, 6]


# --- What is read at the start ---------------------------------------------------------------------------------------


def test_any_of_a_source_s_secrets_will_do() -> None:
    for secret in ('[{ env = "ONE" }, { env = "TWO" }]', '{ env = "BOTH" }'):
        for name in ("ONE", "TWO"):
            assert owner(source(secret), signed(KEYS[name])) == "billing"


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a b\nold one\n")
    (tmp_path / "secret").chmod(0o600)
    for key in (b"a b", b"old one"):
        request = post(**signed_by_github(key, EVENT))  # type: ignore[arg-type]
        assert owner(source('{ file = "secret" }', "github", "hub"), request, tmp_path) == "hub"


def test_a_file_that_others_may_read_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a b")
    (tmp_path / "secret").chmod(0o644)
    told: list[str] = []
    sources = read(source('{ file = "secret" }', "github"), tmp_path).connectors.webhook.sources
    build_signatures(sources, {}, told.append)
    assert told == [
        f"connectors.webhook.sources.billing.secret: other users may read {tmp_path / 'secret'} (chmod 600 it)"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            source('{ env = "NONE" }'),
            r"^connectors\.webhook\.sources\.billing\.secret: the environment variable NONE is not",
        ),
        (
            source('{ file = "none" }'),
            r"^connectors\.webhook\.sources\.billing\.secret: there is no file /etc/broker/none",
        ),
        (source('{ env = "HUB" }'), r"^connectors\.webhook\.sources\.billing\.secret: a secret in it is no base64"),
        (
            source() + source(name="two"),
            r"sources\.billing and connectors\.webhook\.sources\.two have a secret in common",
        ),
        (source() + source('{ env = "BOTH" }', name="two"), "have a secret in common"),
    ],
)
def test_a_secret_that_can_not_be_used_is_the_operator_s_fault(text: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message) as caught:
        build_signatures(read(text).connectors.webhook.sources, SECRETS)
    assert not any(secret in str(caught.value) for secret in SECRETS.values())
