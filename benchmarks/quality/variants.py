"""Compare variants of a recipe, each pre-trained and fine-tuned by itself: which settings win on held-out queries.

    python benchmarks/quality/variants.py recipes/pairs-encoder.yaml --output runs/variants --data.benchmark \\
        data/scifact
    python benchmarks/quality/variants.py recipes/pairs-encoder.yaml --output runs/variants --only none 768:0 relu \\
        --test

Other options are settings of the recipe, as for `dupmae run`. The widths of a variant's halves are shares of the
encoder's width. The table shows NDCG@10 of the sum and of each half; p is how often chance alone would make as
large a difference from `both` (randomisation test, not corrected for the number of variants). Test queries are
ranked only with --test; --pool lets the held-out ones look among some passages instead of all, which takes less time.
With --tune_weights a row more shows `both` with the weight of its lexical half chosen on held-out queries, each
half of which is ranked with the factor that is best for the other half; p is then the difference from that row.
Writes OUTPUT/variants.json; the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from dupmae.cli import load_recipe
from dupmae.corpus import Benchmark, Qrels, Run
from dupmae.duplex import DuplexEncoder
from dupmae.evaluation import evaluate_run, per_query
from dupmae.evaluation.benchmarks import definition_of
from dupmae.evaluation.comparison import apply_protocol, compare
from dupmae.evaluation.significance import compare_with_baseline
from dupmae.experiments.paper import VARIANTS, Variant
from dupmae.experiments.splits import read_data
from dupmae.experiments.variants import train_variants
from dupmae.files import write_json
from dupmae.finetuning.validation import dev_pool
from dupmae.finetuning.weights import FACTORS, best_weights
from dupmae.index import DuplexIndex, Weights
from dupmae.retrievers.hybrid import FORMS
from dupmae.retrievers.systems import name_of_half, reuse_index

BASE = "both"
"""What the others are compared with."""
TUNED = "both, balanced"
"""The row that --tune_weights adds."""
HALF_KEYS: dict[Literal["dense", "lexical"], str] = {"dense": "ndcg@10 [CLS]", "lexical": "ndcg@10 OT"}
"""The columns of the halves alone, called as in the files that spread.py reads."""
OURS = VARIANTS | {
    "none": Variant(pretrain=None),
    "768:768": Variant(dense=1.0, terms=1.0),
    "bow_weight .1": Variant(pretrain={"bow_weight": 0.1}),
    "relu": Variant(duplex={"lexical_activation": "relu"}),
    "no activation": Variant(duplex={"lexical_activation": "none"}),
    "linear": Variant(pretrain={"lexical_projection": "linear"}, duplex={"lexical_projection": "linear"}),
    "masks .15 and .5": Variant(pretrain={"encoder_mask_rate": 0.15}),
    "masks .3 and .7": Variant(pretrain={"decoder_mask_rate": 0.7}),
    "queries of logits": Variant(duplex={"query_terms": "logits"}),
    "passages at unit length": Variant(duplex={"document_norm": "unit"}),
    "logits and unit length": Variant(duplex={"query_terms": "logits", "document_norm": "unit"}),
}
"""The paper's variants, and those of settings that it leaves open."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=OURS, default=list(OURS), metavar="VARIANT", help=", ".join(OURS))
    parser.add_argument("--pool", type=int, help="passages, their judged ones and BM25's best included")
    parser.add_argument(
        "--tune_weights", action="store_true", help="tune the lexical weight of `both` on the held-out queries"
    )
    parser.add_argument("--test", action="store_true", help="rank the test queries, too")
    options, words = parser.parse_known_args()
    recipe = load_recipe(options.recipe, [*words, "--output", str(options.output / "run")])
    chosen = {name: OURS[name] for name in dict.fromkeys([BASE, *options.only])}
    models = train_variants(recipe, options.output / "variants", chosen)
    data = recipe.data
    splits = read_data(data, recipe.seed)
    dev = splits.dev
    if options.pool:
        dev = dev_pool(dev, options.pool, recipe.seed)
    sets = {"held out": dev} if dev.queries else {}
    if options.test:
        sets["test"] = splits.test
    record: dict[str, dict[str, dict[str, float]]] = {}
    for title, queries in sets.items():
        mixtures = {form: f"{form}:{recipe.base_model}" for form in FORMS}
        systems = list(dict.fromkeys(["bm25", recipe.base_model, *mixtures.values(), *models.values()]))
        rules = definition_of(queries.name, data.test_split)
        tuned = None
        if options.tune_weights and title == "held out":
            runs = weighted_runs(models[BASE], queries, options.output / "index")
            tuned = tuned_ndcg(runs, queries.qrels, recipe.seed)
            # before the comparison, which then makes no index of its own
            reuse_index(options.output / "index", queries, rules.lengths, options.output / "encodings")
        found = compare(rules, [queries], systems, [], options.output / "encodings", k=100, halves=True)
        values = {system.name: system.values["ndcg@10"] for system in found.systems}
        metrics = {system.name: dict(system.metrics) for system in found.systems}
        differences = compare_with_baseline(
            tuned or values[models[BASE]], {model: values[model] for model in models.values()}
        )
        chance = {each.system: each.p for each in differences}
        rows = {"bm25": metrics["bm25"], "the start as it comes": metrics[recipe.base_model]}
        rows |= {str(form): metrics[mixture] for form, mixture in mixtures.items()}
        for name, model in models.items():
            alone = {key: name_of_half(model, half) for half, key in HALF_KEYS.items()}
            halves = {key: metrics[half]["ndcg@10"] for key, half in alone.items() if half in metrics}
            rows[name] = metrics[model] | halves | {"p": chance[model]}
            if name == BASE and tuned:
                rows[TUNED] = {"ndcg@10": sum(tuned.values()) / len(tuned)}
        record[title] = rows
        show(f"{queries.name}, seed {recipe.seed}: {len(queries.queries)} queries, {title}", rows)
    write_json(options.output / "variants.json", {"seed": recipe.seed, "benchmark": data.benchmark, **record})


