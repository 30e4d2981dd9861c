"""Keys that verify signatures: the only module that knows `cryptography`.

A key serves only algorithms of its own kind. That is decided here, once, when it is loaded; no token has a say.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.edge.secret_file import SecretError

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

MAX_KEYS = 64
_MIN_RSA_BITS = 2048
_HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_EDDSA = frozenset({"EdDSA"})
_CURVES: dict[str, tuple[str, type[ec.EllipticCurve]]] = {
    "P-256": ("ES256", ec.SECP256R1),
    "P-384": ("ES384", ec.SECP384R1),
    "P-521": ("ES512", ec.SECP521R1),
}
_ASYMMETRIC_TEXT = re.compile(rb"-----BEGIN|^ssh-|^ecdsa-|\"kty\"")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Key:
    """A key and the algorithms that it serves. `kid`: its name in a key set."""

    material: bytes | PublicKey = field(repr=False)
    algorithms: frozenset[str]
    kid: str | None = None

    def serves(self, algorithm: str, kid: str | None) -> bool:
        """Whether a token of this algorithm and key id may be tried with it."""
        return algorithm in self.algorithms and (kid is None or self.kid is None or self.kid == kid)


def hmac_key(secret: bytes, algorithms: Iterable[str], key: str) -> Key:
    """A symmetric key for those of `algorithms` that are HMACs.

    Raises SecretError if it is shorter than a hash, or is a public key.
    """
    if _ASYMMETRIC_TEXT.search(secret):
        raise SecretError(key, "this is an asymmetric key, not a secret", "a public key goes into auth.public_key")
    own = [name for name in algorithms if name in _HMAC_BYTES]
    least = max(_HMAC_BYTES[name] for name in own)
    if len(secret) < least:
        longest = max(own, key=_HMAC_BYTES.__getitem__)
        raise SecretError(
            key, f"{longest} needs a secret of at least {least} bytes, this one has {len(secret)}", "make a longer one"
        )
    return Key(secret, frozenset(own))


def pem_key(pem: bytes, key: str) -> Key:
    """The public key in a PEM text.

    Raises SecretError if it is none, or one that nobody should trust.
    """
    if b"PRIVATE KEY" in pem:
        raise SecretError(key, "this is a private key", "keep that where tokens are made; here goes the public one")
    try:
        return _key(load_pem_public_key(pem), key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SecretError(key, "this is no public key in PEM", "it begins with -----BEGIN PUBLIC KEY-----") from None


def jwks_keys(text: bytes, key: str) -> list[Key]:
    """The keys of a JSON Web Key Set that may verify signatures. Those for other uses are passed over.

    Raises SecretError if it is none, holds a symmetric key, or none that is of use.
    """
    try:
        listed = json.loads(text)["keys"]
    except (ValueError, RecursionError, LookupError, TypeError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise SecretError(key, "this is no JSON Web Key Set", 'it is a JSON object of the form {"keys": […]}')
    if len(listed) > MAX_KEYS:
        raise SecretError(key, f"has {len(listed)} keys, at most {MAX_KEYS} are read", "take out the old ones")
    keys = [_from_jwk(item, f"{key}, keys[{index}]") for index, item in enumerate(listed)]
    usable = [found for found in keys if found is not None]
    if not usable:
        raise SecretError(key, "has no key for signatures", "add the issuer's public key")
    return usable


def _from_jwk(jwk: dict[str, Any], key: str) -> Key | None:
    if jwk.get("kty") == "oct" or "k" in jwk:
        raise SecretError(key, "is a symmetric key", "take it out: a key set holds public keys only")
    if "d" in jwk:
        raise SecretError(key, "is a private key", "keep that where tokens are made; here go public ones")
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise SecretError(key, "its kid is no text", "mend the key set")
    if not _for_signatures(jwk):
        return None
    try:
        material = _material(jwk)
    except (ValueError, UnsupportedAlgorithm):
        raise SecretError(key, "is malformed", "fetch the key set from its issuer again") from None
    return None if material is None else _narrowed(_key(material, key, kid), jwk)


def _for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _narrowed(key: Key, jwk: dict[str, Any]) -> Key | None:
    if "alg" not in jwk:
        return key
    only = frozenset({jwk["alg"]}) & key.algorithms if isinstance(jwk["alg"], str) else frozenset()
    return Key(key.material, only, key.kid) if only else None


def _material(jwk: dict[str, Any]) -> PublicKey | None:
    """None for kinds that we do not use; ValueError for what is malformed."""
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if kind == "RSA":
        return rsa.RSAPublicNumbers(_whole(jwk, "e"), _whole(jwk, "n")).public_key()
    if kind == "EC" and curve in _CURVES:
        return ec.EllipticCurvePublicNumbers(_whole(jwk, "x"), _whole(jwk, "y"), _CURVES[curve][1]()).public_key()
    if kind == "OKP" and curve == "Ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(_decoded(jwk, "x"))
    if kind == "OKP" and curve == "Ed448":
        return ed448.Ed448PublicKey.from_public_bytes(_decoded(jwk, "x"))
    return None


def _whole(jwk: dict[str, Any], name: str) -> int:
    return int.from_bytes(_decoded(jwk, name))


def _decoded(jwk: dict[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or _BASE64URL.fullmatch(value) is None:
        raise ValueError(name)
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def _key(material: object, key: str, kid: str | None) -> Key:
    if isinstance(material, rsa.RSAPublicKey):
        if material.key_size < _MIN_RSA_BITS:
            message = f"an RSA key needs at least {_MIN_RSA_BITS} bits, this one has {material.key_size}"
            raise SecretError(key, message, "have the issuer make a longer one")
        return Key(material, _RSA, kid)
    if isinstance(material, ec.EllipticCurvePublicKey):
        for algorithm, curve in _CURVES.values():
            if isinstance(material.curve, curve):
                return Key(material, frozenset({algorithm}), kid)
    if isinstance(material, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return Key(material, _EDDSA, kid)
    raise SecretError(key, "a key of this kind serves no algorithm here", "use RSA, P-256, P-384, P-521 or Ed25519")
