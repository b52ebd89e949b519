"""Sparse TF-IDF vectors over words and pairs of words, the index that compares them, and their projection to numbers.

Numpy arrays only, so that a service can hold new words against a catalogue that training has read; all of it can be
memory-mapped. Knows neither which texts an item has (`training/signals/`) nor what the likeness is used for.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rdrec_core.catalog import Arrays, StringTable
from rdrec_core.runs import runs_of
from rdrec_core.types import IntArray
from rdrec_core.words import is_gram, words

Lookup = Callable[[str], int]
"""Code of a word, -1 where it has none."""
_TEXTS_AT_ONCE = 50_000
_CELLS_AT_ONCE = 4_000_000
"""Of a projection: how many dense numbers are gathered before they are added up."""
_DENSE = 16
"""As in the item graph: up to so many items for each posting that is read, a row of the catalogue is filled."""
_FEW_TEXTS = 50
"""So many texts are looked up word by word; for more it pays to read the vocabulary into a dict."""


@dataclass(frozen=True)
class Rows:
    """M sparse vectors of length one (of no entries where nothing was known), as CSR.

    indptr (M + 1,) int64, terms (E,) int32 ascending within a row, weights (E,) float32.
    """

    indptr: npt.NDArray[np.int64]
    terms: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def row(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Terms and weights of one vector."""
        entries = slice(self.indptr[index], self.indptr[index + 1])
        return self.terms[entries], self.weights[entries]

    def of(self, rows: IntArray) -> Rows:
        """Some of these vectors."""
        starts, lengths = self.indptr[rows], self.indptr[rows + 1] - self.indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entries = np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])
        return Rows(indptr, self.terms[entries], self.weights[entries])

    def then(self, more: Rows) -> Rows:
        """These vectors and behind them some more."""
        return Rows(
            np.concatenate([self.indptr, self.indptr[-1] + more.indptr[1:]]),
            np.concatenate([self.terms, more.terms]), np.concatenate([self.weights, more.weights]),
        )  # fmt: skip

    def cosines(
        self, terms: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]
    ) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """(rows ascending, cosine) of every vector that shares a term with one of length one; for a few thousand."""
        if not len(terms) or not len(self.terms):
            return np.empty(0, dtype=np.int64), np.empty(0)
        at = np.minimum(np.searchsorted(terms, self.terms), len(terms) - 1)
        products = np.where(terms[at] == self.terms, self.weights * weights[at].astype(np.float64), 0.0)
        owners = np.repeat(np.arange(len(self)), np.diff(self.indptr))
        cosine = np.bincount(owners, weights=products, minlength=len(self)).astype(np.float64, copy=False)
        found = np.flatnonzero(cosine)
        return found, cosine[found]


NO_ROWS = Rows(np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))


@dataclass(frozen=True)
class Cuts:
    """Which terms a vocabulary keeps.

    min_count: texts that a term must be in. max_share: of all texts, above which a term says nothing. max_size: terms
    kept, the most frequent. pairs: whether two words that stand together are a term of their own.
    """

    min_count: int = 2
    max_share: float = 0.5
    max_size: int = 200_000
    pairs: bool = True


