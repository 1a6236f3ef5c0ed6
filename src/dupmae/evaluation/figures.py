"""Figures of a report: systems side by side, and losses over the steps of a stage."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.errors import DupmaeError
from dupmae.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dupmae.evaluation.insight import Group

_TERMS = {
    "loss": ("total, as minimised", "black"),
    "mlm": ("masked words (Eq. 1)", "tab:blue"),
    "cls": ("[CLS] decoding (Eq. 5)", "tab:orange"),
    "bow": ("bag of words (Eq. 8)", "tab:green"),
    "anchor": ("1 - cosine to the start's vectors", "tab:gray"),
    "distil": ("distilled, both halves (Eq. 15)", "tab:purple"),
    "distil_cls": ("distilled, dense half alone, weighted", "tab:brown"),
    "distil_ot": ("distilled, vocabulary half alone, weighted", "tab:olive"),
    "contrastive": ("contrastive, both halves (Eq. 13, 14)", "tab:red"),
    "contrastive_cls": ("contrastive, dense half alone, weighted", "tab:orange"),
    "contrastive_ot": ("contrastive, vocabulary half alone, weighted", "tab:green"),
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


def draw_systems(path: Path, systems: Sequence[tuple[str, float | None, bool]]) -> None:
    """Draw NDCG@10 as one bar a system, in the given order from above.

    Args:
        path: PNG file.
        systems: Name, value (systems without one are left out), and whether it is quoted (drawn hatched).
    """
    _save(_systems(systems, "NDCG@10"), path)


def systems_figure(systems: Sequence[tuple[str, float | None, bool]], metric: str) -> str:
    """The same of any metric, as SVG."""
    return _svg(_systems(systems, metric))


def differences_figure(gains: Mapping[str, Sequence[float]], metric: str) -> str:
    """Differences of each query to a baseline as one line a system, the largest loss at the left, as SVG.

    Args:
        gains: System -> differences, rising.
        metric: Of what.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    for name, values in gains.items():
        axes.plot(
            [100 * (place + 0.5) / len(values) for place in range(len(values))], values, label=name, linewidth=1.3
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("share of the queries, %")
    axes.set_ylabel(f"difference in {metric}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def groups_figure(groups: Sequence[Group], metric: str) -> str:
    """Means of groups of queries, a cluster of bars a group, as SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    names = list(groups[0].means)
    for number, name in enumerate(names):
        places = [place + (number - (len(names) - 1) / 2) * 0.8 / len(names) for place in range(len(groups))]
        axes.bar(places, [group.means[name] for group in groups], 0.8 / len(names), label=name)
    axes.set_xticks(range(len(groups)), [f"{group.name}\n{group.queries} queries" for group in groups], fontsize=8)
    axes.set_ylabel(metric)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return _svg(figure)


def _systems(systems: Sequence[tuple[str, float | None, bool]], metric: str) -> Figure:
    """One bar a system."""
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
    axes.set_xlabel(metric)
    axes.spines[["top", "right"]].set_visible(False)
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


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
    axes.set_title(title)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if curves.terms:
        axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


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
            before = phases[row["phase"]] = (begins or {}).get(row["phase"], last)
        last = before + step
        for term, (steps, losses) in terms.items():
            value = row.get(term)
            if value is not None and math.isfinite(value):
                steps.append(last)
                losses.append(value)
    return Curves({term: curve for term, curve in terms.items() if curve[0]}, phases)


def _svg(figure: Figure) -> str:
    """An SVG, the same text for the same figure."""
    import io

    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "dupmae", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all, the same bytes for the same figure."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
