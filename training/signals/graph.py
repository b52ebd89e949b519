"""Build the item graph from interactions: popularity and four sparse channels, in memory that grows with their entries.

    next       what was bought after an item, near purchases counting more
    ridge      the same after explaining away: of items that come together, the one that predicts best keeps the weight
    previous   what was bought before an item
    reach      two steps over the undirected graph, for pairs that nobody bought together

Dense EASE inverts an N x N matrix; `ridge` solves one small system per item over its strongest predecessors instead,
so its cost grows with N (docs/experiments.md has both side by side). Knows sequences of indices only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_array, vstack

from rdrec_core.item_graph import TEXT_PREFIX, Channel, ItemGraph
from rdrec_core.runs import runs_of
from training.data.dataset import Dataset, Split
from training.workers import Arrays, Blocks

MOST_ENTRIES = 100_000_000
"""Of a channel, 8 bytes each: what bounds the graph of ten million items. FEWEST a row are kept in any case."""
FEWEST = 10
_ROWS_AT_ONCE = 1024
_CELLS_AT_ONCE = 8_000_000
"""Of the systems that are solved together, 8 bytes each."""
_ENTRIES_AT_ONCE = 2_000_000
"""Whose strongest are looked for together, some 60 bytes each."""
_SECONDS_A_DAY = 86_400.0
_BUILD = "build."
CHANNELS = ("next", "ridge", "previous", "reach")
"""Those of purchases."""


class GraphConfig(BaseModel):
    """How the graph is made. Where the defaults come from: docs/experiments.md, "Graph and fusion"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(20, ge=1)
    """Largest distance in a history at which two items are a pair, and how many items a query reads."""
    row_damping: float = Field(0.3, ge=0, le=1)
    """Rows are divided by their sum to this power: 1 gives every item of a history the same say, 0 counts purchases."""
    column_damping: float = Field(0.0, ge=0, le=1)
    """Columns are divided by the item's purchases to this power."""
    neighbours: int = Field(200, ge=1)
    """Entries kept a row; fewer in catalogues where that could be more than MOST_ENTRIES a channel."""
    decay: float = Field(0.6, gt=0, le=1)
    """Of `next` at query time: how much less an item counts than the one bought after it."""
    wide_decay: float = Field(0.7, gt=0, le=1)
    """The same of the other channels."""
    ridge_predecessors: int = Field(100, ge=1)
    ridge_strength: float = Field(50.0, gt=0)
    reach_neighbours: int = Field(30, ge=1)
    """Entries of a row that a step of `reach` follows."""
    half_life_days: float = Field(0.0, ge=0)
    """A pair this much older than the newest interaction counts half; 0 or no timestamps: all count the same."""
    text_decay: float = Field(0.7, gt=0, le=1)
    """`decay` of the channels of text."""
    text_neighbours: int = Field(100, ge=1)
    """Entries a row of a channel of text."""
    text_sparse_power: float = Field(1.0, gt=0)
    """What a cosine of TF-IDF is raised to: the higher, the more the nearest count."""
    text_dense_power: float = Field(4.0, gt=0)
    """The same of a sentence encoder, by which all texts are somewhat alike."""

    def to_fusion(self) -> dict[str, float]:
        """The numbers that differ from the defaults, under `build.<field>`, to be kept with the fusion weights."""
        return {f"{_BUILD}{name}": float(value) for name, value in self.model_dump(exclude_defaults=True).items()}

    @classmethod
    def from_fusion(cls, fusion: Mapping[str, float]) -> GraphConfig:
        """Read what `to_fusion` wrote among fusion weights."""
        values = {name.removeprefix(_BUILD): value for name, value in fusion.items() if name.startswith(_BUILD)}
        return cls.model_validate(values)


@dataclass(frozen=True)
class Sequences:
    """Histories as CSR, oldest first; times (nnz,) unix seconds, None where the source has none."""

    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    n_items: int
    times: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, dataset: Dataset, upto: Split) -> Sequences:
        """The histories of a dataset up to and with a split."""
        indptr, items = dataset.sequences(upto)
        rows = dataset.interactions
        times = rows.timestamp[rows.split <= ("train", "val", "test").index(upto)]
        return cls(indptr, items, dataset.info.n_items, times if len(times) and (times >= 0).all() else None)


