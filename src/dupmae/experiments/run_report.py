"""The report of a recipe's run: all systems, what each stage gained, and what the tables do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import ttest_rel

from dupmae.config import Baseline, Recipe
from dupmae.corpus import read_run
from dupmae.evaluation import System, evaluate_run, per_query, write_report
from dupmae.evaluation.benchmarks import definition_of
from dupmae.experiments.paper import ZERO_SHOT, Column
from dupmae.experiments.run_folder import RunFolder
from dupmae.experiments.splits import Splits
from dupmae.experiments.stages import (
    BASELINES,
    EVALUATION,
    FINETUNE,
    FINETUNING,
    HARD_NEGATIVES,
    INDEX,
    PRETRAIN,
    STORE,
    TEACHER,
)
from dupmae.files import write_json
from dupmae.retrievers.hybrid import FORMS

QUOTED = ("scifact", "nfcorpus")
"""Benchmarks, by the name of their folder, beside whose systems stands what the paper reports of them."""
GAINS_FILE = "gains.json"
"""What each stage gained, in the run's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A stage's effectiveness (NDCG@10), and how far it is from that of the stage before."""

    stage: str
    """Name of the stage."""
    test: float
    """On the test queries."""
    dev: float | None = None
    """On the held-out queries, if they were ranked."""
    gain: float | None = None
    """On the test queries, over the stage before; None for the first."""
    p: float | None = None
    """How often chance alone makes such a difference or a larger one: a two-sided, paired t-test over the queries."""


def report(recipe: Recipe, splits: Splits, stages: RunFolder, pretrained: bool, baselines: Sequence[Baseline]) -> None:
    """Write `report.md`, `report.json`, `gains.json` and `figures/`, every system measured on its saved ranking.

    Args:
        recipe: What was run.
        splits: Its queries.
        stages: Its folder.
        pretrained: Whether it had a stage of pre-training.
        baselines: What it is compared with.
    """
    folder, test = stages.root, splits.test
    evaluated = {"stage-1": f"{FINETUNE}/evaluation", "stage-2": f"{HARD_NEGATIVES}/evaluation"}
    earlier = dict(list(evaluated.items())[: recipe.stages - 1])
    compared: dict[str, str] = {}
    for baseline in baselines:
        if baseline == "hybrid":
            compared |= {str(form): f"{BASELINES}/hybrid/{form}" for form in FORMS}
        else:
            compared[baseline] = f"{BASELINES}/{baseline}"
    rankings = {
        **compared,
        **earlier,
        **{name: f"{EVALUATION}/{name}" for name in stages.metrics(EVALUATION) if name != "dev"},
    }
    relevant_from = definition_of(test.name, test.split).relevant_from
    systems = [
        System(
            name=name,
            metrics=evaluate_run(read_run(folder / place / "run.trec"), test.qrels, relevant_from=relevant_from),
        )
        for name, place in rankings.items()
    ]
    column = Column(Path(recipe.data.benchmark).name, "ndcg@10")
    if column.benchmark in QUOTED:
        place = ZERO_SHOT.columns.index(column)
        systems += [
            System(name=f"{name} (paper)", metrics={column.metric: figures[place]}, quoted=True)
            for name, figures in ZERO_SHOT.rows.items()
        ]
    gains = stage_gains(
        {
            name: folder / place
            for name, place in (
                *([("base-model", rankings["base-model"])] if "base-model" in baselines else []),
                *earlier.items(),
                (f"stage-{recipe.stages}", rankings["duplex"]),
            )
        },
        splits,
    )
    write_json(folder / GAINS_FILE, [asdict(gain) for gain in gains])
    trained = dict(zip(("Fine-tuning", "Hard negatives", "Distillation"), FINETUNING, strict=True))
    curves = ({"Pre-training": PRETRAIN} if recipe.pretrain.all_steps else {}) | dict(
        list(trained.items())[: recipe.stages]
    )
    others = {name: folder / place for name, place in compared.items() if name != "finetuned-without-pretraining"}
    further = _notes(recipe, splits, stages, pretrained)
    write_report(
        folder,
        f"{recipe.name or stages.folder.name}: {test.name} {test.split}",
        systems,
        notes=[*against_best(others, folder / rankings["duplex"], splits), gains_table(gains), *further],
        settings=asdict(recipe),
        curves={title: folder / place / "metrics.jsonl" for title, place in curves.items()},
    )


def against_best(baselines: dict[str, Path], result: Path, splits: Splits) -> list[str]:
    """Say in a sentence how far the result is from the best of what people would take instead; none without baselines.

    Args:
        baselines: Name -> folder of its ranking of the test queries, `run.trec`.
        result: The last model's.
        splits: The judgements.
    """
    if not baselines:
        return []
    values = {
        name: per_query(read_run(folder / "run.trec"), splits.test.qrels, "ndcg@10")
        for name, folder in {**baselines, "": result}.items()
    }
    own = values.pop("")
    means = {name: float(np.mean(list(found.values()))) for name, found in values.items()}
    best = max(means, key=lambda name: means[name])
    mean, other = float(np.mean(list(own.values()))), values[best]
    better, worse = (sum(sign * own[query] > sign * other[query] for query in other) for sign in (1, -1))
    p = _p_value(own, other)
    chance = "" if p is None else f", p = {p:.3f} (paired t-test)"
    among = f"the best of {', '.join(means)}: {best}" if len(means) > 1 else best
    return [
        f"Against {among}. On the test queries duplex has NDCG@10 {mean:.3f}, {best} {means[best]:.3f}: "
        f"{mean - means[best]:+.3f}, better in {better:,} queries and worse in {worse:,}{chance}."
    ]


def stage_gains(rankings: dict[str, Path], splits: Splits) -> list[Gain]:
    """Compare each stage with the one before it.

    Args:
        rankings: Name of a stage -> folder of its rankings, `run.trec` of the test queries and `dev.trec` of the
            held-out ones, if there are any; in the order of the stages.
        splits: The judgements.
    """
    gains: list[Gain] = []
    before: dict[str, float] | None = None
    for name, folder in rankings.items():
        values = per_query(read_run(folder / "run.trec"), splits.test.qrels, "ndcg@10")
        mean = float(np.mean(list(values.values())))
        dev_file = folder / "dev.trec"
        dev = evaluate_run(read_run(dev_file), splits.dev.qrels)["ndcg@10"] if dev_file.is_file() else None
        if before is None:
            gains.append(Gain(stage=name, test=mean, dev=dev))
        else:
            gains.append(Gain(stage=name, test=mean, dev=dev, gain=mean - gains[-1].test, p=_p_value(values, before)))
        before = values
    return gains


def gains_table(gains: list[Gain]) -> str:
    """Write the stages as a table in Markdown."""
    lines = ["| Stage | held-out NDCG@10 | test NDCG@10 | gain | p |", "| :-- | --: | --: | --: | --: |"]
    for row in gains:
        dev, gain, p = (
            "—" if value is None else format(value, form)
            for value, form in ((row.dev, ".3f"), (row.gain, "+.3f"), (row.p, ".3f"))
        )
        lines.append(f"| {row.stage} | {dev} | {row.test:.3f} | {gain} | {p} |")
    about = "The stages one by one; p is how often chance alone would change as much (paired t-test, test queries):"
    return "\n".join([about, "", *lines])


def _p_value(values: dict[str, float], before: dict[str, float]) -> float | None:
    """Compute p of a paired, two-sided t-test; 1 where no query differs, None for a single query."""
    differences = np.array([values[query] - before[query] for query in before])
    if not differences.any():
        return 1.0
    if len(differences) < 2:
        return None
    return float(ttest_rel([values[query] for query in before], list(before.values())).pvalue)


def _notes(recipe: Recipe, splits: Splits, stages: RunFolder, pretrained: bool) -> list[str]:
    """Say what the tables do not: data, lengths, held-out figures, time."""
    index, dev, seconds = stages.metrics(INDEX), stages.metrics(EVALUATION)["dev"], stages.seconds
    spent = ", ".join(f"{name} {took:,.0f} s" for name, took in seconds.items())
    pairs = sum(grade > 0 for judged in splits.train.qrels.values() for grade in judged.values())
    notes = [
        f"{len(splits.test.corpus):,} passages; trained on {pairs:,} pairs of {len(splits.train.queries):,} queries; "
        f"{len(splits.dev.queries):,} queries held out; {len(splits.test.queries):,} test queries, only "
        f"reported. Seed {recipe.seed}.",
        f"For search {index['passages_cut']:,} of {index['passages']:,} passages were cut at "
        f"{index['tokens_read']} tokens.",
        f"Time: {spent}; {sum(seconds.values()) / 60:.1f} minutes in all.",
    ]
    if pretrained:
        store = stages.metrics(STORE)
        notes.insert(
            1,
            f"For pre-training {store['texts_cut']:,} passages were cut into chunks, {store['chunks']:,} in all; "
            f"{store['chunks_dropped']:,} were too short and dropped.",
        )
    if dev:
        notes.insert(
            -1,
            f"On the held-out queries: NDCG@10 {dev['ndcg@10']:.3f}, MRR@10 {dev['mrr@10']:.3f}, "
            f"R@100 {dev['recall@100']:.3f}.",
        )
    if recipe.stages == 3 and (examined := stages.metrics(TEACHER)):
        own, student = (examined[name]["ndcg@10"] for name in ("teacher", "student"))
        notes.insert(
            -1,
            f"Of what stage 2 finds for the held-out queries the teacher ranks the best {recipe.mining.last} passages "
            f"anew: NDCG@10 {own:.3f}, by stage 2 itself {student:.3f}.",
        )
    return notes
