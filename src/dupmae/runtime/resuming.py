"""What runs need to go on where they were interrupted, one process at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.files import locked
from dupmae.runtime.log import METRICS_FILE
from dupmae.runtime.processes import is_first_process


@contextmanager
def sole_run(output: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, a file beside it, which the system takes back when a process dies.

    The same command given twice would otherwise delete the checkpoints that the other one is writing. Under `torchrun`
    the first process holds it for all.

    Raises:
        DupmaeError: Another run is at work in the folder.
    """
    if not is_first_process():
        yield
        return
    place = output.resolve()
    lock_file = place.with_name(f".{place.name}.lock")
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    taken = f"Another process is at work in the folder {output}: wait until it has finished, or choose another output."
    with locked(lock_file, taken):
        try:
            yield
        finally:
            lock_file.unlink(missing_ok=True)


def read_record(
    output: Path, name: str, mark: str, kind: str, results: Sequence[str] = ("model", "checkpoints", METRICS_FILE)
) -> dict[str, Any] | None:
    """The record of the run in a folder, or None if the folder holds no run yet.

    Args:
        output: Folder of the run.
        name: File name of the record, a JSON object with a `fingerprint`.
        mark: Fingerprint of the run that asks.
        kind: What to call such a run in an error, e.g. "pre-training".
        results: Names of what such a run leaves in its folder.

    Raises:
        DupmaeError: The record is damaged or another run's, or there are results without a record.
    """
    record_file = output / name
    if record_file.is_file():
        try:
            record: dict[str, Any] = json.loads(record_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DupmaeError(f"{record_file} is damaged: delete the folder {output} or choose another one.") from error
        if record.get("fingerprint") != mark:
            raise DupmaeError(
                f"The folder {output} holds a {kind} run with other settings, another start or other data: "
                "choose another folder or delete it."
            )
        return record
    if any((output / result).exists() for result in results):
        raise DupmaeError(f"The folder {output} holds other results: choose another folder or delete it.")
    return None


def last_checkpoint(folder: Path) -> tuple[int, Path | None]:
    """The last whole checkpoint that the Trainer left in a folder and its step, or (0, None); halves are deleted."""
    whole: list[tuple[int, Path]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        try:
            # the Trainer writes this file last
            state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            whole.append((state["global_step"], checkpoint))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(checkpoint)
    return max(whole, default=(0, None))
