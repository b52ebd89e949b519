"""What `rdrec prepare` tells at its end: every line accounted for, every guess with the option that changes it.

Turns what was made into words; prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from training.data.catalogue import CatalogueCounts
from training.data.ingest import Ingested
from training.data.labels import digit_trie
from training.data.prepare import Prepared
from training.data.temporal import describe_cut
from training.data.values import Notes

SHOWN_ATTRIBUTES = 12
OLDEST_YEAR = 1990
"""Nobody bought anything online before."""

Rows = list[tuple[str, str]]


def summary_rows(made: Prepared) -> Rows:
    """Pairs of what and how much, for a table."""
    info = made.info
    n_pairs = info.n_interactions - (made.n_repeats if info.repeats == "keep" and info.min_interactions == 1 else 0)
    rows = [
        ("users", f"{info.n_users:,}"),
        ("items", f"{info.n_items:,}"),
        *catalogue_rows(made.catalogue),
        ("interactions", f"{info.n_interactions:,}"),
        *((f"  {split}", f"{count:,}") for split, count in made.split_counts.items()),
        ("  sparsity", f"{1 - n_pairs / (info.n_users * info.n_items):.4%}"),
    ]
    if made.times is not None:
        first, last = (f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}" for time in made.times)
        rows.append(("  first to last, UTC", f"{first} to {last}"))
    rows += continued_rows(made)
    rows += [("reviews with text", f"{info.n_reviews:,}")]
    if made.reviews.n_set_aside:
        rows.append(("  set aside (a held-out review has the same text)", f"{made.reviews.n_set_aside:,}"))
    rows += line_rows(made.source.reviews, "lines of reviews")
    rows += line_rows(made.source.metadata_files, "lines of metadata")
    rows += _left_out_rows(made)
    if info.negatives:
        rows.append(("users with negatives", f"{made.n_negatives:,}"))
    rows += [
        ("protocol", info.protocol if info.cut is None else f"{info.protocol}: {describe_cut(info.cut)}"),
        ("labels", f"{info.label_scheme}, {made.labels.min()} to {made.labels.max()}"),
        ("label digits: prefixes of each length", digit_trie(made.labels)),
    ]
    if made.reviews.features:
        rows.append(("feature words", f"{len(made.reviews.features)}: {', '.join(made.reviews.features[:8])}, ..."))
    return rows


def continued_rows(made: Prepared) -> Rows:
    """What was added to an earlier dataset."""
    was = made.continued
    if was is None:
        return []
    return [
        ("goes on from", str(was.previous)),
        ("  new users", f"{made.info.n_users - was.n_users:,}"),
        ("  new items", f"{made.info.n_items - was.n_items:,}"),
        ("  events in the log", f"{was.n_events:,}"),
        ("    recorded twice, the first stays", f"{was.n_repeated:,}"),
        ("  users forgotten", f"{len(was.forgotten):,}"),
    ]


def catalogue_rows(counts: CatalogueCounts) -> Rows:
    """What is known of the items; numbers are items that have it."""
    rows = [
        ("  with title", f"{counts.n_titles:,}"),
        ("  with brand", f"{counts.n_brands:,}"),
        ("  with categories", f"{counts.n_categories:,}"),
        ("  with description", f"{counts.n_descriptions:,}"),
        ("  with features", f"{counts.n_features:,}"),
    ]
    for attribute in counts.attributes[:SHOWN_ATTRIBUTES]:
        unreadable = f", {attribute.n_unreadable:,} not a {attribute.type}" if attribute.n_unreadable else ""
        rows.append((f"  with {attribute.name}", f"{attribute.n_items:,} ({attribute.type}{unreadable})"))
    more = counts.attributes[SHOWN_ATTRIBUTES:]
    if more:
        rows.append((f"  and {len(more)} more attributes", ", ".join(a.name for a in more[:3]) + ", ..."))
    if counts.n_rare_attributes:
        rows.append(("  rare attributes left out", f"{counts.n_rare_attributes:,}"))
    return rows


def line_rows(files: tuple[Ingested, ...], what: str) -> Rows:
    """Every physical line of the files: the rows below the first add up to it."""
    if not files:
        return []
    dropped = Notes()
    for file in files:
        dropped.merge(file.dropped)
    parts = [
        ("  headers", sum(file.tally.n_header for file in files)),
        ("  blank", sum(file.tally.n_blank for file in files)),
        ("  going on inside a quoted field", sum(file.tally.n_joined for file in files)),
        ("  bad (--max-bad-lines)", sum(file.n_bad for file in files)),
        *((f"  dropped: {reason} ({example})", n) for reason, (n, example) in dropped.seen.items()),
        ("  records", sum(file.n_records for file in files)),
    ]
    total = sum(file.tally.n_lines for file in files)
    always = ("  records", "  bad (--max-bad-lines)")
    return [(what, f"{total:,}"), *((name, f"{n:,}") for name, n in parts if n or name in always)]


def _left_out_rows(made: Prepared) -> Rows:
    stays = made.info.repeats if not made.events_differ else f"heaviest event, of equal ones the {made.info.repeats},"
    verb = "kept" if made.info.repeats == "keep" else f"dropped, the {stays} stays"
    rows = [(f"repeats of a user and item, {verb} (--repeats)", f"{made.n_repeats:,}")]
    if made.info.min_interactions > 1:
        users, items, interactions = made.n_outside_core
        rows.append(
            (
                f"outside the {made.info.min_interactions}-core (--core)",
                f"{users:,} users, {items:,} items, {interactions:,} interactions",
            )
        )
    if made.source.n_texts_unplaced:
        rows.append(("explanations without interaction or text, left out", f"{made.source.n_texts_unplaced:,}"))
    return rows


def warnings(made: Prepared, today: datetime) -> Iterator[str]:
    """One sentence for everything that was guessed or looks wrong."""
    yield from made.source.notes.lines()
    yield from made.catalogue.warnings
    if made.source.p5 is not None:
        yield from made.source.p5.notes.lines()
    if made.times is not None:
        first, last = (datetime.fromtimestamp(time, UTC) for time in made.times)
        if first.year < OLDEST_YEAR:
            yield f"the first interaction is of {first:%Y-%m-%d}: is that a time (--columns timestamp=...)?"
        if last > today:
            yield f"the last interaction is of {last:%Y-%m-%d}, after today: is that a time (--columns timestamp=...)?"
    if made.info.repeats == "keep" and made.events_differ:
        yield (
            "all events count alike, whatever their weight (--events): a weight says which of a user's events with an "
            "item stays, and --repeats keep keeps all"
        )
    if made.info.repeats != "keep" and made.n_repeats > made.info.n_interactions:
        yield (
            f"more interactions were dropped as repeats ({made.n_repeats:,}) than kept; where people buy things "
            "again, --repeats keep"
        )
    total = made.n_outside_core[2] + made.info.n_interactions
    if made.n_outside_core[2] > total / 2:
        yield f"--core {made.info.min_interactions} left out {made.n_outside_core[2] / total:.0%} of the interactions"
