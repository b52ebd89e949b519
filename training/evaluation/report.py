"""Many runs on one page: tables beside the paper's, curves, and what the figures rest on, as one HTML file.

Reads records and ranks of `rdrec evaluate`, `rdrec baselines` and `rdrec ablation`, and checkpoint folders. Knows
nothing of models; figures come from the files or, for the paper's rows, from the table below with its source.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import polars as pl

from rdrec_core.errors import DatasetError
from training.evaluation.results import read_record
from training.learning.checkpoint import INFO_FILE, METRICS_FILE

METRICS = ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10")
PAPER = "RDRec, ACL 2024 (labels leak)"
PAPER_ROWS: dict[tuple[str, str], dict[str, float]] = {
    ("beauty", "sequential"): {"HR@10": 0.0743, "NDCG@10": 0.0504},
    ("toys", "sequential"): {"HR@10": 0.0802, "NDCG@10": 0.0605},
    ("beauty", "topn"): {"HR@10": 0.338, "NDCG@10": 0.216},
    ("toys", "topn"): {"HR@10": 0.238, "NDCG@10": 0.140},
}
"""The paper's RDRec rows (Tables 2 and 3) as the design page, section 5, has them; it has no other columns."""
TASK_NAMES = {"sequential": "sequential, full ranking", "topn": "top-N, 99 negatives"}


