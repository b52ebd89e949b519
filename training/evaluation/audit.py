"""What leaks in a dataset folder: rules that no honest numbering can serve, and held-out interactions in training data.

Each check states what it found. Under protocol `clean` a leak is a violation; under `paper` it is the published way of
doing it, reported and warned of. Reads a dataset, writes nothing.

A numbering leaks when arithmetic on numbers finds test items. «Largest label + 1» and «last label + 1» are compared
with the same rules on shuffled labels (nothing to find) and on labels made anew from training interactions by the
dataset's own scheme (what it may honestly find: `collaborative` labels put neighbours side by side). User numbers can
leak likewise: the published ones follow a list grouped by item, so that «what the neighbours in number bought» finds
test items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from training.data.dataset import SPLITS, Dataset
from training.data.explanations import fingerprint
from training.data.histories import MIN_FOR_HOLDOUT, TEST, TRAIN, VAL
from training.data.labels import SCHEMES, item_order
from training.data.temporal import split_by_time

IntArray = npt.NDArray[np.int64]

N_SHUFFLES = 20
_N_USER_SHUFFLES = 3
_MAX_NEIGHBOUR_USERS = 5_000
_NEIGHBOURS = 5
_SIGMAS = 4.0
"""A rule counts as a leak when its hits exceed the honest ones by this many standard deviations of a hit count."""


class Finding(BaseModel):
    """One check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    measured: str
    """For people."""
    values: dict[str, float | None]
    violates_clean: bool


class AuditReport(BaseModel):
    """All checks of one dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    protocol: str
    label_scheme: str
    findings: list[Finding]

    @property
    def violations(self) -> list[str]:
        """Checks that `clean` does not allow, whatever the dataset's protocol."""
        return [finding.check for finding in self.findings if finding.violates_clean]

    @property
    def failed(self) -> bool:
        """Whether the dataset says `clean` and is not."""
        return self.protocol != "paper" and bool(self.violations)


def audit(dataset: Dataset, *, seed: int = 0) -> AuditReport:
    """Run every check. Raises DatasetError where tables are missing."""
    rng = np.random.default_rng([seed, 11])
    findings = [
        *_label_rules(dataset, rng),
        _user_numbers(dataset, rng),
        *_texts(dataset),
        *_splits(dataset),
        _duplicates(dataset),
        _timestamps(dataset),
        _cold_items(dataset),
    ]
    info = dataset.info
    return AuditReport(dataset=info.name, protocol=info.protocol, label_scheme=info.label_scheme, findings=findings)


def rule_hit_rate(
    numbers: IntArray, indptr: IntArray, items: npt.NDArray[np.int32], targets: npt.NDArray[np.int32], rule: str
) -> float:
    """HR@1 of «largest + 1» or «last + 1» over users that have a target and a history.

    numbers (N,): by item; indptr (U + 1,), items: histories as CSR, oldest first; targets (U,), -1 for none.
    """
    tested = (targets >= 0) & (np.diff(indptr) > 0)
    if not tested.any():
        return 0.0
    in_order = numbers[items]
    if rule == "largest":
        starts = indptr[:-1][np.diff(indptr) > 0]
        guess = np.full(len(targets), -1, dtype=np.int64)
        guess[np.diff(indptr) > 0] = np.maximum.reduceat(in_order, starts)
    else:
        guess = in_order[np.maximum(indptr[1:] - 1, 0)]
    return float(np.mean(guess[tested] + 1 == numbers[targets[tested]]))


def neighbour_hit_rate(
    order: IntArray,
    dataset_histories: tuple[IntArray, npt.NDArray[np.int32]],
    targets: npt.NDArray[np.int32],
    limit: int,
) -> float:
    """HR@1 of «what most of the users with nearby numbers bought»; order (U,): users by number, training histories."""
    indptr, items = dataset_histories
    hits = tested = 0
    for place, user in enumerate(order[:limit]):
        if targets[user] < 0:
            continue
        own = set(items[indptr[user] : indptr[user + 1]].tolist())
        votes: Counter[int] = Counter()
        for other in order[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]:
            if other != user:
                votes.update(items[indptr[other] : indptr[other + 1]].tolist())
        best = next((item for item, _ in votes.most_common(len(own) + 1) if item not in own), None)
        hits += best == targets[user]
        tested += 1
    return hits / tested if tested else 0.0