def weighted_runs(model: str, queries: Benchmark, folder: Path) -> list[Run]:
    """Rank with each factor of the lexical half, through an index in a folder; queries carry the factor."""
    index = DuplexIndex.build(folder, DuplexEncoder(model), queries.corpus.values(), model=model, chunk_tokens=0)
    rules = definition_of(queries.name, queries.split)
    embedded, runs = index.encoder.embed_queries(list(queries.queries.values())), list[Run]()
    for factor in FACTORS:
        weighted = replace(embedded, weights=embedded.weights * np.float32(factor))
        found = index.search_embeddings(weighted, 100 + rules.drop_self)
        run = {query: dict(zip(*best, strict=True)) for query, *best in zip(queries.queries, *found, strict=True)}
        runs.append(apply_protocol(run, rules, 100))
    return runs


def tuned_ndcg(runs: Sequence[Run], qrels: Qrels, seed: int) -> dict[str, float]:
    """Measure NDCG@10 of each query in the ranking that is best for the half of the queries that it is not in.

    Of equally good ones that with the factor nearest to 1 counts, as in fine-tuning.
    """
    names = random.Random(seed).sample(sorted(qrels), len(qrels))
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    found, by_factor = dict[str, float](), dict(zip(FACTORS, runs, strict=False))
    for chosen_on, measured_on in (parts, parts[::-1]):
        judged, held = ({name: qrels[name] for name in part} for part in (chosen_on, measured_on))
        figures = {Weights(lexical=factor): evaluate_run(run, judged)["ndcg@10"] for factor, run in by_factor.items()}
        best = best_weights(figures).lexical
        found |= per_query(by_factor[best], held, "ndcg@10")
    return {name: found[name] for name in qrels}


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print the table of one set of queries."""
    columns = ["ndcg@10", *HALF_KEYS.values(), "mrr@10", "recall@100", "p"]
    table = Table("variant", *columns, title=title)
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:.4f}" if column in row else "" for column in columns))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
