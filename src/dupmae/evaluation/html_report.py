"""Write comparisons as one HTML file that needs no network: tables, figures, and the queries in which they differ."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from dupmae.evaluation.comparison import Comparison, Measured, overview, whole
from dupmae.evaluation.figures import differences_figure, groups_figure, systems_figure
from dupmae.evaluation.insight import Case, by_length, by_overlap, largest_differences
from dupmae.evaluation.metrics import HEADINGS
from dupmae.evaluation.significance import compare_with_baseline
from dupmae.files import atomic_write
from dupmae.retrievers.systems import HALVES, name_of_half

TEMPLATE = "report.html.jinja"
CASES = 5
"""Queries that are shown of each kind."""


def write_html(path: Path, title: str, comparisons: Sequence[Comparison]) -> None:
    """Write the report.

    Args:
        path: The file.
        title: Heading.
        comparisons: A benchmark each; the first system is the baseline that the others are compared with.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string(
        resources.files("dupmae.evaluation").joinpath(TEMPLATE).read_text(encoding="utf-8")
    )
    names = list(dict.fromkeys(system.name for comparison in comparisons for system in comparison.systems))
    page = template.render(
        title=title,
        names=names,
        overview=list(overview(comparisons, names)) if len(comparisons) > 1 else [],
        sections=[_section(comparison) for comparison in comparisons],
    )
    with atomic_write(path) as file:
        file.write(page)


def _section(comparison: Comparison) -> dict[str, Any]:
    """Collect what the template shows of a benchmark."""
    definition, systems, metric = comparison.definition, comparison.systems, comparison.definition.metric
    heading = HEADINGS[metric]
    baseline, rest = systems[0], systems[1:]
    differences = compare_with_baseline(baseline.values[metric], {row.name: row.values[metric] for row in rest})
    groups = [("By length of the query", by_length(comparison, metric))]
    if comparison.parts[0].corpus:
        groups.append(("By how many of the query's words its answer has", by_overlap(comparison, metric)))
    groups = [(title, found) for title, found in groups if found]
    figures = [
        (
            f"{heading} of every system",
            systems_figure([(row.name, row.metrics[metric], False) for row in systems], heading),
        )
    ]
    if rest:
        gains = {
            row.name: sorted(row.values[metric][query] - value for query, value in baseline.values[metric].items())
            for row in rest
        }
        figures.append((f"{heading} less that of {baseline.name}, query by query", differences_figure(gains, heading)))
    figures += [(title, groups_figure(found, heading)) for title, found in groups]
    passages = sum(len(part.corpus) for part in comparison.parts)
    return {
        "heading": f"{definition.title or definition.name} {definition.split}",
        "summary": f"{comparison.queries:,} queries" + (f", {passages:,} passages." if passages else "."),
        "note": comparison.note,
        "headings": [
            "system",
            *(HEADINGS[metric] for metric in baseline.metrics),
            "passages/s",
            "bytes/passage",
            "ms/query",
        ],
        "rows": _rows(systems),
        "figures": [(caption, _inline(figure)) for caption, figure in figures],
        "baseline": baseline.name,
        "metric": heading,
        "differences": differences,
        "names": [system.name for system in systems],
        "groups": groups,
        "cases": list(_cases(comparison, metric)),
    }


def _rows(systems: Sequence[Measured]) -> list[list[tuple[str, bool]]]:
    """Format the cells of the table, each with whether it is the best of its column."""
    best = {metric: max(system.metrics[metric] for system in systems) for metric in systems[0].metrics}
    return [
        [
            (system.name, False),
            *((f"{system.metrics[metric]:.4f}", system.metrics[metric] == best[metric]) for metric in best),
            (whole(system.passages_per_second), False),
            (whole(system.bytes_per_passage), False),
            ("" if system.query_ms is None else f"{system.query_ms:.1f}", False),
        ]
        for system in systems
    ]


def _cases(comparison: Comparison, metric: str) -> Iterator[tuple[str, list[Case], str, str]]:
    """List wins of both sides, of each system against the baseline and of a model's halves against each other."""
    systems = {system.name: system for system in comparison.systems}
    baseline, *rest = systems
    pairs = [(baseline, name) for name in rest]
    halves = [[name_of_half(name, half) for half in HALVES] for name in systems]
    pairs += [(dense, lexical) for dense, lexical in halves if {dense, lexical} <= systems.keys()]
    for first, second in pairs:
        ahead, behind = largest_differences(comparison, metric, systems[first], systems[second], CASES)
        if ahead:
            yield f"Where {first} is ahead of {second}", ahead, first, second
        if behind:
            yield f"Where {second} is ahead of {first}", behind, first, second


def _inline(figure: str) -> str:
    """Turn an SVG into an address that holds it."""
    return "data:image/svg+xml;base64," + base64.b64encode(figure.encode()).decode()
