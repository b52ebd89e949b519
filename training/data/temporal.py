"""Protocol `temporal`: two moments divide all interactions into training, validation and test, whoever they are of.

Leave-one-out lets a model learn what others bought after the question was asked, and never meets who or what is new.
Here every purchase after a moment is a question, and nothing after it was learned from. Knows times, no users or items.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from rdrec_core.errors import DatasetError, InputError
from training.data.histories import TEST, TRAIN, VAL

DEFAULT_CUT = "0.8,0.9"
_AGO = re.compile(r"(\d+(?:\.\d+)?)([dh])")
_SECONDS = {"d": 86_400, "h": 3600}
Times = npt.NDArray[np.int64]


def cut_moments(text: str, timestamp: Times) -> tuple[int, int]:
    """When validation and test begin, in unix seconds.

    text: two shares of the interactions in the order of time, two dates, or two times before the last interaction, such
    as `0.8,0.9`, `2014-01-01,2014-04-01` or `8d,1d` (or hours, `36h`). Raises InputError where it is none of them,
    DatasetError where an interaction has no time or a split would be empty.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise InputError(
            f"--cut {text} should be two shares, dates or times before the last interaction, where validation and test"
            f" begin, such as {DEFAULT_CUT} or 8d,1d",
            field="cut",
        )
    unknown = int((timestamp < 0).sum())
    if unknown:
        raise DatasetError(
            f"--protocol temporal needs the time of every interaction; {unknown:,} of {len(timestamp):,} have none"
        )
    in_order = np.sort(timestamp)
    validation, test = (_moment(part, in_order) for part in parts)
    if not in_order[0] < validation < test <= in_order[-1]:
        raise DatasetError(
            f"--cut {text}: validation would begin {_date(validation)} and test {_date(test)}, but the interactions"
            f" reach from {_date(int(in_order[0]))} to {_date(int(in_order[-1]))} and every split needs some"
        )
    return validation, test


def split_by_time(timestamp: Times, cut: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Split of each interaction: before, between and from the two moments on."""
    validation, test = cut
    return np.where(timestamp < validation, TRAIN, np.where(timestamp < test, VAL, TEST)).astype(np.uint8)


def describe_cut(cut: tuple[int, int]) -> str:
    """For people."""
    return f"validation from {_date(cut[0])}, test from {_date(cut[1])}"


def _moment(text: str, in_order: Times) -> int:
    if match := _AGO.fullmatch(text):
        return int(in_order[-1]) - int(float(match[1]) * _SECONDS[match[2]])
    try:
        share = float(text)
    except ValueError:
        pass
    else:
        if not 0 < share < 1:
            raise InputError(f"--cut {text} should be a share between 0 and 1, or a date", field="cut")
        return int(in_order[int(share * len(in_order))])
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"--cut {text} is neither a share, nor a date such as 2014-01-01, nor a time before the last such as 1d",
            field="cut",
        ) from error
    return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
