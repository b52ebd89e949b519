"""`rdrec sign`: put an Ed25519 signature into a bundle, for services that refuse unsigned ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def sign(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle folder; leave it out with --make-key.")] = None,
    key: Annotated[Path, typer.Option(help="File with the private key, 64 hex digits.")] = Path("bundle.key"),
    make_key: Annotated[bool, typer.Option(help="Write a new private key to --key and print the public one.")] = False,
) -> None:
    """Sign a bundle (`RDREC_BUNDLE_PUBLIC_KEY` then names the public key in the service)."""
    from rdrec_core.bundle import Bundle
    from rdrec_core.errors import InputError
    from rdrec_core.signing import make_key as new_key
    from rdrec_core.signing import sign_bundle

    if make_key:
        private, public = new_key()
        try:
            descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise InputError(f"{key} exists; a key is never overwritten", field="key") from error
        with os.fdopen(descriptor, "w") as file:
            file.write(private.hex())
        typer.echo(f"RDREC_BUNDLE_PUBLIC_KEY={public.hex()}")
    if bundle is not None:
        Bundle.open(bundle)
        try:
            private = bytes.fromhex(key.read_text().strip())
        except (OSError, ValueError) as error:
            raise InputError(f"{key} is no file of 64 hex digits; make one with --make-key", field="key") from error
        typer.echo(f"{sign_bundle(bundle, private)} written")
    elif not make_key:
        raise InputError("name a bundle folder, or pass --make-key", field="bundle")
