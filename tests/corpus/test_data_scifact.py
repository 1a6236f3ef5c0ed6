from pathlib import Path

import pytest

from dupmae.corpus import read_benchmark

FOLDER = Path(__file__).parents[2] / "data" / "scifact"


@pytest.mark.parametrize(("split", "queries", "pairs"), [("train", 809, 919), ("test", 300, 339)])
def test_bundled_scifact_has_the_published_counts(split: str, queries: int, pairs: int) -> None:
    benchmark = read_benchmark(FOLDER, split)

    assert len(benchmark.corpus) == 5_183
    assert len(benchmark.queries) == queries
    assert sum(map(len, benchmark.qrels.values())) == pairs
    assert all(grade == 1 for grades in benchmark.qrels.values() for grade in grades.values())


def test_bundled_files_stay_below_two_megabytes() -> None:
    assert max(file.stat().st_size for file in FOLDER.rglob("*")) < 2_000_000