def _exceeds(rate: float, honest: float, n: int) -> bool:
    """Whether `rate` is beyond what chance adds to `honest` over n users."""
    variance = max(honest * (1 - honest), 1 / max(n, 1)) / max(n, 1)
    return rate > honest + _SIGMAS * variance**0.5


def _label_rules(dataset: Dataset, rng: np.random.Generator) -> list[Finding]:
    histories = dataset.sequences("val")
    targets = dataset.targets("test")
    n_tested = int((targets >= 0).sum())
    given = dataset.items["label"].cast(pl.Int64).to_numpy()
    shuffles = [rng.permutation(given) for _ in range(N_SHUFFLES)]
    rebuilt = _rebuilt_labels(dataset)
    findings = []
    for rule in ("largest", "last"):
        as_given = rule_hit_rate(given, *histories, targets, rule)
        shuffled = [rule_hit_rate(numbers, *histories, targets, rule) for numbers in shuffles]
        anew = None if rebuilt is None else rule_hit_rate(rebuilt, *histories, targets, rule)
        honest = max(float(np.mean(shuffled)), anew or 0.0)
        text = f"HR@1 {as_given:.4f}; shuffled {np.mean(shuffled):.4f}"
        findings.append(
            Finding(
                check=f"«{rule} label + 1»",
                measured=text + ("" if anew is None else f"; made anew from training {anew:.4f}"),
                values={"given": as_given, "shuffled": float(np.mean(shuffled)), "rebuilt": anew},
                violates_clean=_exceeds(as_given, honest, n_tested),
            )
        )
    findings.append(
        Finding(
            check="label scheme",
            measured=f"{dataset.info.label_scheme}"
            + (", numbered over test interactions too" if dataset.info.label_scheme == "original" else ""),
            values={},
            violates_clean=dataset.info.label_scheme == "original",
        )
    )
    return findings


def _rebuilt_labels(dataset: Dataset) -> IntArray | None:
    """Labels by the dataset's scheme from its training interactions; None where the scheme uses others."""
    scheme = next((s for s in SCHEMES if s == dataset.info.label_scheme and s != "original"), None)
    indptr, items = dataset.sequences("train")
    if scheme is None or not len(items):
        return None
    users = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
    order = item_order(scheme, users, items, dataset.info.n_items, dataset.info.seed)
    labels = np.empty(len(order), dtype=np.int64)
    labels[order] = np.arange(len(order))
    return labels


def _user_numbers(dataset: Dataset, rng: np.random.Generator) -> Finding:
    histories, targets = dataset.sequences("train"), dataset.targets("test")
    users = np.arange(dataset.info.n_users)
    n = min(len(users), _MAX_NEIGHBOUR_USERS)
    given = neighbour_hit_rate(users, histories, targets, n)
    shuffled = [neighbour_hit_rate(rng.permutation(users), histories, targets, n) for _ in range(_N_USER_SHUFFLES)]
    honest = float(np.mean(shuffled))
    return Finding(
        check="«what the neighbours in user number bought»",
        measured=f"HR@1 {given:.4f}; shuffled {honest:.4f}",
        values={"given": given, "shuffled": honest},
        violates_clean=_exceeds(given, honest, n),
    )


def _count(check: str, what: str, n: int, of: int | None = None, *, violates: bool = True) -> Finding:
    measured = f"{n:,} {what}" + ("" if of is None else f" of {of:,}")
    return Finding(check=check, measured=measured, values={"count": n}, violates_clean=violates and n > 0)


