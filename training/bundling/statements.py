"""Where statements are kept: beside a checkpoint until `rdrec export`, or in a bundle, which is written anew.

What is in them is `training/signals/statements.py`'s. They are bound to the dataset that they were read from.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

from rdrec_core.bundle import MANIFEST_FILE, Bundle, BundleWriter, Description, Manifest
from rdrec_core.errors import BundleError, CheckpointError, DatasetError
from rdrec_core.replacing import replacing_file, replacing_folder
from rdrec_core.signing import SIGNATURE_FILE
from rdrec_core.statements import GROUP, Statements
from training.data.dataset import Dataset
from training.signals.statements import Say, build_statements

STATEMENTS_FILE = "statements.safetensors"
"""In the checkpoint folder."""
_SOURCE_KEY = "source_sha256"


def _source_of(dataset: Dataset) -> str:
    return json.dumps(dataset.info.source_sha256, sort_keys=True)


def store_in_checkpoint(checkpoint: Path, statements: Statements, dataset: Dataset) -> Path:
    """Write statements.safetensors, for `rdrec export` to take."""
    path = checkpoint / STATEMENTS_FILE
    with replacing_file(path) as temporary:
        save_file(dict(statements.arrays()), temporary, metadata={_SOURCE_KEY: _source_of(dataset)})
    return path


def statements_of_checkpoint(checkpoint: Path, dataset: Dataset) -> Statements | None:
    """What `store_in_checkpoint` wrote, None where there is nothing.

    Raises CheckpointError where they were read from other data: their users and items would be other ones.
    """
    path = checkpoint / STATEMENTS_FILE
    if not path.is_file():
        return None
    with safe_open(path, framework="numpy") as file:
        if (file.metadata() or {}).get(_SOURCE_KEY) != _source_of(dataset):
            raise CheckpointError(f"{path} was read from other reviews; run `rdrec profile` again, or delete it")
        return Statements.from_arrays({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def statements_of(system: Path, dataset: Dataset, say: Say = lambda _: None, note: Say = lambda _: None) -> Statements:
    """A bundle's own, else a checkpoint's that `rdrec profile` left, else read from the dataset's reviews now."""
    if (system / MANIFEST_FILE).is_file():
        return Statements.of_bundle(Bundle.open(system))
    kept = statements_of_checkpoint(system, dataset)
    if kept is not None or not dataset.has_reviews:
        return kept or Statements.none()
    return build_statements(dataset, say=say, note=note)


def require_same_ids(bundle: Bundle, dataset: Dataset) -> None:
    """Raises DatasetError where indices of the dataset are not those of the bundle."""
    info, manifest = dataset.info, bundle.manifest
    users, items = dataset.users["user_id"], dataset.items["item_id"]
    same = (info.n_users, info.n_items) == (manifest.n_users, manifest.n_items) and all(
        table[place] == ids[place]
        for table, ids in ((bundle.users.user_ids, users), (bundle.catalog.item_ids, items))
        for place in range(len(ids))
    )
    if not same:
        raise DatasetError(f"{dataset.path} has other users or items than {bundle.path}; pass the bundle's own dataset")


def store_in_bundle(bundle: Bundle, statements: Statements) -> Manifest:
    """Write the bundle anew with the statements and without a signature: whole, or it stays as it was.

    Files that do not change are linked, not copied, where the file system can.
    """
    with replacing_folder(bundle.path, force=True) as folder:
        for name in bundle.manifest.files:
            if not name.startswith(f"arrays/{GROUP}/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _link(bundle.path / name, folder / name)
        writer = BundleWriter(folder)
        writer.add_arrays(GROUP, statements.arrays())
        fields = bundle.manifest.model_dump(include=set(Description.model_fields))
        return writer.finish(Description.model_validate(fields))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        target.write_bytes(source.read_bytes())


def is_signed(bundle: Path) -> bool:
    """Whether a rewrite takes a signature away."""
    return (bundle / SIGNATURE_FILE).is_file()


def require_new(bundle: Bundle, *, force: bool) -> None:
    """Raises BundleError where the bundle has statements and force is not given."""
    if bundle.arrays(GROUP) and not force:
        raise BundleError(f"{bundle.path} has statements already; pass --force to read them anew")
