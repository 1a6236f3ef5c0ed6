"""The best state of a training run: measured on held-out data, kept on disk, restored as the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, write_json
from dupmae.runtime.checkpoints import find_damage, seal_files
from dupmae.runtime.json_text import parse_json
from dupmae.runtime.log import HELD_OUT_FILE, append_metrics, read_metrics, rewind_metrics
from dupmae.runtime.processes import is_first_process
from dupmae.runtime.resuming import KEPT_FOLDER

BEST_FILE = "kept.json"
"""The measurement of the best state, in the folder `kept` beside its model."""

Measurement = dict[str, Any]
"""A line of `held_out.jsonl`: `phase` where a run has several, `step`, and figures by name."""


class BestCheckpoint:
    """Measures a model on held-out data while it is trained, and keeps the state that measured best.

    Every process calls :meth:`begin`, :meth:`measure` and :meth:`keep`; the first one's figures decide, and it alone
    writes. A resumed run takes the measurements after its checkpoint again, and still has the best state of them all.

    Args:
        output: Folder of the run: `held_out.jsonl`, and `kept/` while it lasts.
        measure: Gives the figures of the present state; called in every process.
        better: Whether a measurement is worth keeping, given the best so far, which may be none.
        save: Writes the present state to a folder; called in every process, without a folder in those that do not
            write.

    Attributes:
        kept: The measurement of the best state so far.
        file: All measurements, a line each.
        model: Where the best state stands.
    """

    def __init__(
        self,
        output: Path,
        measure: Callable[[], dict[str, float]],
        better: Callable[[Measurement, Measurement | None], bool],
        save: Callable[[Path | None], None],
    ) -> None:
        self.file, self._folder = output / HELD_OUT_FILE, output / KEPT_FOLDER
        self.model = self._folder / "model"
        self._figures, self._better, self._save = measure, better, save
        self._phase: str | None = None
        self.kept = self._read()

    def begin(self, done: int, phase: str | None = None) -> None:
        """Go on after `done` steps of a phase: what was measured later will be measured again.

        Raises:
            DupmaeError: What was measured before is not there any more.
        """
        self._phase = phase
        if is_first_process():
            rewind_metrics(self.file, phase, done if done else -1)
        if self.kept is None and any(self._better(line, None) for line in self.measurements()):
            raise DupmaeError(f"{self._folder}, the best state so far, is missing: {_start_again(self._folder)}")

    def measurements(self) -> list[Measurement]:
        """Read all measurements so far; every process gets the first one's."""
        lines = read_metrics(self.file) if is_first_process() else []
        found: list[Measurement] = broadcast_object_list([lines])[0]
        return found

    def measure(self, step: int) -> dict[str, float]:
        """Measure the state after a step, write the figures down, and keep the state if it is the best so far."""
        figures: dict[str, float] = broadcast_object_list([self._figures()])[0]
        line = ({} if self._phase is None else {"phase": self._phase}) | {"step": step} | figures
        if is_first_process():
            append_metrics(self.file, [line])
        if self._better(line, self.kept):
            self.keep(line)
        return figures

    def keep(self, measurement: Measurement) -> None:
        """Keep the present state, of which this was measured, instead of the best so far."""
        self.kept = measurement
        if not is_first_process():
            self._save(None)
            return
        with atomic_folder(self._folder) as temporary:
            self._save(temporary / "model")
            write_json(temporary / BEST_FILE, measurement)
            seal_files(temporary)

    def _read(self) -> Measurement | None:
        """Read the measurement of the best state so far, if there is one, and look whether that is whole."""
        if not self._folder.exists():
            return None
        if is_first_process() and (fault := find_damage(self._folder)):
            raise DupmaeError(f"{self._folder}, the best state so far, {fault}: {_start_again(self._folder)}")
        found: Measurement = parse_json((self._folder / BEST_FILE).read_text(encoding="utf-8"))
        return found


def _start_again(folder: Path) -> str:
    """Say what to do where the best state is lost."""
    return f"delete the folder {folder.parent}, and the same command begins anew."
