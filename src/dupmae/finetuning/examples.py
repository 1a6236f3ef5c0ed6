"""Training rows: which query meets which passages, in which order, and a teacher's scores of them."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dupmae.config import FinetuneConfig
from dupmae.corpus import Benchmark
from dupmae.corpus.duplicates import equal_to_query, with_duplicates
from dupmae.errors import DupmaeError
from dupmae.finetuning.candidates import CandidateList
from dupmae.finetuning.jsonl_blocks import BLOCK
from dupmae.retrievers.bm25 import bm25_searcher, warn_of_unmatched
from dupmae.runtime.bars import bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Rows in training order, by numbers; texts are looked up when a row is due."""

    train: Benchmark
    """Has the texts."""
    queries: list[str]
    """Ids of the queries by their numbers."""
    passages: list[str]
    """Ids of the passages by their numbers."""
    rows: npt.NDArray[np.int64]
    """Numbers of each row's query, its positive and its n hard negatives, (N, 2 + n)."""
    positives: Mapping[int, frozenset[int]]
    """Numbers of what is never a query's negative: its positives, and passages that read like one or like the query."""
    teacher: npt.NDArray[np.float32] | None = None
    """The teacher's logits of each row's passages, (N, 1 + n); minus infinity marks a place that a short list left
    empty, where the positive stands once more."""

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, row: int) -> dict[str, str]:
        """Look up a row's texts: `query`, `positive`, `negative_1`, ..."""
        query, *passages = self.rows[row].tolist()
        found = [self.train.corpus[self.passages[number]].full_text for number in passages]
        return {"query": self.train.queries[self.queries[query]]} | dict(zip(self.columns[1:], found, strict=True))

    def lengths(self) -> npt.NDArray[np.int64]:
        """Count the characters of all rows' texts, (N, 2 + n)."""
        queries = np.array([len(self.train.queries[name]) for name in self.queries])
        passages = np.array([len(self.train.corpus[name].full_text) for name in self.passages])
        return np.concatenate([queries[self.rows[:, :1]], passages[self.rows[:, 1:]]], axis=1)

    @property
    def columns(self) -> list[str]:
        """Names of a row's texts."""
        return ["query", "positive", *(f"negative_{place}" for place in range(1, self.rows.shape[1] - 1))]


def make_examples(
    train: Benchmark,
    config: FinetuneConfig,
    lists: Mapping[str, CandidateList] | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    processes: int = 1,
) -> Examples:
    """Pair every query with each of its positives once an epoch, in an order drawn anew, and draw its negatives.

    A part of an epoch (`epochs` 0.1, or the last half of 2.5) takes the queries' positives in turns, each query's first
    before any query's second, so that queries with hundreds of positives leave room for the others.

    Negatives come from the `negative_depth` best candidates, a fresh draw an epoch. Without lists these are the
    passages of the query with a negative grade, all of them, which is what the negatives of pairs have; of a query
    without such judgements, the best passages of BM25 that are not judged positive, nor read like one that is or like
    the query. Where there are too few, any other passages serve; but what is to be distilled has to have a score, so
    there the places stay empty.

    Args:
        train: Queries, passages and judgements.
        config: The settings.
        lists: Query id -> its positives and candidates, which take the places of the judgements and of BM25; a query
            without a list is not trained on.
        scores: Query id -> passage id -> the teacher's logit, of every passage of the lists.
        processes: How many processes take part in a step.

    Raises:
        DupmaeError: There is not one full batch of pairs, or a query has too few passages to draw negatives from.
    """
    if scores is not None and config.negatives < 1:
        raise DupmaeError("negatives is 0, but distillation compares a positive with hard negatives: raise it.")
    draw = random.Random(config.seed)
    pools = candidate_pools(train, config, draw, lists, fill=scores is None, step=config.batch_size * processes)
    return draw_rows(train, config, draw, pools, scores, step=config.batch_size * processes)


@dataclass(frozen=True, slots=True)
class Pools:
    """What rows are drawn from."""

    pairs: list[tuple[str, str]]
    """Ids of each query with each of its positives."""
    answers: dict[str, frozenset[str]]
    """Query id -> what is never its negative: its positives, and passages that read like one or like the query."""
    candidates: dict[str, list[str]]
    """Query id -> its hard negatives, best first."""
    others: dict[str, list[str]]
    """Query id -> what fills a row where there are too few of these; a query without stands for places left empty."""


