"""A recipe run end to end: text in; a retriever, its index and a report out.

The run folder reads in the order of the paper:

| folder | what |
|---|---|
| `1-store` | the corpus as token ids |
| `2-pretrain` | DupMAE pre-training; `model/` is a Hugging Face checkpoint |
| `3-finetune` | stage 1; `model/` is a sentence-transformers folder |
| `4-mine` | candidate lists, mined with stage 1's model |
| `5-hard-negatives` | stage 2; `model/` |
| `6-teacher` | the cross-encoder and its scores of the lists |
| `7-distil` | stage 3; `model/` |
| `8-evaluation` | rankings of the test queries by the last model, as TREC runs |
| `9-baselines` | BM25, the start as it comes, stage 1 without pre-training |
| `index` | what `dupmae search` opens |
| `report.md`, `report.json`, `gains.json`, `figures/` | the result |

A stage whose model is not the last has a folder `evaluation` with its index and its rankings. Every stage leaves a
`done.json` with the fingerprint of all that it depends on, and is skipped when it finds its own.

A start that is a duplex model keeps its representation. Without steps of pre-training such a run begins with stage 1.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dupmae.config import Baseline, Recipe, decisive
from dupmae.corpus import Run, read_run, write_run
from dupmae.corpus.passage import corpus_fingerprint
from dupmae.duplex.starting import begin_duplex
from dupmae.errors import DupmaeError
from dupmae.evaluation import evaluate_run
from dupmae.evaluation.benchmarks import definition_of
from dupmae.evaluation.comparison import apply_protocol
from dupmae.experiments.checks import pretrains, refuse_disagreement, refuse_few_pairs, refuse_impossible
from dupmae.experiments.run_folder import RunFolder
from dupmae.experiments.run_report import report
from dupmae.experiments.splits import read_data
from dupmae.experiments.stages import build_index, finetune_further, mining_inputs, parts_of, pretrain_on, tokenise
from dupmae.files import fingerprint
from dupmae.models import is_duplex, model_fingerprint, resolve_model
from dupmae.retrievers import bm25_run, dense_run, duplex_run

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex

logger = logging.getLogger(__name__)

DEPTH = 100
"""Passages ranked of each query."""


def run_recipe(recipe: Recipe) -> Path:
    """Run every stage of a recipe that is not done yet.

    Args:
        recipe: The experiment; its `seed` replaces the stages' own.

    Returns:
        The run folder, with `report.md`, `report.json` and `index/`.

    Raises:
        DupmaeError: The recipe names no output or benchmark, its output folder holds another run's results, or a stage
            refuses its input.
    """
    _refuse(recipe)
    return RecipeRun(recipe).run()


def pretrain_recipe(recipe: Recipe) -> Path:
    """Run a recipe's first two stages, the token store and pre-training, unless they are done.

    Returns:
        The run folder, in which :func:`run_recipe` goes on.

    Raises:
        DupmaeError: As :func:`run_recipe`.
    """
    _refuse(recipe)
    return RecipeRun(recipe).pretrain()


def _refuse(recipe: Recipe) -> None:
    """Refuse what would fail later, or run for nothing."""
    if not recipe.output:
        raise DupmaeError("the recipe names no output folder: set output")
    if not recipe.data.benchmark:
        raise DupmaeError("the recipe names no benchmark: set data.benchmark to a folder in BEIR layout")
    refuse_disagreement(resolve_model(recipe.base_model), recipe.pretrain, recipe.duplex)
    refuse_impossible(recipe)
    if recipe.stages == 3 and not recipe.teacher.epochs:
        if recipe.teacher_model is None:
            raise DupmaeError("teacher.epochs is 0, so the teacher must be a ready one: name it in teacher_model")
        from dupmae.finetuning.teacher import refuse_no_teacher

        refuse_no_teacher(recipe.teacher_model)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a fingerprint says of a recipe's settings: not where results go, how dev queries were chosen, what the
    result is compared with, or what does not change it.

    The queries themselves stand in the fingerprint, too.
    """
    settings = decisive(recipe)
    del settings["output"], settings["baselines"]
    for name in ("hold_out", "dev_split"):
        del settings["data"][name]
    return settings


