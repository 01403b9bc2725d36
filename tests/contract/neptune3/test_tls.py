"""Self-hosted servers with a certificate of their own authority."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shardmig.adapters.neptune3 import open_source
from shardmig.errors import Fatal
from tests.contract.neptune3.filling import assign, create, upload
from tests.contract.neptune3.reading import list_all, read_all, same
from tests.servers.neptune3.server import neptune3_server


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "neptune of a test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_a_certificate_is_checked_against_the_given_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with neptune3_server(tls=context) as server:
        monkeypatch.setenv("NEPTUNE_API_TOKEN", server.token)
        create(server, "ws/p", "run")
        assign(server, "ws/p", "run", {"f": upload(server, "ws/p", "at/f.txt", b"content")})
        strict = open_source({})
        with pytest.raises(Fatal, match="certificate") as raised:
            list_all(strict, "ws/p")
        assert "ca-file" in raised.value.hint
        strict.close()
        for options in ({"ca-file": str(cert)}, {"verify-tls": "no"}):
            source = open_source(options)
            found = read_all(source, list_all(source, "ws/p"), tmp_path)
            assert same(next(iter(found.values())).fields, server.store.dump("ws/p", "run"))
            source.close()
