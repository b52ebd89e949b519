"""The report's pictures, as inline SVG. Knows frames of ranks and lines of metrics."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.figure import Figure

_HISTORY_EDGES = (3, 5, 8, 13, 21)
_K = 10
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
}


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _bars(frame: pl.DataFrame, group: str, xlabel: str) -> str:
    """frame: system, group (an ordered category), hit; one line a system with its standard error."""
    with mpl.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(6.4, 3.2))
        grouped = frame.group_by("system", group, maintain_order=True).agg(
            pl.col("hit").mean().alias("mean"),
            (pl.col("hit").std() / pl.len().sqrt()).alias("error"),
            pl.len().alias("n"),
        )
        for (system,), rows in grouped.group_by("system", maintain_order=True):
            rows = rows.sort(group)
            axis.errorbar(
                rows[group].cast(pl.String).to_list(), rows["mean"], yerr=rows["error"].fill_null(0.0),
                marker="o", markersize=3, linewidth=1.2, capsize=2, label=str(system),
            )  # fmt: skip
        axis.set_xlabel(xlabel)
        axis.set_ylabel(f"HR@{_K}")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure)


def _with_hits(ranks: pl.DataFrame) -> pl.DataFrame:
    return ranks.with_columns((pl.col("rank").fill_null(float("inf")) <= _K).cast(pl.Float64).alias("hit"))


def history_plot(ranks: pl.DataFrame) -> str:
    """HR@10 by length of the history."""
    labels = [f"<{_HISTORY_EDGES[0]}"]
    labels += [f"{a}-{b - 1}" for a, b in pairwise(_HISTORY_EDGES)]
    labels.append(f"{_HISTORY_EDGES[-1]}+")
    places = np.searchsorted(_HISTORY_EDGES, ranks["history_length"].to_numpy(), side="right")
    present = [labels[place] for place in np.unique(places)]
    binned = pl.Series("bin", [labels[place] for place in places], dtype=pl.Enum(present))
    return _bars(_with_hits(ranks).with_columns(binned), "bin", "items in the history")


def decile_plot(ranks: pl.DataFrame) -> str:
    """HR@10 by popularity decile of the target, 1 the least bought; items never bought in training stand at 0."""
    targets = ranks.select("user_index", "target_share").unique("user_index")
    bought = targets.filter(pl.col("target_share") > 0).sort("target_share", "user_index")
    deciles = pl.concat(
        [
            bought.with_columns((pl.int_range(pl.len()) * 10 // pl.len() + 1).cast(pl.Int64).alias("decile")),
            targets.filter(pl.col("target_share") <= 0).with_columns(pl.lit(0, dtype=pl.Int64).alias("decile")),
        ]
    ).select("user_index", "decile")
    frame = _with_hits(ranks).join(deciles, on="user_index")
    order = [str(n) for n in sorted(frame["decile"].unique())]
    frame = frame.with_columns(pl.col("decile").cast(pl.String).cast(pl.Enum(order)))
    return _bars(frame, "decile", "popularity decile of the target's purchases (0: never bought in training)")


def learning_curves(lines: list[dict[str, Any]]) -> str:
    """Training and validation loss of each task by epoch."""
    with mpl.rc_context(_STYLE):
        figure, axis = plt.subplots(figsize=(6.4, 3.2))
        tasks = sorted({task for line in lines for task in (*line["train_loss"], *line["validation_loss"])})
        for place, task in enumerate(tasks):
            for name, style in (("train_loss", ":"), ("validation_loss", "-")):
                points = [(line["epoch"], line[name][task]) for line in lines if task in line[name]]
                if points:
                    label = f"{task}{', training' if style == ':' else ''}"
                    marker = "o" if len(points) == 1 else None
                    axis.plot(
                        *zip(*points, strict=True), style, color=f"C{place}", label=label, marker=marker, markersize=3
                    )
        axis.set_xlabel("epoch")
        axis.set_ylabel("loss a token")
        axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure)
