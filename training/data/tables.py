"""Delimited text as rows: which separator, what a quotation mark means, and no line unaccounted for.

Knows text, not columns' meanings. csv alone loses lines without a word: where a field begins with a lone quotation mark
it reads on to the next one, over dozens of rows. Here every record knows the physical lines that it was made of, and
where those are whole rows by themselves, they are read as rows.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from training.data.values import Notes

Quoting = Literal["minimal", "none"]
BLANKS = " "
"""As a separator: any run of spaces and tabs."""
MAX_LINES = 1000
"""A quoted field of more lines than this is a quotation mark that was never closed."""
PLAIN_QUOTES = "lines in which a quotation mark is a plain character (--quoting none says so of the whole file)"

csv.field_size_limit(1 << 27)


@dataclass
class Tally:
    """What the physical lines of a file are, beside records, bad and dropped ones."""

    n_lines: int = 0
    n_header: int = 0
    n_blank: int = 0
    n_joined: int = 0
    """Lines that go on inside a quoted field: all but the first of each record."""


@dataclass(frozen=True)
class Layout:
    """How lines are cut."""

    separator: str
    quoting: Quoting = "minimal"

    @property
    def is_plain(self) -> bool:
        """Whether quotation marks mean nothing."""
        return self.quoting == "none" or len(self.separator) > 1 or self.separator == BLANKS

    def cut(self, line: str) -> list[str]:
        """The fields of a line without quoting."""
        text = line.rstrip("\r\n")
        return text.split() if self.separator == BLANKS else text.split(self.separator)


def find_separator(line: str) -> str | None:
    """The separator of a table by its first line; None where there is none."""
    if line.count("::") >= 2:
        return "::"
    outside = "".join(line.split('"')[::2])  # a header may quote names that hold a separator
    best = max(",;\t|", key=outside.count)
    if outside.count(best):
        return best
    return BLANKS if len(line.split()) > 1 else None


def rows(lines: Iterator[str], layout: Layout, tally: Tally, notes: Notes) -> Iterator[tuple[int, list[str] | str]]:
    """(number of the first line, fields) of each record; a text instead of fields says why there are none.

    The first record gives the width that tells rows from remnants. Counts lines, blank and joined ones in `tally`.
    """
    if layout.is_plain:
        for line in lines:
            tally.n_lines += 1
            if line.isspace():
                tally.n_blank += 1
            else:
                yield tally.n_lines, layout.cut(line)
        return
    width = 0
    for line in lines:
        first = tally.n_lines + 1
        if '"' not in line:  # as csv would cut it, and faster
            tally.n_lines = first
            if line.isspace():
                tally.n_blank += 1
                continue
            fields = layout.cut(line)
            width = width or len(fields)
            yield first, fields
            continue
        taken: list[str] = []
        record = _next(csv.reader(_taking(line, lines, taken), delimiter=layout.separator))
        tally.n_lines += len(taken)
        if isinstance(record, str):
            tally.n_joined += len(taken) - 1
            yield first, record
        elif len(taken) == 1:
            width = width or len(record)
            yield first, _escaped(record, line, width, layout) if '\\"' in line else record
        else:
            alone = [_alone(each, width, layout) for each in taken]
            whole = sum(len(fields) == width for fields in alone)
            if width > 1 and whole >= 2 and 2 * whole >= len(taken):
                notes.add(PLAIN_QUOTES, f"line {first}", len(taken))
                for number, (each, fields) in enumerate(zip(taken, alone, strict=True), start=first):
                    if each.isspace():
                        tally.n_blank += 1
                    else:
                        yield number, fields
            else:
                tally.n_joined += len(taken) - 1
                width = width or len(record)
                closed = len(taken) < MAX_LINES
                yield first, record if closed else f"a quotation mark is not closed within {MAX_LINES} lines"


def _taking(line: str, lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    """A line and those after it as `csv.reader` asks for them, MAX_LINES at most; keeps what it gave in `taken`."""
    for each in itertools.chain([line], lines):
        taken.append(each)
        yield each
        if len(taken) >= MAX_LINES:
            return


def _next(reader: Iterator[list[str]]) -> list[str] | str:
    try:
        return next(reader, [])
    except csv.Error as cause:
        return f"cannot be cut into fields: {cause}"


def _alone(line: str, width: int, layout: Layout) -> list[str]:
    """The fields of a line that is a row by itself: by its quotes where they are in pairs, else without."""
    if line.count('"') % 2 == 0:
        fields = next(csv.reader([line], delimiter=layout.separator), [])
        if len(fields) == width:
            return _escaped(fields, line, width, layout)
    return layout.cut(line)


def _escaped(fields: list[str], line: str, width: int, layout: Layout) -> list[str]:
    r"""The fields of a line, read again where it escapes quotes by a backslash (`"the \"last\" word"`)."""
    if '\\"' not in line:
        return fields
    try:
        again: Sequence[str] = next(csv.reader([line], delimiter=layout.separator, escapechar="\\"), [])
    except csv.Error:
        return fields
    return list(again) if len(again) == width else fields
