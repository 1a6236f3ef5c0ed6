"""Curves of a training run: losses, learning rates and held-out figures over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.errors import DupmaeError
from dupmae.files import atomic_write
from dupmae.runtime.json_text import parse_json
from dupmae.runtime.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES_FILE = "curves.png"
"""Losses and held-out figures over the steps, in the final checkpoint."""


_TERMS = {
    "loss": ("total, as minimised", "black"),
    "mlm": ("masked words (Eq. 1)", "tab:blue"),
    "cls": ("[CLS] decoding (Eq. 5)", "tab:orange"),
    "bow": ("bag of words (Eq. 8)", "tab:green"),
    "anchor": ("1 - cosine to the anchor's vectors", "tab:gray"),
    "distil": ("distilled, both halves (Eq. 15)", "tab:purple"),
    "distil_cls": ("distilled, dense half alone, weighted", "tab:brown"),
    "distil_ot": ("distilled, lexical half alone, weighted", "tab:olive"),
    "contrastive": ("contrastive, both halves (Eq. 13, 14)", "tab:red"),
    "contrastive_cls": ("contrastive, dense half alone, weighted", "tab:orange"),
    "contrastive_ot": ("contrastive, lexical half alone, weighted", "tab:green"),
}
"""Losses that are drawn, by their names in a metrics file: label and colour."""


_SHARES = {
    "mrr_both": ("probe, both (MRR@10)", "black"),
    "mrr_cls": ("probe, [CLS] (MRR@10)", "tab:orange"),
    "mrr_ot": ("probe, OT (MRR@10)", "tab:green"),
    "mlm_accuracy": ("masked words, accuracy", "tab:blue"),
    "cls_accuracy": ("[CLS] decoding, accuracy", "tab:orange"),
    "bow_recall": ("bag of words, recall", "tab:green"),
    "ndcg@10": ("held-out queries, NDCG@10", "black"),
    "mrr@10": ("held-out queries, MRR@10", "tab:blue"),
    "recall@100": ("held-out queries, R@100", "tab:gray"),
}
"""Figures between 0 and 1 that are measured on held-out text: label and colour; what is counted in tokens is drawn
dashed."""


@dataclass(frozen=True, slots=True)
class Curves:
    """The losses of one stage, and shares that were measured beside them."""

    terms: dict[str, tuple[list[int], list[float]]]
    """Name of a loss or share -> steps and values; steps count on from one phase to the next."""
    phases: dict[str, int]
    """Name of a phase -> the step after which it begins, in order; empty where phases have no names."""


def plain(name: str) -> str:
    """Write a name so that a figure shows it as it is: not as a formula, not hidden from the legend, not endless."""
    text = " ".join(printable(name[:80]).split()).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def draw_curves(path: Path, title: str, metrics_file: Path, held_out_file: Path | None = None) -> None:
    """Draw every known loss of a metrics file over the optimiser steps, with a dotted line where a phase begins.

    Args:
        path: PNG file.
        title: Above the axes.
        metrics_file: See :func:`read_curves`.
        held_out_file: What was measured on held-out text meanwhile, in the same form: losses are drawn as dots on
            dashed lines, accuracies and probe below.

    Raises:
        DupmaeError: A file is missing or malformed.
    """
    from matplotlib.figure import Figure

    curves = read_curves(metrics_file)
    held_out = None if held_out_file is None else read_curves(held_out_file, curves.phases)
    figure = Figure(figsize=(7, 3.4 if held_out is None else 6.4), layout="constrained")
    axes = figure.add_subplot(1 if held_out is None else 2, 1, 1)
    for term, (steps, losses) in curves.terms.items():
        if term in _TERMS:
            label, colour = _TERMS[term]
            axes.plot(steps, losses, label=label, color=colour, linewidth=1.3, marker="o" if len(steps) == 1 else None)
    if held_out is not None:
        shares = figure.add_subplot(2, 1, 2, sharex=axes)
        for term, (steps, values) in held_out.terms.items():
            if term in _TERMS:
                axes.plot(steps, values, color=_TERMS[term][1], linewidth=0.8, linestyle="--", marker=".")
            else:
                label, colour = _SHARES[term]
                line = "--" if term.endswith(("accuracy", "recall")) else "-"
                shares.plot(steps, values, label=label, color=colour, linewidth=1.3, linestyle=line, marker=".")
        if held_out.terms.keys() & _TERMS.keys():
            same = "the same on held-out text"
            axes.plot([], [], color="dimgray", linewidth=0.8, linestyle="--", marker=".", label=same)
        shares.set_ylim(0, 1)
        shares.set_xlabel("optimiser step")
        shares.set_ylabel("on held-out text")
        shares.grid(alpha=0.3)
        shares.spines[["top", "right"]].set_visible(False)
        if held_out.terms.keys() & _SHARES.keys():
            shares.legend(frameon=False, fontsize=9, ncols=2)
    axes.set_ylim(bottom=0)
    if len(curves.phases) > 1:
        for phase, begin in curves.phases.items():
            axes.axvline(begin, color="tab:gray", linestyle=":", linewidth=1)
            axes.annotate(f" {phase}", (begin, 0.02), xycoords=("data", "axes fraction"), fontsize=8, color="dimgray")
    axes.set_title(plain(title))
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if curves.terms:
        axes.legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def read_curves(metrics_file: Path, begins: Mapping[str, int] | None = None) -> Curves:
    """Read the known losses and shares of a metrics file.

    Args:
        metrics_file: JSON Lines: `step`, losses by name, and `phase` where a stage has several, each counting its own
            steps. Rows without a known name (validation) and values that are not finite are passed over, and so is a
            last line that a kill has cut short.
        begins: The step after which each phase begins, where another file says so; by default a phase begins after the
            last step of the one before.

    Raises:
        DupmaeError: The file is missing, or a line is not a JSON object with a step.
    """
    if not metrics_file.is_file():
        raise DupmaeError(f"{metrics_file} does not exist: there are no losses to draw.")
    terms: dict[str, tuple[list[int], list[float]]] = {term: ([], []) for term in (*_TERMS, *_SHARES)}
    phases: dict[str, int] = {}
    before = last = 0
    lines = metrics_file.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
            step, phase = int(row["step"]), str(row.get("phase", ""))
            values = {term: float(row[term]) for term in terms if row.get(term) is not None}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            if not line.endswith(b"\n"):
                break
            raise DupmaeError(
                f"{metrics_file}, line {number}: this is not a JSON object with a step and numbers."
            ) from None
        if phase and phase not in phases:
            before = phases[phase] = (begins or {}).get(phase, last)
        last = before + step
        for term, value in values.items():
            if math.isfinite(value):
                terms[term][0].append(last)
                terms[term][1].append(value)
    return Curves({term: curve for term, curve in terms.items() if curve[0]}, phases)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all, the same bytes for the same figure."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
