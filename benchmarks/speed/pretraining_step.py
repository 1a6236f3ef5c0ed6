"""One pre-training step: collation, forward, backward, optimiser. Ours, its naive twin, and the package `pretense`.

    python benchmarks/speed/pretraining_step.py [--bf16] [--natural] [--batch 32] [--length 128] [--layers 4] \\
        [--hidden 256]
        [--peer-python PATH]
    python benchmarks/speed/pretraining_step.py --json --system dupmae|naive ...

Random weights, synthetic words of one token each. The first form prints a table; each system has a process of its own,
and they take turns, step by step. `--peer-python` names the Python of an environment in which `pretense` is installed.
The second form measures one system in this process and prints one line of JSON.

The naive twin computes the same three losses from the same masks with tensors of batch x length x vocabulary, as the
paper's code does, on batches that are not sorted by length.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from interleave import peak_rss_mb, serve, take_turns
from random_bert import random_bert
from rich.console import Console
from rich.table import Table
from synthetic_text import SPECIAL, draw_texts, vocabulary
from torch.utils.data import DataLoader
from transformers import BertTokenizerFast

from dupmae.backbones import Backbone
from dupmae.config import PretrainConfig, StoreConfig
from dupmae.corpus import TokenStore, build_token_store
from dupmae.pretraining.data import LengthBuckets, collator
from dupmae.pretraining.masking import decoder_visibility, step_generator
from dupmae.pretraining.objective import DupMAE
from dupmae.runtime.precision import autocast, prepare_for_training

BATCHES = 50
"""Batches of text in the store: the pool from which batches of similar length are cut."""


class NaiveDupMAE(DupMAE):
    """The objective with every logit of every position: three tensors (B, L, V)."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        word_starts: torch.Tensor,
        generator: torch.Generator,
        totals: torch.Tensor | None = None,
        anchor: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        masked_ids, selected, ordinary = self.mask(input_ids, attention_mask, word_starts, generator)
        states = self.backbone.states(masked_ids, attention_mask)  # (B, L, D)
        logits = self._logits(states)  # (B, L, V)
        mlm = F.cross_entropy(logits[selected], input_ids[selected])
        visible = decoder_visibility(attention_mask, self.settings.decoder_mask_rate, generator)
        rebuilt = self._logits(self.rebuild(states, input_ids, attention_mask, visible))  # (B, L, V)
        cls = F.cross_entropy(rebuilt.flatten(0, 1), input_ids.masked_fill(~ordinary, -100).flatten())
        mu = logits.masked_fill(~(ordinary & ~selected)[:, :, None], -torch.inf).amax(dim=1)  # (B, V)
        unique = torch.zeros_like(mu, dtype=torch.bool).scatter_(1, input_ids, True) & ~self.special
        bow = -((mu.float().log_softmax(dim=1) * unique).sum(dim=1) / unique.sum(dim=1)).mean()
        return {"mlm": mlm, "cls": cls, "bow": bow, "loss": mlm + cls + bow}

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return F.linear(self.backbone.transform(states), self.backbone.output_weight, self.backbone.output_bias)


def build(options: argparse.Namespace, folder: Path) -> Callable[[], dict[str, Any]]:
    """A function that takes one step and says how long it took."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    words = vocabulary(options.vocabulary)
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}, do_lower_case=True)
    texts = draw_texts(options.batches * options.batch, words[len(SPECIAL) :], options.length, options.natural)
    store = build_token_store(texts, tokenizer, folder, StoreConfig(max_length=options.length, min_length=1))
    model = random_bert(options.layers, options.hidden, options.vocabulary)
    ours = options.system == "dupmae"
    precision = "bfloat16" if options.bf16 else "float32"
    if ours:
        prepare_for_training(model, options.dropout, precision)
    kind = DupMAE if ours else NaiveDupMAE
    objective = kind(Backbone(model), tokenizer.all_special_ids, tokenizer.mask_token_id, PretrainConfig()).train()
    for module in objective.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = options.dropout
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4, weight_decay=0.01, fused=ours)
    batches = _batches(store, options.batch, tokenizer.pad_token_id, options)
    taken = 0

    def step() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        cpu, start = time.process_time(), time.perf_counter()
        batch = next(batches)
        collated = time.perf_counter()
        with autocast("cpu", precision):
            loss = objective(**batch, generator=step_generator(torch.device("cpu"), 0, taken))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        end = time.perf_counter()
        return {
            "tokens": int(batch["attention_mask"].sum()),
            "seconds": end - start,
            "cpu_seconds": time.process_time() - cpu,
            "collate_seconds": collated - start,
        }

    return step


def _batches(store: TokenStore, size: int, pad: int, options: argparse.Namespace) -> Iterator[dict[str, torch.Tensor]]:
    """Batches without end: of similar length for us, as they come for the twin."""
    collate = collator(pad, options.vocabulary, options.length)
    total = len(store) // size * size
    while True:
        sampler = LengthBuckets(store, size, total, [0]) if options.system == "dupmae" else range(total)
        yield from DataLoader(store, size, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]


def summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one system's steps."""
    rates = [step["tokens"] / step["seconds"] for step in measured]
    tokens, seconds, cpu, collation = (
        sum(step[name] for step in measured) for name in ("tokens", "seconds", "cpu_seconds", "collate_seconds")
    )
    return {
        "tokens_per_s_best": round(max(rates), 1),
        "tokens_per_s_median": round(statistics.median(rates), 1),
        "tokens_per_s_overall": round(tokens / seconds, 1),
        "tokens_per_cpu_s": round(tokens / cpu, 1),
        "collate_share": round(collation / seconds, 4),
        "peak_rss_mb": measured[-1]["peak_rss_mb"],
    }


