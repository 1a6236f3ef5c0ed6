"""What an unfinished run needs and a finished one leaves nowhere."""

from __future__ import annotations

from pathlib import Path

NEEDED = ("checkpoint*", "kept", "vectors", "*-blocks", "*.lock", "*.tmp", ".*", "runs")
"""Names of checkpoints, best states, vectors, blocks, locks, temporary files and trainers' logs."""


def left_over(folder: Path) -> list[str]:
    """Name what a finished run has left in its folder, and beside it, that only an unfinished one needs."""
    beside = [path for path in folder.parent.iterdir() if path.name.startswith(".")]
    within = [path for pattern in NEEDED for path in folder.rglob(pattern)]
    return sorted({path.relative_to(folder.parent).as_posix() for path in [*beside, *within]})
