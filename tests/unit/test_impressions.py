"""Impressions: what an id says, who can read it, and for how long."""

from __future__ import annotations

import os

import pytest

from rdrec_core.types import ScoreMode, Strategy
from service.answers.impressions import Impressions
from service.telemetry.observability import Metrics
from service.wire.rankings import RankingAnswer, RecommendedItem, Signals
from service.wire.work import OldImpressionError, UnknownImpressionError


def answer(*item_ids: str, arm: str = "a") -> RankingAnswer:
    items = [RecommendedItem(i, None, n, 0.1, Signals(None, None, None)) for n, i in enumerate(item_ids, start=1)]
    return RankingAnswer(
        model_version="v", history_source="none", degraded=False, ignored_items=[], unavailable_items=[], items=items,
        score_mode=ScoreMode.TRIE, strategy=Strategy.BEAM, steered=False, arm=arm,
    )  # type: ignore[arg-type]  # fmt: skip


def test_an_id_says_arm_time_and_the_rank_of_each_item() -> None:
    now = 1_700_000_000.9
    impressions = Impressions(Metrics(), ttl_s=100, clock=lambda: now)
    ids = [f"item {n}" for n in range(100)]
    shown = [impressions.shown(answer(*ids, arm="b")).impression_id for _ in range(2)]
    first, second = map(impressions.read, shown)
    assert (first.arm, first.shown_at) == ("b", 1_700_000_000)
    assert first.name != second.name
    assert [first.rank_of(i) for i in ids] == list(range(1, 101))
    assert first.rank_of("another") is None
    assert len(shown[0]) < 450
    now += 101
    with pytest.raises(OldImpressionError):
        impressions.read(shown[0])


def test_replicas_read_each_others_ids_once_they_share_a_key_and_their_own_from_before() -> None:
    one, other = (Impressions(Metrics(), ttl_s=100) for _ in range(2))
    before = one.shown(answer("x")).impression_id
    with pytest.raises(UnknownImpressionError):
        other.read(before)
    secret = os.urandom(32)
    for impressions in (one, other, one):
        impressions.adopt(secret)
    after = one.shown(answer("x")).impression_id
    assert other.read(after).rank_of("x") == 1
    assert one.read(before).rank_of("x") == 1


@pytest.mark.parametrize("change", ["", "A", "A" * 20, "AAAA", "\ud800", "ü" * 8])
def test_what_is_no_id_of_ours_is_unknown(change: str) -> None:
    with pytest.raises(UnknownImpressionError):
        Impressions(Metrics(), ttl_s=100).read(change)


def test_no_bit_of_an_id_can_be_changed() -> None:
    impressions = Impressions(Metrics(), ttl_s=100)
    known = impressions.shown(answer("x", "y")).impression_id
    for place in range(len(known)):
        forged = known[:place] + ("A" if known[place] != "A" else "Q") + known[place + 1 :]
        with pytest.raises(UnknownImpressionError):
            impressions.read(forged)
