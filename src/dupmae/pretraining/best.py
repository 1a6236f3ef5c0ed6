"""Which state of a run becomes its result: the best one on held-out text, or the last."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from dupmae.config import PretrainConfig
from dupmae.files import atomic_folder, write_json
from dupmae.models import RECORD_FILE
from dupmae.pretraining.card import write_card
from dupmae.pretraining.checkpoint import save_checkpoint
from dupmae.pretraining.data import Sequences
from dupmae.pretraining.held_out import HeldOut
from dupmae.pretraining.objective import DupMAE
from dupmae.pretraining.sharding import callable_parts, whole_weights
from dupmae.runtime.curves import CURVES_FILE, draw_curves
from dupmae.runtime.log import HELD_OUT_FILE, METRICS_FILE, append_metrics, last_losses, read_metrics, rewind_metrics


class BestCheckpoint:
    """Measures on held-out text, writes it down, and keeps the checkpoint that the settings call the best.

    Every process measures; the first one's figures decide, and it alone writes. What was measured before the first step
    is written down, but not kept: keeping is about what training has made.

    Args:
        output: Folder of the run; `kept/` in it is the best checkpoint so far.
        objective: What is trained.
        tokenizer: Its tokenizer.
        held_out: What to measure on; may be empty, and the last state is kept then.
        writes: Whether this is the process that writes.

    Attributes:
        started: Whether a phase is over, so that the state at the beginning of the next one has been measured.
    """

    def __init__(self, output: Path, objective: DupMAE, tokenizer: Any, held_out: HeldOut, writes: bool) -> None:
        self.output, self.objective, self.tokenizer = output, objective, tokenizer
        self.held_out, self.writes = held_out, writes
        self.phase, self.started = "", False
        self.kept = output / "kept"
        record = self.kept / RECORD_FILE
        self.best: dict[str, float] | None = json.loads(record.read_text())["held_out"] if record.is_file() else None

    def begin(self, phase: str, done: int) -> None:
        """Start a phase, of which `done` steps are done: later measurements of it are taken again."""
        self.phase = phase
        if self.writes:
            rewind_metrics(self.output / HELD_OUT_FILE, phase, done if done else -1)

    def measure(self, step: int) -> dict[str, float]:
        """Measure, write it down, and keep the checkpoint if it is the best so far."""
        with callable_parts(self.objective):
            mine = self.held_out.measure(self.objective)
        figures: dict[str, float] = broadcast_object_list([mine])[0]
        if self.writes:
            append_metrics(self.output / HELD_OUT_FILE, [{"phase": self.phase, "step": step, **figures}])
        if step and self.objective.settings.keep != "last" and better(figures, self.best, self.objective.settings):
            self.best = figures
            self._save(step, figures)
        return figures

    def finish(self, record: dict[str, Any], store: Sequences) -> None:
        """Write `model/`, the kept checkpoint or else the present state, with its record, its curves and its card.

        Every process has to call this; the first one writes.

        Args:
            record: What `dupmae.json` says besides the settings, the kept step, its figures and the last losses.
            store: The text that it was trained on.
        """
        metrics, held_out = self.output / METRICS_FILE, self.output / HELD_OUT_FILE
        if self.best is None:
            figures = {name: value for name, value in _last(held_out).items() if name not in ("phase", "step")}
            self._save(_last(metrics).get("step", 0), figures)
        if not self.writes:
            return
        with atomic_folder(self.output / "model") as temporary:
            shutil.copytree(self.kept, temporary, dirs_exist_ok=True)
            saved = json.loads((temporary / RECORD_FILE).read_text(encoding="utf-8"))
            full = {**saved, **record, "losses": last_losses(metrics)}
            write_json(temporary / RECORD_FILE, full)
            curves = metrics.is_file()
            if curves:
                draw_curves(temporary / CURVES_FILE, "Pre-training", metrics, held_out if held_out.is_file() else None)
            write_card(temporary, full, store, len(self.held_out), CURVES_FILE if curves else None)

    def _save(self, step: int, figures: dict[str, float]) -> None:
        """Write the present state to `kept/`."""
        weights = whole_weights(self.objective)
        if self.writes:
            record = {"kept": {"phase": self.phase, "step": step}, "held_out": figures}
            save_checkpoint(self.kept, self.objective, weights, self.tokenizer, record)


def better(figures: dict[str, float], best: dict[str, float] | None, config: PretrainConfig) -> bool:
    """Whether a measurement beats the best one so far, by the loss or by the probe (the sum's MRR, if there is one)."""
    if best is None:
        return True
    if config.keep == "loss":
        return figures["loss"] < best["loss"]
    name = next((name for name in ("mrr_both", "mrr_cls") if name in figures), None)
    return name is not None and figures[name] > best[name]


def _last(metrics: Path) -> dict[str, Any]:
    """The last line of a metrics file, if there is one."""
    lines = read_metrics(metrics) if metrics.is_file() else []
    return lines[-1] if lines else {}
