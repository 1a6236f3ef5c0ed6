"""The benchmarks' rules."""

from __future__ import annotations

import pytest

from dupmae.errors import DupmaeError
from dupmae.evaluation.benchmarks import (
    BEIR,
    DEFINITIONS,
    MS_MARCO,
    NANO_BEIR,
    definition_of,
    expand_groups,
    known_definition,
)
from dupmae.evaluation.metrics import ALL_METRICS


def test_there_are_the_papers_eighteen_nanobeirs_thirteen_and_ms_marcos_eight() -> None:
    assert (len(BEIR), len(NANO_BEIR), len(MS_MARCO)) == (18, 13, 8)
    assert len(DEFINITIONS) == 39
    assert sum(definition.queries or 0 for definition in BEIR) == 47_282


def test_only_arguana_and_quora_drop_a_querys_own_id() -> None:
    assert {name for name, definition in DEFINITIONS.items() if definition.drop_self} == {
        "arguana",
        "quora",
        "nano-arguana",
        "nano-quora",
    }


def test_only_cqadupstack_has_parts_and_they_are_the_twelve_forums() -> None:
    assert [name for name, definition in DEFINITIONS.items() if definition.parts] == ["cqadupstack"]
    assert len(set(DEFINITIONS["cqadupstack"].parts)) == 12


def test_what_cannot_be_fetched_says_why_and_everything_else_has_a_source() -> None:
    refused = {name for name, definition in DEFINITIONS.items() if definition.unavailable_because}
    assert refused == {"bioasq", "signal1m", "trec-news", "robust04"}
    for name, definition in DEFINITIONS.items():
        assert bool(definition.ir_datasets or definition.hub) is (name not in refused), name
        assert ("{part}" in definition.ir_datasets) is bool(definition.parts)


def test_ids_are_known_to_ir_datasets() -> None:
    registry = pytest.importorskip("ir_datasets").registry
    for definition in DEFINITIONS.values():
        for part in definition.parts or ("",):
            if definition.ir_datasets:
                assert registry[definition.ir_datasets.format(part=part)] is not None


def test_passages_of_trecs_deep_learning_track_are_relevant_from_grade_two_documents_from_one() -> None:
    grades = {definition.name: definition.relevant_from for definition in MS_MARCO}
    assert grades == {
        "msmarco-passage-dev": 1,
        "msmarco-passage-dl19": 2,
        "msmarco-passage-dl20": 2,
        "msmarco-passage-train": 1,
        "msmarco-document-dev": 1,
        "msmarco-document-dl19": 1,
        "msmarco-document-dl20": 1,
        "msmarco-document-train": 1,
    }
    assert {definition.metric for definition in DEFINITIONS.values()} <= set(ALL_METRICS)


def test_a_folders_name_and_split_decide_the_rules() -> None:
    assert definition_of("arguana", None) is DEFINITIONS["arguana"]
    assert definition_of("msmarco-passage", "dl20") is DEFINITIONS["msmarco-passage-dl20"]
    train = definition_of("scifact", "train")
    assert (train.split, train.passages, train.queries) == ("train", 5_183, None)
    mine = definition_of("lighthouses", None)
    assert (mine.name, mine.split, mine.drop_self, mine.titles, mine.passages) == (
        "lighthouses",
        "test",
        False,
        True,
        None,
    )


def test_a_group_stands_for_its_members_once() -> None:
    names = expand_groups(["scifact", "beir", "data/mine"])
    assert len(names) == 19
    assert (names[0], names[-1]) == ("scifact", "data/mine")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(DupmaeError, match="no benchmark 'scifcat' and no such folder; did you mean scifact"):
        known_definition("scifcat")
