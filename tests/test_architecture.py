"""The rules of ARCHITECTURE.md, read from the imports in the code: those in functions and for type checkers count."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import dupmae

SOURCE = Path(str(dupmae.__file__)).parent
FLOORS = [
    {"errors", "kernels"},
    {"config", "files", "vocabulary"},
    {"runtime"},
    {"models", "corpus"},
    {"backbones"},
    {"duplex", "pretraining"},
    {"index"},
    {"retrievers"},
    {"evaluation"},
    {"finetuning"},
    {"experiments"},
    {"serving", "integrations"},
    {"cli"},
    {"__init__", "__main__"},
]
"""Rooms from the lowest up; each imports only what is on lower floors, so that those on one floor do not meet."""
LOOSE = {"__init__", "__main__", "errors", "files", "vocabulary"}
"""Modules beside the rooms; saved models import `vocabulary`, an alias of `kernels`."""


def modules_of(source: Path) -> dict[str, Path]:
    """Find the modules of a package: dotted name -> file; a package's face has the package's name."""
    names = {file: file.relative_to(source.parent).with_suffix("").parts for file in sorted(source.rglob("*.py"))}
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): file for file, parts in names.items()}


def imports_of(source: Path) -> dict[str, set[str]]:
    """Find the modules of a package that each of them imports, wherever in its code; what is loaded on the way is not
    counted, such as the faces of the packages that a module lies in."""
    modules = modules_of(source)
    return {
        name: {target for target in _targets(name, file, modules) if target in modules} - {name}
        for name, file in modules.items()
    }


def _targets(name: str, file: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield what a module imports, modules of other packages included."""
    for node in _imports(file.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            package = name.split(".") if file.stem == "__init__" else name.split(".")[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield submodule if submodule in modules else base


@cache
def _imports(code: str) -> list[ast.Import | ast.ImportFrom]:
    """Find the statements of a module that import; every test but for one module reads the same package."""
    return [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]


def room_of(name: str) -> str:
    """Return the room, or the loose module, that a module belongs to."""
    return [*name.split("."), "__init__"][1]


def upward_imports(source: Path) -> set[tuple[str, str]]:
    """Find the pairs of modules of which the first imports the second from a room that is not below its own."""
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    return {
        (name, target)
        for name, targets in imports_of(source).items()
        for target in targets
        if room_of(name) != room_of(target) and floor_of[room_of(name)] <= floor_of[room_of(target)]
    }


def circles(source: Path) -> set[frozenset[str]]:
    """Find the groups of modules that import each other, directly or by way of others."""
    imports = imports_of(source)

    def reached(name: str) -> set[str]:
        found, ahead = set[str](), [name]
        while ahead:
            new = imports[ahead.pop()] - found
            found |= new
            ahead += new
        return found

    within_reach = {name: reached(name) for name in imports}
    return {
        frozenset(other for other in ahead if name in within_reach[other])
        for name, ahead in within_reach.items()
        if name in ahead
    }


def loose_modules(source: Path) -> set[str]:
    """Find the modules beside the rooms that do not belong there."""
    return {file.stem for file in source.glob("*.py")} - LOOSE


def rooms_without_a_floor(source: Path) -> set[str]:
    """Find the rooms that the order says nothing of."""
    return {room_of(name) for name in modules_of(source)} - set.union(*FLOORS)


def test_a_room_imports_only_rooms_below_it():
    assert not rooms_without_a_floor(SOURCE)
    assert not upward_imports(SOURCE)


def test_no_module_imports_itself_by_way_of_others():
    assert not circles(SOURCE)


def test_no_module_stands_beside_the_rooms_but_those_that_all_of_them_need():
    assert not loose_modules(SOURCE)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A copy of the package, to break the rules in."""
    code_alone = shutil.ignore_patterns("__pycache__", "weights")
    return Path(shutil.copytree(SOURCE, tmp_path / "dupmae", ignore=code_alone))


@pytest.mark.parametrize(
    ("place", "code", "target"),
    [
        ("files.py", "from dupmae.cli.entry import main", "cli.entry"),
        ("files.py", "def later():\n    from dupmae.cli import entry", "cli.entry"),
        ("files.py", "if TYPE_CHECKING:\n    import dupmae.index.hits as hits", "index.hits"),
        ("index/hits.py", "from ..experiments import run", "experiments.run"),
        ("index/__init__.py", "from ..experiments.run import run_recipe", "experiments.run"),
        ("duplex/pooling.py", "from dupmae.pretraining import masking", "pretraining.masking"),
        ("pretraining/masking.py", "from dupmae.duplex.embeddings import DuplexEmbeddings", "duplex.embeddings"),
        ("models/names.py", "from dupmae.corpus import Passage", "corpus"),
        ("config/recipe.py", "from dupmae import files", "files"),
        ("cli/display.py", "from dupmae import Recipe", ""),
    ],
)
def test_a_planted_import_from_a_room_not_below_is_found(place, code, target, planted):
    before, file = upward_imports(planted), planted / place
    file.write_text(f"{file.read_text(encoding='utf-8')}\n{code}\n", encoding="utf-8")
    name = ".".join(["dupmae", *Path(place.removesuffix("/__init__.py")).with_suffix("").parts])
    assert upward_imports(planted) - before == {(name, f"dupmae.{target}".rstrip("."))}


def test_planted_circles_are_found(planted):
    before = circles(planted)
    (planted / "corpus" / "passage.py").open("a", encoding="utf-8").write(
        "\ndef read():\n    from dupmae.corpus import read_passages\n"
    )
    (new,) = circles(planted) - before
    assert {"dupmae.corpus", "dupmae.corpus.passage", "dupmae.corpus.readers"} <= new
    assert all(name.startswith("dupmae.corpus") for name in new)


def test_a_planted_loose_module_and_a_planted_room_are_found(planted):
    (planted / "helpers.py").touch()
    (planted / "util").mkdir()
    (planted / "util" / "__init__.py").touch()
    assert loose_modules(planted) == {"helpers"}
    assert rooms_without_a_floor(planted) == {"helpers", "util"}
