"""How close written texts are to what users wrote: BLEU over the corpus (sacrebleu) and mean ROUGE F1 (rouge-score).

All in percent, as the literature prints them. Knows pairs of texts, not where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from rdrec_core.errors import InputError

_ROUGE = {"ROUGE-1": "rouge1", "ROUGE-2": "rouge2", "ROUGE-L": "rougeL"}
TEXT_METRICS = ("BLEU-1", "BLEU-4", *_ROUGE)


def score_texts(written: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """TEXT_METRICS of texts against one reference each.

    BLEU: sacrebleu's defaults (13a tokens, case kept, exponential smoothing), counts summed over the corpus, up to
    1-grams or 4-grams. ROUGE: lower case, no stemming, the mean of each pair's F1. An empty text counts as it stands.
    Raises InputError where the two are not of equal length or empty.
    """
    if len(written) != len(references) or not references:
        raise InputError(
            f"{len(written)} texts cannot be compared with {len(references)} references; give one reference a text"
        )
    scores = {
        f"BLEU-{order}": float(BLEU(max_ngram_order=order).corpus_score(list(written), [list(references)]).score)
        for order in (1, 4)
    }
    scorer = RougeScorer(list(_ROUGE.values()), use_stemmer=False)
    pairs = [scorer.score(reference, text) for text, reference in zip(written, references, strict=True)]
    for name, key in _ROUGE.items():
        scores[name] = 100 * sum(pair[key].fmeasure for pair in pairs) / len(pairs)
    return scores
