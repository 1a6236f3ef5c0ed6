"""Rank with weights between those before and after fine-tuning: how much of what it changed should be kept?

    python benchmarks/quality/interpolation.py recipes/pairs-encoder.yaml --checkpoint RUN/2-pretrain/model \\
        --model RUN/3-finetune/model --alphas .25 .5 1 --data.benchmark data/scifact

Alpha 0 is the model before, 1 the model after. MODEL was fine-tuned from CHECKPOINT by the recipe with
`finetune.interpolation` 1; the recipe's `duplex` settings, given as options like any other, must be those of MODEL.
Prints and, with --json, writes NDCG@10 of the sum and of each half on the held-out queries and on the test queries.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from halves import PARTS, ndcg_of_halves
from rich.console import Console
from rich.table import Table

from dupmae.cli import load_recipe
from dupmae.duplex import DuplexEncoder, start_duplex
from dupmae.experiments.splits import read_data
from dupmae.files import write_json
from dupmae.finetuning.interpolation import interpolated, weights_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--checkpoint", required=True, help="what fine-tuning began with")
    parser.add_argument("--model", required=True, help="what it ended with")
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--json", type=Path)
    options, words = parser.parse_known_args()
    recipe = load_recipe(options.recipe, words)
    splits = read_data(recipe.data, recipe.seed)
    before = weights_of(start_duplex(options.checkpoint, recipe.duplex, splits.train.corpus, recipe.seed))
    encoder = DuplexEncoder(options.model)
    table = Table("alpha", "queries", *(f"ndcg@10 {part}" for part in PARTS), title=splits.test.name)
    record = []
    for alpha in options.alphas:
        with interpolated(encoder, before, alpha):
            figures = ndcg_of_halves(encoder, [splits.dev, splits.test])
        for name, found in zip(("held out", "test"), figures, strict=True):
            table.add_row(f"{alpha:g}", name, *(f"{value:.4f}" for value in found.values()))
            record.append({"alpha": alpha, "queries": name, **found})
    Console().print(table)
    if options.json is not None:
        write_json(options.json, {"benchmark": recipe.data.benchmark, "seed": recipe.seed, "rows": record})


if __name__ == "__main__":
    main()