class RecipeRun:
    """The stages of one run; what they share is read once."""

    def __init__(self, recipe: Recipe) -> None:
        seed = recipe.seed
        self.recipe = replace(
            recipe,
            pretrain=replace(recipe.pretrain, seed=seed),
            finetune=replace(recipe.finetune, seed=seed),
            teacher=replace(recipe.teacher, seed=seed),
        )
        self.folder = Path(recipe.output)
        self.start = resolve_model(recipe.base_model)
        self.base_fingerprint = model_fingerprint(self.start)  # reads all weights, so once for all stages
        self.pretrains = pretrains(self.start, recipe.pretrain)
        self.teacher_model = None if recipe.teacher_model is None else resolve_model(recipe.teacher_model)
        self.splits = read_data(recipe.data, seed)
        self.train, self.dev, self.test = self.splits.train, self.splits.dev, self.splits.test
        refuse_few_pairs(self.train, self.recipe)
        self.rules = definition_of(self.test.name, recipe.data.test_split)
        self.depth = DEPTH + self.rules.drop_self
        self.stages = RunFolder(self.folder, [seed, self.base_fingerprint])
        self.pretraining = [asdict(recipe.store), decisive(self.recipe.pretrain)]  # what the checkpoint depends on

    def pretrain(self) -> Path:
        """The first two stages."""
        with self._claim():
            self._pretrain()
        return self.folder

    def run(self) -> Path:
        """All stages in order, and the report."""
        with self._claim():
            self._pretrain()
            self._finetune_and_measure()
            report(self.recipe, self.splits, self.stages, self.pretrains, self.baselines)
        written = f"[bold]Report:[/] {self.folder / 'report.md'}   [bold]Index:[/] {self.folder / 'index'}"
        self.stages.console.print(written)
        return self.folder

    def _pretrain(self) -> None:
        if self.pretrains:
            recipe, start, stage = self.recipe, self.start, self.stages.stage
            stage(
                "1-store",
                "Tokenise the corpus",
                asdict(recipe.store),
                lambda folder: tokenise(self.test.corpus.values(), start, folder, recipe.store),
            )
            store = self.folder / "1-store"
            stage(
                "2-pretrain",
                "Pre-train (Eq. 1-9)",
                self.pretraining,
                lambda folder: pretrain_on(store, start, folder, recipe.pretrain),
            )

    def _finetune_and_measure(self) -> None:
        recipe, stage = self.recipe, self.stages.stage
        finetuned = [asdict(recipe.duplex), decisive(recipe.finetune), recipe.data.dev_fraction]
        inputs: Any = [self.pretraining, finetuned]
        checkpoint = str(self.folder / "2-pretrain" / "model") if self.pretrains else None
        stage("3-finetune", "Fine-tune (Eq. 13)", inputs, lambda folder: self._finetune(checkpoint, folder))
        if recipe.stages > 1:
            stage("3-finetune/evaluation", "Search with stage 1's model", inputs, self._search)
            inputs = [inputs, mining_inputs(recipe.mining)]
            stage("4-mine", "Mine hard negatives", inputs, self._mine)
            inputs = [inputs, decisive(recipe.hard_negatives)]
            stage("5-hard-negatives", "Fine-tune with mined negatives (Eq. 14)", inputs, self._harden)
        if recipe.stages > 2:
            stage("5-hard-negatives/evaluation", "Search with stage 2's model", inputs, self._search)
            teacher = None if self.teacher_model is None else model_fingerprint(self.teacher_model)
            inputs = [inputs, teacher, decisive(recipe.teacher)]
            stage("6-teacher", "Train the teacher and score the lists", inputs, self._teach)
            inputs = [inputs, decisive(recipe.distil)]
            stage("7-distil", "Distil the teacher (Eq. 15)", inputs, self._distil)
        stage("index", "Index the corpus", inputs, self._index)
        stage("8-evaluation", "Search the test queries", inputs, self._evaluate)
        if "bm25" in self.baselines:
            stage(
                "9-baselines/bm25",
                "Baseline: BM25",
                [],
                lambda place: self._save(place, bm25_run(self.test, self.depth)),
            )
        if "base-model" in self.baselines:
            stage("9-baselines/base-model", f"Baseline: {recipe.base_model} as it comes", [], self._search_start)
        if "finetuned-without-pretraining" in self.baselines:
            title = "Baseline: the same fine-tuning without pre-training"
            stage("9-baselines/finetuned-without-pretraining", title, finetuned, self._without_pretraining)

    @property
    def baselines(self) -> list[Baseline]:
        """Those that are asked for, in the report's order, as far as this run has them."""
        asked = [name for name in get_args(Baseline) if name in self.recipe.baselines]
        return [name for name in asked if self.pretrains or name != "finetuned-without-pretraining"]

    def _claim(self) -> AbstractContextManager[None]:
        """Make the run folder this run's while it is at work, or refuse one that holds another's results."""
        queries = [[one.qrels, one.queries] for one in (self.train, self.dev, self.test)]
        data = [corpus_fingerprint(self.test.corpus.values()), *queries]
        mark = fingerprint([settings_of(self.recipe), self.base_fingerprint, *data])
        return self.stages.claim(mark, asdict(self.recipe))

    def _finetune(self, checkpoint: str | None, folder: Path) -> None:
        """Stage 1, of the start with what pre-training made of it, or as it is."""
        from dupmae.finetuning import finetune

        recipe = self.recipe
        encoder = begin_duplex(self.start, checkpoint, recipe.duplex, self.train.corpus, recipe.seed)
        finetune(encoder, self.train, folder, self.recipe.finetune, dev=self.dev)

    def _mine(self, folder: Path) -> None:
        from dupmae.finetuning.mining import mine
        from dupmae.index import DuplexIndex

        index = DuplexIndex.open(self.folder / "3-finetune" / "evaluation" / "index")
        mine(index, self.train, folder, self.recipe.mining)

    def _harden(self, folder: Path) -> None:
        before, recipe = self.folder / "3-finetune" / "model", self.recipe
        finetune_further(before, self.train, folder, recipe.finetune, recipe.hard_negatives, self._lists, dev=self.dev)

    def _teach(self, folder: Path) -> dict[str, Any]:
        from dupmae.finetuning.teacher import score_lists, train_teacher

        lists = self._lists
        pretrained = str(self.folder / "2-pretrain" / "model") if self.pretrains else self.start
        teacher = self.teacher_model or pretrained
        if self.recipe.teacher.epochs:
            teacher = train_teacher(teacher, self.train, lists, folder / "training", self.recipe.teacher)
        score_lists(teacher, self.train, lists, folder)
        return self._examine(teacher, folder) if self.dev.queries else {}

    def _examine(self, teacher: str, folder: Path) -> dict[str, Any]:
        """Let the teacher rank the best of what its pupil finds for the held-out queries; warn if that is no better."""
        from dupmae.retrievers.scorers import open_scorer, rerank

        found, depth = read_run(self.folder / "5-hard-negatives" / "evaluation" / "dev.trec"), self.recipe.mining.last
        named = {passage for ranking in found.values() for passage in ranking}
        with tempfile.TemporaryDirectory() as vectors:
            ranked = rerank(open_scorer(teacher, self.dev, named, Path(vectors)), self.dev, found, depth)
        write_run(folder / "dev.trec", ranked, tag="teacher")
        figures = {name: evaluate_run(run, self.dev.qrels) for name, run in (("pupil", found), ("teacher", ranked))}
        pupil, own = (figures[name]["ndcg@10"] for name in ("pupil", "teacher"))
        if own <= pupil:
            logger.warning(
                "The teacher ranks the held-out queries no better (NDCG@10 %.3f) than the model that it is to teach "
                "(%.3f), so distillation will hardly help: train it on more queries, or name a ready one.",
                own,
                pupil,
            )
        return figures

    def _distil(self, folder: Path) -> None:
        scores = self.folder / "6-teacher" / "teacher.jsonl"
        before, recipe = self.folder / "5-hard-negatives" / "model", self.recipe
        finetune_further(before, self.train, folder, recipe.finetune, recipe.distil, self._lists, scores, self.dev)

    @property
    def _lists(self) -> Path:
        """The mined lists."""
        return self.folder / "4-mine" / "negatives.jsonl"

    def _index(self, folder: Path) -> dict[str, Any]:
        last = {1: "3-finetune", 2: "5-hard-negatives", 3: "7-distil"}[self.recipe.stages]
        index = build_index(self.folder / last / "model", self.test.corpus.values(), folder)
        return {"passages": len(index)} | self._cut(index.encoder)

    def _search(self, folder: Path) -> dict[str, Any]:
        """Index the corpus with the model beside a folder, and rank with it."""
        index = build_index(folder.parent / "model", self.test.corpus.values(), folder / "index")
        return {
            "dev": self._rank_dev(index, folder),
            "test": self._save(folder, duplex_run(index, self.test, self.depth)),
        }

    def _evaluate(self, folder: Path) -> dict[str, Any]:
        from dupmae.index import DuplexIndex

        index = DuplexIndex.open(self.folder / "index")
        metrics: dict[str, Any] = {"dev": self._rank_dev(index, folder / "duplex")}
        for name, part in parts_of(index).items():
            run = duplex_run(index, self.test, self.depth, part)
            metrics[f"duplex{name}"] = self._save(folder / f"duplex{name}", run)
        return metrics

    def _search_start(self, folder: Path) -> dict[str, Any]:
        """Rank with the start as it comes."""
        if not is_duplex(self.start):
            vectors = folder / "vectors"
            figures = self._save(folder, dense_run(self.recipe.base_model, self.test, self.depth, folder=vectors))
            shutil.rmtree(vectors)
            return figures
        index = build_index(Path(self.start), self.test.corpus.values(), folder / "index")
        return self._save(folder, duplex_run(index, self.test, self.depth))

    def _without_pretraining(self, folder: Path) -> dict[str, Any]:
        self._finetune(None, folder / "finetune")
        index = build_index(folder / "finetune" / "model", self.test.corpus.values(), folder / "index")
        return self._save(folder, duplex_run(index, self.test, self.depth))

    def _rank_dev(self, index: DuplexIndex, folder: Path) -> dict[str, float]:
        """Rank the held-out queries, if there are any: `dev.trec`, and its figures."""
        if not self.dev.queries:
            return {}
        run = apply_protocol(duplex_run(index, self.dev, self.depth), self.rules, DEPTH)
        write_run(folder / "dev.trec", run, tag="dev")
        return evaluate_run(run, self.dev.qrels)

    def _save(self, folder: Path, run: Run) -> dict[str, Any]:
        """Write a ranking of the test queries as a TREC run and measure it."""
        run = apply_protocol(run, self.rules, DEPTH)
        write_run(folder / "run.trec", run, tag=folder.name)
        return evaluate_run(run, self.test.qrels, relevant_from=self.rules.relevant_from)

    def _cut(self, encoder: Any) -> dict[str, int]:
        """How many tokens of a passage the encoder reads, and how many passages are longer."""
        from dupmae.index.writing.encoding import windows

        limit = encoder[0].document_length
        cut = 0
        for passages in windows(self.test.corpus.values(), 1000):
            texts = [passage.full_text for passage in passages]
            ids = encoder.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
            cut += sum(len(passage) > limit for passage in ids)
        return {"tokens_read": limit, "passages_cut": cut}
