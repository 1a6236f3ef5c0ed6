"""Draw several systems on several test sets, a cluster of bars a set, as SVG.

    python benchmarks/quality/draw_sets.py docs/results/raw/pairs-42.json docs/results/pairs.svg

The JSON file names a metric and, for each set, its number of queries and the systems' figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dupmae.evaluation.figures import groups_figure
from dupmae.evaluation.insight import Group
from dupmae.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help='{"metric": ..., "sets": [{"name", "queries", "figures"}, ...]}')
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    record = json.loads(options.figures.read_text(encoding="utf-8"))
    groups = [Group(name=one["name"], queries=one["queries"], means=one["figures"]) for one in record["sets"]]
    with atomic_write(options.output) as file:
        file.write(groups_figure(groups, record["metric"]))


if __name__ == "__main__":
    main()
