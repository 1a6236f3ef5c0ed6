"""A recipe run end to end: text in; a retriever, its index and a report out.

The run folder reads in the order of the paper. Its first seven stages are those of :mod:`dupmae.experiments.stages`;
then come:

| folder | what |
|---|---|
| `index` | what `dupmae search` opens |
| `8-evaluation` | rankings of the test queries by the last model, as TREC runs |
| `9-baselines` | BM25, the base model as it comes, mixtures of both, stage 1 without pre-training |
| `report.md`, `report.json`, `gains.json`, `figures/` | the result |

A stage whose model is not the last has a folder `evaluation` with its index and its rankings.

A base model that is a duplex model keeps its representation. Without steps of pre-training such a run begins with
stage 1.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dupmae.config import Baseline, Recipe, decisive
from dupmae.corpus import Run, read_run, write_run
from dupmae.errors import DupmaeError
from dupmae.evaluation import evaluate_run
from dupmae.evaluation.benchmarks import definition_of
from dupmae.evaluation.comparison import apply_protocol
from dupmae.experiments.checks import refuse_disagreement, refuse_few_pairs, refuse_impossible
from dupmae.experiments.run_folder import RunFolder, Stage
from dupmae.experiments.run_report import report
from dupmae.experiments.splits import read_data
from dupmae.experiments.stages import (
    BASELINES,
    EVALUATION,
    FINETUNE,
    HARD_NEGATIVES,
    INDEX,
    PRETRAIN,
    STORE,
    TEACHER,
    Training,
    build_index,
    identity_of,
    parts_of,
)
from dupmae.models import Model, open_model
from dupmae.retrievers import bm25_run, dense_run, duplex_run, hybrid_run
from dupmae.retrievers.hybrid import CANDIDATES, FORMS, has_dense_half

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex

logger = logging.getLogger(__name__)

DEPTH = 100
"""Passages ranked of each query."""


def run_recipe(recipe: Recipe, *, dry_run: bool = False) -> Path:
    """Run every stage of a recipe that is not done yet, or that was done with other settings.

    Args:
        recipe: The experiment; its `seed` replaces the stages' own.
        dry_run: Print what is done and what would be done, and do nothing.

    Returns:
        The run folder, with `report.md`, `report.json` and `index/`.

    Raises:
        DupmaeError: The recipe names no output or benchmark, its output folder holds a run of another base model or
            other data, or a stage refuses its input.

    Examples:
        >>> from dupmae import DataConfig, FinetuneConfig, PretrainConfig, Recipe, run_recipe
        >>> from dupmae.corpus import Passage, write_benchmark
        >>> answers = {f"q{number}": {f"p{number}": 1} for number in range(8)}
        >>> judged = {"train": dict(list(answers.items())[:6]), "test": dict(list(answers.items())[6:])}
        >>> passages = [Passage(f"p{number}", "", f"the text of passage {number}") for number in range(8)]
        >>> count = write_benchmark("toy", passages, {query: f"{query}?" for query in answers}, judged)
        >>> recipe = Recipe(
        ...     base_model="dupmae-small",
        ...     output="run",
        ...     data=DataConfig(benchmark="toy", dev_fraction=0),
        ...     pretrain=PretrainConfig(new_layers_steps=0, steps=0),
        ...     finetune=FinetuneConfig(batch_size=2),
        ...     baselines=["bm25"],
        ... )
        >>> folder = run_recipe(recipe, dry_run=True)  # False runs it
        Dry run of run...
        ...3-finetune...to do...not done yet...
    """
    return _checked(recipe).run(dry_run=dry_run)


def pretrain_recipe(recipe: Recipe) -> Path:
    """Run a recipe's first two stages, the token store and pre-training, unless they are done.

    Returns:
        The run folder, in which :func:`run_recipe` goes on.

    Raises:
        DupmaeError: As :func:`run_recipe`.
    """
    run = _checked(recipe)
    first = [stage for stage in run.training_stages() if stage.name in (STORE, PRETRAIN)]
    run.stages.carry_out(first, asdict(run.config))
    return run.stages.folder


def _checked(recipe: Recipe) -> RecipeRun:
    """Refuse what would fail later, or run for nothing; else read what the run is made from."""
    if not recipe.output:
        raise DupmaeError("the recipe names no output folder: set output")
    if not recipe.data.benchmark:
        raise DupmaeError("the recipe names no benchmark: set data.benchmark to a folder in BEIR layout")
    base_model = open_model(recipe.base_model, option="base_model")
    refuse_disagreement(base_model, recipe.pretrain, recipe.duplex)
    refuse_impossible(recipe)
    if recipe.stages == 3 and not recipe.teacher.epochs:
        if recipe.teacher_model is None:
            raise DupmaeError("teacher.epochs is 0, so the teacher must be a ready one: name it in teacher_model")
        from dupmae.finetuning.teacher import refuse_no_teacher

        refuse_no_teacher(open_model(recipe.teacher_model, option="teacher_model"))
    return RecipeRun(recipe, base_model)


class RecipeRun(Training):
    """One recipe's run: its stages, and what they have in common."""

    def __init__(self, recipe: Recipe, base_model: Model) -> None:
        super().__init__(recipe, base_model)
        self.config: Recipe = replace(self.config, teacher=replace(recipe.teacher, seed=recipe.seed))
        self.teacher_model = (
            None if recipe.teacher_model is None else open_model(recipe.teacher_model, option="teacher_model")
        )
        self.splits = read_data(recipe.data, recipe.seed)
        self.train, self.dev, self.test = self.splits.train, self.splits.dev, self.splits.test
        self.text = self.test.corpus
        refuse_few_pairs(self.train, self.config)
        self.rules = definition_of(self.test.name, recipe.data.test_split)
        self.depth = DEPTH + self.rules.drop_self
        self._embedded: Run | None = None
        identity = identity_of(base_model, [self.text.values()], [self.train, self.dev, self.test])
        self.stages = RunFolder(Path(recipe.output), identity, [recipe.seed, base_model.fingerprint])

    def all_stages(self) -> list[Stage]:
        """List the stages of training, the index, and what is measured."""
        measured = [
            Stage(name=INDEX, title="Index the corpus", work=self._index, after=[self.last]),
            Stage(name=EVALUATION, title="Search the test queries", work=self._evaluate, after=[INDEX]),
        ]
        compared = {
            "bm25": Stage(name=f"{BASELINES}/bm25", title="Baseline: BM25", work=self._rank_by_bm25),
            "base-model": Stage(
                name=f"{BASELINES}/base-model",
                title=f"Baseline: {self.config.base_model} as it comes",
                work=self._rank_by_base_model,
            ),
            "hybrid": Stage(
                name=f"{BASELINES}/hybrid",
                title=f"Baseline: BM25 mixed with {self.config.base_model}",
                work=self._rank_by_mixtures,
            ),
            "finetuned-without-pretraining": Stage(
                name=f"{BASELINES}/finetuned-without-pretraining",
                title="Baseline: the same fine-tuning without pre-training",
                work=self._rank_without_pretraining,
                settings=self.finetune_settings(),
            ),
        }
        return [*self.training_stages(), *measured, *(compared[name] for name in self.baselines)]

    @property
    def baselines(self) -> Sequence[Baseline]:
        """Those that are asked for, in the report's order, as far as this run has them."""
        asked = [name for name in get_args(Baseline) if name in self.config.baselines]
        has = {"finetuned-without-pretraining": self.pretrains, "hybrid": has_dense_half(self.base_model)}
        return [name for name in asked if has.get(name, True)]

    @property
    def _deep(self) -> int:
        """How many passages BM25 and the base model rank of a query: what mixtures need, if they are asked for."""
        return (CANDIDATES if "hybrid" in self.baselines else DEPTH) + self.rules.drop_self

    @cached_property
    def _by_bm25(self) -> Run:
        return bm25_run(self.test, self._deep)

    def evaluation(self, stage: str) -> list[Stage]:
        """Rank with the model of a stage that is not the last."""
        name, number = f"{stage}/evaluation", 1 if stage == FINETUNE else 2

        def search(root: Path) -> dict[str, Any]:
            index = build_index(root / stage / "model", self.text.values(), root / name / "index")
            ranked = duplex_run(index, self.test, self.depth)
            return {"dev": self._rank_dev(index, root / name), "test": self._save(root / name, ranked)}

        return [Stage(name=name, title=f"Search with stage {number}'s model", work=search, after=[stage])]

    def mining_index(self, root: Path) -> DuplexIndex:
        """Open the index that stage 1's model has ranked with."""
        from dupmae.index import DuplexIndex

        return DuplexIndex.open(root / FINETUNE / "evaluation" / "index")

    def teacher_settings(self) -> dict[str, Any]:
        """Say what the teacher is trained from, and how."""
        found = None if self.teacher_model is None else self.teacher_model.fingerprint
        return {"teacher": decisive(self.config.teacher), "teacher_model's fingerprint": found}

    def teach(self, root: Path) -> dict[str, Any]:
        """Train the teacher unless it is a ready one, score the lists, and let it rank the held-out queries."""
        from dupmae.finetuning.teacher import score_lists, train_teacher

        lists, folder = self.mined_lists(root), root / TEACHER
        pretrained = str(root / PRETRAIN / "model") if self.pretrains else self.base_model.path
        teacher = pretrained if self.teacher_model is None else self.teacher_model.path
        if self.config.teacher.epochs:
            teacher = train_teacher(teacher, self.train, lists, folder / "training", self.config.teacher)
        score_lists(teacher, self.train, lists, folder)
        return self._examine(teacher, root) if self.splits.dev.queries else {}

    def _examine(self, teacher: str, root: Path) -> dict[str, Any]:
        """Let the teacher rank the best of what its student finds for the held-out queries; warn if it is no better."""
        from dupmae.retrievers.scorers import open_scorer, rerank

        dev, depth = self.splits.dev, self.config.mining.last
        found = read_run(root / HARD_NEGATIVES / "evaluation" / "dev.trec")
        named = {passage for ranking in found.values() for passage in ranking}
        with tempfile.TemporaryDirectory() as vectors:
            ranked = rerank(open_scorer(teacher, dev, named, Path(vectors)), dev, found, depth)
        write_run(root / TEACHER / "dev.trec", ranked, tag="teacher")
        figures = {name: evaluate_run(run, dev.qrels) for name, run in (("student", found), ("teacher", ranked))}
        student, own = (figures[name]["ndcg@10"] for name in ("student", "teacher"))
        if own <= student:
            logger.warning(
                "The teacher ranks the held-out queries no better (NDCG@10 %.3f) than the model that it is to teach "
                "(%.3f), so distillation will hardly help: train it on more queries, or name a ready one.",
                own,
                student,
            )
        return figures

    def _index(self, root: Path) -> dict[str, Any]:
        index = build_index(root / self.last / "model", self.text.values(), root / INDEX)
        return {"passages": len(index)} | self._cut(index.encoder)

    def _evaluate(self, root: Path) -> dict[str, Any]:
        from dupmae.index import DuplexIndex

        index, folder = DuplexIndex.open(root / INDEX), root / EVALUATION
        metrics: dict[str, Any] = {"dev": self._rank_dev(index, folder / "duplex")}
        for name, part in parts_of(index).items():
            run = duplex_run(index, self.test, self.depth, part)
            metrics[f"duplex{name}"] = self._save(folder / f"duplex{name}", run)
        return metrics

    def _rank_by_bm25(self, root: Path) -> dict[str, Any]:
        return self._save(root / BASELINES / "bm25", self._by_bm25)

    def _rank_by_base_model(self, root: Path) -> dict[str, Any]:
        folder = root / BASELINES / "base-model"
        if self.base_model.kind != "duplex":
            return self._save(folder, self._by_dense_vectors(folder))
        index = build_index(Path(self.base_model.path), self.text.values(), folder / "index")
        return self._save(folder, duplex_run(index, self.test, self.depth))

    def _rank_by_mixtures(self, root: Path) -> dict[str, Any]:
        folder = root / BASELINES / "hybrid"
        dense = self._by_dense_half(root) if self.base_model.kind == "duplex" else self._by_dense_vectors(folder)
        drop_self = self.rules.drop_self
        return {
            form: self._save(
                folder / form,
                hybrid_run(self._by_bm25, dense, DEPTH, candidates=CANDIDATES, form=form, drop_self=drop_self),
            )
            for form in FORMS
        }

    def _by_dense_half(self, root: Path) -> Run:
        """Rank by a duplex base model's dense half, with the index that its own ranking has, or one of that half."""
        model, whole = Path(self.base_model.path), "base-model" in self.baselines
        folder = root / BASELINES / ("base-model" if whole else "hybrid") / "index"
        index = build_index(model, self.text.values(), folder, dense_alone=not whole)
        run = duplex_run(index, self.test, self._deep, "dense")
        if not whole:
            shutil.rmtree(folder)
        return run

    def _by_dense_vectors(self, folder: Path) -> Run:
        """Rank by a base model that is no duplex model; of two baselines that do, the second encodes nothing."""
        if self._embedded is None:
            vectors = folder / "vectors"
            self._embedded = dense_run(self.config.base_model, self.test, self._deep, folder=vectors)
            shutil.rmtree(vectors)
        return self._embedded

    def _rank_without_pretraining(self, root: Path) -> dict[str, Any]:
        folder = root / BASELINES / "finetuned-without-pretraining"
        self.finetune_from(None, folder / "finetune")
        index = build_index(folder / "finetune" / "model", self.text.values(), folder / "index")
        return self._save(folder, duplex_run(index, self.test, self.depth))

    def _rank_dev(self, index: DuplexIndex, folder: Path) -> dict[str, float]:
        """Rank the held-out queries, if there are any: `dev.trec`, and its figures."""
        dev = self.splits.dev
        if not dev.queries:
            return {}
        run = apply_protocol(duplex_run(index, dev, self.depth), self.rules, DEPTH)
        write_run(folder / "dev.trec", run, tag="dev")
        return evaluate_run(run, dev.qrels)

    def _save(self, folder: Path, run: Run) -> dict[str, Any]:
        """Write a ranking of the test queries as a TREC run and measure it."""
        run = apply_protocol(run, self.rules, DEPTH)
        write_run(folder / "run.trec", run, tag=folder.name)
        return evaluate_run(run, self.test.qrels, relevant_from=self.rules.relevant_from)

    def _cut(self, encoder: Any) -> dict[str, int]:
        """Count how many tokens of a passage the encoder reads, and how many passages are longer."""
        from dupmae.corpus.unread import Unread

        unread, texts = Unread(encoder.reads("document")), (passage.full_text for passage in self.text.values())
        while part := list(islice(texts, 1000)):
            ids = encoder.tokenizer(part, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
            unread.count(map(len, ids))
        return {"tokens_read": encoder[0].document_length, "passages_cut": unread.long}

    def _report(self) -> None:
        report(self.config, self.splits, self.stages, self.pretrains, self.baselines)
