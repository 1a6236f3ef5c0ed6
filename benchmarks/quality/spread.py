"""Compare the same variants over several seeds: the mean of each, its spread, its distance from the full method.

    python benchmarks/quality/spread.py runs/seed-42/variants.json runs/seed-43/variants.json runs/seed-44/variants.json

Each file is what benchmarks/quality/variants.py wrote. The spread is the standard deviation of the seeds' figures (n -
1); differences are taken seed by seed from `both`, or from `both, balanced` where all files have it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table
from variants import BASE, TUNED

from dupmae.errors import DupmaeError

METRIC = "ndcg@10"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="variants.json of different seeds, at least two")
    parser.add_argument("--queries", default="held out", help="which set of queries: held out, test")
    options = parser.parse_args()
    try:
        by_seed = read(options.files, options.queries)
    except DupmaeError as error:
        parser.error(str(error))
    rows = shared_rows(by_seed)
    base = rows[TUNED if TUNED in rows else BASE]
    table = Table("variant", *(f"seed {seed}" for seed in by_seed), "mean", "difference", title=options.queries)
    for name, figures in rows.items():
        differences = [figure - other for figure, other in zip(figures, base, strict=True)]
        table.add_row(name, *(f"{figure:.4f}" for figure in figures), spread(figures), spread(differences, sign="+"))
    Console(width=120).print(table)


def read(files: list[Path], queries: str) -> dict[int, dict[str, float]]:
    """Read seed -> variant -> NDCG@10, and of a variant with two halves `variant [CLS]` and `variant OT`.

    Raises:
        DupmaeError: Fewer than two files, a seed twice, several benchmarks, or a file without these queries.
    """
    found: dict[int, dict[str, float]] = {}
    benchmarks = set()
    for file in files:
        record = json.loads(file.read_text(encoding="utf-8"))
        if queries not in record:
            raise DupmaeError(f"{file} has no figures of {queries} queries")
        if record["seed"] in found:
            raise DupmaeError(f"{file} has the seed {record['seed']}, as a file before it: give each seed once")
        benchmarks.add(Path(record["benchmark"]).name)
        found[record["seed"]] = {
            name + key.removeprefix(METRIC): row[key]
            for name, row in record[queries].items()
            for key in row
            if key.startswith(METRIC)
        }
    if len(found) < 2 or len(benchmarks) > 1:
        raise DupmaeError("the spread is that of several seeds on one benchmark: give two files of it or more")
    return found


def shared_rows(by_seed: dict[int, dict[str, float]]) -> dict[str, list[float]]:
    """List variant -> its figure with each seed, of those that all seeds have."""
    first, *others = by_seed.values()
    return {name: [first[name], *(row[name] for row in others)] for name in first if all(name in row for row in others)}


def spread(figures: list[float], sign: str = "") -> str:
    """Format the mean and the standard deviation."""
    return f"{mean(figures):{sign}.4f} ± {stdev(figures):.4f}"


if __name__ == "__main__":
    main()
