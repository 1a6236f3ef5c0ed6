"""Whole words as terms: the third part of a duplex score, BM25 as an inner product of two sparse vectors.

A passage holds for each of its words, those beyond the encoder's length included, its saturated frequency

    f / (f + k1 (1 - b + b l / average_length)),    f times among its l words,

which depends on nothing but the passage. A query holds its words' rarities (Robertson and Zaragoza 2009, with Lucene's
logarithm), where N passages are searched of which d have the word:

    (QUERY_WORDS / n)^(1/2) ln(1 + (N - d + 1/2) / (d + 1/2)).

The root lets the n words of a query share their weight, so that a query of ninety words does not drown the dense half.
Where passages are short they are all multiplied by :func:`brevity`: a sentence that answers a question need not repeat
its words, and words alone find much less there than a dense vector does.
A word's dimension is a hash of its stem, so that no vocabulary has to be kept in step with changing documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import scipy.sparse as sp
import xxhash
from numpy.typing import NDArray

from dupmae.config import WordLanguage
from dupmae.corpus.words import CACHED_WORDS, stemmer, terms_of, words_of
from dupmae.errors import DupmaeError
from dupmae.files import write_json
from dupmae.models import Model
from dupmae.models.files import read_settings

WORD_DIMENSIONS = 1 << 22
"""Dimensions that words are hashed to. Of the 26,397 stems of SciFact's abstracts 66 then share one; NDCG@10 of words
alone falls by less than .001 with 2^16 of them, by .012 with 2^14. More would cost whoever transposes such vectors."""
QUERY_WORDS = 8
"""A query of so many words gives each its whole rarity."""
STEPS = 256
"""Saturated frequencies are multiples of 1 / 256, so that a byte holds them and their sums are exact."""
FEW_WORDS = 40
"""Different words of a passage, on average, below which words count less."""
FILE = "words.json"
"""Name of the file in a model's folder."""
AVERAGE_LENGTH = 100.0
"""Words of a passage on average, where none were counted."""
KEYS = ("passages", "words_per_passage", "frequencies")
"""What it holds beside the space."""
FREQUENT_WORDS = 50_000
"""Words whose document frequencies a model keeps: the most frequent ones."""


@dataclass(frozen=True, kw_only=True)
class WordSpace:
    """How words become terms: what a model and an index have to agree on.

    Examples:
        >>> from dupmae.duplex.words import WordSpace
        >>> space = WordSpace(language="english", average_length=4)
        >>> passages = space.passages(["Lamps, lamps and a lighthouse", "bread"])
        >>> passages.nnz, passages.data.tolist()
        (3, [0.69140625, 0.55078125, 0.61328125])
        >>> query = space.queries(["which lamp?"])
        >>> [space.names(["which lamp?"])[dimension] for dimension in query.indices]
        ['lamp', 'which']
    """

    language: str = "english"
    """Of the stemmer, see :func:`dupmae.corpus.words.terms_of`."""
    k1: float = 0.9
    """How slowly repetitions saturate."""
    b: float = 0.4
    """How much of a passage's length its frequencies are set off against."""
    average_length: float = AVERAGE_LENGTH
    """Length, in words, of a passage that is neither short nor long."""

    def passages(self, texts: Sequence[str]) -> sp.csr_array:
        """Weigh the words of passages by their saturated frequencies: float32 (n, `WORD_DIMENSIONS`)."""
        counts = self._counts(texts)
        lengths = counts.sum(axis=1)  # (n,)
        slow = self.k1 * (1 - self.b + self.b * lengths / self.average_length)
        saturated = counts.data / (counts.data + np.repeat(slow, np.diff(counts.indptr)))
        counts.data = np.clip(np.rint(STEPS * saturated), 1, STEPS - 1).astype(np.float32) / np.float32(STEPS)
        return counts

    def queries(self, texts: Sequence[str]) -> sp.csr_array:
        """Weigh the words of queries by their shares, without their rarity: float32 (n, `WORD_DIMENSIONS`)."""
        counts = self._counts(texts)
        words = np.diff(counts.indptr)
        counts.data = np.repeat(np.sqrt(QUERY_WORDS / np.maximum(words, 1)), words).astype(np.float32)
        return counts

    def names(self, texts: Iterable[str]) -> dict[int, str]:
        """Name the dimensions of the words of texts: by the first word, in small letters, that has each."""
        stem, found = stemmer(self.language), dict[int, str]()
        for text in texts:
            for word in words_of(text):
                if term := stem(word):
                    found.setdefault(dimension_of(term), word)
        return found

    def _counts(self, texts: Sequence[str]) -> sp.csr_array:
        """Count the words of texts: float64 (n, `WORD_DIMENSIONS`), dimensions rising."""
        terms = terms_of(texts, self.language)
        indptr = np.zeros(len(terms) + 1, np.int64)
        np.cumsum([len(one) for one in terms], out=indptr[1:])
        indices = np.array([dimension_of(term) for one in terms for term in one], np.int64)
        counts = sp.csr_array((np.ones(len(indices)), indices, indptr), shape=(len(terms), WORD_DIMENSIONS))
        counts.sum_duplicates()
        return counts


