"""Init container: put the bundle into place, and let the service start only if every file is what it should be.

    BUNDLE_URL=https://.../bundle.tar.gz MANIFEST_SHA256=... python fetch_bundle.py FOLDER

Without BUNDLE_URL the folder holds the bundle already (a volume, or copied from an image) and is only checked. The
manifest is held to MANIFEST_SHA256 where it is given, and all other files to the manifest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from rdrec_core.bundle import MANIFEST_FILE, Bundle
from rdrec_core.errors import BundleError


def fetch(url: str, folder: Path) -> None:
    """Unpack the archive at the URL into the empty folder. Raises BundleError; what was there before is removed."""
    if not hasattr(tarfile, "data_filter"):
        raise BundleError("unpacking an archive safely needs Python 3.11.4 or newer")
    for old in folder.iterdir():  # an attempt that was cut off
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, tempfile.TemporaryFile(dir=folder) as archive:
            shutil.copyfileobj(answer, archive)
            archive.seek(0)
            with tarfile.open(fileobj=archive, mode="r:gz") as files:
                files.extractall(folder, filter="data")  # no absolute paths, no links that lead outside
    except (OSError, tarfile.TarError) as error:
        # Without the error's own text: it may quote the URL, and a presigned URL is a secret.
        raise BundleError(f"the bundle cannot be fetched: {type(error).__name__}") from error
    inner = list(folder.iterdir())
    if not (folder / MANIFEST_FILE).exists() and len(inner) == 1 and inner[0].is_dir():
        for path in inner[0].iterdir():  # packed with the folder's own name in front
            path.rename(folder / path.name)
        inner[0].rmdir()


def check(folder: Path, manifest_sha256: str) -> Bundle:
    """Verify all files. Raises BundleError naming the one that is wrong."""
    if manifest_sha256:
        try:
            found = hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(f"{folder / MANIFEST_FILE} is missing") from error
        if found != manifest_sha256:
            raise BundleError(f"{folder / MANIFEST_FILE} has SHA-256 {found}, not {manifest_sha256}")
    return Bundle.open(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    try:
        if address := os.environ.get("BUNDLE_URL"):
            fetch(address, target)
        bundle = check(target, os.environ.get("MANIFEST_SHA256", ""))
    except BundleError as error:
        sys.exit(f"fetch_bundle: {error}")
    print(f"{bundle.manifest.model_version}: {len(bundle.manifest.files)} files are as the manifest says")