def candidate_pools(
    train: Benchmark,
    config: FinetuneConfig,
    draw: random.Random,
    lists: Mapping[str, CandidateList] | None,
    *,
    fill: bool,
    step: int,
) -> Pools:
    """Find each query's positives and the passages that its negatives are drawn from.

    Args:
        train: Queries, passages and judgements.
        config: The settings.
        draw: Draws the passages that fill short pools.
        lists: As in :func:`make_examples`.
        fill: Whether other passages serve where there are too few candidates.
        step: Pairs of a step, of all processes.

    Raises:
        DupmaeError: There is not one full batch of pairs, a query has too few passages to draw negatives from, or hard
            negatives are asked for and there is not one.
    """
    if config.negative_depth < config.negatives:
        raise DupmaeError(
            f"{config.negatives} negatives cannot be drawn from a negative_depth of {config.negative_depth}: raise it."
        )
    judged = {
        query: sorted(passage for passage, grade in train.qrels.get(query, {}).items() if grade > 0)
        for query in sorted(train.queries)
    }
    positives = judged
    if lists is not None:
        positives = {query: sorted(lists[query].positives) for query in judged if query in lists}
    pairs = [(query, passage) for query, found in positives.items() for passage in found]
    refuse_few(train.name, len(pairs), config.epochs, step)
    answers = with_duplicates(train.corpus, {query: [*found, *judged[query]] for query, found in positives.items()})
    same = equal_to_query(train.corpus, {query: train.queries[query] for query in positives})
    answers |= {query: answers[query] | found for query, found in same.items()}
    if not config.negatives:
        return Pools(pairs, answers, {query: [] for query in positives}, {})
    _warn_of_titles(train, [passage for _, passage in pairs])
    if lists is None:
        judged_not = {
            query: [one for one, grade in train.qrels[query].items() if grade < 0 and one not in answers[query]]
            for query in positives
        }
        given = {query: found for query, found in judged_not.items() if found}
        lacking = {query: found for query, found in answers.items() if query not in given}
        candidates = (_bm25_pools(train, lacking, config.negative_depth) if lacking else {}) | given
    else:
        candidates = {query: list(lists[query].negatives)[: config.negative_depth] for query in positives}
        empty = sum(not found for found in candidates.values())
        if empty == len(candidates):
            raise DupmaeError(
                f"The candidate lists of {train.name} ({train.split}) hold no negative for any of their {empty} "
                "queries: mine them with other settings or from another source, or set negatives to 0."
            )
        if empty:
            logger.warning(
                "The candidate lists of %s (%s) hold no negative for %d of their %d queries: %s.",
                train.name,
                train.split,
                empty,
                len(candidates),
                "any other passages serve" if fill else "there is nothing to distil for them",
            )
    return Pools(pairs, answers, candidates, _others(candidates, train, answers, config, draw) if fill else {})


