"""Logs of training: a JSON object a line, whole lines only, cut back to where a resumed run goes on."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.files import atomic_write
from dupmae.runtime.json_text import parse_json

logger = logging.getLogger(__name__)

HELD_OUT_FILE = "held_out.jsonl"
"""What was measured on held-out text, in a run's folder: a line a measurement."""
METRICS_FILE = "metrics.jsonl"
"""Losses and learning rates of every step, in a training run's folder."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, none if there is no file yet; a last line that a kill has cut short is left out.

    What follows a damaged line is left out as well, with a warning.
    """
    lines: list[dict[str, Any]] = []
    if not path.is_file():
        return lines
    written = path.read_bytes().splitlines()
    for line in written:
        try:
            found = parse_json(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("step"), int):
            if len(lines) + 1 < len(written):
                logger.warning("%s is damaged: its lines from %d on are left out.", path, len(lines) + 1)
            break
        lines.append(found)
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

    Raises:
        DupmaeError: Something else than a file stands there.
    """
    if path.exists() and not path.is_file():
        raise DupmaeError(f"{path} is no file, but the log of a training: delete it.")
    if path.exists():
        lines = [line for line in read_metrics(path) if line.get("phase") != phase or line["step"] <= done]
        with atomic_write(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
