"""Data files with faults, drawn by seed: delimiters, quotes, encodings, types, cuts. What the readers must survive.

    python -m tests.mutated_files [--files 2000] [--seed 0]

reads that many and ends with status 1 where one of them ends in anything but records or one sentence, or where a line
is unaccounted for: records, bad, dropped, blank, joined and header lines make the file's physical lines.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rdrec_core.errors import DatasetError, InputError
from training.data.ingest import ingest
from training.data.prepare import PrepareConfig, prepare
from training.data.reviews import Wanted
from training.data.source_jobs import SourceFile

NAMES = ["user_id", "item_id", "rating", "timestamp", "text"]
WORDS = (
    "good",
    "a lamp, red",
    'the "best"',
    "zo\u00eb",
    "\u3068\u3066\u3082\u826f\u3044\u3002",
    "line\nbreak",
    "tab\there",
    "\\",
    '"',
    "",
    "<b>x</b>",
)
TIMES = (
    1_425_168_000,
    1_425_168_000_123,
    1_425_168_000 * 10**9,
    "2015-03-01",
    "01/03/2015",
    "2015-03-01 10:00:00 UTC",
    0,
    -5,
    "",
    "soon",
    1e300,
    "20150301",
)
IDS = ("u1", "u2", "u3", 7, "7.0", 1.5, "nan", None, "", "1.23E+09", "x" * 140, True, "\u00e9", "a b")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252", "utf-32", "gb18030")


def _pick(rng: np.random.Generator, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _rows(rng: np.random.Generator) -> list[list[Any]]:
    odd = rng.random() < 0.6
    rows = []
    for n in range(int(rng.integers(1, 25))):
        user = _pick(rng, IDS) if odd and rng.random() < 0.2 else f"user{n % 5}"
        item = _pick(rng, IDS) if odd and rng.random() < 0.2 else f"item{n % 7}"
        when = _pick(rng, TIMES) if odd and rng.random() < 0.3 else 1_425_168_000 + n
        rows.append([user, item, _pick(rng, (1, 2.5, "5", "great", None, "")), when, _pick(rng, WORDS)])
    return rows


def _table(rng: np.random.Generator, rows: list[list[Any]]) -> str:
    separator = _pick(rng, (",", "\t", ";", "|", "::", " "))
    header = [] if rng.random() < 0.15 else [NAMES]
    end = _pick(rng, ("\n", "\n", "\r\n", "\r"))
    if len(separator) == 1 and rng.random() < 0.8:
        file = io.StringIO(newline="")
        csv.writer(file, delimiter=separator, lineterminator=end).writerows([*header, *rows])
        return file.getvalue()
    return end.join(separator.join(map(str, row)) for row in [*header, *rows])


def _json(rng: np.random.Generator, rows: list[list[Any]]) -> str:
    objects = [dict(zip(NAMES, row, strict=True)) for row in rows]
    form = int(rng.integers(5))
    if form == 0:
        return json.dumps(objects)
    if form == 1:
        return json.dumps(objects, indent=2)
    if form == 2:
        return "\n".join(json.dumps(each, indent=1) for each in objects)
    if form == 3:
        return "\n".join(map(repr, objects))
    return "\n".join(map(json.dumps, objects))


def _damage(rng: np.random.Generator, text: str) -> str:
    for _ in range(int(rng.integers(0, 5))):
        place = int(rng.integers(len(text) + 1))
        kind = int(rng.integers(6))
        if kind == 0:
            text = (
                text[:place]
                + _pick(rng, ('"', "'", ",", "\t", "\n", "\r", "\\", "{", "}", "[", "]", "\0", "\ud83d"))
                + text[place:]
            )
        elif kind == 1:
            text = text[:place] + text[place + int(rng.integers(1, 20)) :]
        elif kind == 2:
            text = text[:place]
        elif kind == 3:
            text = text.replace(
                _pick(rng, (",", '"', "\n", ":")), _pick(rng, (";", "", "\n\n", "\t", '""')), int(rng.integers(1, 4))
            )
        elif kind == 4:
            text = text[:place] + "\n" + text[place:] + _pick(rng, ("\n", "", "\n\n  \n"))
        else:
            text = text + text[place:]
    return text


def _parquet(rng: np.random.Generator, path: Path) -> None:
    n = int(rng.integers(1, 20))
    stamps = [1_425_168_000 + i for i in range(n)]
    unit = _pick(rng, ("s", "ms", "us", "ns"))
    ticks = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = _pick(
        rng,
        (
            pa.array([s * ticks for s in stamps]).cast(pa.timestamp(unit)),
            pa.array(stamps),
            pa.array(map(float, stamps)),
            pa.array([s * 1000 for s in stamps]),
            pa.array([s // 86400 for s in stamps], pa.int32()).cast(pa.date32()),
            pa.array(["2015-03-01"] * n).dictionary_encode(),
            pa.array([None] * n, pa.int64()),
            pa.array([b"x"] * n),
            pa.array([[1]] * n),
            pa.array(stamps, pa.duration("s")),
            pa.array([0] * n, pa.time32("s")),
        ),
    )
    ids = _pick(
        rng,
        (
            pa.array([f"u{i % 3}" for i in range(n)]),
            pa.array([i % 3 for i in range(n)]),
            pa.array([i % 3 + 0.0 for i in range(n)]),
            pa.array([f"u{i % 3}".encode() for i in range(n)]),
            pa.array([None, *["u"] * (n - 1)]),
            pa.array([True] * n),
            pa.array([{"a": 1}] * n),
            pa.array([f"u{i % 3}" for i in range(n)]).dictionary_encode(),
        ),
    )
    pq.write_table(
        pa.table({"user_id": ids, "item_id": pa.array([f"i{i}" for i in range(n)]), "timestamp": times}), path
    )
    if rng.random() < 0.3:
        data = bytearray(path.read_bytes())
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(bytes(data[: len(data) - int(rng.integers(2)) * 7]))


def write_mutated(path: Path, seed: int) -> SourceFile:
    """A file of that seed, and with which options it is read."""
    rng = np.random.default_rng([seed, 31])
    options: dict[str, Any] = {}
    if rng.random() < 0.15:
        _parquet(rng, path)
    else:
        rows = _rows(rng)
        text = _damage(rng, (_table if rng.random() < 0.6 else _json)(rng, rows))
        data = text.encode(_pick(rng, ENCODINGS) if rng.random() < 0.4 else "utf-8", "replace")
        if rng.random() < 0.1:
            place = int(rng.integers(len(data) + 1))
            data = data[:place] + bytes(rng.integers(0, 256, 3, dtype=np.uint8)) + data[place:]
        if rng.random() < 0.1:
            data = gzip.compress(data)[: None if rng.random() < 0.7 else -9]
        path.write_bytes(data)
        if rng.random() < 0.15:
            options["columns"] = {"user": "1", "item": "2", "timestamp": "4"}
        if rng.random() < 0.2:
            options["encoding"] = _pick(rng, ENCODINGS)
        if rng.random() < 0.15:
            options["quoting"] = "none"
        if rng.random() < 0.05:
            options["separator"] = _pick(rng, (",", "::", " "))
        if rng.random() < 0.1:
            options["format"] = _pick(rng, ("csv", "json", "parquet"))
    wanted = Wanted(
        order=_pick(rng, ("time", "time", "file")),
        min_rating=2.0 if rng.random() < 0.2 else None,
        time_format="%d/%m/%Y" if rng.random() < 0.1 else None,
    )
    return SourceFile(path, "metadata" if rng.random() < 0.15 else "reviews", wanted=wanted, **options)


def read_mutated(folder: Path, seed: int, *, whole: bool = False) -> str:
    """Read the file of that seed: "refused", "read" or "empty". AssertionError where lines are unaccounted for.

    whole: make a dataset of it too.
    """
    path = folder / "file"
    source = write_mutated(path, seed)
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    try:
        (made,) = ingest([source], parts, max_bad_lines=10**6, workers=1)
    except (DatasetError, InputError):
        return "refused"
    assert made.unaccounted == 0, f"{made.unaccounted} lines unaccounted for: {made.tally}, {made.n_bad} bad"
    data = path.read_bytes()
    if not data.startswith((b"PAR1", b"\x1f\x8b")) and source.encoding is None and b"\0" not in data:
        text = data.decode("utf-8-sig", "surrogateescape")
        physical = {len(io.StringIO(text, newline=kind).readlines()) for kind in ("", "\n")}
        if not text.lstrip().startswith(("[", "{")):
            assert made.tally.n_lines in physical, f"{made.tally.n_lines} lines, not {physical}"
    if whole and source.kind == "reviews" and made.n_records:
        config = PrepareConfig(
            out=folder / "out",
            reviews=(path,),
            columns=dict(source.columns),
            encoding=source.encoding,
            workers=1,
            quoting=source.quoting,
            separator=source.separator,
            format=source.format,
            order=source.wanted.order,
            min_rating=source.wanted.min_rating,
            time_format=source.wanted.time_format,
            max_bad_lines=10**6,
            force=True,
        )
        prepared = prepare(config)
        assert prepared.info.n_interactions + prepared.n_repeats == made.n_records
    return "read" if made.n_records else "empty"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seed, options.seed + options.files):
            try:
                outcomes[read_mutated(Path(folder), seed, whole=seed % 20 == 0)] += 1
            except Exception:
                print(f"seed {seed}:")
                traceback.print_exc()
                outcomes["FAILED"] += 1
    print(f"{options.files} files in {time.perf_counter() - started:.0f} s: {dict(outcomes)}")
    return 1 if outcomes["FAILED"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
