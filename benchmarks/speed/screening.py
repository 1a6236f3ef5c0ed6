"""Encoding with dupmae-small in float32: all terms computed in full, and most of them ruled out in bytes, in turns.

    python benchmarks/speed/screening.py [--passages 96] [--length 192] [--rounds 4] [--threads 1]

The passages are the first of the bundled SciFact; seconds are the processor's, of all threads, so that other work on
the machine counts less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from dupmae import DuplexEncoder
from dupmae.corpus import read_benchmark
from dupmae.duplex import inference

SCIFACT = Path(__file__).parents[2] / "data" / "scifact"
WAYS = {"in full": 10**9, "screened": 1}
"""From how many texts on terms are screened."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"passages": 96, "length": 192, "rounds": 4, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = DuplexEncoder("dupmae-small")
    encoder.precision = "float32"
    encoder[0].document_length = options.length
    corpus = read_benchmark(SCIFACT, "test").corpus
    texts = [passage.full_text for passage in list(corpus.values())[: options.passages]]
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(1 + options.rounds):
        found = []
        for name, least in WAYS.items():
            inference.SCREENED_TEXTS = least
            begun = time.process_time()
            found.append(encoder.embed_documents(texts))
            if turn:  # the first is a warm-up
                seconds[name].append(time.process_time() - begun)
    full, screened = found
    same = sum(set(one) == set(other) for one, other in zip(full.ids.tolist(), screened.ids.tolist(), strict=True))
    for name, figures in seconds.items():
        print(f"{name}: {statistics.median(figures):.2f} s, best {min(figures):.2f}")
    ratios = [one / other for one, other in zip(*seconds.values(), strict=True)]
    print(f"ratio of a turn: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    largest = np.abs(np.sort(full.weights) - np.sort(screened.weights)).max()
    print(f"same terms: {same} of {len(texts)} passages; largest difference of a weight {largest:.1e}")


if __name__ == "__main__":
    main()
