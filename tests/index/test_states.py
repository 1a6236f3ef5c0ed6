"""Random changes, faults, kills and reopenings of an index beside a dictionary that is changed alike."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from fake_index import SPACE, FakeEncoder, expected_with_words, random_rows, ranking_with_words, wordy
from faults import KINDS, LostPowerError, failing
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dupmae.corpus import Passage
from dupmae.index import DuplexIndex

ROWS = random_rows(np.random.default_rng(7), 100)
NAMES = st.integers(0, 14).map("p{:02}".format)
PASSAGES = st.dictionaries(NAMES, st.integers(0, 99), min_size=1, max_size=5)


class Index(RuleBasedStateMachine):
    """`state` holds for each passage's id the row that it is embedded as; an addition is one change."""

    @initialize(state=PASSAGES, segment=st.integers(5, 30))
    def build(self, state: dict[str, int], segment: int) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.state, self.readers = dict(state), list[tuple[DuplexIndex, dict[str, int]]]()
        corpus = [Passage(name, "", wordy(row)) for name, row in state.items()]
        self.index = DuplexIndex.build(
            self.place / "i", FakeEncoder(*ROWS, space=SPACE), corpus, model="m", segment_passages=segment
        )

    def opened(self) -> DuplexIndex:
        index = DuplexIndex.open(self.place / "i")
        index.encoder = self.index.encoder
        return index

    @rule(passages=PASSAGES)
    def add(self, passages: dict[str, int]) -> None:
        self.index.add([Passage(name, "", wordy(row)) for name, row in passages.items()])
        self.state |= passages

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

    @rule(kind=st.sampled_from(KINDS), number=st.integers(1, 60), passages=PASSAGES, names=st.lists(NAMES, max_size=4))
    def fail(self, kind: str, number: int, passages: dict[str, int], names: list[str]) -> None:
        """Change the index while an operation fails, or the power goes: the old state or the new one is there."""
        after = {name: row for name, row in self.state.items() if name not in names} if names else self.state | passages
        error: BaseException | None = None
        with failing(self.place, number, kind):
            try:
                if names:
                    self.index.delete(names)
                else:
                    self.index.add([Passage(name, "", wordy(row)) for name, row in passages.items()])
            except (OSError, LostPowerError) as found:
                error = found
        self.index = self.opened()
        self.index.verify()
        found_state = ranking_with_words(self.index)
        assert found_state in [
            expected_with_words(self.index, state) for state in ([self.state, after] if error else [after])
        ]
        if found_state == expected_with_words(self.index, after):
            self.state = after

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "state"):
            assert len(self.index) == len(self.state)
            assert ranking_with_words(self.index) == expected_with_words(self.index, self.state)
            for reader, state in self.readers:
                assert ranking_with_words(reader) == expected_with_words(reader, state)

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