class SparseVectors:
    """A vocabulary with its weights: text -> TF-IDF vector. Term t < W is word t, term W + p is pair p of words.

    weight = (1 + ln count) x idf, idf = ln((1 + texts) / (1 + texts with the term)) + 1, each vector then of length
    one: scikit-learn's TfidfVectorizer with sublinear_tf.
    """

    def __init__(self, table: StringTable, pairs: npt.NDArray[np.int64], idf: npt.NDArray[np.float32]) -> None:
        """table: the W words; pairs (P,): first word x W + second, ascending; idf (W + P,), 0 for a term not used."""
        self._table, self._pairs, self._idf = table, pairs, idf
        self._codes: dict[str, int] | None = None

    def __len__(self) -> int:
        """Terms, words and pairs."""
        return len(self._idf)

    @classmethod
    def from_texts(cls, texts: Sequence[str], cuts: Cuts | None = None) -> tuple[SparseVectors, Rows]:
        """The vocabulary of these texts, and their vectors. The order of the texts does not change the vocabulary."""
        cuts = cuts or Cuts()
        seen: defaultdict[str, int] = defaultdict(lambda: len(seen))
        flat, lengths = _coded(texts, seen.__getitem__)
        counts = np.zeros(len(seen), dtype=np.int64)
        for owners, codes in _blocks(flat, lengths):
            counts += np.bincount(_distinct(owners, codes, len(seen))[1], minlength=len(seen))
        spelled = list(seen)
        # the most frequent first, so that what the vocabulary's size leaves over is a prefix
        frequent = sorted(np.flatnonzero(counts >= cuts.min_count).tolist(), key=lambda c: (-counts[c], spelled[c]))
        kept = [spelled[code] for code in frequent[: cuts.max_size]]
        word_counts = counts[frequent[: cuts.max_size]]
        renamed = np.full(len(seen), -1, dtype=np.int32)
        renamed[frequent[: cuts.max_size]] = np.arange(len(kept))
        flat = renamed[flat]
        pairs, pair_counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        if cuts.pairs and kept:
            joins = np.asarray([not is_gram(word) for word in kept])
            pairs, pair_counts = _frequent_pairs(flat, lengths, joins, cuts.min_count)
            # no word is in fewer texts than a pair of it, and of equals words stay first: no pair outlives its words
            order = np.argsort(-np.concatenate([word_counts, pair_counts]), kind="stable")[: cuts.max_size]
            n_words = int((order < len(kept)).sum())
            chosen = np.sort(order[order >= len(kept)] - len(kept))
            pairs, pair_counts = pairs[chosen], pair_counts[chosen]
            pairs = pairs // len(kept) * n_words + pairs % len(kept)
            kept, word_counts = kept[:n_words], word_counts[:n_words]
            flat = np.where(flat < n_words, flat, -1)
        in_texts = np.concatenate([word_counts, pair_counts])
        idf = np.log((1 + len(texts)) / (1 + in_texts)) + 1
        idf[in_texts > cuts.max_share * len(texts)] = 0.0
        vectors = cls(StringTable.from_strings(kept), pairs, idf.astype(np.float32))
        return vectors, vectors._weighed(flat, lengths)

    def transform(self, texts: Sequence[str]) -> Rows:
        """Vectors of any texts; what the vocabulary lacks is left out."""
        if self._codes is None and len(texts) <= _FEW_TEXTS:
            flat, lengths = _coded(texts, self._find)
        else:
            known = self._words()
            flat, lengths = _coded(texts, lambda word: known.get(word, -1))
        return self._weighed(flat, lengths)

    def idf(self, terms: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Inverse document frequency of terms; 0 where one is not used."""
        return self._idf[terms]

    def spelled(self, term: int) -> str:
        """A term as it is written, a pair with a blank between its words."""
        n = len(self._table)
        if term < n:
            return self._table[term]
        first, second = divmod(int(self._pairs[term - n]), n)
        return f"{self._table[first]} {self._table[second]}"

    def arrays(self) -> Arrays:
        """Everything, for `BundleWriter.add_arrays`."""
        return {**self._table.arrays("words"), "pairs": self._pairs, "idf": self._idf}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> SparseVectors:
        """Read what `arrays` wrote."""
        return cls(StringTable.from_arrays(arrays, "words"), arrays["pairs"], arrays["idf"])  # type: ignore[arg-type]

    def _find(self, word: str) -> int:
        code = self._table.find(word)
        return -1 if code is None else code

    def _words(self) -> dict[str, int]:
        if self._codes is None:
            self._codes = {self._table[code]: code for code in range(len(self._table))}
        return self._codes

    def _weighed(self, flat: npt.NDArray[np.int32], lengths: IntArray) -> Rows:
        """Vectors of coded texts."""
        n = len(self._table)
        sizes = np.zeros(len(lengths), dtype=np.int64)
        terms, weights = [np.empty(0, dtype=np.int32)], [np.empty(0, dtype=np.float32)]
        for owners, codes in _blocks(flat, lengths):
            known = codes >= 0
            text, term = owners[known], codes[known].astype(np.int64)
            if len(self._pairs):
                pair_text, key = _adjacent(owners, codes, n)
                place = np.minimum(np.searchsorted(self._pairs, key), len(self._pairs) - 1)
                found = self._pairs[place] == key
                text, term = np.concatenate([text, pair_text[found]]), np.concatenate([term, n + place[found]])
            used = self._idf[term] > 0
            text, term, count = _distinct(text[used], term[used], len(self))
            weight = (1 + np.log(count)) * self._idf[term]
            squares = np.bincount(text, weights=weight**2, minlength=len(lengths))
            weights.append((weight / np.sqrt(squares[text])).astype(np.float32))
            terms.append(term.astype(np.int32))
            sizes += np.bincount(text, minlength=len(lengths))
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return Rows(indptr, np.concatenate(terms), np.concatenate(weights))


class TextIndex:
    """The items that hold each term, with their weights: answers which items are like a vector, and how much."""

    def __init__(
        self, indptr: npt.NDArray[np.int64], items: npt.NDArray[np.int32], weights: npt.NDArray[np.float32],
        n_items: int,
    ) -> None:  # fmt: skip
        """indptr (terms + 1,), items ascending within a term, weights as in the items' vectors."""
        self._indptr, self._items, self._weights, self.n_items = indptr, items, weights, n_items
        self._by_item: Rows | None = None

    @classmethod
    def of(cls, rows: Rows, n_terms: int) -> TextIndex:
        """The index of these vectors, vector i being item i."""
        order = np.argsort(rows.terms, kind="stable")
        owners = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(rows.indptr))
        counts = np.bincount(rows.terms, minlength=n_terms)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(indptr, owners[order], rows.weights[order], len(rows))

    def scores(
        self, terms: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]
    ) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """(items ascending, cosine) of every item that shares a term with a vector of length one."""
        starts = self._indptr[terms]
        lengths = self._indptr[terms + 1] - starts
        entries = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        items = self._items[entries]
        values = self._weights[entries] * np.repeat(weights.astype(np.float64), lengths)
        if self.n_items <= _DENSE * len(items):
            row = np.bincount(items, weights=values, minlength=self.n_items).astype(np.float64, copy=False)
            found = np.flatnonzero(row)
            return found, row[found]
        distinct, place = np.unique(items.astype(np.int64), return_inverse=True)
        return distinct, np.bincount(place, weights=values, minlength=len(distinct)).astype(np.float64, copy=False)

    def rows_of(self, items: IntArray) -> Rows:
        """The vectors of these items, without entries for an item that came later.

        The first to ask waits until the index has been turned round, which is kept.
        """
        if self._by_item is None:
            order = np.argsort(self._items, kind="stable")
            terms = np.repeat(np.arange(len(self._indptr) - 1, dtype=np.int32), np.diff(self._indptr))
            indptr = np.concatenate([[0], np.cumsum(np.bincount(self._items, minlength=self.n_items))])
            self._by_item = Rows(indptr.astype(np.int64), terms[order], self._weights[order])
        whole = self._by_item
        starts, stops = (whole.indptr[np.minimum(items + more, self.n_items)] for more in (0, 1))
        indptr = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
        entries = np.repeat(starts - indptr[:-1], stops - starts) + np.arange(indptr[-1])
        return Rows(indptr, whole.terms[entries], whole.weights[entries])

    def neighbours(self, rows: Rows, n: int) -> list[tuple[IntArray, npt.NDArray[np.float64]]]:
        """For each vector the n items with the greatest cosine, best first; equal ones by item index."""
        out = []
        for index in range(len(rows)):
            items, cosine = self.scores(*rows.row(index))
            if len(items) > n:  # ties at the border are all kept until they are sorted
                near = cosine >= np.partition(cosine, len(cosine) - n)[len(cosine) - n]
                items, cosine = items[near], cosine[near]
            order = np.lexsort((items, -cosine))[:n]
            out.append((items[order], cosine[order]))
        return out

    def arrays(self) -> Arrays:
        """Everything, for `BundleWriter.add_arrays`."""
        return {"postings.indptr": self._indptr, "postings.items": self._items, "postings.weights": self._weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], n_items: int) -> TextIndex:
        """Read what `arrays` wrote."""
        indptr, items, weights = (arrays[f"postings.{part}"] for part in ("indptr", "items", "weights"))
        return cls(indptr, items, weights, n_items)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Projection:
    """A linear map from sparse vectors to D dense numbers. components (terms, D), any float type."""

    components: npt.NDArray[np.floating]

    @property
    def width(self) -> int:
        """D."""
        return int(self.components.shape[1])

    def project(self, rows: Rows) -> npt.NDArray[np.float32]:
        """(M, D); zeros for a vector without entries. Not brought to length one."""
        out = np.zeros((len(rows), self.width), dtype=np.float32)
        sizes = np.diff(rows.indptr)
        filled = np.flatnonzero(sizes)
        for start, stop in runs_of(sizes[filled], _CELLS_AT_ONCE // max(self.width, 1)):
            some = filled[start:stop]
            first = rows.indptr[some[0]]
            entries = slice(first, rows.indptr[some[-1] + 1])
            cells = self.components[rows.terms[entries]] * rows.weights[entries, None]
            out[some] = np.add.reduceat(cells, rows.indptr[some] - first, axis=0)
        return out


def _coded(texts: Sequence[str], lookup: Lookup) -> tuple[npt.NDArray[np.int32], IntArray]:
    """(codes of all words of all texts, one after another; words in each text)."""
    flat = array("i")
    lengths = np.zeros(len(texts), dtype=np.int64)
    for index, text in enumerate(texts):
        before = len(flat)
        flat.extend(map(lookup, words(text)))
        lengths[index] = len(flat) - before
    return np.frombuffer(flat, dtype=np.int32) if len(flat) else np.empty(0, dtype=np.int32), lengths


def _blocks(flat: npt.NDArray[np.int32], lengths: IntArray) -> Iterator[tuple[IntArray, npt.NDArray[np.int32]]]:
    """(text of each word, code of each word), some texts at a time, so that sorting needs memory for those alone."""
    ends = np.cumsum(lengths)
    for start in range(0, len(lengths), _TEXTS_AT_ONCE):
        some = lengths[start : start + _TEXTS_AT_ONCE]
        begin = ends[start] - lengths[start]
        yield np.repeat(np.arange(start, start + len(some)), some), flat[begin : begin + some.sum()]


def _distinct(owners: IntArray, codes: npt.NDArray[np.integer], n_codes: int) -> tuple[IntArray, IntArray, IntArray]:
    """(owner, code, how often) of each distinct pair, by owner and then code."""
    keys, counts = np.unique(owners * max(n_codes, 1) + codes, return_counts=True)
    owner, code = np.divmod(keys, max(n_codes, 1))
    return owner, code, counts


def _adjacent(owners: IntArray, codes: npt.NDArray[np.int32], n_words: int) -> tuple[IntArray, IntArray]:
    """(text, first word x W + second) of every two known words that stand together in a text."""
    together = (owners[1:] == owners[:-1]) & (codes[1:] >= 0) & (codes[:-1] >= 0)
    return owners[1:][together], codes[:-1][together].astype(np.int64) * n_words + codes[1:][together]


def _frequent_pairs(
    flat: npt.NDArray[np.int32], lengths: IntArray, joins: npt.NDArray[np.bool_], min_count: int
) -> tuple[IntArray, IntArray]:
    """(keys ascending, texts that hold the pair) of pairs in at least min_count texts, of words that may join."""
    n = len(joins)
    keys, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for owners, codes in _blocks(flat, lengths):
        text, key = _adjacent(owners, codes, n)
        may = joins[key // n] & joins[key % n]
        _, key, _ = _distinct(
            text[may] - owners[:1].sum(), key[may], n * n
        )  # once a text; counted from 0 to fit 64 bits
        own, own_counts = np.unique(key, return_counts=True)
        merged, place = np.unique(np.concatenate([keys, own]), return_inverse=True)
        counts = np.bincount(place, weights=np.concatenate([counts, own_counts])).astype(np.int64)
        keys = merged
    often = counts >= min_count
    return keys[often], counts[often]
