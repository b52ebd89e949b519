"""Evaluations on the screen: progress while they run, tables when they are done. Knows records, not systems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

COLUMNS = ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10")


def progress_bar(console: Console) -> Progress:
    """A bar that counts users and vanishes when it is done."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip


def ranking_table(record: Mapping[str, Any]) -> Table:
    """One line a system, the measured one in bold."""
    asked = f"{record['n_users']:,} users"
    if record["n_questions"] != record["n_users"]:
        asked = f"{record['n_questions']:,} questions of {asked}"
    table = Table(title=f"{record['dataset']}: {record['task']}, split {record['split']}, {asked}")
    table.add_column("system")
    for name in (*COLUMNS, "coverage", "users/s"):
        table.add_column(name, justify="right")
    for name, row in record["rows"].items():
        values = [f"{row[column]:.4f}" for column in COLUMNS]
        style = "bold" if name == record["main"] else None
        table.add_row(name, *values, f"{row['coverage@10']:.3f}", f"{row['users_per_s']:,.0f}", style=style)
    table.caption = f"all counts from {record['fitted_on']}"
    return table


def groups_table(record: Mapping[str, Any]) -> Table:
    """HR@10 / NDCG@10 of every system over all targets, and over cold, rare and other ones."""
    table = Table(title="by training purchases of the target: cold none, rare fewer than five; HR@10 / NDCG@10")
    table.add_column("system")
    groups = {"all": record} | record["groups"]
    for name, group in groups.items():
        table.add_column(f"{name} ({group['n_questions']:,})", justify="right")
    for system in record["rows"]:
        cells = []
        for group in groups.values():
            row = group["rows"][system]
            cells.append(f"{row['HR@10']:.4f} / {row['NDCG@10']:.4f}" if group["n_questions"] else "-")
        table.add_row(system, *cells, style="bold" if system == record["main"] else None)
    return table


def differences_table(record: Mapping[str, Any]) -> Table:
    """By how much the measured system leads each other one, on the same users."""
    table = Table(title=f"{record['main']} minus the other, paired over users")
    for name in ("other", "metric", "difference", "95 % interval", "p (t-test)", "significant"):
        table.add_column(name)
    for other, metrics in record["differences"].items():
        for metric, gap in metrics.items():
            table.add_row(
                other, metric, f"{gap['mean']:+.4f}", f"{gap['low']:+.4f} to {gap['high']:+.4f}",
                f"{gap['p_value']:.1g}", "yes" if gap["significant"] else "no",
            )  # fmt: skip
    return table


def trials_table(record: Mapping[str, Any]) -> Table:
    """Means and standard deviations over trials."""
    table = Table(title=f"{record['trials']['n']} draws of the candidates: mean and standard deviation")
    table.add_column("system")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for system, values in record["trials"]["rows"].items():
        table.add_row(system, *(f"{values[c]['mean']:.4f} ± {values[c]['deviation']:.4f}" for c in COLUMNS))
    return table


def explanations_table(record: Mapping[str, Any]) -> Table:
    """One line a metric, one column a way of explaining."""
    asked = f"{record['n_texts']:,} purchases, {record['n_reviewed']:,} of items with training reviews"
    table = Table(title=f"{record['dataset']}: explanations, split {record['split']}, {asked}")
    table.add_column("metric")
    for name in record["rows"]:
        table.add_column(name, justify="right")
    for metric in record["metrics"]:
        values = (row[metric] for row in record["rows"].values())
        table.add_row(metric, *("-" if value is None else f"{value:,.3f}" for value in values))
    table.caption = "BLEU and ROUGE in percent; DIV and what is named, contradicted or disputed: less is better"
    return table


def fusion_table(quality: Mapping[str, Mapping[str, Mapping[str, float]]], weights: Mapping[str, float]) -> Table:
    """What the fitted weights are, and what they are worth on validation users."""
    table = Table(title="fusion, on validation users; sequential among the candidates of beam and graph")
    for name in ("task", "system", "HR@10", "NDCG@10"):
        table.add_column(name, justify="right" if "@" in name else "left")
    for task, rows in quality.items():
        for system, row in rows.items():
            table.add_row(task, system, f"{row['HR@10']:.4f}", f"{row['NDCG@10']:.4f}")
    table.caption = ", ".join(f"{name} {value:g}" for name, value in weights.items())
    return table
