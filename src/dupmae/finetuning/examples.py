"""Training rows of stage 1: which query meets which passages, in which order."""

from __future__ import annotations

import random
from dataclasses import dataclass

from dupmae.config import FinetuneConfig
from dupmae.corpus import Benchmark
from dupmae.errors import DupmaeError
from dupmae.evaluation import bm25_run

BM25_FIRST = 100
"""Passages that BM25 returns of each query before its positives are taken out."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows in training order, and what must not be a negative."""

    columns: dict[str, list[str] | list[list[int]]]
    """`query`, `positive`, `negative_1` ... (texts), and `label`: numbers of the row's query and passages."""
    positives: dict[int, set[int]]
    """Numbers of each query's positive passages."""


def make_examples(train: Benchmark, config: FinetuneConfig) -> Examples:
    """Pair every query with each of its positives once an epoch, in an order drawn anew, and draw its negatives.

    Negatives come from the `negative_depth` best passages of BM25 that are not judged positive, a fresh draw an epoch.

    Raises:
        DupmaeError: There is no pair, or not one full batch of them.
    """
    queries = {query: number for number, query in enumerate(sorted(train.queries))}
    passages = {passage: number for number, passage in enumerate(sorted(train.corpus))}
    positives = {
        query: sorted(passage for passage, grade in train.qrels.get(query, {}).items() if grade > 0)
        for query in queries
    }
    pairs = [(query, passage) for query in sorted(queries) for passage in positives[query]]
    if len(pairs) < config.batch_size:
        raise DupmaeError(
            f"{train.name} has {len(pairs)} training pairs, fewer than one batch of {config.batch_size}: "
            "lower batch_size or add pairs."
        )
    pools = _bm25_pools(train, positives, config) if config.bm25_negatives else {}
    draw = random.Random(config.seed)
    rows: list[tuple[str, list[str]]] = []
    wanted = int(len(pairs) * config.epochs) // config.batch_size * config.batch_size
    while len(rows) < wanted:
        draw.shuffle(pairs)
        for query, positive in pairs:
            rows.append((query, [positive, *_negatives(query, pools, sorted(passages), config, draw)]))
    del rows[wanted:]
    columns: dict[str, list[str] | list[list[int]]] = {"query": [train.queries[query] for query, _ in rows]}
    for place in range(1 + config.bm25_negatives):
        name = f"negative_{place}" if place else "positive"
        columns[name] = [train.corpus[chosen[place]].full_text for _, chosen in rows]
    columns["label"] = [[queries[query], *(passages[passage] for passage in chosen)] for query, chosen in rows]
    numbered = {queries[query]: {passages[passage] for passage in found} for query, found in positives.items()}
    return Examples(columns, numbered)


def _bm25_pools(train: Benchmark, positives: dict[str, list[str]], config: FinetuneConfig) -> dict[str, list[str]]:
    """For each query the best passages of BM25 that are not its positives."""
    run = bm25_run(train, k=BM25_FIRST)
    return {
        query: [
            passage
            for passage in sorted(run.get(query, {}), key=lambda passage: (-run[query][passage], passage))
            if passage not in positives[query]
        ][: config.negative_depth]
        for query in positives
    }


def _negatives(
    query: str, pools: dict[str, list[str]], passages: list[str], config: FinetuneConfig, draw: random.Random
) -> list[str]:
    """Draw a row's negatives; where BM25 found too few, any passage serves."""
    if not config.bm25_negatives:
        return []
    pool = pools[query]
    if len(pool) < config.bm25_negatives:
        pool = pool + draw.sample(passages, min(len(passages), config.bm25_negatives))
    return draw.sample(pool, config.bm25_negatives)
