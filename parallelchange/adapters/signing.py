"""Ed25519 keys and signatures: the only place that imports `cryptography`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parallelchange.errors import InvalidFile, Unavailable, UsageError
from parallelchange.evidence import EvidenceFile, Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["make_keys", "read_private", "read_public", "sign", "signer"]

_PURPOSE = b"parallelchange evidence\n"
"""Goes before what is signed: a signature made for something else is none for evidence."""


def _there() -> None:
    try:
        import cryptography  # noqa: F401 - only whether it is there
    except ImportError:
        raise Unavailable(
            "signatures need the package `cryptography`", hint="install it: pip install 'parallelchange[signing]'"
        ) from None


def make_keys(path: Path) -> tuple[Path, str]:
    """Make a private key, readable by its owner alone, and its public key beside it.

    Args:
        path: Where the private key goes; the public key has the same name and `.pub`.

    Returns:
        The public key's file and its id.

    Raises:
        UsageError: A file is there already, or cannot be written.
        Unavailable: `cryptography` is not installed.
    """
    _there()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    beside = path.with_name(path.name + ".pub")
    for file in (path, beside):
        if file.exists():
            raise UsageError(f"{file} is there already", hint="a key that is in use is not written over: name another")
    for file, text, mode in ((path, private, 0o600), (beside, public, 0o644)):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise UsageError(f"{file} cannot be written: {error.strerror}", hint="name another file") from None
        with os.fdopen(descriptor, "wb") as out:
            out.write(text)
    return beside, _id(key.public_key())


def _id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def read_private(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        InvalidFile: It is none of Ed25519, or is encrypted.
        Unavailable: `cryptography` is not installed.
    """
    _there()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    hint = "make one: `parallelchange evidence keygen FILE`"
    try:
        key = load_pem_private_key(_read(path), password=None)
    except TypeError:
        raise InvalidFile("is an encrypted key", path=path, hint="give it decrypted, as a secret of the job") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidFile("is no private key in PEM form", path=path, hint=hint) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidFile("is a private key, but not of Ed25519", path=path, hint=hint)
    return key


def read_public(paths: Sequence[Path]) -> dict[str, Ed25519PublicKey]:
    """Read public keys, by their ids.

    Raises:
        InvalidFile: One is none of Ed25519.
        Unavailable: `cryptography` is not installed.
    """
    _there()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    hint = "`parallelchange evidence keygen FILE` writes it as FILE.pub"
    keys = {}
    for path in paths:
        try:
            key = load_pem_public_key(_read(path))
        except (ValueError, UnsupportedAlgorithm):
            raise InvalidFile("is no public key in PEM form", path=path, hint=hint) from None
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidFile("is a public key, but not of Ed25519", path=path, hint=hint)
        keys[_id(key)] = key
    return keys


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidFile(f"cannot be read: {error.strerror}", path=path, hint="name a key's file") from None


def sign(file: EvidenceFile, key: Ed25519PrivateKey) -> Signature:
    """Vouch for a file."""
    value = base64.b64encode(key.sign(_PURPOSE + file.payload)).decode()
    return Signature(_id(key.public_key()), value)


def signer(file: EvidenceFile, keys: Mapping[str, Ed25519PublicKey]) -> str | None:
    """Id of the key that vouches for a file; None when it is none of these, or the signature is not its own."""
    from cryptography.exceptions import InvalidSignature

    if file.signature is None or file.signature.key not in keys:
        return None
    try:
        value = base64.b64decode(file.signature.value, validate=True)
        keys[file.signature.key].verify(value, _PURPOSE + file.payload)
    except (InvalidSignature, binascii.Error, ValueError):
        return None
    return file.signature.key
