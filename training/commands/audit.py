"""`rdrec audit`: what leaks in a dataset, on screen and as JSON; the checks are in `evaluation/audit.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def audit(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder of `rdrec prepare`.")],
    json_: Annotated[Path | None, typer.Option("--json", help="Write the report here, too.")] = None,
    seed: Annotated[int, typer.Option(help="Of the shuffled labels.")] = 0,
) -> None:
    """Report what leaks in a dataset folder.

    Exit status 1 where protocol `clean` is violated. Under `paper` it reports and warns.
    """
    from rich.console import Console
    from rich.table import Table

    from training.data.dataset import Dataset
    from training.evaluation.audit import audit as run

    report = run(Dataset(dataset), seed=seed)
    table = Table(title=f"{report.dataset}: protocol {report.protocol}, labels {report.label_scheme}")
    for column in ("check", "found", "clean"):
        table.add_column(column)
    for finding in report.findings:
        verdict = "[red]violated[/red]" if finding.violates_clean else "[green]ok[/green]"
        table.add_row(finding.check, finding.measured, verdict)
    console = Console()
    console.print(table)
    if json_ is not None:
        written = report.model_dump() | {"violations": report.violations, "failed": report.failed}
        _write_json(json_, written)
    if report.failed:
        console.print(f"Protocol clean is violated: {', '.join(report.violations)}.", style="red")
        raise typer.Exit(1)
    if report.violations:
        console.print(
            "Protocol paper leaks, as published: figures under it compare with the paper's and with nothing else.",
            style="yellow",
        )


def _write_json(path: Path, report: dict[str, object]) -> None:
    import json

    from rdrec_core.replacing import replacing_file

    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
