"""A certificate authority for one test run, and whom it vouches for: a server on this machine and one client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Certificates:
    """PEM files in one folder."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def server(self) -> Path:
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        return self.folder / "server.key"

    @property
    def client(self) -> Path:
        return self.folder / "client.pem"

    @property
    def client_key(self) -> Path:
        return self.folder / "client.key"

    def make(self, client: str) -> None:
        """Write all of them; `client` is the client's common name."""
        self.folder.mkdir()
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _authority(ca_key)
        self.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        local = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        server = _Subject("localhost", ExtendedKeyUsageOID.SERVER_AUTH, local)
        server.write(self.server, self.server_key, ca, ca_key)
        _Subject(client, ExtendedKeyUsageOID.CLIENT_AUTH).write(self.client, self.client_key, ca, ca_key)


@dataclass(frozen=True)
class _Subject:
    common_name: str
    usage: ObjectIdentifier
    names: Sequence[x509.GeneralName] = ()

    def write(self, certificate: Path, private: Path, ca: x509.Certificate, ca_key: Key) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(self.common_name, ca.subject, key, ca_key)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([self.usage]), critical=False)
        if self.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(self.names), critical=False)
        certificate.write_bytes(builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private.touch(mode=0o600)
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def _authority(key: Key) -> x509.Certificate:
    name = "a certificate authority for tests"
    builder = _builder(name, _named(name), key, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    signing = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return builder.add_extension(signing, critical=True).sign(key, hashes.SHA256())


def _builder(common_name: str, issuer: x509.Name, key: Key, issuer_key: Key) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, _named(common_name), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
