"""Random changes, faults, kills and reopenings of an index beside a dictionary that is changed alike."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from fake_index import (
    SPACE,
    WORDY_QUERIES,
    FakeEncoder,
    best_documents,
    chunked,
    expected_with_words,
    random_rows,
    ranking_with_words,
)
from faults import KINDS, LostPowerError, failing
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dupmae.index import DuplexIndex

ROWS = random_rows(np.random.default_rng(7), 100)
NAMES = st.integers(0, 14).map("p{:02}".format)
DOCUMENTS = st.dictionaries(NAMES, st.lists(st.integers(0, 99), min_size=1, max_size=3), min_size=1, max_size=5)
State = dict[str, list[int]]


def expected(index: DuplexIndex, state: State) -> Any:
    """The twin's ranking of passages, and of documents."""
    corpus = chunked(state)
    ids, scores = expected_with_words(index, {passage.id: int(passage.text.split()[0]) for passage in corpus})
    documents = best_documents(corpus, ids, scores, 4)
    return (ids, scores), [[place[:2] for place in ranking] for ranking in documents]


def ranked(index: DuplexIndex) -> Any:
    """The index's."""
    embeddings = index.encoder.embed_queries(WORDY_QUERIES)
    documents = [list(zip(*row, strict=True)) for row in zip(*index.search_embeddings(embeddings, 4), strict=True)]
    return ranking_with_words(index), documents


class Index(RuleBasedStateMachine):
    """`state` holds for each document's id the rows that its chunks are embedded as; an addition is one change."""

    @initialize(state=DOCUMENTS, segment=st.integers(15, 30))
    def build(self, state: State, segment: int) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.state, self.readers = dict(state), list[tuple[DuplexIndex, State]]()
        corpus = chunked(state)
        self.index = DuplexIndex.build(
            self.place / "i", FakeEncoder(*ROWS, space=SPACE), corpus, model="m", segment_passages=segment
        )

    def opened(self) -> DuplexIndex:
        index = DuplexIndex.open(self.place / "i")
        index.encoder = self.index.encoder
        return index

    @rule(documents=DOCUMENTS)
    def add(self, documents: State) -> None:
        self.index.add(chunked(documents))
        self.state |= documents

    @rule(names=st.lists(NAMES, max_size=6))
    def delete(self, names: list[str]) -> None:
        assert set(self.index.delete(names)) == set(names) - set(self.state)
        self.state = {name: row for name, row in self.state.items() if name not in names}

    @rule()
    def compact(self) -> None:
        self.index.compact()
        assert self.index.info()["deleted"] == 0

    @rule()
    def reopen(self) -> None:
        self.index = self.opened()

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def read(self) -> None:
        """Open a reader that keeps what it sees now."""
        self.readers.append((self.opened(), dict(self.state)))

    @rule(
        kind=st.sampled_from(KINDS), number=st.integers(1, 60), documents=DOCUMENTS, names=st.lists(NAMES, max_size=4)
    )
    def fail(self, kind: str, number: int, documents: State, names: list[str]) -> None:
        """Change the index while an operation fails, or the power goes: the old state or the new one is there."""
        after = (
            {name: row for name, row in self.state.items() if name not in names} if names else self.state | documents
        )
        error: BaseException | None = None
        with failing(self.place, number, kind):
            try:
                if names:
                    self.index.delete(names)
                else:
                    self.index.add(chunked(documents))
            except (OSError, LostPowerError) as found:
                error = found
        self.index = self.opened()
        self.index.verify()
        found_state = ranked(self.index)
        assert found_state in [expected(self.index, state) for state in ([self.state, after] if error else [after])]
        if found_state == expected(self.index, after):
            self.state = after

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "state"):
            assert len(self.index) == sum(map(len, self.state.values()))
            assert self.index.info()["documents"] == len(self.state)
            assert ranked(self.index) == expected(self.index, self.state)
            for reader, state in self.readers:
                assert ranked(reader) == expected(reader, state)

    def teardown(self) -> None:
        if hasattr(self, "place"):
            shutil.rmtree(self.place)


def test_an_index_equals_a_dictionary_through_changes_faults_and_reopenings() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    with mock.patch.object(os, "fsync", return_value=None):
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Index,
            settings=settings(
                max_examples=8,
                stateful_step_count=10,
                deadline=None,
                phases=[Phase.explicit, Phase.generate],  # to make a failing example smaller takes minutes
                suppress_health_check=list(HealthCheck),
            ),
        )