@dataclass(frozen=True)
class Row:
    """One line of a table; values and deviations by metric, a deviation only where there were several trials."""

    name: str
    values: dict[str, float]
    deviations: dict[str, float] = field(default_factory=dict)
    n_runs: int = 1
    emphasis: bool = False
    by_group: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A table over one protocol, dataset, task, split and choice of fitted interactions."""

    title: str
    fitted_on: str
    n_users: int
    warning: str | None
    rows: list[Row]
    differences: list[tuple[str, str, dict[str, Any]]]
    ranks: pl.DataFrame | None
    groups: dict[str, int] = field(default_factory=dict)
    """`cold`, `rare` and `other` targets: how many questions ask for them; `Row.by_group` has the figures."""


@dataclass
class Material:
    """Everything that was read, in the order of the arguments."""

    records: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def read_runs(paths: Sequence[Path]) -> Material:
    """Records (JSON files) and checkpoint folders. A record's own checkpoint is read too where it still stands.

    Raises DatasetError for a path that is neither.
    """
    material = Material()
    for path in paths:
        if path.is_dir():
            if not (path / METRICS_FILE).is_file():
                raise DatasetError(f"{path} is neither a record of `rdrec evaluate` nor a checkpoint folder")
            _read_curve(path, material)
            continue
        record = read_record(path)
        material.records.append((path, record))
        checkpoint = Path(record.get("path", ""))
        if (checkpoint / INFO_FILE).is_file():
            _read_curve(checkpoint, material)
    return material


def _read_curve(folder: Path, material: Material) -> None:
    lines = (
        (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines() if (folder / METRICS_FILE).is_file() else []
    )
    if lines:
        material.curves[str(folder)] = [json.loads(line) for line in lines]


def ranking_sections(material: Material) -> list[Section]:
    """One table for all runs that can stand side by side; runs of one system that differ in seed become mean and sd."""
    groups: dict[tuple[Any, ...], list[tuple[Path, dict[str, Any]]]] = defaultdict(list)
    for path, record in material.records:
        if record["task"] in TASK_NAMES:
            key = ("dataset", "protocol", "task", "split", "fitted_on", "n_users", "cold_items")
            groups[tuple(record.get(name) for name in key)].append((path, record))
    return [_section(key, runs) for key, runs in groups.items()]


def _section(key: tuple[Any, ...], runs: list[tuple[Path, dict[str, Any]]]) -> Section:
    dataset, protocol, task, split, fitted_on, n_users, hidden = key
    collected: dict[str, list[dict[str, float]]] = defaultdict(list)
    grouped: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    mains: set[str] = set()
    differences = []
    for _, record in runs:
        own = _system_name(record, several=len({_recipe_name(r) for _, r in runs}) > 1)
        for name, values in record["rows"].items():
            shown = f"{own}: {name}" if own and name in ("fused", "model alone") else name
            collected[shown].append(values)
            for group, part in record.get("groups", {}).items():
                grouped[shown][group].append(part["rows"][name])
            if name == record["main"]:
                mains.add(shown)
        differences += [(record["main"], other, gaps) for other, gaps in record["differences"].items()]
    rows = [_row(name, values, name in mains, grouped[name]) for name, values in collected.items()]
    paper = PAPER_ROWS.get((dataset.lower(), task))
    if paper is not None and split == "test":
        rows.append(Row(PAPER, paper))
    frames = [
        pl.read_parquet(path.with_suffix(".parquet")) for path, _ in runs if path.with_suffix(".parquet").is_file()
    ]
    ranks = (
        pl.concat(frames).unique(["user_index", "target", "system"], keep="first", maintain_order=True)
        if frames
        else None
    )
    title = f"{dataset}: {TASK_NAMES[task]}, split {split}, protocol {protocol}"
    if hidden:
        title += f", {hidden:.0%} of the items hidden from training"
    sizes = {name: part["n_questions"] for name, part in runs[0][1].get("groups", {}).items() if part["n_questions"]}
    return Section(title, fitted_on, n_users, runs[0][1].get("warning"), rows, differences, ranks, sizes)


def _row(
    name: str, trials: list[dict[str, float]], emphasis: bool, groups: Mapping[str, list[dict[str, float]]]
) -> Row:
    shown = [m for m in (*METRICS, "coverage@10", "novelty@10") if m in trials[0]]
    values = {m: mean(t[m] for t in trials) for m in shown}
    # the same system measured again by another command gives the same figures, which is no trial of its own
    distinct = {tuple(t[m] for m in METRICS) for t in trials}
    deviations = {m: stdev(t[m] for t in trials) for m in shown} if len(distinct) > 1 else {}
    by_group = {
        group: {m: mean(part[m] for part in parts) for m in ("HR@10", "NDCG@10")} for group, parts in groups.items()
    }
    return Row(name, values, deviations, len(trials) if len(distinct) > 1 else 1, emphasis, by_group)


def _recipe_name(record: dict[str, Any]) -> str:
    recipe = record.get("recipe") or {}
    return json.dumps({k: v for k, v in recipe.items() if k != "seed"}, sort_keys=True)


def _system_name(record: dict[str, Any], *, several: bool) -> str:
    return Path(record["path"]).name if several and "path" in record else ""


def ratio_sweep(material: Material) -> list[tuple[str, str, Row]]:
    """(dataset and task, ratio EG:RG:SR:TR, model-alone row) of runs that differ in the task ratio."""
    found = []
    for _, record in material.records:
        ratio = (record.get("recipe") or {}).get("ratio")
        if record["task"] not in TASK_NAMES or not ratio:
            continue
        name = "model alone" if "model alone" in record["rows"] else record["main"]
        text = ":".join(f"{ratio[part]:g}" for part in ("explanation", "rationale", "sequential", "topn"))
        found.append((f"{record['dataset']}, {record['task']}", text, _row(name, [record["rows"][name]], False, {})))
    several = {group for group, _, _ in found if len({text for g, text, _ in found if g == group}) > 1}
    return [entry for entry in found if entry[0] in several]


def settings(material: Material) -> list[dict[str, Any]]:
    """What each run rests on: paths, seeds, hashes, recipe, weights."""
    names = ("system", "task", "split", "seed", "protocol", "label_scheme", "score_mode", "strategy", "fusion", "refit")
    return [
        {
            "file": path.name,
            "facts": {name: record[name] for name in names if record.get(name) is not None},
            "hashes": record.get("source_sha256") or {},
            "recipe": record.get("recipe") or {},
        }
        for path, record in material.records
    ]


def render(material: Material) -> str:
    """The page. Raises DatasetError where there is nothing to show."""
    from jinja2 import Environment

    from training.evaluation.plots import decile_plot, history_plot, learning_curves

    if not material.records and not material.curves:
        raise DatasetError("a report needs at least one record of `rdrec evaluate`")
    sections = ranking_sections(material)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("training").joinpath("evaluation", "report.html").read_text("utf-8"))
    plots = [
        {"title": s.title, "history": history_plot(s.ranks), "decile": decile_plot(s.ranks)}
        for s in sections
        if s.ranks is not None
    ]
    return template.render(
        metrics=METRICS, columns=(*METRICS, "coverage@10", "novelty@10"), sections=sections, plots=plots,
        paper_note=PAPER,
        explanations=[r for _, r in material.records if r["task"] == "explanation"],
        ablations=[r for _, r in material.records if r["task"] == "ablation"],
        sweep=ratio_sweep(material), curves=[(Path(k).name, learning_curves(v)) for k, v in material.curves.items()],
        settings=settings(material), warnings=sorted({r["warning"] for _, r in material.records if r.get("warning")}),
        datasets=sorted({(r["dataset"], r["protocol"]) for _, r in material.records}),
    )  # fmt: skip
