"""List the doors: which command reads which files, and what of its results must not change in silence."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_world
import yaml

WORDS = {
    "query": "'kanad lonat'",
    "short": shlex.join(fuzz_world.SHORT),
    "lengths": shlex.join(fuzz_world.LENGTHS),
    "resumed": shlex.join(fuzz_world.RESUMED),
    "steps": shlex.join(fuzz_world.PRETRAIN[4:]),
    "corpus_steps": shlex.join([*fuzz_world.PRETRAIN[:2], *fuzz_world.PRETRAIN[4:]]),
}
"""What stands in braces in a command."""


@dataclass(frozen=True)
class Door:
    """A command and the files that are damaged before it runs. Several of a kind stand in one text, between spaces."""

    name: str
    command: str
    parts: str
    """Parts of the world that the command reads or changes."""
    files: str = ""
    """Patterns of what is damaged; none: a word of the command line is."""
    room: str = "inputs"
    """Whose it is."""
    same: str = ""
    """What must be as without the damage if the command succeeds: patterns of files, `-` for what it prints."""
    checks: bool = False
    """Whether the files damaged have checksums, so that no damage to them may change a result."""
    stdin: str | None = None
    weight: float = 1
    """How often it is drawn: less where the command is slow."""
    quick: bool = True
    """Whether it, and what it needs, is fast enough for the test suite."""

    @property
    def argv(self) -> list[str]:
        return shlex.split(self.command.format(**WORDS))

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(self.parts.split())

    @property
    def targets(self) -> list[str]:
        return self.files.split()


def doors() -> list[Door]:
    """List the doors of `fuzz_doors.yaml`."""
    found: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return [Door(**values) for values in found]
