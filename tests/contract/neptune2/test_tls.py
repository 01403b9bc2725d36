"""Self-hosted servers have certificates of their own."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shardmig.errors import Fatal
from tests.contract.neptune2.vendor import EVERYTHING, PROJECT, open_neptune2
from tests.servers.neptune2.server import NeptuneServer, neptune_server


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "neptune.test")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path / "server.pem"
    path.write_bytes(
        signed.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return path


@pytest.fixture
def encrypted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NeptuneServer]:
    """A server behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with neptune_server(context) as server:
        server.store.add_project(PROJECT, "VIS")
        monkeypatch.setenv("NEPTUNE_API_TOKEN", server.api_token)
        yield server


def test_a_certificate_that_nobody_knows_stops_the_migration_at_once(encrypted: NeptuneServer) -> None:
    source = open_neptune2()
    with pytest.raises(Fatal, match="CERTIFICATE_VERIFY_FAILED"):
        list(source.list_projects(EVERYTHING))
    source.close()


def test_its_authority_can_be_named(encrypted: NeptuneServer, certificate: Path) -> None:
    source = open_neptune2(ca_file=str(certificate))
    assert list(source.list_projects(EVERYTHING)) == [PROJECT]
    source.close()


def test_certificates_need_not_be_verified(encrypted: NeptuneServer) -> None:
    source = open_neptune2(verify_tls="no")
    assert list(source.list_projects(EVERYTHING)) == [PROJECT]
    source.close()
