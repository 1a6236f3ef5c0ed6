"""The paper's tables for a model of one's own: trained by a recipe, measured, printed beside what the paper reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dupmae.config import Recipe
from dupmae.corpus import Benchmark
from dupmae.errors import DupmaeError
from dupmae.evaluation.benchmarks import DEFINITIONS, Definition, definition_of
from dupmae.evaluation.comparison import compare
from dupmae.evaluation.metrics import HEADINGS
from dupmae.evaluation.report import as_cell
from dupmae.evaluation.sources import find_benchmark, read_parts
from dupmae.experiments.paper import TABLES, VARIANTS, Column, Table
from dupmae.experiments.stages import FINETUNING, INDEX
from dupmae.experiments.variants import encoder_width, train_variants
from dupmae.files import atomic_write, write_json
from dupmae.models import open_model
from dupmae.retrievers.hybrid import has_dense_half
from dupmae.retrievers.systems import reuse_index

RECIPES = {"small": "reproduce-small.yaml", "full": "reproduce-full.yaml"}
"""Scales and their recipes."""
STAGES = {f"stage {number}": folder for number, folder in enumerate(FINETUNING, 1)}
"""Stages of fine-tuning and their folders in a run."""
CHUNK_TOKENS = {"full": 400, "small": 130}
"""Tokens of the chunks that documents are cut into, where the best chunk counts."""


@dataclass(slots=True, kw_only=True)
class Reproduced:
    """A table with our rows beside the paper's."""

    table: Table
    """The paper's."""
    columns: Sequence[Column]
    """Ours; at full scale the same."""
    rows: dict[str, dict[Column, float]] = field(default_factory=dict)
    """System -> column -> figure; what could not be measured is missing."""
    notes: list[str] = field(default_factory=list)
    """What is comparable, what could not be had."""


def reproduce(names: Sequence[str], recipe: Recipe, scale: str, output: Path, data: Path) -> list[Reproduced]:
    """Train what the tables need, measure it, and write `report.md`, `report.json` and a file a table.

    Args:
        names: Out of :data:`dupmae.experiments.paper.TABLES`.
        recipe: Trains the model that is measured; its output is replaced by `output / "run"`, where a finished run of
            the same recipe may have been put.
        scale: `full` measures on the paper's benchmarks, `small` on the recipe's own.
        output: Folder of everything; the same call goes on where it was interrupted.
        data: Where benchmarks that are known by name are kept.

    Raises:
        DupmaeError: The recipe cannot be run, or at full scale MS MARCO cannot be had.
    """
    open_model(recipe.base_model)  # before anything is fetched
    if not Path(recipe.data.benchmark).is_dir():
        _, folder = find_benchmark(recipe.data.benchmark, None, data)
        recipe = replace(recipe, data=replace(recipe.data, benchmark=str(folder)))
    recipe = replace(recipe, output=str(output / "run"))
    results = []
    place = Reproduction(recipe, scale, output, data)
    for name in names:
        result = _REPRODUCE[name](place)
        results.append(result)
        with atomic_write(output / f"{name}.md") as file:
            file.write(as_markdown(result) + "\n")
    with atomic_write(output / "report.md") as file:
        file.write("\n\n".join(["# The paper's tables", *map(as_markdown, results)]) + "\n")
    write_json(
        output / "report.json", {"scale": scale, "recipe": asdict(recipe), "tables": list(map(_record, results))}
    )
    return results


