"""Keys and signatures of evidence files."""

from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from parallelchange.adapters.signing import make_keys, read_private, read_public, sign, signer
from parallelchange.errors import InvalidFile, Unavailable, UsageError
from parallelchange.evidence import EvidenceFile, Signature, read_file, write_file
from parallelchange.model import Evidence, EvidenceKey, GateResult, Place, State, Verdict

ITEM = Evidence(
    EvidenceKey("c", "v1", "execute", "b", "f", "s", "p", place=Place.COPY),
    GateResult("execute", Verdict.PASS, (), "v1"), 1.0, "run-1", State.BASE,
)  # fmt: skip
FILE = EvidenceFile("c", "p", "a test", 2.0, (ITEM,))


def test_a_signature_holds_for_what_was_signed_and_by_whom(tmp_path: Path) -> None:
    public, name = make_keys(tmp_path / "a.key")
    other, other_name = make_keys(tmp_path / "b.key")
    assert name != other_name
    signed = replace(FILE, signature=sign(FILE, read_private(tmp_path / "a.key")))
    carried = read_file(write_file(signed))
    assert signer(carried, read_public([other, public])) == name
    assert signer(carried, read_public([other])) is None
    assert signer(FILE, read_public([public])) is None
    assert signer(replace(carried, plan="q"), read_public([public])) is None
    assert carried.signature is not None
    for forged in ("", "AAAA", "é", "not base64!", carried.signature.value[:-4], carried.signature.value.lower()):
        assert signer(replace(carried, signature=Signature(name, forged)), read_public([public])) is None
    borrowed = Signature(other_name, carried.signature.value)
    assert signer(replace(carried, signature=borrowed), read_public([public, other])) is None


def test_the_private_key_is_for_its_owner_alone_and_never_written_over(tmp_path: Path) -> None:
    make_keys(tmp_path / "a.key")
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    kept = (tmp_path / "a.key").read_bytes()
    with pytest.raises(UsageError, match="there already"):
        make_keys(tmp_path / "a.key")
    (tmp_path / "a.key").unlink()
    with pytest.raises(UsageError, match=r"a\.key\.pub is there already"):
        make_keys(tmp_path / "a.key")
    assert not (tmp_path / "a.key").exists()
    with pytest.raises(UsageError, match="cannot be written"):
        make_keys(tmp_path / "none" / "a.key")
    assert kept.startswith(b"-----BEGIN PRIVATE KEY-----")


def test_what_is_no_such_key_is_told(tmp_path: Path) -> None:
    public, _ = make_keys(tmp_path / "a.key")
    curve = generate_private_key(SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files = {
        "curve": curve.private_bytes(pem, pkcs8, serialization.NoEncryption()),
        "locked": curve.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")),
        "curve.pub": curve.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo),
        "text": b"no key",
        "empty": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name, says in (("curve", "not of Ed25519"), ("locked", "encrypted"), ("text", "no private key"),
                       ("empty", "no private key"), ("a.key.pub", "no private key"), ("none", "cannot be read"),
                       (".", "cannot be read")):  # fmt: skip
        with pytest.raises(InvalidFile, match=says):
            read_private(tmp_path / name)
    for name, says in (("curve.pub", "not of Ed25519"), ("a.key", "no public key"), ("text", "no public key"),
                       ("none", "cannot be read")):  # fmt: skip
        with pytest.raises(InvalidFile, match=says):
            read_public([public, tmp_path / name])


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for use in (lambda: make_keys(tmp_path / "a"), lambda: read_private(tmp_path / "a"), lambda: read_public([])):
        with pytest.raises(Unavailable, match="cryptography") as caught:
            use()
        assert "parallelchange[signing]" in (caught.value.hint or "")
