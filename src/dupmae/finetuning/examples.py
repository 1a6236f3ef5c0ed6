"""Training rows of stage 1: which query meets which passages, in which order."""

from __future__ import annotations

import random
from dataclasses import dataclass

from dupmae.config import FinetuneConfig
from dupmae.corpus import Benchmark
from dupmae.errors import DupmaeError
from dupmae.evaluation import bm25_run


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows in training order, and what must not be a negative."""

    columns: dict[str, list[str] | list[list[int]]]
    """`query`, `positive`, `negative_1` ... (texts), and `label`: numbers of the row's query and passages."""
    positives: dict[int, set[int]]
    """Numbers of each query's positive passages."""


def make_examples(train: Benchmark, config: FinetuneConfig) -> Examples:
    """Pair every query with each of its positives once an epoch, in an order drawn anew, and draw its negatives.

    Negatives come from the `negative_depth` best passages of BM25 that are not judged positive, a fresh draw an epoch;
    where BM25 finds too few, any other passages serve.

    Raises:
        DupmaeError: There is not one full batch of pairs, or a query has too few passages to draw negatives from.
    """
    queries = {query: number for number, query in enumerate(sorted(train.queries))}
    passages = {passage: number for number, passage in enumerate(sorted(train.corpus))}
    positives = {
        query: sorted(passage for passage, grade in train.qrels.get(query, {}).items() if grade > 0)
        for query in queries
    }
    pairs = [(query, passage) for query in sorted(queries) for passage in positives[query]]
    available = int(len(pairs) * min(config.epochs, 1))
    if available < config.batch_size:
        raise DupmaeError(
            f"{train.name} gives {available} training pairs, fewer than one batch of {config.batch_size}: "
            "lower batch_size or add pairs."
        )
    draw = random.Random(config.seed)
    pools = _negative_pools(train, positives, config, draw) if config.negatives else {}
    rows: list[tuple[str, list[str]]] = []
    wanted = int(len(pairs) * config.epochs) // config.batch_size * config.batch_size
    while len(rows) < wanted:
        draw.shuffle(pairs)
        for query, positive in pairs:
            rows.append((query, [positive, *draw.sample(pools.get(query, []), config.negatives)]))
    del rows[wanted:]
    columns: dict[str, list[str] | list[list[int]]] = {"query": [train.queries[query] for query, _ in rows]}
    for place in range(1 + config.negatives):
        name = f"negative_{place}" if place else "positive"
        columns[name] = [train.corpus[chosen[place]].full_text for _, chosen in rows]
    columns["label"] = [[queries[query], *(passages[passage] for passage in chosen)] for query, chosen in rows]
    numbered = {queries[query]: {passages[passage] for passage in found} for query, found in positives.items()}
    return Examples(columns, numbered)


def _negative_pools(
    train: Benchmark, positives: dict[str, list[str]], config: FinetuneConfig, draw: random.Random
) -> dict[str, list[str]]:
    """For each query with a positive the passages that its negatives are drawn from, none of them a positive."""
    wanted, depth = config.negatives, config.negative_depth
    if depth < wanted:
        raise DupmaeError(f"{wanted} negatives cannot be drawn from a negative_depth of {depth}: raise it.")
    run = bm25_run(train, k=depth + max(map(len, positives.values())))
    pools = {}
    for query, right in positives.items():
        found = run.get(query, {})
        best = sorted(found, key=lambda passage: (-found[passage], passage))
        pool = [passage for passage in best if passage not in right][:depth]
        if right and len(pool) < wanted:
            others = sorted(set(train.corpus).difference(right, pool))
            pool += draw.sample(others, min(len(others), depth - len(pool)))
            if len(pool) < wanted:
                raise DupmaeError(
                    f"Query {query} of {train.name} has only {len(pool)} passages that are not its positives: "
                    "lower negatives."
                )
        pools[query] = pool
    return pools