@dataclass(frozen=True)
class Reproduction:
    """A reproduction of tables: where, and with what."""

    recipe: Recipe
    scale: str
    output: Path
    data: Path

    def columns(self, table: Table) -> Sequence[Column]:
        """List the table's columns; at small scale its metrics on the recipe's own benchmark."""
        if self.scale == "full":
            return table.columns
        own = Path(self.recipe.data.benchmark).resolve().name
        return tuple(dict.fromkeys(Column(own, column.metric) for column in table.columns))

    @cached_property
    def stages(self) -> dict[str, str]:
        """Train the models of the recipe's run, by stage; trained unless they are there."""
        from dupmae.experiments.run import run_recipe

        folder = run_recipe(self.recipe)
        return {name: str(folder / place / "model") for name, place in list(STAGES.items())[: self.recipe.stages]}

    def measure(self, result: Reproduced, systems: Mapping[str, str], chunk_tokens: int = 0, suffix: str = "") -> None:
        """Add a row for each system (its name in the table -> a model)."""
        for benchmark in dict.fromkeys(column.benchmark for column in result.columns):
            own = Path(self.recipe.data.benchmark)
            is_own = self.scale == "small" and benchmark == own.resolve().name
            split = self.recipe.data.test_split if is_own else None
            definition, folder = find_benchmark(str(own) if is_own else benchmark, split, self.data)
            parts = read_parts(definition, folder, allow_unknown=self.recipe.data.allow_unknown)
            if folder.resolve() == own.resolve() and not chunk_tokens:
                self._reuse_indexes(definition, parts[0], systems)
            models = list(dict.fromkeys(systems.values()))
            chunks = (chunk_tokens, chunk_tokens // 2) if chunk_tokens else None
            found = compare(definition, parts, models, [], self.output / "encodings", chunks=chunks)
            measured = {system.name: system.metrics for system in found.systems}
            for name, model in systems.items():
                row = result.rows.setdefault(name + suffix, {})
                for column in result.columns:
                    if column.benchmark == benchmark:
                        row[column] = measured[model][column.metric]
            if found.note and found.note not in result.notes:
                result.notes.append(found.note)

    def _reuse_indexes(self, definition: Definition, corpus: Benchmark, systems: Mapping[str, str]) -> None:
        """Take over the indexes of the corpus that the recipe's run has made with models that are measured."""
        run = Path(self.recipe.output)
        for stage in STAGES.values():
            if str(run / stage / "model") in systems.values():
                index = run / stage / "evaluation" / "index"  # the last stage's is the run's own
                reuse_index(
                    index if index.is_dir() else run / INDEX, corpus, definition.lengths, self.output / "encodings"
                )


def _passages(place: Reproduction) -> Reproduced:
    """Reproduce table 1: the stages of fine-tuning on passages."""
    result = _begun(place, TABLES["table1"])
    place.measure(result, {"BM25": "bm25"} | _base_model(place.recipe) | _mixtures(place.recipe) | _ours(place.stages))
    return result


def _documents(place: Reproduction) -> Reproduced:
    """Reproduce table 2: documents by their first 512 tokens, and by their best chunk."""
    result = _begun(place, TABLES["table2"])
    last = list(_ours(place.stages).items())[-1:]
    systems = {"BM25": "bm25"} | dict(last)
    place.measure(result, systems, suffix=", from the beginning")
    place.measure(result, systems, CHUNK_TOKENS[place.scale], suffix=", best chunk")
    return result


def _zero_shot(place: Reproduction) -> Reproduced:
    """Reproduce table 3: every set of BEIR that can be had."""
    result = _begun(place, TABLES["table3"])
    own = Path(place.recipe.data.benchmark).resolve()
    columns, reasons, missing = [], [], []
    for column in result.table.columns:
        folder = place.data / (definition_of(column.benchmark, None).folder or column.benchmark)
        if place.scale == "full":
            try:
                find_benchmark(column.benchmark, None, place.data)
            except DupmaeError as error:
                reasons.append(str(error).replace("\n", " "))
                continue
        elif not folder.is_dir() and own.name != column.benchmark:
            missing.append(column.benchmark)
            continue
        columns.append(column)
    result.columns = columns
    last = list(_ours(place.stages).items())[-1:]
    place.measure(result, {"BM25": "bm25", "BM25, title and text apart": "bm25-fields"} | dict(last))
    trained_on = definition_of(own.name, None).title or own.name
    result.notes.append(f"Ours was trained on queries of {trained_on}: its figure there is not zero-shot.")
    if reasons:
        result.notes.append("Not measured: " + "; ".join(reasons) + ".")
    if missing:
        result.notes.append(f"Not measured, because the folder {place.data} has none of them: {', '.join(missing)}.")
    return result


def _ablation(place: Reproduction) -> Reproduced:
    """Reproduce table 4: what pre-training decodes, and how the representation is shared out."""
    result = _begun(place, TABLES["table4"])
    models = train_variants(place.recipe, place.output / "ablation", VARIANTS)
    place.measure(result, {f"ours: {name}": model for name, model in models.items()})
    width = encoder_width(place.recipe.base_model)
    shares = ", ".join(
        f"{name} is {round(variant.dense * width)}:{round(variant.terms * width)}" for name, variant in VARIANTS.items()
    )
    result.notes.append(f"Ours are the last state of stage 1, with an encoder {width} wide: {shares}.")
    return result


_REPRODUCE: dict[str, Callable[[Reproduction], Reproduced]] = {
    "table1": _passages,
    "table2": _documents,
    "table3": _zero_shot,
    "table4": _ablation,
}


def as_markdown(result: Reproduced) -> str:
    """Write a table as Markdown: the paper's rows, then ours; of many columns turned round."""
    table = result.table
    columns = list(result.columns)
    if not set(columns) <= set(table.columns):  # other data: the paper's figures stand under their own headings
        columns = [*table.columns, *columns]
    quoted = {f"{name} (paper)": dict(zip(table.columns, values, strict=True)) for name, values in table.rows.items()}
    rows = quoted | result.rows
    cells = [[""] + [_heading(column) for column in columns]]
    cells += [[as_cell(name), *(_figure(row.get(column)) for column in columns)] for name, row in rows.items()]
    if len(columns) > 6:
        cells = [list(column) for column in zip(*cells, strict=True)]
    rule = [":--"] + ["--:"] * (len(cells[0]) - 1)
    lines = [f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]]]
    notes = "".join(f"\n\n{note}" for note in result.notes)
    return f"## {table.name.replace('table', 'Table ')}: {table.title}\n\n" + "\n".join(lines) + notes


