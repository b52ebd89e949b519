"""What a refresh did, for people and for programs: one JSON record, one page, and two numbers for an alert.

Reads the state of a run. Knows nothing of models.
"""

from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from rdrec_core.replacing import replacing_file
from training.refreshing.runs import REFUSED, SERVED, Run

RECORD, PAGE, METRICS = "report.json", "report.html", "refresh.prom"


def write_report(run: Run, work: Path) -> None:
    """Into the run's folder, and as the newest one into `work`, where the numbers are too."""
    record = report_of(run)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    page = render(record)
    for folder in (run.folder, work):
        for name, content in ((RECORD, text), (PAGE, page)):
            with replacing_file(folder / name) as temporary:
                temporary.write_text(content, encoding="utf-8")
    with replacing_file(work / METRICS) as temporary:
        temporary.write_text(metrics_of(run), encoding="utf-8")
        temporary.chmod(0o644)


def report_of(run: Run) -> dict[str, Any]:
    """The record: outcome, reasons, and each step with its time and facts."""
    state = run.state
    return {
        "run": state.number, "begun": state.begun, "attempts": state.attempts, "outcome": state.outcome,
        "reasons": reasons_of(run), "seconds": round(sum(step.seconds for step in state.steps), 3),
        "steps": [step.model_dump() for step in state.steps],
    }  # fmt: skip


def reasons_of(run: Run) -> list[str]:
    """Why the served model stays; empty where it does not."""
    gate, health, publish = (run.facts(name) or {} for name in ("gate", "health", "publish"))
    found = list(gate.get("reasons", ()))
    found += [f"{check['name']}: {check['detail']}" for check in health.get("checks", ()) if not check["passed"]]
    return [*found, *([publish["reason"]] if "reason" in publish else [])]


def render(record: dict[str, Any]) -> str:
    """The page."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("training").joinpath("refreshing", "report.html").read_text("utf-8"))
    facts = {step["name"]: step["facts"] for step in record["steps"]}
    return template.render(record=record, facts=facts, served=record["outcome"] == SERVED)


def metrics_of(run: Run) -> str:
    """What an exporter of text files shows: when the last refresh began, and whether it was refused."""
    begun = datetime.fromisoformat(run.state.begun).timestamp()
    return f"""\
# HELP rdrec_refresh_begun_timestamp_seconds When the last refresh that came to its end began.
# TYPE rdrec_refresh_begun_timestamp_seconds gauge
rdrec_refresh_begun_timestamp_seconds {begun:.0f}
# HELP rdrec_refresh_refused Whether that refresh kept the served model.
# TYPE rdrec_refresh_refused gauge
rdrec_refresh_refused {int(run.state.outcome == REFUSED)}
"""
