"""Add passages to an index one at a time, and tell how long each hundred of them takes.

    python benchmarks/speed/small_additions.py [--additions 1000]

Vectors are given (random, with a seed), so that what is timed is the index: writing, flushing and joining of segments.
It must not grow with what the index holds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dupmae.corpus import Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.index import DuplexIndex

DENSE, TERMS, VOCABULARY = 64, 32, 30_000


class Random:
    """Stands in for an encoder: texts are embedded as random vectors."""

    tokenizer = None
    precision = "float32"

    def __init__(self) -> None:
        self.draw = np.random.default_rng(0)
        self.pooling = SimpleNamespace(vocabulary_size=VOCABULARY)

    def chunks(self, documents: Iterable[Passage], tokens: int, overlap: int | None) -> Iterator[Passage]:
        """Leave passages as they are."""
        return iter(documents)

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        cls = self.draw.standard_normal((len(texts), DENSE), np.float32)
        ids = np.stack([self.draw.choice(VOCABULARY, TERMS, replace=False) for _ in texts]).astype(np.uint16)
        return DuplexEmbeddings(cls, ids, self.draw.random((len(texts), TERMS), np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--additions", type=int, default=1000)
    additions = parser.parse_args().additions
    encoder: Any = Random()
    with tempfile.TemporaryDirectory() as folder:
        index = DuplexIndex.build(Path(folder) / "index", encoder, [Passage("first", "", "first")], model="random")
        begun = last = time.perf_counter()
        for number in range(1, additions + 1):
            index.add([Passage(f"p{number}", "", f"p{number}")])
            if number % 100 == 0:
                now = time.perf_counter()
                print(
                    f"additions {number - 99} to {number}: {now - last:.1f} s; {len(index.manifest.segments)} segments"
                )
                last = now
        print(f"{additions} additions: {time.perf_counter() - begun:.1f} s")


if __name__ == "__main__":
    main()
