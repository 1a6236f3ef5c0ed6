"""Figures of a report: systems side by side, and losses over the steps of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.runtime import curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dupmae.evaluation.insight import Group


def draw_systems(path: Path, systems: Sequence[tuple[str, float | None, bool]]) -> None:
    """Draw NDCG@10 as one bar a system, in the given order from above.

    Args:
        path: PNG file.
        systems: Name, value (systems without one are left out), and whether it is quoted (drawn hatched).
    """
    curves.save_figure(_systems(systems, "NDCG@10"), path)


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


def _svg(figure: Figure) -> str:
    """An SVG, the same text for the same figure."""
    import io

    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "dupmae", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
