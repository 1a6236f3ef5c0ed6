"""Logs of training: a JSON object a line, whole lines only, cut back to where a resumed run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dupmae.files import atomic_write

HELD_OUT_FILE = "held_out.jsonl"
"""What was measured on held-out text, in a run's folder: a line a measurement."""
METRICS_FILE = "metrics.jsonl"
"""Losses and learning rates of every step, in a training run's folder."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, none if there is no file yet; a last line that a kill has cut short is left out."""
    lines: list[dict[str, Any]] = []
    if not path.is_file():
        return lines
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def append_metrics(path: Path, lines: list[dict[str, Any]]) -> None:
    """Add lines to a log, which is made if need be, and flush it: a run that goes on reads what was measured before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def rewind_metrics(path: Path, phase: str | None, done: int) -> None:
    """Drop a phase's lines beyond step `done` from a log, if there is one: those steps are taken again.

    Args:
        path: The file.
        phase: Name of the phase; None for a run that has none.
        done: The last step whose lines stay.
    """
    if path.exists():
        lines = [line for line in read_metrics(path) if line.get("phase") != phase or line["step"] <= done]
        with atomic_write(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
