"""`rdrec report`: records and checkpoints in, one self-contained HTML page out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Records of evaluate, baselines or ablation; checkpoint folders.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
) -> None:
    """Put runs side by side on one page that needs no other file."""
    from rich.console import Console

    from rdrec_core.replacing import replacing_file
    from training.evaluation.report import read_runs, render

    page = render(read_runs(runs))
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    Console().print(f"{out} written, {len(page.encode()) / 1024:.0f} KiB", highlight=False)