def show(figures: dict[str, dict[str, Any]], title: str) -> None:
    """Print a row for each system, and beside it how it stands to the first."""
    table = Table(
        "system", "tokens/s: best", "median", "overall", "per CPU second", "collation", "peak, MB", title=title
    )
    ours = figures["dupmae"]
    for name, row in figures.items():
        cells = [name]
        for key in ("tokens_per_s_best", "tokens_per_s_median", "tokens_per_s_overall", "tokens_per_cpu_s"):
            cells.append(f"{row[key]:,.0f}" + ("" if row is ours else f" ({ours[key] / row[key]:.1f} x)"))
        cells.append(f"{100 * row['collate_share']:.1f} %")
        cells.append(
            f"{row['peak_rss_mb']:,}" + ("" if row is ours else f" ({row['peak_rss_mb'] / ours['peak_rss_mb']:.1f} x)")
        )
        table.add_row(*cells)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"batch": 32, "length": 128, "layers": 4, "hidden": 256, "vocabulary": 30_522}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast instead of float32")
    parser.add_argument("--natural", action="store_true", help="lengths from 20 to --length instead of full rows")
    parser.add_argument("--dropout", type=float, default=0.0, help="of all systems")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument(
        "--warmup", type=int, default=8, help="steps before these, not counted: each new shape is compiled once"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--batches", type=int, default=BATCHES, help="batches of text, from which similar lengths are cut"
    )
    parser.add_argument("--system", choices=("dupmae", "naive"), help="measure this one alone")
    parser.add_argument("--peer-python", help="Python of an environment with pretense, to measure it too")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve or (options.json and not options.peer_python):
        options.system = options.system or "dupmae"
        with tempfile.TemporaryDirectory() as place:
            step = build(options, Path(place) / "store")
            if options.serve:
                serve(step)
                return
            measured = [step() for _ in range(options.warmup + options.steps)][options.warmup :]
        measured[-1]["peak_rss_mb"] = peak_rss_mb()
        print(json.dumps({"system": options.system, **_setting(options), **summary(measured)}))
        return
    shape = [
        *(f"--{name}={getattr(options, name)}" for name in (*sizes, "threads", "batches", "dropout")),
        *(f"--{name}" for name in ("bf16", "natural") if getattr(options, name)),
    ]
    commands = {
        name: [sys.executable, __file__, "--serve", f"--system={name}", *shape]
        for name in ([options.system] if options.system else ["dupmae", "naive"])
    }
    if options.peer_python:
        commands["pretense"] = [options.peer_python, str(Path(__file__).with_name("pretense_step.py")), *shape]
    figures = {
        name: summary(measured) for name, measured in take_turns(commands, options.warmup, options.steps).items()
    }
    if options.json:
        print(json.dumps(_setting(options) | figures))
        return
    show(figures, ", ".join(f"{name} {value}" for name, value in _setting(options).items()))


def _setting(options: argparse.Namespace) -> dict[str, Any]:
    names = ("batch", "length", "layers", "hidden", "vocabulary", "bf16", "natural", "dropout", "threads")
    return {name: getattr(options, name) for name in names}


if __name__ == "__main__":
    main()