def draw_rows(
    train: Benchmark,
    config: FinetuneConfig,
    draw: random.Random,
    pools: Pools,
    scores: Mapping[str, Mapping[str, float]] | None,
    *,
    step: int,
) -> Examples:
    """Lay out the rows of all epochs: each pair in an order drawn anew, with a fresh draw of its query's negatives.

    Args:
        train: Has the texts.
        config: The settings.
        draw: Draws orders and negatives.
        pools: What to draw from.
        scores: As in :func:`make_examples`.
        step: Pairs of a step, of all processes; only whole steps are laid out.
    """
    queries, passages = sorted(train.queries), sorted(train.corpus)
    number_of_query = {query: number for number, query in enumerate(queries)}
    number_of_passage = {passage: number for number, passage in enumerate(passages)}
    pairs = list(pools.pairs)
    count = int(len(pairs) * config.epochs)
    rows = np.empty((count // step * step, 2 + config.negatives), np.int64)
    teacher = None if scores is None else np.full((len(rows), 1 + config.negatives), -np.inf, np.float32)
    for place in range(len(rows)):
        if place % len(pairs) == 0:
            draw.shuffle(pairs)
            epoch = _in_turns(pairs, count - place)
        query, positive = epoch[place % len(pairs)]
        candidates = pools.candidates[query]
        drawn = draw.sample(candidates, min(config.negatives, len(candidates)))
        if query in pools.others:
            drawn += draw.sample(pools.others[query], config.negatives - len(drawn))
        row = [positive, *drawn, *[positive] * (config.negatives - len(drawn))]
        rows[place] = [number_of_query[query], *(number_of_passage[passage] for passage in row)]
        if scores is not None and teacher is not None:
            teacher[place, : 1 + len(drawn)] = [scores[query][passage] for passage in (positive, *drawn)]
    never = {
        number_of_query[query]: frozenset(number_of_passage[passage] for passage in found)
        for query, found in pools.answers.items()
    }
    return Examples(train, queries, passages, rows, never, teacher)


def refuse_few(name: str, pairs: int, epochs: float, batch: int, section: str = "") -> None:
    """Refuse a stage that has not one full batch.

    Args:
        name: What the pairs are of.
        pairs: How many there are.
        epochs: Passes over them.
        batch: Pairs of a step, of all processes.
        section: How the names of the stage's settings begin, where it is one of several.

    Raises:
        DupmaeError: There are too few.
    """
    available = int(pairs * min(epochs, 1))
    if available < batch:
        raise DupmaeError(
            f"{name} gives {available} training pairs, fewer than one batch of {batch}: "
            f"lower {section}batch_size or add pairs."
        )


def refuse_without_negatives(examples: Examples, step: int) -> None:
    """Refuse rows none of which meets a passage that is not an answer: every loss would be 0.

    Args:
        examples: The rows.
        step: Rows of a step, of all processes.

    Raises:
        DupmaeError: There is nothing to tell apart.
    """
    if examples.teacher is not None and (np.isfinite(examples.teacher).sum(axis=1) > 1).any():
        return
    for start in range(0, len(examples), step):
        rows = examples.rows[start : start + step].tolist()
        passages = {passage for row in rows for passage in row[1:]}
        if any(passages - examples.positives[query] - {positive} for query, positive, *_ in rows):
            return
    raise DupmaeError(
        f"{examples.train.name} gives no query a negative, so that every loss would be 0: set negatives to 1 or more, "
        "or add queries with other answers (and more than one to a batch)."
    )


def _warn_of_titles(train: Benchmark, positives: Sequence[str]) -> None:
    """Warn that a model would learn titles instead of answers, if no answer has a title and one passage in 20 has."""
    titled = sum(bool(passage.title) for passage in train.corpus.values())
    if titled * 20 >= len(train.corpus) and not any(train.corpus[passage].title for passage in positives):
        logger.warning(
            "No answer that %s trains on has a title, but %d of its %d passages have one, so a model learns that "
            "titles are wrong: leave them out of the corpus that it is trained on.",
            train.name,
            titled,
            len(train.corpus),
        )


def _in_turns(pairs: Sequence[tuple[str, str]], count: int) -> Sequence[tuple[str, str]]:
    """Choose so many pairs, in their order: every query's first, then every query's second, ..., as far as they go."""
    if count >= len(pairs):
        return pairs
    met = Counter[str]()
    turns = []
    for query, _ in pairs:
        turns.append(met[query])
        met[query] += 1
    chosen = sorted(range(len(pairs)), key=turns.__getitem__)[:count]  # of equal turns the earlier pair
    return [pairs[place] for place in sorted(chosen)]


def _bm25_pools(train: Benchmark, answers: Mapping[str, frozenset[str]], depth: int) -> dict[str, list[str]]:
    """Find BM25's best passages of each query, none of them a positive; a block of rankings is in memory at a time.

    Raises:
        DupmaeError: No query has a word that a passage has.
    """
    search, queries = bm25_searcher(train.corpus), list(answers)
    name = f"{train.name} ({train.split})"
    if not search.matches([train.queries[query] for query in queries]):
        raise DupmaeError(
            f"BM25 finds no hard negative for any of the {len(queries)} queries of {name}: no passage has a word of "
            "theirs. Mine negatives with an index (dupmae mine), or set negatives to 0."
        )
    pools: dict[str, list[str]] = {}
    with bar(None, "Find negatives", "queries", len(queries)) as progress:
        for start in range(0, len(queries), BLOCK):
            block = queries[start : start + BLOCK]
            deepest = depth + max(len(answers[query]) for query in block)
            for query, ranking in search({query: train.queries[query] for query in block}, deepest).items():
                pools[query] = [passage for passage in ranking if passage not in answers[query]][:depth]
            progress.update(len(block))
    warn_of_unmatched(
        {query: pools[query] for query in queries if answers[query]},
        name,
        "no passage but their answers has a word of theirs, so that any other passages are their hard negatives",
    )
    return pools


def _others(
    candidates: Mapping[str, list[str]],
    train: Benchmark,
    answers: Mapping[str, frozenset[str]],
    config: FinetuneConfig,
    draw: random.Random,
) -> dict[str, list[str]]:
    """Draw other passages, `negative_depth` at most, for queries with fewer candidates than a pair has negatives.

    A query costs what it draws, however many passages there are.
    """
    passages = sorted(train.corpus)
    others = {}
    for query, pool in candidates.items():
        if not answers[query] or len(pool) >= config.negatives:
            continue
        taken = answers[query].union(pool)
        wanted = min(config.negative_depth - len(pool), len(passages) - len(taken))
        places = draw.sample(range(len(passages)), min(wanted + len(taken), len(passages)))
        others[query] = [passages[place] for place in places if passages[place] not in taken][:wanted]
        if (found := len(pool) + len(others[query])) < config.negatives:
            raise DupmaeError(
                f"Query {query} of {train.name} has only {found} passages that are not its positives: lower negatives."
            )
    return others
