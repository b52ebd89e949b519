"""Print the requirements of the named extras of pyproject.toml, so that an image has them in a layer of their own.

    python requirements.py serve            python requirements.py serve gpu

The extra `gpu` replaces onnxruntime: both packages hold the same files, and only one may be installed.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], extras: list[str]) -> list[str]:
    """Requirement lines; raises KeyError for an extra that the project does not have."""
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]  # type: ignore[misc]
    if "gpu" in extras:
        lines = [line for line in lines if not line.startswith("onnxruntime>")]
    return lines


if __name__ == "__main__":
    document = tomllib.loads((Path.cwd() / "pyproject.toml").read_text(encoding="utf-8"))
    print("\n".join(requirements(document["project"], sys.argv[1:])))
