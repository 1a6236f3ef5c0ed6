"""A duplex model with whole words as a third part of its score, nothing else changed: dupmae-small's second edition.

    python recipes/words_added.py dupmae-small-1 sample.jsonl --output runs/small/second \\
        --factor .5 --word_scale .5 --average_length 150
    python -c "from pathlib import Path; from dupmae.models.packing import pack; \\
        pack(Path('runs/small/second'), Path('second.safetensors'), 8, 5, base=Path('dupmae-small-1.safetensors'))"

How rare words are where no index tells, and how long passages are, is counted in the text.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

from dupmae.config import DuplexConfig
from dupmae.corpus import read_passages
from dupmae.duplex import DuplexEncoder
from dupmae.duplex.starting import add_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a duplex model")
    parser.add_argument("text", type=Path, help="passages that words are counted in, in any format of dupmae pretrain")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new model")
    parser.add_argument("--factor", type=float, default=1.0, help="of the lexical half's scale")
    parser.add_argument("--word_scale", type=float, default=DuplexConfig.word_scale)
    parser.add_argument("--average_length", type=float, help="words of a passage; as in the text if not given")
    parser.add_argument("--top_k", type=int, help="terms kept of a passage; as before if not given")
    parser.add_argument("--words", type=int, default=10_000, help="of which the model keeps the frequencies")
    parser.add_argument("--card", type=Path, help="README.md of the model")
    options = parser.parse_args()
    encoder = DuplexEncoder(options.model)
    texts = [passage.full_text for passage in read_passages(options.text)]
    add_words(encoder, DuplexConfig(word_scale=options.word_scale), texts)
    assert encoder.words is not None
    kept = dict(list(encoder.words.frequencies.items())[: options.words])
    space = encoder.words.space
    if options.average_length is not None:
        space = replace(space, average_length=options.average_length)
    encoder.words = replace(encoder.words, space=space, frequencies=kept)
    if options.top_k is not None:
        encoder.pooling.top_k = options.top_k
    with torch.no_grad():
        encoder.pooling.ot_log_scale.add_(math.log(options.factor))
    encoder.save(str(options.output))
    if options.card is not None:
        (options.output / "README.md").write_text(options.card.read_text(encoding="utf-8"), encoding="utf-8")
    print(f"Written: {options.output}")


if __name__ == "__main__":
    main()
