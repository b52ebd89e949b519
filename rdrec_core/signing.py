"""Ed25519 signatures of bundles: `manifest.sig` signs the bytes of `manifest.json`, which holds the hash of every file.

Needs `cryptography`, imported only where a key is used. Knows nothing of where keys are kept.
"""

from __future__ import annotations

from pathlib import Path

from rdrec_core.bundle import MANIFEST_FILE
from rdrec_core.errors import BundleError, InputError
from rdrec_core.replacing import replacing_file

SIGNATURE_FILE = "manifest.sig"


def make_key() -> tuple[bytes, bytes]:
    """A new key pair, 32 raw bytes each: private, public."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def sign_bundle(folder: Path, private_key: bytes) -> Path:
    """Write the signature into the bundle folder; its path. Raises InputError for a key that is not 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if len(private_key) != 32:
        raise InputError("an Ed25519 private key has 32 bytes", field="key")
    signature = Ed25519PrivateKey.from_private_bytes(private_key).sign((folder / MANIFEST_FILE).read_bytes())
    with replacing_file(folder / SIGNATURE_FILE) as temporary:
        temporary.write_bytes(signature)
    return folder / SIGNATURE_FILE


def verify_signature(folder: Path, public_key: bytes) -> None:
    """Raises BundleError where the manifest is unsigned, or signed by another key, or changed since."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    file = folder / SIGNATURE_FILE
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(file.read_bytes(), (folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{error.filename} is missing; only signed bundles are served here") from error
    except InvalidSignature as error:
        raise BundleError(f"{file} is not this manifest's signature by the configured key") from error
