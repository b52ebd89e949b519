"""Where the real data lies; tests that need it are skipped, and say so, where it is missing."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def real_data(name: str) -> Path:
    folder = Path(os.environ.get("RDREC_DATA", ROOT / ".." / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"RDREC_DATA has no {name}: {folder}")
    return folder