def inner_products(queries: sp.csr_array, passages: sp.csr_array) -> NDArray[np.float32]:
    """Multiply the words of q queries with those of n passages: (q, n), by way of the queries' words alone."""
    dimensions, columns = np.unique(queries.indices, return_inverse=True)
    places = np.searchsorted(dimensions, passages.indices)
    shared = np.flatnonzero(np.append(dimensions, -1)[places] == passages.indices)
    rows = np.repeat(np.arange(passages.shape[0]), np.diff(passages.indptr))[shared]
    lists = sp.csr_array(
        (passages.data[shared], (places[shared], rows)), shape=(len(dimensions), passages.shape[0]), dtype=np.float32
    )
    shape = (queries.shape[0], len(dimensions))
    weights = sp.csr_array((queries.data, columns, queries.indptr), shape=shape, dtype=np.float32)
    scores: NDArray[np.float32] = (weights @ lists).toarray()
    return scores


@lru_cache(CACHED_WORDS)
def dimension_of(term: str) -> int:
    """Hash a term, a stem or a word, to its dimension."""
    return xxhash.xxh3_64_intdigest(term.encode()) % WORD_DIMENSIONS


def rarity(passages: int, having: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute ln(1 + (N - d + 1/2) / (d + 1/2)) for N passages, d (m,) of which have a word; 0 where none has it."""
    found = np.log1p((passages - having + 0.5) / (having + 0.5))
    return np.where(having > 0, found, 0.0)


def brevity(words_per_passage: float) -> float:
    """Compute what words are multiplied by among passages of so many different words on average: 1, or less of few.

    Sentences of 14 words want a tenth of the weight that abstracts of a hundred and introductions of 39 want
    (`docs/results/small.md`), hence the square.
    """
    return min(1.0, (words_per_passage / FEW_WORDS) ** 2)


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of a model: their space, and how many passages have each where there is no index to tell.

    Saved as `words.json` in the model's folder.
    """

    space: WordSpace
    """How words become terms."""
    passages: int = 0
    """Passages that were counted."""
    words_per_passage: float = FEW_WORDS
    """Different words that these have on average."""
    frequencies: Mapping[str, int] = field(default_factory=dict)
    """Stem of a word -> how many of them have it, at most `FREQUENT_WORDS`."""

    @classmethod
    def counted(cls, texts: Sequence[str], space: WordSpace) -> Words:
        """Count words and lengths of passages.

        Args:
            texts: A sample of what will be searched.
            space: Gives everything but the average length, which is that of the texts, at least 1.
        """
        frequencies, length, different = Counter[str](), 0, 0
        for text in texts:
            (terms,) = terms_of([text], space.language)
            length += len(terms)
            different += len(set(terms))
            frequencies.update(set(terms))
        average = round(max(length / max(len(texts), 1), 1.0), 1)
        most = sorted(frequencies.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT_WORDS]
        space = replace(space, average_length=average)
        each = different / max(len(texts), 1)
        return cls(space=space, passages=len(texts), words_per_passage=each, frequencies=dict(most))

    @cached_property
    def _having(self) -> dict[int, int]:
        """Passages that have the word of a dimension."""
        having: dict[int, int] = {}
        for term, count in self.frequencies.items():
            having[dimension_of(term)] = max(count, having.get(dimension_of(term), 0))
        return having

    def rarity(self, dimensions: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Look up how rare the words of dimensions (m,) are; one that was not counted is taken to be in one passage."""
        having = [self._having.get(dimension, 1) for dimension in dimensions.tolist()]
        return rarity(max(self.passages, 1), np.array(having, np.int64))

    def rare(self, queries: sp.csr_array) -> sp.csr_array:
        """Multiply the words of queries by their rarity and the brevity: what is left to do where there is no index."""
        factors = self.rarity(queries.indices) * brevity(self.words_per_passage)
        weights = (queries.data * factors).astype(np.float32)
        return sp.csr_array((weights, queries.indices, queries.indptr), shape=queries.shape)

    def save(self, folder: Path) -> None:
        """Write `words.json`."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, model: Model) -> Words:
        """Read `words.json` of a model.

        Raises:
            DupmaeError: It is missing, or is not what :meth:`save` wrote.
        """
        values = read_settings(model.path, FILE)
        try:
            words = cls(space=WordSpace(**values["space"]), **{key: values[key] for key in KEYS})
            _check(words)
        except (ValueError, TypeError, KeyError) as error:
            raise DupmaeError(
                f"{model.label}: {FILE}, which says how the model reads words, is missing or damaged "
                f"({str(error)[:200]}): fetch or save the model again."
            ) from error
        return words


def check_space(space: WordSpace) -> None:
    """Refuse a space that no model was saved with.

    Raises:
        ValueError: Says why.
    """
    if space.language not in get_args(WordLanguage) or space.language == "none":
        raise ValueError(f"there is no stemmer for the language {str(space.language)[:60]!r}")
    numbers = {"k1": (space.k1, 0.0), "b": (space.b, 0.0), "average_length": (space.average_length, 1.0)}
    for name, (value, least) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e9:
            raise ValueError(f"{name} is {str(value)[:60]}")
    if space.b > 1:
        raise ValueError(f"b is {space.b}")


def _check(words: Words) -> None:
    """Refuse words that no model was saved with, as :func:`check_space` does."""
    check_space(words.space)
    if not isinstance(words.frequencies, dict) or len(words.frequencies) > FREQUENT_WORDS:
        raise ValueError("the frequencies are no list of words, or of too many")
    each = words.words_per_passage
    if isinstance(each, bool) or not isinstance(each, int | float) or not 0 <= each < 1e9:
        raise ValueError(f"words_per_passage is {str(each)[:60]}")
    counts = [words.passages, *words.frequencies.values()]
    if any(type(count) is not int or not 0 <= count <= words.passages for count in counts):
        raise ValueError("the frequencies are no numbers of passages")
