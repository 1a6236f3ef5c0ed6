"""Compare ways to cut scripts without spaces into words: BM25 on questions whose passage is known.

    python benchmarks/quality/unspaced.py xquad.zh.json xquad.th.json jsquad.json

Takes files in SQuAD's form (XQuAD's and JSQuAD's are; a title before `[SEP]` is left out): every paragraph is a
passage, and every question is to find its own. ICU's dictionaries are tried where `icu4py` is installed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dupmae.corpus import Benchmark, Passage
from dupmae.corpus import words as module
from dupmae.corpus.words import fold, words_of
from dupmae.evaluation import evaluate_run
from dupmae.retrievers.bm25 import bm25_run

Words = Callable[[str], list[str]]


def read_squad(path: Path) -> Benchmark:
    """Make a benchmark of a file in SQuAD's form."""
    corpus, queries, qrels = {}, {}, {}
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    for number, paragraph in enumerate(chain.from_iterable(article["paragraphs"] for article in articles)):
        corpus[f"p{number}"] = Passage(f"p{number}", "", paragraph["context"].rpartition("[SEP]")[2].strip())
        for place, question in enumerate(paragraph["qas"]):
            queries[f"q{number}-{place}"] = question["question"]
            qrels[f"q{number}-{place}"] = {f"p{number}": 1}
    return Benchmark(path.stem, "test", corpus, queries, qrels)


def ways() -> dict[str, Words]:
    """List the ways to cut a text into words by their names."""
    found: dict[str, Words] = {
        "words": lambda text: re.findall(r"\b\w+\b", text.lower()),
        "pairs": words_of,
    }
    try:
        from icu4py.breakers import WordBreaker
    except ImportError:
        return found
    return found | {"icu": lambda text: [word for word in WordBreaker(fold(text), "und") if re.search(r"\w", word)]}


def compare(benchmark: Benchmark) -> list[dict[str, Any]]:
    """Measure each way on a benchmark."""
    rows = []
    for name, way in ways().items():
        with patch.object(module, "words_of", way):
            run = bm25_run(benchmark)
        none = sum(not ranking for ranking in run.values())
        rows.append({"way": name, "ndcg@10": evaluate_run(run, benchmark.qrels)["ndcg@10"], "none": none})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each file and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args(arguments).files:
        benchmark = read_squad(path)
        print(f"{path.name}: {len(benchmark.corpus)} passages, {len(benchmark.queries)} questions")
        for row in compare(benchmark):
            print(f"  {row['way']:6} NDCG@10 {row['ndcg@10']:.3f}, {row['none']} without a passage")


if __name__ == "__main__":
    main()
