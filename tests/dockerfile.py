"""The Dockerfile, taken apart for the tests."""

from __future__ import annotations

import re

from tests.replica import ROOT


def stages() -> dict[str, list[str]]:
    """Instructions of each stage, continuation lines joined, comments gone; "" is what stands before the first."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, list[str]] = {"": []}
    stage = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.startswith("FROM "):
            stage = line.split()[-1]
            found[stage] = [line]
        elif line.strip():
            found[stage].append(line)
    return found


def ancestry(stage: str) -> list[str]:
    """Instructions of a stage and of the stages that it is built on, without those that it copies from."""
    lines = stages()[stage]
    base = lines[0].split()[1]
    return (ancestry(base) if base in stages() else []) + lines
