"""The result of pre-training: which state becomes it, and the checkpoint folder with its record, curves and card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from dupmae.config import PretrainConfig
from dupmae.files import atomic_folder, write_json
from dupmae.models import RECORD_FILE, write_checksums
from dupmae.pretraining.card import write_card
from dupmae.pretraining.checkpoint import save_checkpoint
from dupmae.pretraining.data import Sequences
from dupmae.pretraining.held_out import HeldOut
from dupmae.pretraining.objective import TERMS, DupMAE
from dupmae.pretraining.sharding import callable_parts, whole_weights
from dupmae.runtime.best import BestCheckpoint, Measurement
from dupmae.runtime.curves import CURVES_FILE, draw_curves
from dupmae.runtime.log import METRICS_FILE, read_metrics
from dupmae.runtime.processes import is_first_process

LAST_STEPS = 20
"""Steps whose mean losses stand in the record."""


def best_checkpoint(output: Path, objective: DupMAE, tokenizer: Any, held_out: HeldOut) -> BestCheckpoint:
    """Make what measures an objective on held-out text, and keeps the state that the setting `keep` calls the best.

    Args:
        output: Folder of the run.
        objective: What is trained.
        tokenizer: Its tokenizer.
        held_out: What to measure on.
    """

    def measure() -> dict[str, float]:
        with callable_parts(objective):
            return held_out.measure(objective)

    def save(folder: Path | None) -> None:
        weights = whole_weights(objective)
        if folder is not None:
            save_checkpoint(folder, objective, weights, tokenizer)

    def is_better(found: Measurement, best: Measurement | None) -> bool:
        return better(found, best, objective.settings)

    return BestCheckpoint(output, measure, is_better, save)


def better(found: Measurement, best: Measurement | None, settings: PretrainConfig) -> bool:
    """Tell whether a measurement beats the best so far, by the loss or by the probe (MRR of the sum, if there is one).

    What was measured before the first step never counts: keeping is about what training has made.
    """
    if settings.keep == "last" or not found["step"]:
        return False
    if best is None:
        return True
    if settings.keep == "loss":
        return bool(found["loss"] < best["loss"])
    name = next((name for name in ("mrr_both", "mrr_cls") if name in found), None)
    return name is not None and bool(found[name] > best[name])


def write_result(
    output: Path, best: BestCheckpoint, phase: str, record: dict[str, Any], store: Sequences, texts: int
) -> None:
    """Write `model/`, the best state or else the present one, with its record, its curves and its card.

    Every process has to call this; the first one writes.

    Args:
        output: Folder of the run.
        best: What has measured and kept.
        phase: The last phase.
        record: What `dupmae.json` says besides the settings, the kept step, its figures and the last losses.
        store: The text that it was trained on.
        texts: How many texts were measured on.
    """
    steps = read_metrics(output / METRICS_FILE)
    measurements = best.measurements()
    if best.kept is None:
        figures = measurements[-1] if measurements else {}
        best.keep(figures | {"phase": phase, "step": steps[-1]["step"] if steps else 0})
    if not is_first_process():
        return
    kept = dict(best.kept or {})
    places = {name: kept.pop(name) for name in ("phase", "step")}
    with atomic_folder(output / "model") as temporary:
        shutil.copytree(best.model, temporary, dirs_exist_ok=True)
        saved = json.loads((temporary / RECORD_FILE).read_text(encoding="utf-8"))
        full = saved | {"kept": places, "held_out": kept} | record | {"losses": last_losses(steps)}
        write_json(temporary / RECORD_FILE, full)
        if steps:
            curves = temporary / CURVES_FILE
            draw_curves(curves, "Pre-training", output / METRICS_FILE, best.file if measurements else None)
        write_card(temporary, full, store, texts, CURVES_FILE if steps else None)
        write_checksums(temporary)


def last_losses(steps: list[dict[str, Any]]) -> dict[str, float]:
    """Average the losses by name over the last steps of the last phase; empty if no step was taken."""
    last = [line for line in steps if line["phase"] == steps[-1]["phase"]][-LAST_STEPS:]
    names = [name for name in (*TERMS, "anchor", "loss") if last and name in last[0]]
    return {name: sum(line[name] for line in last) / len(last) for name in names}
