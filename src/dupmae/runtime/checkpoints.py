"""Whole checkpoints of a training run: sealed with checksums when they are written, verified when a run goes on.

transformers' Trainer goes on without an optimiser, a schedule or random states where their files are missing, and says
nothing. So a checkpoint counts only if it has all of them, byte for byte as they were written: the file of checksums is
made last, when everything else has reached the disk. The one before it is kept as well, for the case that it does not.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from transformers.trainer_callback import TrainerCallback

from dupmae.errors import DupmaeError
from dupmae.files import file_sha256, flush_folder
from dupmae.runtime.checksums import CHECKSUMS_FILE, read_checksums, write_checksums
from dupmae.runtime.processes import first_process_first, is_first_process, process_count, wait_for_others

logger = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2
"""How many stay: the last one, and the one before it."""
PARTS = {
    "weights": r".*\.safetensors",
    "optimiser": r"optimizer(\.pt|\.bin|_\d+/.*)",
    "schedule": r"scheduler\.pt",
    "steps": r"trainer_state\.json",
}
"""What a checkpoint has in any case, and how its files are called; the random states of each process are added."""


class SealCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Seals each checkpoint that the Trainer has written, and then deletes those that are no longer needed."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seal the checkpoint of this step once every process has written what is its own."""
        wait_for_others()
        if is_first_process():
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            seal(checkpoint, process_count())
            for _, older in _by_step(checkpoint.parent)[KEPT_CHECKPOINTS:]:
                shutil.rmtree(older, ignore_errors=True)  # what stays of it is no checkpoint, and deleted in the end


def seal(checkpoint: Path, processes: int) -> None:
    """Flush a checkpoint to disk, then write the checksums of its files, flushed as well.

    Args:
        checkpoint: Its folder.
        processes: How many take part in the run; each has random states of its own.

    Raises:
        DupmaeError: A part of it was not written.
    """
    missing = _missing(_files(checkpoint), processes)
    if missing:
        raise DupmaeError(f"The checkpoint {checkpoint} was written without its {' and '.join(missing)}.")
    seal_files(checkpoint)
    flush_folder(checkpoint.parent)


def seal_files(folder: Path) -> None:
    """Flush a folder's files to disk, then write their checksums, flushed as well."""
    names = _files(folder)
    for name in names:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    for inner in [path for path in folder.rglob("*") if path.is_dir()]:
        flush_folder(inner)
    write_checksums(folder, names)


def find_damage(folder: Path) -> str | None:
    """Compare a folder's files with its checksums.

    Returns:
        What is wrong, to be read after the folder's name; None if nothing is.
    """
    if not (folder / CHECKSUMS_FILE).is_file():
        return "was not written to the end"
    try:
        checksums = read_checksums(folder)
    except (OSError, ValueError):
        return f"is damaged ({CHECKSUMS_FILE})"
    for name, checksum in checksums.items():
        file = folder / name
        try:
            whole = file.is_file() and file_sha256(file) == checksum
        except (OSError, ValueError):
            whole = False
        if not whole:
            return f"is damaged ({name} is not as it was written)"
    return None


def last_checkpoint(folder: Path) -> tuple[int, Path | None]:
    """Find the checkpoint that a run goes on from: the last one that is whole.

    A later one is deleted, with a warning: it is torn, as a kill or a power cut leaves it, or damaged. Every process
    calls this; the first one looks into the files.

    Args:
        folder: What the Trainer writes its checkpoints to.

    Returns:
        Its step and its folder, or (0, None) if there is none.

    Raises:
        DupmaeError: There are several, and none of them is whole.
    """
    with first_process_first():
        found = _by_step(folder)
        if is_first_process():
            found = _delete_damaged(folder, found)
    return found[0] if found else (0, None)


def _delete_damaged(folder: Path, found: list[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """Delete the checkpoints after the last whole one, and return the others."""
    faults: list[str] = []
    for _, checkpoint in found:
        fault = find_damage(checkpoint) or _find_missing(checkpoint)
        if fault is None:
            break
        faults.append(fault)
    if len(faults) == len(found) > 1:
        names = "; ".join(
            f"{checkpoint.name} {fault}" for (_, checkpoint), fault in zip(found[:2], faults, strict=False)
        )
        raise DupmaeError(
            f"No checkpoint in {folder} is whole ({names}): delete this folder, and the same command takes the steps "
            "since its beginning again."
        )
    rest = found[len(faults) :]
    for (_, checkpoint), fault in zip(found, faults, strict=False):
        goes_on = f"from {rest[0][1].name}" if rest else "from the beginning"
        logger.warning("The checkpoint %s %s: it is deleted, and training goes on %s.", checkpoint, fault, goes_on)
        shutil.rmtree(checkpoint)
    return rest


def _find_missing(checkpoint: Path) -> str | None:
    """Say which parts the checksums of a checkpoint do not name; None if they name all."""
    missing = _missing(read_checksums(checkpoint), process_count())
    return f"is without its {' and '.join(missing)}" if missing else None


def _missing(names: Collection[str], processes: int) -> list[str]:
    """List the parts of a checkpoint that are not among the names of its files."""
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{number}.pth" for number in range(processes)]
    missing = [part for part, pattern in PARTS.items() if not any(re.fullmatch(pattern, name) for name in names)]
    return missing + ["random states"] * (not set(states) <= set(names))


def _files(folder: Path) -> list[str]:
    """List the files of a folder and of those within, by their paths from it; the checksums are not among them."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in found if name != CHECKSUMS_FILE)


def _by_step(folder: Path) -> list[tuple[int, Path]]:
    """List the checkpoints in a folder with their steps, the last one first."""
    numbers = ((path.name.rpartition("-")[2], path) for path in folder.glob("checkpoint-*"))
    return sorted(((int(number), path) for number, path in numbers if number.isdecimal()), reverse=True)
