"""The floors of the index: nothing imports upwards or in a circle, not even within a function or for types alone."""

from __future__ import annotations

import ast
from pathlib import Path

import dupmae.index

ROOT = Path(dupmae.index.__file__).parent
FLOORS = (
    ("hits", "highlights", "where", "storage"),
    ("scoring",),
    ("writing",),
    ("duplex_index",),
    ("tune", "explanation"),
    ("engines",),
)
"""From the ground up."""


def imports() -> dict[str, set[str]]:
    """Each module of the index, below `dupmae.index`, and those of them that it imports anywhere in its text."""
    files = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py")}
    modules = {name.removesuffix(".__init__") for name in files.values()}
    found = {}
    for path, name in files.items():
        if name == "__init__":  # the face of the room shows what is below
            continue
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports from where it stands"
                names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        assert "dupmae.index" not in names, f"{path} imports the face of its own room"
        inner = {each.removeprefix("dupmae.index.") for each in names if each.startswith("dupmae.index.")}
        found[name.removesuffix(".__init__")] = inner & modules
    return found


def test_no_module_of_the_index_imports_upwards() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for module, targets in imports().items():
        for target in targets:
            assert floor[target.split(".")[0]] <= floor[module.split(".")[0]], f"{module} imports {target}"


def test_no_module_of_the_index_imports_itself_by_way_of_others() -> None:
    left = imports()
    assert len(left) > 20
    while done := [module for module, targets in left.items() if not targets & left.keys()]:
        for module in done:
            del left[module]
    assert not left
