"""Draw the figures of reports: systems side by side, query by query, and by groups of queries."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.runtime import curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dupmae.evaluation.insight import Group


def draw_systems(path: Path, systems: Sequence[tuple[str, float | None, bool]]) -> None:
    """Draw NDCG@10 as one bar a system, in the given order from above.

    Args:
        path: PNG file.
        systems: Name, value (systems without one are left out), and whether it is quoted (drawn hatched).
    """
    curves.save_figure(_draw_bars(systems, "NDCG@10"), path)


def systems_figure(systems: Sequence[tuple[str, float | None, bool]], metric: str) -> str:
    """Draw the same of any metric, as SVG."""
    return _svg(_draw_bars(systems, metric))


def differences_figure(gains: Mapping[str, Sequence[float]], metric: str) -> str:
    """Draw differences of each query to a baseline as one line a system, the largest loss at the left, as SVG.

    Args:
        gains: System -> differences, rising.
        metric: Of what.
    """
    figure, axes = _axes(3)
    for name, values in gains.items():
        shares = [100 * (place + 0.5) / len(values) for place in range(len(values))]
        axes.plot(shares, values, label=curves.plain(name), linewidth=1.3)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("share of the queries, %")
    axes.set_ylabel(f"difference in {metric}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def groups_figure(groups: Sequence[Group], metric: str) -> str:
    """Draw means of groups of queries, a cluster of bars a group, as SVG."""
    figure, axes = _axes(3)
    names = list(groups[0].means)
    for number, name in enumerate(names):
        places = [place + (number - (len(names) - 1) / 2) * 0.8 / len(names) for place in range(len(groups))]
        axes.bar(places, [group.means[name] for group in groups], 0.8 / len(names), label=curves.plain(name))
    titles = [f"{curves.plain(group.name)}\n{group.queries} queries" for group in groups]
    axes.set_xticks(range(len(groups)), titles, fontsize=8)
    axes.set_ylabel(metric)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return _svg(figure)


def _draw_bars(systems: Sequence[tuple[str, float | None, bool]], metric: str) -> Figure:
    """Draw one bar a system."""
    known = [(name, value, quoted) for name, value, quoted in systems if value is not None]
    figure, axes = _axes(1.1 + 0.34 * len(known))
    for place, (_, value, quoted) in enumerate(known):
        if quoted:
            axes.barh(
                place, value, 0.7, label="quoted from the paper", color="white", edgecolor="tab:gray", hatch="///"
            )
        else:
            axes.barh(place, value, 0.7, label="computed here", color="tab:blue")
        axes.annotate(f"{value:.3f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(known)), [curves.plain(name) for name, _, _ in known])
    axes.invert_yaxis()
    axes.set_xlim(0, max([1.12 * value for _, value, _ in known], default=1.0) or 1.0)
    axes.set_xlabel(metric)
    handles = {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    """Begin a figure of a height in inches: its axes, without a line above and at the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """Turn a figure into SVG, the same text for the same figure."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "dupmae", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