def graph_of(sequences: Sequences, config: GraphConfig, blocks: Blocks | None = None) -> ItemGraph:
    """Popularity and the four channels. blocks: where rows are computed, by default here; the graph is the same."""
    blocks = blocks or Blocks()
    kept = min(config.neighbours, max(FEWEST, MOST_ENTRIES // max(sequences.n_items, 1)))
    purchases = np.bincount(sequences.items, minlength=sequences.n_items).astype(np.float64)
    pairs = ordered_pairs(sequences, config)
    matrices: dict[str, Callable[[], csr_array]] = {  # one at a time, so that only one is whole in memory
        "next": lambda: damped(pairs, config.row_damping, purchases, config.column_damping),
        "ridge": lambda: local_ridge(pairs, purchases, config.ridge_predecessors, config.ridge_strength, blocks),
        "previous": lambda: pairs.T.tocsr(),
        "reach": lambda: two_steps(pairs, config.reach_neighbours, kept, blocks),
    }
    channels = {
        name: channel(strongest(matrix(), kept), channel_decay(name, config), config.window)
        for name, matrix in matrices.items()
    }
    return ItemGraph((purchases / max(purchases.sum(), 1.0)).astype(np.float32), channels)


def with_decays(graph: ItemGraph, config: GraphConfig) -> ItemGraph:
    """The same graph read with other decays, which are settings of the query alone."""
    channels = {name: replace(each, decay=channel_decay(name, config)) for name, each in graph.channels.items()}
    return ItemGraph(graph.popularity, channels, order=graph.order)


def channel_decay(name: str, config: GraphConfig) -> float:
    """How much less an item counts in a channel than the one bought after it."""
    if name.startswith(TEXT_PREFIX):
        return config.text_decay
    return config.decay if name == "next" else config.wide_decay


def ordered_pairs(sequences: Sequences, config: GraphConfig) -> csr_array:
    """(N, N): entry (i, j) adds 1 / (1 + distance) for each time that j came after i within the window."""
    n = sequences.n_items
    ends = np.repeat(sequences.indptr[1:], np.diff(sequences.indptr))
    total = csr_array((n, n), dtype=np.float32)
    for distance in range(1, config.window + 1):
        first = np.flatnonzero(np.arange(len(ends)) + distance < ends)
        if not len(first):
            break
        earlier, later = sequences.items[first], sequences.items[first + distance]
        weights = np.full(len(first), 1.0 / (1 + distance), dtype=np.float32)
        if config.half_life_days > 0 and sequences.times is not None:
            age_days = (sequences.times.max() - sequences.times[first + distance]) / _SECONDS_A_DAY
            weights *= np.exp2(-age_days / config.half_life_days).astype(np.float32)
        other = earlier != later
        # added one distance at a time, so that memory holds the graph and one distance's pairs, not all pairs
        total = total + csr_array((weights[other], (earlier[other], later[other])), shape=(n, n))
    return csr_array(total)


def damped(
    pairs: csr_array, row_power: float, purchases: npt.NDArray[np.float64], column_power: float = 0.0
) -> csr_array:
    """Rows divided by their sum to a power, columns by the item's purchases to another."""
    rows = (np.maximum(pairs.sum(axis=1), 1e-12) ** -row_power).astype(np.float32)
    columns = (np.maximum(purchases, 1.0) ** -column_power).astype(np.float32)
    values = pairs.data * np.repeat(rows, np.diff(pairs.indptr)) * columns[pairs.indices]
    return csr_array((values, pairs.indices, pairs.indptr), shape=pairs.shape)


def local_ridge(
    pairs: csr_array,
    purchases: npt.NDArray[np.float64],
    predecessors: int,
    strength: float,
    blocks: Blocks | None = None,
) -> csr_array:
    """(N, N): for each item j the ridge weights, where positive, of its strongest predecessors.

    Solves (G + strength I) b = pairs[:, j] over those predecessors alone, with G the undirected pairs and the purchases
    on the diagonal. Sparse in the manner of fsSLIM (Ning and Karypis, ICDM 2011), closed form in that of EASE.
    """
    before = strongest(csr_array(pairs.T.tocsr()), predecessors)
    rank = np.empty(len(purchases), dtype=np.int32)
    rank[np.argsort(purchases, kind="stable")] = np.arange(len(purchases))
    arrays = {
        **parts(_undirected(pairs, rank), "gram"), **parts(before, "before"), "diagonal": purchases + strength,
        "rank": rank,
    }  # fmt: skip
    cells = np.diff(before.indptr).astype(np.int64) ** 2
    solved = (blocks or Blocks()).map(_solved, arrays, runs_of(cells, _CELLS_AT_ONCE))
    weights = np.concatenate([np.empty(0, dtype=np.float32), *solved])
    found = csr_array((weights, before.indices, before.indptr), shape=before.shape)
    return strongest(found, predecessors).T.tocsr()


def parts(matrix: csr_array, name: str) -> dict[str, npt.NDArray[Any]]:
    """A matrix as arrays of this name, for `Blocks`."""
    return {f"{name}.data": matrix.data, f"{name}.indices": matrix.indices, f"{name}.indptr": matrix.indptr}


def matrix_of(arrays: Arrays, name: str, width: int | None = None) -> csr_array:
    """The matrix of these parts, square without a width; nothing is copied."""
    indptr = arrays[f"{name}.indptr"]
    n = len(indptr) - 1
    return csr_array((arrays[f"{name}.data"], arrays[f"{name}.indices"], indptr), shape=(n, width or n))


def _solved(arrays: Arrays, start: int, stop: int) -> npt.NDArray[np.float32]:
    """The weights of the predecessors of items start to stop, one item after the other.

    Systems of equal size are solved together: NumPy's own overhead for each of a million small ones was most of the
    time.
    """
    before, rank = matrix_of(arrays, "before"), arrays["rank"]
    first = before.indptr[start]
    weights = np.empty(before.indptr[stop] - first, dtype=np.float32)
    lengths = np.diff(before.indptr[start : stop + 1])
    items = np.unique(rank[before.indices[first : before.indptr[stop]]])
    place = np.full(len(rank), -1, dtype=np.int32)
    place[items] = np.arange(len(items))
    groups = []
    for size in np.unique(lengths[lengths > 0]).tolist():
        solved = start + np.flatnonzero(lengths == size)
        places = before.indptr[solved][:, None] + np.arange(size)
        among = place[rank[before.indices[places]]]
        by_rank = np.argsort(among, axis=1)  # then what is looked up stands nearly in order
        places, among = np.take_along_axis(places, by_rank, 1), np.take_along_axis(among, by_rank, 1)
        groups.append((places, among, np.triu_indices(size, 1)))
    if not groups:
        return weights
    one = np.concatenate([among[:, upper[0]].ravel() for _, among, upper in groups])
    other = np.concatenate([among[:, upper[1]].ravel() for _, among, upper in groups])
    values, done = _entries(matrix_of(arrays, "gram"), one, other, items, place), 0
    for places, _, (row, column) in groups:
        members = before.indices[places]
        systems = np.zeros((*members.shape, members.shape[1]))
        found = values[done : done + len(members) * len(row)].reshape(len(members), -1)
        done += found.size
        systems[:, row, column] = found
        systems[:, column, row] = found
        diagonal = np.arange(members.shape[1])
        systems[:, diagonal, diagonal] = arrays["diagonal"][members]
        targets = before.data[places].astype(np.float64)
        weights[places - first] = np.linalg.solve(systems, targets[..., None])[..., 0]
    return weights


def _undirected(pairs: csr_array, rank: npt.NDArray[np.int32]) -> csr_array:
    """The sum of pairs and their transpose above the diagonal, rows and columns by rank.

    With popular items last, nobody's row is long: what a popular item has with others stands in theirs.
    """
    row, column = np.repeat(rank, np.diff(pairs.indptr)), rank[pairs.indices]
    places = np.minimum(row, column), np.maximum(row, column)
    return csr_array((pairs.data, places), shape=pairs.shape)


def _entries(
    matrix: csr_array,
    one: npt.NDArray[np.int32],
    other: npt.NDArray[np.int32],
    items: npt.NDArray[np.int32],
    place: npt.NDArray[np.int32],
) -> npt.NDArray[np.float32]:
    """Entries of a matrix like `_undirected`'s, of pairs by their places (M,) among these of its rows, one < other.

    By bisection: SciPy reads rows from end to end.
    """
    part = csr_array(matrix[items])
    columns = place[part.indices]
    there = np.flatnonzero(columns >= 0)
    keys = np.repeat(np.arange(len(items)), np.diff(part.indptr))[there] * len(items) + columns[there]
    wanted = one.astype(np.int64) * len(items) + other
    keys, values = np.append(keys, len(items) ** 2), np.append(part.data[there], np.float32(0.0))
    at = np.searchsorted(keys, wanted)
    return np.where(keys[at] == wanted, values[at], np.float32(0.0))


def two_steps(pairs: csr_array, neighbours: int, kept: int, blocks: Blocks | None = None) -> csr_array:
    """(N, N): chances of a random walk of two steps over each item's strongest undirected neighbours.

    The way back to the start is left out. Row blocks are cut to `kept` entries as they are made, so that the product is
    never whole in memory.
    """
    step = strongest(_chances(csr_array(pairs + pairs.T)), neighbours)
    step = _chances(step)
    walked = (blocks or Blocks()).map(_walked, parts(step, "step"), row_blocks(step.shape[0]), kept=kept)
    return csr_array(vstack(list(walked), format="csr"))


def _walked(arrays: Arrays, start: int, stop: int, *, kept: int) -> csr_array:
    """Rows start to stop of the square of the steps, without their diagonal, cut to `kept` entries each."""
    step = matrix_of(arrays, "step")
    block = csr_array(step[start:stop] @ step)
    rows = np.repeat(np.arange(start, stop), np.diff(block.indptr))
    block.data[block.indices == rows] = 0.0
    return strongest(block, kept)


def strongest(matrix: csr_array, n: int) -> csr_array:
    """The n largest positive entries of each row, as float32; equal ones go by column. Columns ascend within a row."""
    matrix = csr_array(matrix, dtype=np.float32)
    keep = matrix.data > 0
    sizes = np.zeros(matrix.shape[0] + 1, dtype=np.int64)
    # a run at a time, so that sorting needs memory for that alone
    for start, stop in runs_of(np.diff(matrix.indptr), _ENTRIES_AT_ONCE):
        begin, end = matrix.indptr[start], matrix.indptr[stop]
        mine = keep[begin:end]
        rows = np.repeat(np.arange(stop - start), np.diff(matrix.indptr[start : stop + 1]))
        lengths = np.bincount(rows[mine], minlength=stop - start)
        sizes[start + 1 : stop + 1] = np.minimum(lengths, n)
        long = lengths > n
        if not long.any():
            continue
        among = np.flatnonzero(mine & long[rows])
        # positive floats are ordered as their bits are: one number holds row and weight, the heaviest first
        weights = matrix.data[begin:end][among].view(np.uint32)
        key = rows[among].astype(np.uint64) << np.uint64(32) | (np.uint32(0xFFFFFFFF) - weights)
        ends = np.cumsum(np.where(long, lengths, 0))
        last = np.full(stop - start, np.iinfo(np.uint64).max, dtype=np.uint64)
        last[long] = np.sort(key)[(ends - lengths)[long] + n - 1]
        last = last[rows[among]]
        mine[among[key > last]] = False
        level = among[key == last]  # of these as many as are still wanted, by column
        kept = np.bincount(rows[among[key < last]], minlength=stop - start)
        level = level[np.lexsort((matrix.indices[begin:end][level], rows[level]))]
        of_row = np.bincount(rows[level], minlength=stop - start)
        rank = np.arange(len(level)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
        mine[level[rank >= n - kept[rows[level]]]] = False
    out = csr_array((matrix.data[keep], matrix.indices[keep], np.cumsum(sizes)), shape=matrix.shape)
    out.sort_indices()
    return out


def channel(matrix: csr_array, decay: float, window: int) -> Channel:
    """A matrix as a channel, scaled so that a row with entries adds up to one on average over rows.

    Channels of different origin are then alike in loudness, and fusion weights comparable between datasets.
    """
    matrix.sort_indices()
    return Channel(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32),
        (matrix.data / mean_row_sum(matrix)).astype(np.float32), decay, window,
    )  # fmt: skip


def mean_row_sum(matrix: csr_array) -> float:
    """Over rows with entries; 1 where there are none."""
    sums = matrix.sum(axis=1)
    return float(sums[sums > 0].mean()) if (sums > 0).any() else 1.0


def _chances(matrix: csr_array) -> csr_array:
    sums = matrix.sum(axis=1)
    values = matrix.data / np.repeat(np.where(sums > 0, sums, 1.0).astype(matrix.dtype), np.diff(matrix.indptr))
    return csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)


def row_blocks(n: int) -> Iterator[tuple[int, int]]:
    """Runs of rows of moderate length."""
    for start in range(0, n, _ROWS_AT_ONCE):
        yield start, min(n, start + _ROWS_AT_ONCE)
