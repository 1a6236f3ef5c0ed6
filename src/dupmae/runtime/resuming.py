"""Runs that go on where they were interrupted: a lock, and a record beside the results."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.files import locked, locked_folder, made_folder, sweep, write_json
from dupmae.runtime.json_text import parse_json
from dupmae.runtime.log import HELD_OUT_FILE, METRICS_FILE
from dupmae.runtime.processes import first_process_first, is_first_process, wait_for_others

CHECKPOINTS_FOLDER = "checkpoints"
"""What a training run goes on from, in its folder while it lasts."""
KEPT_FOLDER = "kept"
"""The best state so far (:mod:`dupmae.runtime.best`), in its folder while the run lasts."""
TRAINING_TRACES = ("model", METRICS_FILE, HELD_OUT_FILE, CHECKPOINTS_FOLDER, KEPT_FOLDER)
"""What a training run leaves in its folder, whole or interrupted."""


@dataclass(slots=True)
class RecordedRun:
    """A run in progress, and its record on disk."""

    record: dict[str, Any]
    """What is written once the run is finished; results may be added to it."""
    finished: bool
    """Whether an earlier call has finished the run, so that nothing is left to do."""


@contextmanager
def recorded_run(
    record_file: Path,
    details: dict[str, Any],
    kind: str,
    *,
    result: Path,
    traces: Sequence[str] = TRAINING_TRACES,
    leftovers: Sequence[str] = (CHECKPOINTS_FOLDER, KEPT_FOLDER),
) -> Iterator[RecordedRun]:
    """Do a run once, and the rest of it after an interruption.

    The protocol, in the folder of `record_file`:

    1. Hold the folder's lock (:func:`sole_run`).
    2. Read the record. If it is another run's, or there are traces of a run without a record, refuse; if it says
       finished and the result is there, say so to the caller, whose turn it is to return.
    3. Otherwise write the record as unfinished.
    4. Work: the body of the `with` statement, which goes on from what it finds.
    5. Write the record as finished, with what the body has added, and only then delete what an unfinished run needs.

    Work that fails (not: is killed) before it has left a trace takes the record back: the folder is still anybody's.
    Under `torchrun` every process enters, the first one before the others; it alone writes, and all leave together.

    Args:
        record_file: The record, a JSON object.
        details: What it says beside `finished`; its `fingerprint` is that of all that the result depends on.
        kind: What to call such a run in an error, e.g. "pre-training".
        result: What a finished run has made.
        traces: Names of what such a run leaves in the folder.
        leftovers: Names of what is deleted once it is finished.

    Yields:
        The run; the body returns at once if it is `finished`.

    Raises:
        DupmaeError: Another process is at work in the folder, the record is damaged or another run's, or there are
            traces without a record.
    """
    output = record_file.parent
    new = not output.exists()
    with sole_run(output):
        with first_process_first():
            found = _read_record(record_file, details["fingerprint"], kind, traces)
            finished = found is not None and found["finished"] and result.exists()
            run = RecordedRun(details | {"finished": finished}, finished)
            if is_first_process() and not finished:
                write_json(record_file, run.record)
        try:
            yield run
        except Exception:
            if is_first_process() and not any((output / trace).exists() for trace in traces):
                record_file.unlink()
                if new and not any(output.iterdir()):
                    output.rmdir()
            raise
        if is_first_process():
            if not finished:
                write_json(record_file, run.record | {"finished": True})
            for leftover in leftovers:
                shutil.rmtree(output / leftover, ignore_errors=True)
        wait_for_others()


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
    taken = f"Another process is at work in the folder {output}: wait until it has finished, or choose another output."
    if place.is_dir() and not os.access(place.parent, os.W_OK):
        with locked_folder(place, taken):
            sweep(place)
            yield
        return
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock_file, taken, alone=lambda: made_folder(place)):
        sweep(place)
        try:
            yield
        finally:
            lock_file.unlink(missing_ok=True)


def _read_record(record_file: Path, own_fingerprint: str, kind: str, traces: Sequence[str]) -> dict[str, Any] | None:
    """Read the record of the run in a folder, or return None if the folder holds no run yet."""
    output = record_file.parent
    if record_file.exists():
        record: Any = None
        with contextlib.suppress(ValueError):
            if record_file.is_file():
                record = parse_json(record_file.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not isinstance(record.get("finished"), bool):
            raise DupmaeError(f"{record_file} is damaged: delete the folder {output} or choose another one.")
        if record.get("fingerprint") != own_fingerprint:
            if not record.get("finished") and not any((output / trace).exists() for trace in traces):
                return None  # killed before it had done anything: nothing is lost
            raise DupmaeError(
                f"The folder {output} holds a {kind} run with other settings, another base model or other data: "
                "choose another folder or delete it."
            )
        return record
    if any((output / trace).exists() for trace in traces):
        raise DupmaeError(f"The folder {output} holds other results: choose another folder or delete it.")
    return None
