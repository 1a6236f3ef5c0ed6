"""The generated tables of keys in docs/recipes.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from dupmae.config.ranges import Range

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (bool, "`true` or `false`"),
        (str | None, "text or `null`"),
        (Annotated[int, Range(1)], "whole number, at least 1"),
        (Annotated[int, Range(3)] | None, "whole number, at least 3, or `null`"),
        (Annotated[float, Range(0, 1, above_least=True)], "number, above 0 and at most 1"),
        (Literal["cls", "mean"], "`cls` or `mean`"),
        (Literal[1, 2, 3], "`1`, `2` or `3`"),
        (list[Literal["bm25", "none"]], "list of `bm25` or `none`"),
    ],
)
def test_types_are_said_in_plain_words(hint, words):
    from generate_keys import allowed

    assert allowed(hint) == words


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "`null`"), (True, "`true`"), (0.5, "`0.5`"), ("cls", "`cls`"), ("", "(empty)"), (["a", "b"], "`[a, b]`")],
)
def test_defaults_are_shown_as_yaml_writes_them(value, shown):
    from generate_keys import in_yaml

    assert in_yaml(value) == shown


@dataclass(kw_only=True)
class Base:
    """Settings."""

    length: int = 3
    """Tokens | words,
    or None."""
    seed: int = 42
    """Seeds all."""


@dataclass(kw_only=True)
class Narrower(Base):
    """Fewer of them."""

    length: int = 2


def test_a_subclass_has_the_texts_of_its_base_and_its_own_defaults():
    from generate_keys import keys_of

    (key,) = keys_of(Narrower(), "part.")
    assert (key.name, key.default, key.text) == ("part.length", "`2`", "Tokens \\| words, or `null`.")
    assert [one.name for one in keys_of(Base())] == ["length", "seed"]


def test_a_setting_without_a_text_is_refused():
    from generate_keys import keys_of

    @dataclass(kw_only=True)
    class Silent:
        length: int = 3

    with pytest.raises(ValueError, match="length has no docstring"):
        keys_of(Silent())


def test_a_changed_page_is_reported_and_rewritten(tmp_path, capsys):
    from generate_keys import BEGIN, END, main

    page = tmp_path / "recipes.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    assert main(["--check", "--guide", str(page)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert "old" in page.read_text(encoding="utf-8")
    assert main(["--guide", str(page)]) == 0
    written = page.read_text(encoding="utf-8")
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "| `pretrain.steps` | `100` |" in written
    assert main(["--check", "--guide", str(page)]) == 0


@pytest.mark.parametrize("order", [[], ["BEGIN"], ["END", "BEGIN"], ["BEGIN", "END", "END"]], ids="-".join)
def test_a_page_without_its_markers_is_refused(tmp_path, capsys, order):
    import generate_keys

    page = tmp_path / "recipes.md"
    page.write_text("\n".join(getattr(generate_keys, name) for name in order), encoding="utf-8")
    assert generate_keys.main(["--guide", str(page)]) == 1
    assert "markers" in capsys.readouterr().err
