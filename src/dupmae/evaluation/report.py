"""Write the report of a run: a table in the manner of the paper's, the same as JSON, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dupmae.evaluation.figures import draw_systems
from dupmae.evaluation.metrics import HEADINGS, METRICS
from dupmae.files import atomic_write, write_json
from dupmae.runtime.curves import draw_curves
from dupmae.runtime.terminal import printable


@dataclass(frozen=True, kw_only=True)
class System:
    """A row of the report."""

    name: str
    """As it stands in the table."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Values by the names of :data:`dupmae.evaluation.METRICS`; what is not known is left out."""
    quoted: bool = False
    """True for figures taken from the paper, False for figures computed here."""
    seconds: float | None = None
    """How long it took to compute, if measured."""
    notes: str = ""
    """A remark for the table."""


def write_report(
    folder: Path,
    title: str,
    systems: Sequence[System],
    *,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    curves: Mapping[str, Path] | None = None,
) -> None:
    """Write `report.md`, `report.json` and `figures/*.png` into a folder, replacing earlier ones.

    Args:
        folder: Created if need be.
        title: Heading.
        systems: Rows, in order.
        notes: Paragraphs below the table.
        settings: What the run was asked to do, shown as YAML.
        curves: Title of a stage -> its metrics file (JSON Lines with `step` and losses), one figure each, with the
            `held_out.jsonl` beside it if there is one.

    Raises:
        DupmaeError: A metrics file is missing or malformed.
    """
    settings = dict(settings or {})
    figures = {"Systems side by side": Path("figures") / "systems.png"}
    draw_systems(
        folder / "figures" / "systems.png", [(row.name, row.metrics.get("ndcg@10"), row.quoted) for row in systems]
    )
    for stage, metrics_file in (curves or {}).items():
        figure = Path("figures") / f"{stage.lower().replace(' ', '-')}.png"
        held_out = metrics_file.with_name("held_out.jsonl")
        draw_curves(folder / figure, stage, metrics_file, held_out if held_out.is_file() else None)
        figures[stage] = figure
    report = {
        "title": title,
        "systems": [_record(system) for system in systems],
        "notes": list(notes),
        "settings": settings,
        "figures": [figure.as_posix() for figure in figures.values()],
    }
    write_json(folder / "report.json", report)
    with atomic_write(folder / "report.md") as file:
        file.write(_markdown(title, systems, notes, settings, figures))


def _record(system: System) -> dict[str, Any]:
    """Turn a row into JSON; unknown metrics are null, an unmeasured time and an empty remark are left out."""
    record: dict[str, Any] = {"name": system.name}
    record |= {metric: system.metrics.get(metric) for metric in METRICS}
    record["quoted"] = system.quoted
    if system.seconds is not None:
        record["seconds"] = round(system.seconds, 1)
    if system.notes:
        record["notes"] = system.notes
    return record


def _markdown(
    title: str,
    systems: Sequence[System],
    notes: Sequence[str],
    settings: Mapping[str, Any],
    figures: Mapping[str, Path],
) -> str:
    """Format the report as Markdown."""
    parts = [f"# {as_cell(title)}", _table(systems), *notes]
    parts += [f"![{caption}]({path.as_posix()})" for caption, path in figures.items()]
    if settings:
        dump = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=120).strip()
        parts += ["## Settings", f"```yaml\n{dump}\n```"]
    return "\n\n".join(parts) + "\n"


def as_cell(text: str) -> str:
    """Write a name or a remark for Markdown, so that it ends no cell and no line and begins no HTML."""
    line = " ".join(printable(text).split())
    return line.replace("|", "\\|").replace("<", "&lt;")


def _table(systems: Sequence[System]) -> str:
    """Format one row a system, the best computed value of each column in bold; columns nobody fills are left out."""
    best = {
        metric: max((row.metrics[metric] for row in systems if not row.quoted and metric in row.metrics), default=None)
        for metric in METRICS
    }
    timed, remarked = any(row.seconds is not None for row in systems), any(row.notes for row in systems)
    headings = ["System", *(HEADINGS[metric] for metric in METRICS), "Source"]
    headings += ["Seconds"] * timed + ["Remarks"] * remarked
    lines = [headings, [":--", *["--:"] * len(METRICS), ":--", *["--:"] * timed, *[":--"] * remarked]]
    for row in systems:
        cells = [as_cell(row.name)]
        for metric in METRICS:
            value = row.metrics.get(metric)
            text = "—" if value is None else f"{value:.3f}"
            cells.append(f"**{text}**" if value is not None and value == best[metric] and not row.quoted else text)
        cells.append("quoted from the paper" if row.quoted else "computed")
        cells += ["—" if row.seconds is None else f"{row.seconds:,.0f}"] * timed + [as_cell(row.notes)] * remarked
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
