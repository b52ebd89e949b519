"""Files with faults end as records or as one sentence; `python -m tests.mutated_files` reads many more."""

from collections import Counter

from tests.mutated_files import read_mutated


def test_damaged_files_lose_no_line_without_a_word(tmp_path):
    outcomes = Counter(read_mutated(tmp_path, seed, whole=seed % 40 == 0) for seed in range(200))
    assert outcomes["read"] > 80
    assert outcomes["refused"] > 10
