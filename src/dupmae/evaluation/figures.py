"""Figures of a report: systems side by side, and losses over the steps of a stage."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.errors import DupmaeError
from dupmae.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TERMS = {
    "loss": ("total, as minimised", "black"),
    "mlm": ("masked words (Eq. 1)", "tab:blue"),
    "cls": ("[CLS] decoding (Eq. 5)", "tab:orange"),
    "bow": ("bag of words (Eq. 8)", "tab:green"),
    "contrastive": ("contrastive, both halves (Eq. 13)", "tab:red"),
    "contrastive_cls": ("contrastive, dense half alone, weighted", "tab:orange"),
    "contrastive_ot": ("contrastive, vocabulary half alone, weighted", "tab:green"),
}
"""Losses that are drawn, by their names in a metrics file: label and colour."""


@dataclass(frozen=True, slots=True)
class Curves:
    """The losses of one stage."""

    terms: dict[str, tuple[list[int], list[float]]]
    """Name of a loss -> steps and values; steps count on from one phase to the next."""
    phases: dict[str, int]
    """Name of a phase -> the step after which it begins, in order; empty where phases have no names."""


def draw_systems(path: Path, systems: Sequence[tuple[str, float | None, bool]]) -> None:
    """Draw NDCG@10 as one bar a system, in the given order from above.

    Args:
        path: PNG file.
        systems: Name, value (systems without one are left out), and whether it is quoted (drawn hatched).
    """
    from matplotlib.figure import Figure

    known = [(name, value, quoted) for name, value, quoted in systems if value is not None]
    figure = Figure(figsize=(7, 1.1 + 0.34 * len(known)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, value, quoted) in enumerate(known):
        if quoted:
            axes.barh(
                place, value, 0.7, label="quoted from the paper", color="white", edgecolor="tab:gray", hatch="///"
            )
        else:
            axes.barh(place, value, 0.7, label="computed here", color="tab:blue")
        axes.annotate(f"{value:.3f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(known)), [name for name, _, _ in known])
    axes.invert_yaxis()
    axes.set_xlim(0, max([1.12 * value for _, value, _ in known], default=1.0) or 1.0)
    axes.set_xlabel("NDCG@10")
    axes.spines[["top", "right"]].set_visible(False)
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    _save(figure, path)


def draw_curves(path: Path, title: str, metrics_file: Path) -> None:
    """Draw every known loss of a metrics file over the optimiser steps, with a dotted line where a phase begins.

    Args:
        path: PNG file.
        title: Above the axes.
        metrics_file: See :func:`read_curves`.

    Raises:
        DupmaeError: The file is missing or malformed.
    """
    from matplotlib.figure import Figure

    curves = read_curves(metrics_file)
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for term, (steps, losses) in curves.terms.items():
        label, colour = _TERMS[term]
        axes.plot(steps, losses, label=label, color=colour, linewidth=1.3, marker="o" if len(steps) == 1 else None)
    axes.set_ylim(bottom=0)
    if len(curves.phases) > 1:
        for phase, begin in curves.phases.items():
            axes.axvline(begin, color="tab:gray", linestyle=":", linewidth=1)
            axes.annotate(f" {phase}", (begin, 0.02), xycoords=("data", "axes fraction"), fontsize=8, color="dimgray")
    axes.set_title(title)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if curves.terms:
        axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def read_curves(metrics_file: Path) -> Curves:
    """Read the known losses of a metrics file.

    Args:
        metrics_file: JSON Lines: `step`, losses by name, and `phase` where a stage has several, each counting its own
            steps. Rows without a known loss (validation) and losses that are not finite are passed over, and so is a
            last line that a kill has cut short.

    Raises:
        DupmaeError: The file is missing, or a line is not a JSON object with a step.
    """
    if not metrics_file.is_file():
        raise DupmaeError(f"{metrics_file} does not exist: there are no losses to draw.")
    terms: dict[str, tuple[list[int], list[float]]] = {term: ([], []) for term in _TERMS}
    phases: dict[str, int] = {}
    before = last = 0
    lines = metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = row["step"]
        except (ValueError, KeyError, TypeError):
            if not line.endswith("\n"):
                break
            raise DupmaeError(f"{metrics_file}, line {number}: this is not a JSON object with a step.") from None
        if "phase" in row and row["phase"] not in phases:
            before = phases[row["phase"]] = last
        last = before + step
        for term, (steps, losses) in terms.items():
            value = row.get(term)
            if value is not None and math.isfinite(value):
                steps.append(last)
                losses.append(value)
    return Curves({term: curve for term, curve in terms.items() if curve[0]}, phases)


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all, the same bytes for the same figure."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
