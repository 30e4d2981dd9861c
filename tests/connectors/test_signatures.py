"""Signatures: whose a request is, and that nothing but a good signature says so."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from broker.core.errors import InvalidSignature, OperatorError
from broker.core.permissions import Permission
from connectors.signatures import MAX_SIGNATURES, Kind, Signatures, Source, headers_of, kinds_of, read_keys
from tests.connectors.posting import post, signed_by_github, signed_by_standard_webhooks

BODY = b'{"event":"a"}'
KEY = b"k" * 24
OTHER = b"o" * 24
GITHUB_EXAMPLE = ("It's a Secret to Everybody", b"Hello, World!")
GITHUB_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def source(name: str, kind: Kind, *keys: bytes) -> Source:
    return Source(name, kind, keys, Permission(["**"]))


def standard(*keys: bytes, name: str = "billing") -> Source:
    return source(name, "standard-webhooks", *keys)


def github(*keys: bytes, name: str = "hub") -> Source:
    return source(name, "github", *keys)


def owner(sources: Sequence[Source], headers: dict[str, str], body: bytes = BODY) -> str:
    request = post(body, **headers)
    (kind,) = kinds_of(request)
    return Signatures(sources).source_of(kind, headers_of(request, kind), body).name


def refusal(sources: Sequence[Source], headers: dict[str, str], body: bytes = BODY) -> str:
    with pytest.raises(InvalidSignature) as caught:
        owner(sources, headers, body)
    return str(caught.value)


# --- Good ones -------------------------------------------------------------------------------------------------------


def test_what_standard_webhooks_signs_is_known() -> None:
    assert owner([standard(KEY)], signed_by_standard_webhooks(KEY, BODY)) == "billing"


def test_the_example_that_github_documents_is_known() -> None:
    secret, body = GITHUB_EXAMPLE
    (key,) = read_keys("github", secret.encode(), "k")
    assert owner([github(key)], {"x-hub-signature-256": GITHUB_SIGNATURE}, body) == "hub"


@pytest.mark.parametrize("body", [b"", b"\x00", "ä😀".encode(), b"x" * 1_000_000])
def test_any_text_can_be_signed(body: bytes) -> None:
    assert owner([standard(KEY)], signed_by_standard_webhooks(KEY, body), body) == "billing"
    assert owner([github(KEY)], signed_by_github(KEY, body), body) == "hub"


def test_a_source_is_found_by_its_secret() -> None:
    sources = [
        standard(KEY, name="one"),
        standard(OTHER, name="two"),
        github(KEY, name="three"),
        github(OTHER, name="four"),
    ]
    assert [
        owner(sources, signed(key, BODY))
        for signed in (signed_by_standard_webhooks, signed_by_github)
        for key in (KEY, OTHER)
    ] == ["one", "two", "three", "four"]


def test_while_a_secret_is_changed_the_old_and_the_new_one_count() -> None:
    for key in (KEY, OTHER):
        assert owner([standard(KEY, OTHER)], signed_by_standard_webhooks(key, BODY))
        assert owner([github(KEY, OTHER)], signed_by_github(key, BODY))


def test_one_good_signature_of_several_will_do() -> None:
    headers = signed_by_standard_webhooks(KEY, BODY)
    good = headers["webhook-signature"]
    other = signed_by_standard_webhooks(OTHER, BODY)["webhook-signature"]
    for several in (f"{other} {good}", f"v1a,AAAA {good}", " ".join([other] * (MAX_SIGNATURES - 1) + [good])):
        assert owner([standard(KEY)], {**headers, "webhook-signature": several}) == "billing"


@pytest.mark.parametrize("seconds", [-290, 0, 290])
def test_clocks_may_differ_by_five_minutes(seconds: int) -> None:
    assert owner([standard(KEY)], signed_by_standard_webhooks(KEY, BODY, seconds))


def test_capital_letters_are_hexadecimal_too() -> None:
    headers = {"x-hub-signature-256": "sha256=" + signed_by_github(KEY, BODY)["x-hub-signature-256"][7:].upper()}
    assert owner([github(KEY)], headers) == "hub"


# --- Bad ones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "message"), [(-310, "too old"), (310, "too new"), (-(10**9), "too old")])
def test_what_was_signed_at_another_time_is_refused(seconds: int, message: str) -> None:
    assert message in refusal([standard(KEY)], signed_by_standard_webhooks(KEY, BODY, seconds))


@pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], b"", BODY.replace(b"a", b"b"), b"\xff" + BODY])
def test_another_body_is_refused(body: bytes) -> None:
    assert "does not hold" in refusal([standard(KEY)], signed_by_standard_webhooks(KEY, BODY), body)
    assert "does not hold" in refusal([github(KEY)], signed_by_github(KEY, BODY), body)


def test_a_body_that_is_no_text_is_refused() -> None:
    body = b"\xff"
    signature = hmac.digest(KEY, b"msg_1.%d.%b" % (int(datetime.now(UTC).timestamp()), body), "sha256")
    headers = signed_by_standard_webhooks(KEY, b"")
    headers["webhook-signature"] = f"v1,{base64.b64encode(signature).decode()}"
    assert "UTF-8" in refusal([standard(KEY)], headers, body)


def test_another_id_or_time_is_refused() -> None:
    headers = signed_by_standard_webhooks(KEY, BODY)
    later = str(int(headers["webhook-timestamp"]) + 1)
    for changed in ({"webhook-id": "msg_2"}, {"webhook-timestamp": later}):
        assert "does not hold" in refusal([standard(KEY)], {**headers, **changed})


def test_another_secret_is_refused() -> None:
    assert refusal([standard(OTHER)], signed_by_standard_webhooks(KEY, BODY))
    assert refusal([github(OTHER)], signed_by_github(KEY, BODY))
    assert refusal([github(KEY)], signed_by_standard_webhooks(KEY, BODY))
    assert refusal([], signed_by_github(KEY, BODY))


@pytest.mark.parametrize("same", ["{}.0", "{}.9", "0{}", "+{}", "{}e0"])
def test_a_time_is_written_in_digits_and_in_no_other_way(same: str) -> None:
    headers = signed_by_standard_webhooks(KEY, BODY)
    changed = {**headers, "webhook-timestamp": same.format(headers["webhook-timestamp"])}
    assert "webhook-timestamp is malformed" in refusal([standard(KEY)], changed)


def test_where_the_id_ends_and_the_time_begins_can_not_be_shifted() -> None:
    headers = signed_by_standard_webhooks(KEY, b"1.5", message="msg")
    shifted = {**headers, "webhook-id": f"msg.{headers['webhook-timestamp']}", "webhook-timestamp": "1"}
    assert "too old" in refusal([standard(KEY)], shifted, b"5")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", " ", "a b", "ä", "\x7f", "x" * 300, "1e9", "-1", "+1", "1_0", "nan"])
def test_headers_that_are_missing_or_malformed_are_refused(name: str, value: str | None) -> None:
    headers = signed_by_standard_webhooks(KEY, BODY)
    del headers[name]
    request = post(BODY, **headers if value is None else {**headers, name: value})
    with pytest.raises(InvalidSignature):
        Signatures([standard(KEY)]).source_of("standard-webhooks", headers_of(request, "standard-webhooks"), BODY)


@pytest.mark.parametrize(
    "signature",
    [
        "v1",
        "v1,",
        "v1,A",
        "v1,AAAA",
        "v1,ä",
        "v1,====",
        ",",
        ",,",
        "v1,a,b",
        "v2,AAAA",
        "v1a,AAAA",
        "  ",
        "v1,AAAA  v1,AAAA",
        " ".join(["v1,AAAA"] * (MAX_SIGNATURES + 1)),
    ],
)
def test_whatever_stands_in_the_place_of_a_signature_is_none(signature: str) -> None:
    refusal([standard(KEY)], {**signed_by_standard_webhooks(KEY, BODY), "webhook-signature": signature})


def test_more_signatures_than_anybody_needs_are_refused_even_with_a_good_one() -> None:
    headers = signed_by_standard_webhooks(KEY, BODY)
    several = " ".join([headers["webhook-signature"]] * (MAX_SIGNATURES + 1))
    assert "malformed" in refusal([standard(KEY)], {**headers, "webhook-signature": several})


@pytest.mark.parametrize(
    "signature",
    ["", "sha256=", "sha256=00", "sha1=" + "0" * 40, "sha256=" + "g" * 64, "sha256=" + "0" * 65, "sha256= " + "0" * 64],
)
def test_what_is_no_signature_of_github_is_refused(signature: str) -> None:
    refusal([github(KEY)], {"x-hub-signature-256": signature})


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256"])
def test_a_header_that_is_there_twice_is_refused(name: str) -> None:
    once = post(BODY, **signed_by_standard_webhooks(KEY, BODY), **signed_by_github(KEY, BODY))
    twice = replace(once, headers=[*once.headers, *(item for item in once.headers if item[0] == name.encode())])
    kind: Kind = "github" if name.startswith("x") else "standard-webhooks"
    assert headers_of(once, kind)
    with pytest.raises(InvalidSignature, match="2 times"):
        headers_of(twice, kind)


latin = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)


@given(latin, latin | st.integers().map(str), latin | latin.map("v1,{}".format), latin | latin.map("sha256={}".format))
@example("msg", "9" * 12, "v1,AAAA", "sha256=" + "0" * 64)
def test_hostile_headers_are_at_worst_a_bad_signature(message: str, timestamp: str, signature: str, hub: str) -> None:
    now = signed_by_standard_webhooks(KEY, BODY)["webhook-timestamp"]
    for time in (timestamp, now):
        refusal([standard(KEY)], {"webhook-id": message, "webhook-timestamp": time, "webhook-signature": signature})
    refusal([github(KEY)], {"x-hub-signature-256": hub})


@given(st.binary(), st.integers(0, 31), st.integers(1, 255))
def test_a_signature_with_one_bit_changed_is_none(body: bytes, place: int, bits: int) -> None:
    signature = bytearray(hmac.digest(KEY, body, "sha256"))
    signature[place] ^= bits
    refusal([github(KEY)], {"x-hub-signature-256": f"sha256={signature.hex()}"}, body)


def test_which_kinds_a_request_has_is_seen_by_its_headers() -> None:
    standard_, github_ = signed_by_standard_webhooks(KEY, BODY), signed_by_github(KEY, BODY)
    assert kinds_of(post()) == []
    assert kinds_of(post(BODY, **{"webhook-id": "x", "x-hub-signature": "sha1=00"})) == []
    assert kinds_of(post(BODY, **standard_)) == ["standard-webhooks"]
    assert kinds_of(post(BODY, **github_)) == ["github"]
    assert kinds_of(post(BODY, **{**standard_, **github_})) == ["standard-webhooks", "github"]


# --- Secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"whsec_b29vb29v", b" b29vb29v\n", b"whsec_b29vb29v\n\n"])
def test_a_secret_of_standard_webhooks_is_base64(text: bytes) -> None:
    assert read_keys("standard-webhooks", text, "k") == [b"oooooo"]


def test_the_padding_of_base64_may_be_missing() -> None:
    for length in range(1, 40):
        key = bytes(range(length))
        encoded = base64.b64encode(key)
        assert read_keys("standard-webhooks", encoded + b" whsec_" + encoded.rstrip(b"="), "k") == [key, key]


def test_our_keys_are_those_of_the_library() -> None:
    text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    (key,) = read_keys("standard-webhooks", text.encode(), "k")
    when = datetime.now(UTC)
    assert Webhook(text).sign("m", when, "x") == Webhook(key).sign("m", when, "x")


def test_one_text_may_hold_several_secrets() -> None:
    assert read_keys("standard-webhooks", b"whsec_YQ== YWI=\n\twhsec_YWJj", "k") == [b"a", b"ab", b"abc"]
    assert read_keys("github", b"one secret\r\nanother\n\n", "k") == [b"one secret", b"another"]


@pytest.mark.parametrize(
    "text", [b"whsec_", b"whsec_hunter2!", b"hunter-2", b"whsec_a", b"YQ== whsec_\xff", b"=", b"whsk_YWJj"]
)
def test_what_is_no_base64_is_the_operator_s_fault_and_not_repeated(text: bytes) -> None:
    with pytest.raises(OperatorError, match=r"connectors\.x\.secret: .* base64") as caught:
        read_keys("standard-webhooks", text, "connectors.x.secret")
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize("kind", ["standard-webhooks", "github"])
def test_a_text_without_a_secret_is_the_operator_s_fault(kind: Kind) -> None:
    with pytest.raises(OperatorError, match="there is no secret in it"):
        read_keys(kind, b" \n ", "k")


def test_a_source_does_not_show_its_keys() -> None:
    assert "hunter2" not in repr(standard(b"hunter2"))
    assert "hunter2" not in f"{Signatures([standard(b'hunter2')])!r}"


LONG = b"long" * 20


@pytest.mark.parametrize(
    ("one", "other"),
    [(KEY, KEY), (b"k", b"k\x00"), (LONG, hashlib.sha256(LONG).digest())],
    ids=["equal", "padded", "hashed"],
)
@pytest.mark.parametrize("kind", ["standard-webhooks", "github"])
def test_two_sources_of_a_kind_may_not_have_a_secret_in_common(kind: Kind, one: bytes, other: bytes) -> None:
    with pytest.raises(
        OperatorError, match=r"sources\.one and connectors\.webhook\.sources\.two have a secret in common"
    ):
        Signatures([source("one", kind, one), source("two", kind, OTHER, other)])


def test_a_secret_may_serve_two_kinds_and_stand_twice_in_one_source() -> None:
    signatures = Signatures([standard(KEY, KEY), github(KEY)])
    assert signatures.kinds == {"standard-webhooks", "github"}
    assert Signatures().kinds == frozenset()
