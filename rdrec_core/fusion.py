"""How loud each signal is in the fused score: what `rdrec fuse` fits and a bundle's manifest holds.

Knows names and numbers, not how they are used (`ranking.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from rdrec_core.errors import BundleError
from rdrec_core.item_graph import Mix

WORDS_WEIGHT = 1.0
"""Of words that a user types, where none was fitted: as loud as everything that the history says."""
_SEPARATOR = "."


@dataclass(frozen=True)
class TaskWeights:
    """Fusion for one ranking task: `graph` weights the graph's log score, `mix` says what that score is made of."""

    graph: float
    mix: Mix


@dataclass(frozen=True)
class FusionWeights:
    """What `rdrec fuse` fits, one set a ranking task, and how loud words that a user types are in both."""

    sequential: TaskWeights
    topn: TaskWeights
    words: float = WORDS_WEIGHT

    def to_manifest(self) -> dict[str, float]:
        """For `Description.fusion`: `<task>.graph`, `.popularity`, `.unbought`, `.channel.<name>`; `words.weight`."""
        out = {"words.weight": self.words}
        for task in ("sequential", "topn"):
            weights: TaskWeights = getattr(self, task)
            out[f"{task}.graph"] = weights.graph
            out[f"{task}.popularity"] = weights.mix.popularity
            out[f"{task}.unbought"] = weights.mix.unbought
            out |= {f"{task}.channel.{name}": value for name, value in weights.mix.channels.items()}
        return out

    def with_unbought(self, factor: float) -> FusionWeights:
        """The same with another loudness of texts for items that nobody has bought."""

        def louder(task: TaskWeights) -> TaskWeights:
            return replace(task, mix=replace(task.mix, unbought=factor))

        return replace(self, sequential=louder(self.sequential), topn=louder(self.topn))

    @property
    def channels(self) -> frozenset[str]:
        """Names of the channels that have weight in either task."""
        mixes = (self.sequential.mix.channels, self.topn.mix.channels)
        return frozenset(name for mix in mixes for name, weight in mix.items() if weight > 0)

    @classmethod
    def from_manifest(cls, flat: Mapping[str, float]) -> FusionWeights:
        """Read what `to_manifest` wrote. Raises BundleError naming what is missing or unknown."""

        def one(task: str) -> TaskWeights:
            prefix = f"{task}.channel."
            try:
                channels = {k[len(prefix) :]: v for k, v in flat.items() if k.startswith(prefix)}
                mix = Mix(flat[f"{task}.popularity"], channels, flat.get(f"{task}.unbought", 1.0))
                return TaskWeights(flat[f"{task}.graph"], mix)
            except KeyError as error:
                raise BundleError(f"fusion weights lack {error.args[0]!r}") from error

        # `build.*` says how the graph was made, which is the builder's matter
        known = [key for key in flat if key.split(_SEPARATOR)[0] in ("sequential", "topn", "words", "build")]
        if len(known) != len(flat):
            raise BundleError(f"fusion weights hold unknown names: {sorted(set(flat) - set(known))}")
        return cls(one("sequential"), one("topn"), flat.get("words.weight", WORDS_WEIGHT))
