"""The examples in the docstrings of the public names run, and every public name has one."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import dupmae

NOT_YET: set[str] = set()
"""Public names whose docstring has no example so far."""


@pytest.mark.parametrize("name", dupmae.__all__)
def test_the_example_of_a_public_name_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [
        test
        for test in finder.find(getattr(dupmae, name), name, module=False, globs={"__name__": "example"})
        if test.examples
    ]
    assert any(test.name == name for test in tests) is (name not in NOT_YET)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    printed: list[str] = []
    for test in tests:
        runner.run(test, out=printed.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(printed)