def _texts(dataset: Dataset) -> list[Finding]:
    """Held-out reviews among the texts that training reads: by their interaction, by their words, and as rationales."""
    train = _pairs(dataset, lambda split: split == TRAIN)
    reviews = (
        dataset.reviews()
        .select("user_index", "item_index", "split", fingerprint(pl.col("text")).alias("fingerprint"))
        .collect(engine="streaming")
    )
    training = reviews.filter(pl.col("split") == "train")
    strangers = training.join(train, on=["user_index", "item_index"], how="anti")
    prints = reviews.join(_pairs(dataset, lambda split: split != TRAIN), on=["user_index", "item_index"], how="semi")
    copies = training.filter(pl.col("fingerprint") != 0).join(
        prints.filter(pl.col("split") != "train"), on="fingerprint", how="semi"
    )
    findings = [
        _count(
            "test reviews among training texts",
            "training reviews of held-out interactions",
            strangers.height,
            training.height,
        ),
        _count(
            "copies of held-out reviews",
            "training reviews with a held-out review's text",
            copies.height,
            training.height,
        ),
    ]
    if dataset.rationales_path.is_file():
        rationales = pl.scan_parquet(dataset.rationales_path).select("user_index", "item_index").collect()
        foreign = rationales.join(train, on=["user_index", "item_index"], how="anti")
        findings.append(_count("rationales", "rationales of held-out interactions", foreign.height, rationales.height))
    return findings


def _pairs(dataset: Dataset, chosen: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.bool_]]) -> pl.DataFrame:
    rows = dataset.interactions
    keep = chosen(rows.split)
    return pl.DataFrame({"user_index": rows.user_index[keep], "item_index": rows.item_index[keep]})


def _splits(dataset: Dataset) -> list[Finding]:
    on = ["user_index", "item_index"]
    train = _pairs(dataset, lambda split: split == TRAIN)
    held_out = _pairs(dataset, lambda split: split != TRAIN)
    both = held_out.join(train.unique(), on=on, how="semi")
    rows = dataset.interactions
    if dataset.info.cut is not None:
        misplaced = int((rows.split != split_by_time(rows.timestamp, dataset.info.cut)).sum())
    elif dataset.info.cold_items:  # who lost interactions has no place for each split, but still their order
        misplaced = int(((np.diff(rows.user_index) == 0) & (np.diff(rows.split.astype(np.int8)) < 0)).sum())
    else:
        length = np.bincount(rows.user_index, minlength=dataset.info.n_users)[rows.user_index]
        from_end = length - rows.position
        held = length >= MIN_FOR_HOLDOUT
        expected = np.where(held & (from_end == 1), TEST, np.where(held & (from_end == 2), VAL, TRAIN))
        misplaced = int((rows.split != expected).sum())
    return [
        _count(
            "test interactions in the training split and graph",
            "held-out interactions",
            both.height,
            held_out.height,
            violates=dataset.info.repeats != "keep",
        ),
        _count("order of the splits", "interactions in a split that is not their place's", misplaced, len(rows.split)),
    ]


def _duplicates(dataset: Dataset) -> Finding:
    pairs = _pairs(dataset, lambda split: split < len(SPLITS))
    return _count(
        "duplicated interactions",
        "repeated (user, item) pairs",
        pairs.height - pairs.unique().height,
        pairs.height,
        violates=dataset.info.repeats != "keep",
    )


def _timestamps(dataset: Dataset) -> Finding:
    rows = dataset.interactions
    known = rows.timestamp >= 0
    consecutive = (rows.user_index[1:] == rows.user_index[:-1]) & known[1:] & known[:-1]
    backwards = int((consecutive & (rows.timestamp[1:] < rows.timestamp[:-1])).sum())
    if not known.any():
        return Finding(
            check="timestamps against the order",
            measured="the source has none",
            values={"count": 0},
            violates_clean=False,
        )
    return _count("timestamps against the order", "steps back in time", backwards, int(consecutive.sum()))


def _cold_items(dataset: Dataset) -> Finding:
    rows = dataset.interactions
    trained = np.zeros(dataset.info.n_items, dtype=bool)
    trained[rows.item_index[rows.split == TRAIN]] = True
    tested = rows.item_index[rows.split == TEST]
    cold = int((~trained[tested]).sum())
    return _count(
        "cold items in the test set",
        "test interactions with an item unseen in training",
        cold,
        len(tested),
        violates=False,
    )
