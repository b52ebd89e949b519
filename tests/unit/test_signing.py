"""Signatures of bundles: who signed what, and the command that does it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rdrec_core.errors import BundleError, InputError
from rdrec_core.signing import SIGNATURE_FILE, make_key, sign_bundle, verify_signature
from tests.fake_service import write_bundle
from training.cli import main


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_a_signature_holds_for_its_key_and_its_manifest_alone(bundle: Path) -> None:
    private, public = make_key()
    assert sign_bundle(bundle, private) == bundle / SIGNATURE_FILE
    verify_signature(bundle, public)
    with pytest.raises(BundleError, match="not this manifest's signature"):
        verify_signature(bundle, make_key()[1])
    (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes() + b" ")
    with pytest.raises(BundleError, match="not this manifest's signature"):
        verify_signature(bundle, public)


def test_an_unsigned_bundle_and_a_broken_signature_are_named(bundle: Path) -> None:
    public = make_key()[1]
    with pytest.raises(BundleError, match=r"manifest\.sig is missing"):
        verify_signature(bundle, public)
    (bundle / SIGNATURE_FILE).write_bytes(b"short")
    with pytest.raises(BundleError, match="signature"):
        verify_signature(bundle, public)


def test_a_key_of_the_wrong_length_is_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="32 bytes"):
        sign_bundle(bundle, b"short")


def test_the_command_makes_a_private_key_once_and_signs(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "bundle.key"
    assert main(["sign", "--make-key", "--key", str(key)]) == 0
    name, _, public = capsys.readouterr().out.strip().partition("=")
    assert name == "RDREC_BUNDLE_PUBLIC_KEY"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert main(["sign", str(bundle), "--key", str(key)]) == 0
    verify_signature(bundle, bytes.fromhex(public))
    assert main(["sign", "--make-key", "--key", str(key)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert main(["sign", str(bundle), "--key", str(tmp_path / "none")]) == 2
    assert main(["sign"]) == 2
