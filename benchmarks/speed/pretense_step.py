"""One pre-training step of the released package `pretense` (0.1.1), for `pretraining_step.py --peer-python`.

It runs in an environment of its own, which needs torch and `pretense`: its collator takes texts, its model is built
from the same BERT configuration, its optimiser is AdamW. It understands the options of `pretraining_step.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import Any

import torch
from interleave import serve
from pretense import MethodConfig, build_collator, create_pretraining_model
from random_bert import random_bert
from synthetic_text import SPECIAL, draw_texts, vocabulary
from transformers import BertTokenizerFast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("batch", "length", "layers", "hidden", "vocabulary", "threads", "batches"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--dropout", type=float, required=True)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--natural", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    words = vocabulary(options.vocabulary)
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}, do_lower_case=True)
    texts = draw_texts(options.batches * options.batch, words[len(SPECIAL) :], options.length, options.natural)
    method = MethodConfig(name="dupmae")
    model = random_bert(options.layers, options.hidden, options.vocabulary, options.dropout)
    model = create_pretraining_model(method, model).train()
    collate = build_collator(tokenizer, method, max_seq_length=options.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    taken = 0

    def step() -> dict[str, Any]:
        nonlocal taken
        rows = [texts[(taken + row) % len(texts)] for row in range(options.batch)]
        taken += options.batch
        cpu, start = time.process_time(), time.perf_counter()
        features = collate([{"text": text} for text in rows])
        collated = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if options.bf16 else contextlib.nullcontext():
            loss = model(**features).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        end = time.perf_counter()
        return {
            "tokens": sum(text.count(" ") + 3 for text in rows),
            "seconds": end - start,
            "cpu_seconds": time.process_time() - cpu,
            "collate_seconds": collated - start,
        }

    serve(step)


if __name__ == "__main__":
    main()
