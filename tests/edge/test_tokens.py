"""Tokens: what counts, what does not, and that nothing but our own errors ever comes out."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from broker.config import AuthConfig, SecretSource
from broker.core.errors import AuthenticationError, ExpiredToken, InvalidToken, MissingToken
from broker.core.ports import Authenticator, Identity
from broker.edge.keys import hmac_key, jwks_keys, pem_key
from broker.edge.tokens import Anonymous, IssueError, SecretError, build_authenticator, issue_token
from tests.edge.signing import NOW, SECRET, authenticator, encoded, signed, token

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()
PRIVATE = {"RS256": RSA, "PS512": RSA, "ES256": P256, "ES384": P384, "ES512": P521, "EdDSA": ED25519}


def pem(key: Any) -> bytes:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))


def jwk(key: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key()))
    found.pop("key_ops", None)
    return {**found, **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_a_token_names_its_user_its_claims_and_its_end() -> None:
    identity = authenticator(leeway=2.0).identify(token(sub="ada", roles=["admin"], exp=NOW + 60))
    assert identity.user == "ada"
    assert identity.claims["roles"] == ["admin"]
    assert identity.expires_at == NOW + 62


def test_a_token_without_an_end_never_ends() -> None:
    assert authenticator().identify(token(sub="ada")).expires_at is None


@pytest.mark.parametrize("missing", [None, ""])
def test_no_token_is_missing(missing: str | None) -> None:
    with pytest.raises(MissingToken):
        authenticator().identify(missing)
    with pytest.raises(MissingToken):
        authenticator().publisher(missing)


def test_another_claim_may_name_the_user() -> None:
    assert authenticator(user_claim="uid").identify(token(sub="ada", uid="eve")).user == "eve"


def test_a_publisher_needs_no_user_but_who_connects_does() -> None:
    bare = token(publish=["games.**"])
    assert authenticator().publisher(bare) == Identity(None, {"publish": ["games.**"]})
    with pytest.raises(InvalidToken, match="names no user"):
        authenticator().identify(bare)


@pytest.mark.parametrize(
    "user", ["", 7, True, ["ada"], {"a": 1}, "a\nb", "a\x00", "a\x7f", "\x85", "ä" * 128, "\ud800"]
)
def test_a_user_is_a_text_that_can_be_shown(user: Any) -> None:
    bad = signed(json.dumps({"sub": user}).encode())
    for ask in (authenticator().identify, authenticator().publisher):
        with pytest.raises(InvalidToken, match="the token's user"):
            ask(bad)


def test_a_user_of_255_bytes_will_do() -> None:
    assert authenticator().identify(token(sub="ä" * 127 + "a")).user == "ä" * 127 + "a"


def test_an_expired_token_is_told_apart() -> None:
    with pytest.raises(ExpiredToken):
        authenticator().identify(token(sub="ada", exp=NOW))
    with pytest.raises(ExpiredToken):
        authenticator(leeway=5.0).identify(token(sub="ada", exp=NOW - 5))
    assert authenticator(leeway=5.0).identify(token(sub="ada", exp=NOW - 4)).expires_at == NOW + 1


def test_only_an_otherwise_good_token_has_expired() -> None:
    for bad in (token(sub="ada", exp=1, aud="x"), token(sub="", exp=1), token(b"x" * 64, sub="ada", exp=1)):
        with pytest.raises(InvalidToken):
            authenticator().identify(bad)


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_from_the_future_is_not_valid_yet(claim: str) -> None:
    early = signed(json.dumps({"sub": "ada", claim: NOW + 3}).encode())
    with pytest.raises(InvalidToken, match="not valid yet"):
        authenticator(leeway=2.0).identify(early)
    assert authenticator(leeway=3.0).identify(early).user == "ada"


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["null", "true", '"9999999999"', "[1]", "1e999", "NaN", "Infinity", "9" * 400])
def test_times_are_finite_numbers(claim: str, value: str) -> None:
    with pytest.raises(InvalidToken):
        authenticator().identify(signed(f'{{"sub": "ada", "{claim}": {value}}}'.encode()))


def test_issuer_and_audience_must_be_those_configured() -> None:
    strict = authenticator(issuer="https://i", audience=("a", "b"))
    assert strict.identify(token(sub="ada", iss="https://i", aud="b")).user == "ada"
    assert strict.identify(token(sub="ada", iss="https://i", aud=["x", "a"])).user == "ada"
    for claims in (
        {"iss": "https://i"},
        {"iss": "https://j", "aud": "a"},
        {"aud": "a"},
        {"iss": "https://i", "aud": "c"},
    ):
        with pytest.raises(InvalidToken, match=r"another (issuer|audience)"):
            strict.identify(signed(json.dumps({"sub": "ada", **claims}).encode()))


@pytest.mark.parametrize("audience", ["other", ["a"], [], None, 3, [["a"]], {"a": 1}])
def test_a_token_for_an_audience_is_refused_where_none_is_configured(audience: Any) -> None:
    with pytest.raises(InvalidToken, match="another audience"):
        authenticator().identify(signed(json.dumps({"sub": "ada", "aud": audience}).encode()))


def test_another_key_s_signature_does_not_count() -> None:
    with pytest.raises(InvalidToken, match="not signed by a key"):
        authenticator().identify(token(b"x" * 64, sub="ada"))


def test_an_algorithm_must_be_in_the_list() -> None:
    for bad in (token(sub="ada", _algorithm="HS512"), token("", "none", sub="ada")):
        with pytest.raises(InvalidToken):
            authenticator().identify(bad)
    for header in (b'{"alg":"hs256"}', b'{"alg":null}', b'{"alg":["HS256"]}', b"{}", b"[]"):
        with pytest.raises(InvalidToken):
            authenticator().identify(signed(b'{"sub":"ada"}', header))


@pytest.mark.parametrize(
    "extra", ['"crit":["exp"]', '"crit":[]', '"crit":null', '"b64":false', '"b64":true', '"kid":7']
)
def test_extensions_that_are_not_understood_are_refused(extra: str) -> None:
    with pytest.raises(InvalidToken):
        authenticator().identify(signed(b'{"sub":"ada"}', f'{{"alg":"HS256",{extra}}}'.encode()))


def test_only_the_compact_form_without_padding_is_a_token() -> None:
    good = token(sub="ada")
    head, body, signature = good.split(".")
    for bad in (f"{head}=.{body}.{signature}", f"{good}=", f"{good}\n", f" {good}", f"{head}.{body}", f"{head}.{body}.",
                f"{good}.x", f"{head}..{signature}", "....", f"{good}+", good.replace(head, "é" + head)):  # fmt: skip
        with pytest.raises(InvalidToken):
            authenticator().identify(bad)


def test_a_token_has_at_most_8_kibibytes() -> None:
    with pytest.raises(InvalidToken, match="malformed"):
        authenticator().identify(token(sub="ada", x="y" * 8192))


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"[]", b'"sub"', b"null", b"{", b"\xff", b"[" * 5000, b'{"a":' * 1000),
        b'{"sub":' + b"9" * 5000 + b"}",
        '{"sub":"ada"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"sub":"ada"}',
        b'{"sub":"ada","x":NaN}',
    ],
)
def test_claims_are_a_json_object_in_utf_8(payload: bytes) -> None:
    with pytest.raises(InvalidToken):
        authenticator().identify(signed(payload))


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", fullmatch=True))
def test_any_text_is_answered_by_an_error_of_ours_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        authenticator().identify(text)
    assert len(text) < 12 or text not in str(caught.value)


@given(st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")), st.integers(0, 80), st.characters())
def test_a_changed_token_is_refused_or_the_same(text: str, at: int, other: str) -> None:
    good = token(sub="ada")
    for bad in (good[:at] + other + good[at + 1 :], good + text, text + good):
        if bad != good:
            with pytest.raises(AuthenticationError):
                authenticator().identify(bad)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "x"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_signed_claims_are_an_identity_or_an_error_of_ours(claims: Any) -> None:
    try:
        identity = authenticator().identify(signed(json.dumps(claims).encode()))
    except AuthenticationError:
        return
    assert identity.user


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_verifies_its_own_kind(algorithm: str) -> None:
    made = token(PRIVATE[algorithm], algorithm, sub="ada")
    for keys in ([pem_key(pem(PRIVATE[algorithm]), "k")], jwks_keys(jwks(jwk(PRIVATE[algorithm], algorithm)), "k")):
        assert authenticator(keys, algorithms=(algorithm,)).identify(made).user == "ada"


def test_ed448_is_eddsa_too() -> None:
    keys = jwks_keys(jwks(jwk(ED448, "EdDSA")), "k")
    assert authenticator(keys, algorithms=("EdDSA",)).identify(token(ED448, "EdDSA", sub="ada")).user == "ada"
    assert pem_key(pem(ED448), "k").algorithms == {"EdDSA"}


def test_a_key_serves_only_its_own_kind() -> None:
    assert pem_key(pem(P256), "k").algorithms == {"ES256"}
    assert pem_key(pem(P384), "k").algorithms == {"ES384"}
    everything = authenticator([pem_key(pem(P256), "k")], algorithms=("ES256", "ES384", "RS256", "EdDSA"))
    with pytest.raises(InvalidToken, match="not signed by a key"):
        everything.identify(token(RSA, "RS256", sub="ada"))


def test_a_public_key_is_never_taken_for_a_secret() -> None:
    """The old confusion: an HMAC made with the text of the public key, which everybody has."""
    public = pem(RSA)
    head, body = encoded(b'{"alg":"HS256"}'), encoded(b'{"sub":"ada"}')
    forged = f"{head}.{body}.{encoded(hmac.digest(public, f'{head}.{body}'.encode(), hashlib.sha256))}"
    keys = [pem_key(public, "k"), hmac_key(SECRET, ["HS256"], "s")]
    with pytest.raises(InvalidToken):
        authenticator(keys, algorithms=("RS256", "HS256")).identify(forged)
    for asymmetric in (public, b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7", jwks(jwk(RSA, "RS256"))):
        with pytest.raises(SecretError, match=r"not a secret .*auth\.public_key"):
            hmac_key(asymmetric, ["HS256"], "auth.secret")


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_at_least_as_long_as_its_hash(algorithm: str, least: int) -> None:
    assert hmac_key(b"x" * least, [algorithm], "auth.secret").algorithms == {algorithm}
    with pytest.raises(SecretError, match=f"auth.secret: {algorithm} needs a secret of at least {least} bytes"):
        hmac_key(b"x" * (least - 1), ["HS256", algorithm], "auth.secret")


def test_a_short_rsa_key_is_refused() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(SecretError, match="at least 2048 bits, this one has 1024"):
        pem_key(pem(short), "auth.public_key")
    with pytest.raises(SecretError, match=r"auth\.jwks, keys\[0\].*at least 2048 bits"):
        jwks_keys(jwks(jwk(short, "RS256")), "auth.jwks")


@pytest.mark.parametrize("text", [b"nonsense", b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_is_refused(text: bytes) -> None:
    with pytest.raises(SecretError, match="no public key in PEM"):
        pem_key(text, "auth.public_key")


def test_private_keys_and_other_curves_are_refused() -> None:
    private = RSA.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(SecretError, match="this is a private key"):
        pem_key(private, "k")
    with pytest.raises(SecretError, match="is a private key"):
        jwks_keys(jwks(jwk(RSA, "RS256", d="AQAB")), "k")
    with pytest.raises(SecretError, match="serves no algorithm"):
        pem_key(pem(ec.generate_private_key(ec.SECP256K1())), "k")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[1]}', b'{"keys":null}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_key_set_is_refused(text: bytes) -> None:
    with pytest.raises(SecretError, match="no JSON Web Key Set"):
        jwks_keys(text, "auth.jwks")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"kty": "oct", "k": encoded(SECRET)}, "symmetric key"),
        ({"kty": "oct", "k": encoded(SECRET), "use": "enc"}, "symmetric key"),
        ({**jwk(RSA, "RS256"), "kid": 7}, "kid is no text"),
        ({**jwk(RSA, "RS256"), "n": "a=b"}, "malformed"),
        ({**jwk(RSA, "RS256"), "e": 65537}, "malformed"),
        ({**jwk(P256, "ES256"), "x": encoded(b"\x01" * 32)}, "malformed"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}, "malformed"),
        ({"kty": "EC", "crv": "P-256"}, "malformed"),
        ({"kty": "new"}, "no key for signatures"),
        ({**jwk(RSA, "RS256"), "use": "enc"}, "no key for signatures"),
        ({**jwk(RSA, "RS256"), "key_ops": ["encrypt"]}, "no key for signatures"),
        ({**jwk(RSA, "RS256"), "key_ops": "verify"}, "no key for signatures"),
        ({**jwk(RSA, "RS256"), "alg": "RSA-OAEP"}, "no key for signatures"),
        ({**jwk(RSA, "RS256"), "alg": ["RS256"]}, "no key for signatures"),
    ],
)
def test_keys_of_a_set_that_must_not_verify_do_not(key: dict[str, Any], message: str) -> None:
    with pytest.raises(SecretError, match=message) as caught:
        jwks_keys(jwks(key), "auth.jwks")
    assert encoded(SECRET) not in str(caught.value)


def test_a_key_set_is_bounded() -> None:
    with pytest.raises(SecretError, match="at most 64"):
        jwks_keys(jwks(*[jwk(P256, "ES256")] * 65), "auth.jwks")


def test_the_algorithm_of_a_key_in_a_set_binds_it() -> None:
    keys = jwks_keys(jwks(jwk(RSA, "RS256", alg="PS256", use="sig", key_ops=["verify"])), "k")
    both = authenticator(keys, algorithms=("RS256", "PS256"))
    assert both.identify(token(RSA, "PS256", sub="ada")).user == "ada"
    with pytest.raises(InvalidToken):
        both.identify(token(RSA, "RS256", sub="ada"))


def test_the_key_id_selects_and_without_one_all_are_tried() -> None:
    keys = jwks_keys(jwks(jwk(OTHER_RSA, "RS256", kid="old"), jwk(RSA, "RS256", kid="new")), "k")
    either = authenticator(keys, algorithms=("RS256",))
    assert either.identify(token(RSA, "RS256", sub="ada")).user == "ada"
    assert either.identify(token(RSA, "RS256", {"kid": "new"}, sub="ada")).user == "ada"
    for kid in ("old", "other"):
        with pytest.raises(InvalidToken):
            either.identify(token(RSA, "RS256", {"kid": kid}, sub="ada"))


def test_nothing_shows_a_key() -> None:
    assert SECRET.decode() not in repr(hmac_key(SECRET, ["HS256"], "auth.secret"))
    assert SECRET.decode() not in repr(authenticator())


def test_without_users_everybody_is_nobody_and_may_publish() -> None:
    anonymous: Authenticator = build_authenticator(AuthConfig(mode="none"))
    assert isinstance(anonymous, Anonymous)
    assert anonymous.identify("whatever") == Identity()
    assert anonymous.publisher(None).claims == {"publish": ["**"]}


def test_an_algorithm_without_a_key_stops_the_start() -> None:
    auth = AuthConfig(algorithms=("RS256", "ES256"), public_key=SecretSource(env="KEY"))
    with pytest.raises(SecretError, match=r"auth\.algorithms: no key serves ES256"):
        build_authenticator(auth, {"KEY": pem(RSA).decode()})


def test_an_issued_token_is_accepted_by_the_same_configuration() -> None:
    auth = AuthConfig(secret=SecretSource(env="S"), audience=("a", "b"), issuer="https://i")
    environ = {"S": SECRET.decode()}
    made = issue_token(auth, {"sub": "ada", "roles": ["admin"]}, 60, environ)
    identity = build_authenticator(auth, environ).identify(made)
    assert (identity.user, identity.claims["aud"], identity.claims["iss"]) == ("ada", "a", "https://i")
    assert identity.expires_at == identity.claims["iat"] + 60


def test_a_token_that_would_not_be_accepted_is_not_issued() -> None:
    auth = AuthConfig(secret=SecretSource(env="S"))
    with pytest.raises(InvalidToken):
        issue_token(auth, {"sub": "a\nb"}, 60, {"S": SECRET.decode()})


def test_tokens_are_issued_with_a_secret_only() -> None:
    with pytest.raises(IssueError, match="private key that is not here"):
        issue_token(AuthConfig(algorithms=("RS256",), public_key=SecretSource(env="K")), {}, 60, {})
    with pytest.raises(IssueError, match=r'auth\.mode is "none"'):
        issue_token(AuthConfig(mode="none"), {}, 60, {})
