"""Publishers that sign, and CloudEvents, over real HTTP: delivered once if they are good, and not at all otherwise."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.system.client import connected
from tests.system.harness import OPEN_POLICY, Answer, Broker, Brokers, command, unique

pytestmark = pytest.mark.system

OLD, NEW, OTHER = "whsec_b2xkb2xkb2xkb2xkb2xkb2xk", "whsec_bmV3bmV3bmV3bmV3bmV3bmV3", "whsec_b3RoZXJvdGhlcm90aGVyb3Ro"
# The example of GitHub's documentation ("Validating webhook deliveries").
GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
EVENT = b'{"event":"billing.paid","data":{"amount": 1.50}}'

SOURCES = """
[connectors.webhook.sources.billing]
signature = "standard-webhooks"
secret = [{{ file = "{old}" }}, {{ file = "{new}" }}]
events = ["billing.**"]

[connectors.webhook.sources.hub]
signature = "github"
secret = {{ file = "{github}" }}
events = ["hub.**"]
"""


def kept(folder: Path, name: str, secret: str) -> Path:
    (folder / name).write_text(secret + "\n")
    (folder / name).chmod(0o600)
    return folder / name


def configured(folder: Path) -> str:
    old, new, github = kept(folder, "old", OLD), kept(folder, "new", NEW), kept(folder, "github", GITHUB_SECRET)
    return SOURCES.format(old=old, new=new, github=github)


@pytest.fixture(scope="module")
def signed_broker(shared_brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """A broker that knows two sources, where everybody may see everything."""
    return shared_brokers.start(configured(tmp_path_factory.mktemp("secrets")), OPEN_POLICY)


def headers(body: bytes, secret: str = NEW, message: str | None = None, seconds: int = 0) -> dict[str, str]:
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    message = message or unique("msg_")
    signature = Webhook(secret).sign(message, when, body.decode())
    return {"webhook-id": message, "webhook-timestamp": str(int(when.timestamp())), "webhook-signature": signature}


def github(body: bytes, event: str, delivery: str) -> dict[str, str]:
    digest = hmac.new(GITHUB_SECRET.encode(), body, hashlib.sha256).hexdigest()
    return {"X-GitHub-Event": event, "X-GitHub-Delivery": delivery, "X-Hub-Signature-256": f"sha256={digest}"}


def post(broker: Broker, body: bytes, more: dict[str, str], media_type: str = "application/json") -> Answer:
    return broker.request("POST", "/events", body, **{"Content-Type": media_type, **more})


def refused(answer: Answer) -> tuple[int, str]:
    assert answer.json["error"]
    return answer.status, answer.json["code"]


# --- Standard Webhooks -----------------------------------------------------------------------------------------------


async def test_what_is_signed_is_delivered_byte_for_byte(signed_broker: Broker) -> None:
    async with connected(signed_broker, "ada") as client:
        await client.subscribe("billing.**")
        sent = headers(EVENT)
        answer = post(signed_broker, EVENT, sent)
        assert (answer.status, answer.json) == (202, {"ids": [sent["webhook-id"]]})
        assert await client.events() == [{"event": "billing.paid", "data": {"amount": 1.5}}]


async def test_the_payload_of_standard_webhooks_is_an_event(signed_broker: Broker) -> None:
    body = b'{"type":"billing.invoice.paid","timestamp":"2022-11-03T20:26:10.344522Z","data":{"id":"1f81"}}'
    async with connected(signed_broker, "ada") as client:
        await client.subscribe("billing.**")
        assert post(signed_broker, body, headers(body)).status == 202
        assert await client.events() == [{"event": "billing.invoice.paid", "data": {"id": "1f81"}}]


async def test_a_retry_is_answered_as_the_first_and_delivered_once(signed_broker: Broker) -> None:
    several = b'[{"event":"billing.a"},{"event":"billing.b"}]'
    async with connected(signed_broker, "ada") as client:
        await client.subscribe("billing.**")
        for body in (EVENT, several):
            message = unique("msg_")
            answers = [
                post(signed_broker, body, headers(body, message=message, seconds=age)) for age in (-200, -100, 0)
            ]
            assert [answer.status for answer in answers] == [202] * 3
            assert answers[0].json == answers[1].json == answers[2].json
        assert await client.names() == ["billing.paid", "billing.a", "billing.b"]


@pytest.mark.parametrize(
    ("changed", "secret", "seconds"),
    [
        (EVENT, NEW, -400),
        (EVENT, NEW, 400),
        (EVENT.replace(b"1.50", b"9.50"), NEW, 0),
        (EVENT + b"\n", NEW, 0),
        (b"", NEW, 0),
        (b"\xff\xfe", NEW, 0),
        (EVENT, OTHER, 0),
        (EVENT, "whsec_AAAA", 0),
    ],
)
async def test_what_was_changed_or_is_too_old_or_is_a_stranger_s_is_401(
    signed_broker: Broker, changed: bytes, secret: str, seconds: int
) -> None:
    async with connected(signed_broker, "ada") as client:
        await client.subscribe("**")
        assert refused(post(signed_broker, changed, headers(EVENT, secret, seconds=seconds))) == (
            401,
            "invalid_signature",
        )
        assert await client.names() == []


async def test_while_secrets_change_both_count(signed_broker: Broker) -> None:
    for secret in (OLD, NEW):
        assert post(signed_broker, EVENT, headers(EVENT, secret)).status == 202
    both = headers(EVENT, OTHER, "msg_both")
    both["webhook-signature"] += " " + headers(EVENT, OLD, "msg_both")["webhook-signature"]
    assert post(signed_broker, EVENT, both).status == 202


async def test_a_source_publishes_what_its_patterns_match_and_nothing_else(signed_broker: Broker) -> None:
    body = b'[{"event":"billing.a"},{"event":"hub.push"}]'
    async with connected(signed_broker, "ada") as client:
        await client.subscribe("**")
        answer = post(signed_broker, body, headers(body))
        assert refused(answer) == (403, "not_permitted")
        assert answer.json["index"] == 1
        assert await client.names() == []


async def test_a_token_and_a_signature_do_not_help_each_other(signed_broker: Broker) -> None:
    bearer = {"Authorization": f"Bearer {signed_broker.token(publish=['**'])}"}
    assert refused(post(signed_broker, EVENT, headers(EVENT) | bearer)) == (401, "invalid_token")
    assert refused(post(signed_broker, EVENT, headers(EVENT, OTHER) | bearer)) == (401, "invalid_token")
    assert post(signed_broker, EVENT, bearer).status == 202
    assert refused(post(signed_broker, EVENT, {})) == (401, "missing_token")


async def test_where_nobody_signs_a_signature_is_401(open_broker: Broker) -> None:
    answer = post(open_broker, EVENT, headers(EVENT))
    assert refused(answer) == (401, "invalid_signature")
    assert "no source" in answer.json["error"]


async def test_a_signed_body_beyond_the_bound_is_413(signed_broker: Broker) -> None:
    body = b" " * 1_100_000
    assert refused(post(signed_broker, body, headers(body))) == (413, "body_too_large")


# --- GitHub ----------------------------------------------------------------------------------------------------------


async def test_github_s_own_example_is_known_and_only_then_found_to_be_no_json(signed_broker: Broker) -> None:
    assert refused(post(signed_broker, GITHUB_BODY, {"X-Hub-Signature-256": GITHUB_SIGNATURE})) == (400, "bad_event")
    for wrong in (
        GITHUB_SIGNATURE[:-1] + "8",
        GITHUB_SIGNATURE[:-1],
        GITHUB_SIGNATURE.replace("sha256", "sha1"),
        "x" * 9000,
    ):
        assert refused(post(signed_broker, GITHUB_BODY, {"X-Hub-Signature-256": wrong})) == (401, "invalid_signature")


async def test_what_github_sends_is_delivered_once_with_its_whole_payload(signed_broker: Broker) -> None:
    body = b'{"action": "opened", "issue": {"number": 7}}'
    delivery = unique("72d3162e-cc78-11e3-81ab-")
    async with connected(signed_broker, "ada") as client:
        await client.subscribe("hub.**")
        for _ in range(2):
            answer = post(signed_broker, body, github(body, "issues", delivery))
            assert (answer.status, answer.json) == (202, {"ids": [delivery]})
        assert await client.events() == [{"event": "hub.issues.opened", "data": json.loads(body)}]


async def test_a_form_of_github_is_415_with_what_to_choose(signed_broker: Broker) -> None:
    body = b"payload=%7B%7D"
    answer = post(signed_broker, body, github(body, "push", "1"), "application/x-www-form-urlencoded")
    assert refused(answer) == (415, "unsupported_media_type")
    assert "application/json" in answer.json["error"]


# --- CloudEvents -----------------------------------------------------------------------------------------------------

CLOUDEVENT = b'{"specversion":"1.0","id":"%b","source":"/shop","type":"orders.made","data":{"total": 2.0}}'
STRUCTURED = "application/cloudevents+json"


async def test_cloudevents_are_taken_in_all_three_modes(open_broker: Broker) -> None:
    ids = [unique("ce").encode() for _ in range(4)]
    single, *batch = (CLOUDEVENT % each for each in ids[:3])
    bearer = {"Authorization": f"Bearer {open_broker.token(publish=['orders.*'])}"}
    binary = {"ce-specversion": "1.0", "ce-id": ids[3].decode(), "ce-source": "/sh%6Fp", "ce-type": "orders.made"}
    async with connected(open_broker, "ada") as client:
        await client.subscribe("orders.*")
        answers = [
            post(open_broker, single, bearer, STRUCTURED),
            post(open_broker, b"[%b]" % b",".join(batch), bearer, "application/cloudevents-batch+json"),
            post(open_broker, b'{"total": 2.0}', bearer | binary),
        ]
        assert [taken for answer in answers for taken in answer.json["ids"]] == [
            f"/shop {each.decode()}" for each in ids
        ]
        assert await client.events() == [{"event": "orders.made", "data": {"total": 2.0}}] * 4


async def test_the_same_cloudevent_is_delivered_once_in_whatever_mode_it_comes(open_broker: Broker) -> None:
    mine = unique("ce")
    binary = {"ce-specversion": "1.0", "ce-id": mine, "ce-source": "/shop", "ce-type": "orders.made"}
    bearer = {"Authorization": f"Bearer {open_broker.token(publish=['orders.*'])}"}
    async with connected(open_broker, "ada") as client:
        await client.subscribe("orders.*")
        assert post(open_broker, CLOUDEVENT % mine.encode(), bearer, STRUCTURED).status == 202
        assert post(open_broker, b'{"total": 2.0}', bearer | binary).json == {"ids": [f"/shop {mine}"]}
        other = (CLOUDEVENT % mine.encode()).replace(b"/shop", b"/other")
        assert post(open_broker, other, bearer, STRUCTURED).json == {"ids": [f"/other {mine}"]}
        assert len(await client.events()) == 2


async def test_a_cloudevent_may_be_signed(signed_broker: Broker) -> None:
    body = (CLOUDEVENT % b"1").replace(b"orders", b"billing")
    assert post(signed_broker, body, headers(body), STRUCTURED).status == 202
    head = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "billing.made"}
    assert refused(post(signed_broker, b"1", headers(b"1") | head)) == (415, "unsupported_media_type")


async def test_a_cloudevent_may_be_named_by_its_subject(brokers: Brokers) -> None:
    broker = brokers.start('[connectors.webhook]\ncloudevents_name = "subject"\n')
    named = (CLOUDEVENT % b"1")[:-1] + b',"subject":"shop.1.orders.2"}'
    async with connected(broker, "ada") as client:
        await client.subscribe("shop.**")
        assert broker.post(named, STRUCTURED).status == 202
        assert refused(broker.post(CLOUDEVENT % b"1", STRUCTURED)) == (400, "bad_event")
        assert await client.names() == ["shop.1.orders.2"]


# --- Secrets ---------------------------------------------------------------------------------------------------------


async def test_no_secret_and_no_signature_is_ever_logged(signed_broker: Broker) -> None:
    signed = headers(EVENT, OTHER)
    post(signed_broker, EVENT, signed)
    logged = signed_broker.errors() + signed_broker.output()
    assert not any(secret in logged for secret in (OLD, NEW, GITHUB_SECRET, signed["webhook-signature"]))


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ({}, "connectors.webhook.sources.one.secret: the environment variable ONE is not set"),
        ({"ONE": "hunter-2", "TWO": NEW}, "connectors.webhook.sources.one.secret: a secret in it is no base64"),
        (
            {"ONE": NEW, "TWO": f"{OLD}\n{NEW}"},
            "sources.one and connectors.webhook.sources.two have a secret in common",
        ),
    ],
)
def test_a_secret_that_can_not_be_used_stops_the_start(tmp_path: Path, secrets: dict[str, str], message: str) -> None:
    source = (
        '[connectors.webhook.sources.%s]\nsignature = "standard-webhooks"\nsecret = { env = "%s" }\nevents = ["a.*"]\n'
    )
    (tmp_path / "policy.toml").write_text(OPEN_POLICY)
    (tmp_path / "config.toml").write_text(source % ("one", "ONE") + source % ("two", "TWO"))
    done = command("run", folder=tmp_path, stdin=b"", **secrets)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert not any(secret.encode() in done.stderr for secret in ("hunter", OLD, NEW))
    shown = command("config", "show", folder=tmp_path, stdin=b"", **secrets)
    assert shown.returncode == 0
    assert not any(secret.encode() in shown.stdout for secret in ("hunter", OLD, NEW))
