"""The comparison of ways to cut scripts without spaces into words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_pairs_find_what_words_do_not(tmp_path: Path, import_script: Callable[[str], Any]) -> None:
    unspaced = import_script("unspaced")
    sets = json.loads((Path(__file__).parents[1] / "corpus" / "scripts" / "sets.json").read_text(encoding="utf-8"))
    paragraphs = [
        {"context": f"题目 [SEP] {passage}", "qas": [{"question": question}]}
        for passage, question in zip(sets["chinese"]["passages"], sets["chinese"]["questions"], strict=True)
    ]
    file = tmp_path / "squad.json"
    file.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    benchmark = unspaced.read_squad(file)
    assert not any("SEP" in passage.text for passage in benchmark.corpus.values())
    rows = {row["way"]: row for row in unspaced.compare(benchmark)}
    assert (rows["pairs"]["ndcg@10"], rows["pairs"]["none"]) == (1.0, 0)
    assert (rows["words"]["ndcg@10"], rows["words"]["none"]) == (0.0, 5)
    unspaced.main([str(file)])