def _begun(place: Reproduction, table: Table) -> Reproduced:
    """Begin a table without rows that says what may be compared."""
    result = Reproduced(table=table, columns=place.columns(table))
    if place.scale == "small":
        result.notes.append(
            f"Our rows are measured at small scale: an encoder ({place.recipe.base_model}) and data "
            f"({Path(place.recipe.data.benchmark).name}) other than the paper's. No figure of ours is comparable with "
            "one of the paper's; the order of systems within ours is what there is to see."
        )
    return result


def _ours(stages: Mapping[str, str]) -> dict[str, str]:
    """Give the stages' models their names in the table."""
    return {f"ours, {name}": model for name, model in stages.items()}


def _base_model(recipe: Recipe) -> dict[str, str]:
    """Name the base model as it comes, where it is an embedder."""
    is_embedder = open_model(recipe.base_model).kind in ("dense", "sparse", "duplex")
    return {"the base model as it comes": recipe.base_model} if is_embedder else {}


def _mixtures(recipe: Recipe) -> dict[str, str]:
    """Name the mixtures of BM25 and the base model, where that is an embedder."""
    base_model = open_model(recipe.base_model)
    if base_model.kind not in ("dense", "duplex") or not has_dense_half(base_model):
        return {}
    forms = {"BM25 mixed with it, scaled scores": "hybrid", "BM25 mixed with it, reciprocal ranks": "hybrid-rrf"}
    return {name: f"{form}:{recipe.base_model}" for name, form in forms.items()}


def _heading(column: Column) -> str:
    """Name a column in a table."""
    definition = DEFINITIONS.get(column.benchmark) or definition_of(column.benchmark, None)
    return f"{definition.title or definition.name} {HEADINGS[column.metric]}"


def _figure(value: float | None) -> str:
    """Write a figure in the paper's manner."""
    return "" if value is None else f"{value:.3f}".removeprefix("0")


def _record(result: Reproduced) -> dict[str, Any]:
    """Turn a table into a JSON record."""
    rows = [
        {"system": name, "source": source, "figures": [asdict(column) | {"value": v} for column, v in row.items()]}
        for source, rows in (
            (
                "paper",
                {n: dict(zip(result.table.columns, v, strict=True)) for n, v in result.table.rows.items()},
            ),
            ("computed", result.rows),
        )
        for name, row in rows.items()
    ]
    return {"name": result.table.name, "title": result.table.title, "rows": rows, "notes": result.notes}
