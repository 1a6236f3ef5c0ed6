"""A pre-trained checkpoint as a duplex model without any fine-tuning: how dupmae-small was made of its pre-training.

    python recipes/untuned_duplex.py runs/small/pretrained/model sample.jsonl --output runs/small/retriever --factor 2
    dupmae pack runs/small/retriever dupmae-small.safetensors --bits 8 --vocabulary_bits 5

The thresholds of the lexical half and the weights of queries' tokens are set by the text.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dupmae.config import DuplexConfig
from dupmae.corpus import read_passages
from dupmae.duplex import start_duplex

SEED = 42
"""Draws the passages that are calibrated on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a folder that dupmae pretrain wrote")
    parser.add_argument("text", type=Path, help="what its thresholds are set by, in any format of dupmae pretrain")
    parser.add_argument("--output", type=Path, required=True, help="folder of the duplex model")
    parser.add_argument("--dense_pooling", choices=["cls", "mean"], default="mean")
    parser.add_argument("--document_max_length", type=int, default=256)
    parser.add_argument("--top_k", type=int, default=384)
    parser.add_argument("--query_terms", choices=["logits", "tokens"], default="tokens")
    parser.add_argument("--document_norm", choices=["unit", "own"], default="own")
    parser.add_argument("--factor", type=float, default=1.0, help="of the lexical half's scale")
    parser.add_argument("--card", type=Path, help="README.md of the model")
    options = parser.parse_args()
    config = DuplexConfig(
        dense_pooling=options.dense_pooling,
        document_max_length=options.document_max_length,
        top_k=options.top_k,
        query_terms=options.query_terms,
        document_norm=options.document_norm,
        words="none",
        lexical_scale=DuplexConfig.lexical_scale * options.factor,
    )
    corpus = {passage.id: passage for passage in read_passages(options.text)}
    encoder = start_duplex(options.checkpoint, config, corpus, SEED)
    encoder.save(str(options.output))
    if options.card is not None:
        (options.output / "README.md").write_text(options.card.read_text(encoding="utf-8"), encoding="utf-8")
    print(f"Written: {options.output}")


if __name__ == "__main__":
    main()
