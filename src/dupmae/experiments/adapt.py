"""From text alone to a retriever for it: pre-training, pairs drawn from the text, fine-tuning on them, index, report.

The stages of training are those of :mod:`dupmae.experiments.stages`. Beside them stand:

| folder | what |
|---|---|
| `0-queries` | `pairs.jsonl`, the pairs drawn from the text (and those that were given) |
| `8-result` | `model/` is the result; how well it finds the known items |
| `9-baselines` | how well BM25, the base model and mixtures of both found them |
| `index` | what `dupmae search` opens |
| `report.md`, `report.json`, `figures/` | the result |

Known items are held-out titles and sentences, each of which is to find the rest of its passage. They are no queries,
and what fine-tuning on their like changes is kept in part (`finetune.interpolation`). A base model that is a duplex
model keeps its representation, and what it knows: if the known items find less than before, by the sum or by the dense
half alone, the base model is the result.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dupmae.config import AdaptConfig, FieldsConfig
from dupmae.corpus import Benchmark, Passage, Run, read_passages, split_queries
from dupmae.corpus.folders import Unread
from dupmae.corpus.pseudo_queries import known_items, pseudo_queries
from dupmae.errors import DupmaeError
from dupmae.evaluation import System, evaluate_run, write_report
from dupmae.experiments.adapt_data import passages_to_train_on, with_pairs
from dupmae.experiments.checks import refuse_disagreement, refuse_few_pairs, refuse_impossible
from dupmae.experiments.run_folder import RunFolder, Stage
from dupmae.experiments.stages import (
    BASELINES,
    FINETUNE,
    INDEX,
    MINE,
    PRETRAIN,
    TEACHER,
    Training,
    build_index,
    identity_of,
    parts_of,
)
from dupmae.files import atomic_write
from dupmae.models import Model, open_model
from dupmae.retrievers import bm25_run, dense_run, duplex_run, hybrid_run
from dupmae.retrievers.hybrid import CANDIDATES, FORMS, has_dense_half
from dupmae.runtime.bars import bar

logger = logging.getLogger(__name__)

QUERIES, RESULT, HYBRID = "0-queries", "8-result", f"{BASELINES}/hybrid"
PAIRS_FILE = "pairs.jsonl"
"""The training pairs, in a form that people and `dupmae finetune --pairs` can read."""

Figures = dict[str, dict[str, float]]


def adapt(
    corpus: str | Path,
    model: str,
    output: Path,
    config: AdaptConfig,
    pairs: Benchmark | None = None,
    *,
    fields: FieldsConfig | None = None,
    strict: bool = False,
    dry_run: bool = False,
) -> Path:
    """Make a retriever for a corpus that nobody has asked questions of.

    Some passages are held out and never trained on; their titles and sentences are the queries of the report.

    Args:
        corpus: Text in any format of :func:`dupmae.corpus.read_passages`; all of it is held in memory.
        model: The base model: a folder, a Hugging Face id, or a wheel's name.
        output: The run's folder.
        config: The settings; its `seed` replaces the stages' own.
        pairs: Queries with passages that answer them, of this corpus or another, to train on as well.
        fields: What the fields of the corpus are called.
        strict: Refuse a folder of which a file cannot be read, instead of naming it and going on.
        dry_run: Print what is done and what would be done, and do nothing.

    Returns:
        `output`, with `index/`, `report.md` and `report.json`.

    Raises:
        DupmaeError: Settings that contradict each other or the model, too little text, or `output` holds a run of
            another base model or other data.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> from dupmae import AdaptConfig, FinetuneConfig, PretrainConfig, adapt
        >>> text = "The text of article {} says what there is to say of it. It has two sentences."
        >>> lines = [{"_id": str(n), "title": f"Article {n}", "text": text.format(n)} for n in range(40)]
        >>> with open("articles.jsonl", "w") as file:
        ...     for line in lines:
        ...         print(json.dumps(line), file=file)
        >>> none = PretrainConfig(new_layers_steps=0, steps=0)
        >>> config = AdaptConfig(pretrain=none, finetune=FinetuneConfig(batch_size=8))
        >>> folder = adapt("articles.jsonl", "dupmae-small", Path("run"), config, dry_run=True)  # False runs it
        Dry run of run...
        ...8-result...to do...not done yet...
    """
    base_model = open_model(model, option="--model")
    teacher = base_model if config.teacher is None else open_model(config.teacher, option="--teacher")
    _refuse(model, base_model, teacher, config, held_out=pairs is not None and config.dev_fraction > 0)
    passages = read_passages(corpus, **asdict(fields or FieldsConfig()), unread=Unread(strict=strict))
    adaptation = Adaptation(Path(corpus), base_model, teacher, output, config, pairs, passages)
    return adaptation.run(dry_run=dry_run)


class Adaptation(Training):
    """One adaptation: its stages, and what they have in common."""

    def __init__(
        self,
        corpus: Path,
        base_model: Model,
        teacher: Model,
        output: Path,
        config: AdaptConfig,
        pairs: Benchmark | None,
        passages: Iterable[Passage] | None = None,
    ) -> None:
        super().__init__(config, base_model)
        self.config: AdaptConfig = replace(self.config, queries=replace(config.queries, seed=config.seed))
        self.documents = list(bar(passages or read_passages(corpus), "Read", "documents"))
        self.corpus = passages_to_train_on(self.documents, base_model, config)
        name = corpus.resolve().name.split(".")[0]
        self.items = known_items(self.corpus, name, config.known_items, config.known_item_pool, config.seed)
        held_out = {passage for grades in self.items.qrels.values() for passage in grades}
        self.text = {key: passage for key, passage in self.corpus.items() if key not in held_out}
        self.train = pseudo_queries(self.text.values(), name, self.config.queries)
        self.drawn = len(self.train.queries)
        self.dev = None
        given = [] if pairs is None else [pairs]
        identity = identity_of(
            base_model, [one.values() for one in (self.corpus, *(each.corpus for each in given))], given
        )
        if pairs is not None:
            trained, kept_apart = split_queries(pairs, config.dev_fraction, config.seed)
            self.dev = with_pairs(replace(self.train, queries={}, qrels={}), kept_apart, self.corpus)
            self.train = with_pairs(self.train, trained, self.corpus)
        refuse_few_pairs(self.train, config)
        self.continues, self.teacher = base_model.kind == "duplex", teacher
        self.stages = RunFolder(output, identity, [config.seed, base_model.fingerprint])

    def all_stages(self) -> list[Stage]:
        """List the drawing of queries, the stages of training, the known items before and after, and the index."""
        config = self.config
        pool = {"known_items": config.known_items, "known_item_pool": config.known_item_pool}
        mixed = Stage(name=HYBRID, title="Find known items: hybrid", work=self._find_by_mixtures, settings=pool)
        drawn = {"known_items": config.known_items, "queries": asdict(config.queries)}
        return [
            Stage(
                name=QUERIES,
                title="Draw queries from the text",
                work=self._write_pairs,
                settings=drawn | {"dev_fraction": config.dev_fraction},
            ),
            *self.training_stages(finetune_after=[QUERIES]),
            Stage(name=f"{BASELINES}/bm25", title="Find known items: bm25", work=self._find_by_bm25, settings=pool),
            Stage(
                name=f"{BASELINES}/base-model",
                title="Find known items: base model",
                work=self._find_by_base_model,
                settings=pool,
            ),
            *([mixed] if has_dense_half(self.base_model) else []),
            Stage(
                name=RESULT,
                title="Find known items: duplex",
                work=self._choose,
                settings=pool,
                after=[self.last, f"{BASELINES}/base-model"],
            ),
            Stage(
                name=INDEX,
                title="Index the corpus",
                work=self._index,
                after=[RESULT],
                settings={"chunk_tokens": config.chunk_tokens, "chunk_overlap": config.chunk_overlap},
            ),
        ]

    def store_settings(self) -> dict[str, Any]:
        """Say what the token store depends on: known items are left out of it, too."""
        return super().store_settings() | {"known_items": self.config.known_items}

    def evaluation(self, stage: str) -> list[Stage]:
        """Measure nothing in between."""
        return []

    def mining_index(self, root: Path) -> Any:
        """Index the passages as they are trained on: without their queries, and none that is held out."""
        if self.config.mining.source == "bm25":
            return None
        return build_index(root / FINETUNE / "model", self.train.corpus.values(), root / MINE / "index")

    def teacher_settings(self) -> dict[str, Any]:
        """Name the ready teacher."""
        return {"teacher's fingerprint": self.teacher.fingerprint}

    def teach(self, root: Path) -> dict[str, Any]:
        """Have the ready teacher score the lists."""
        from dupmae.finetuning.teacher import score_lists

        score_lists(self.teacher.path, self.train, self.mined_lists(root), root / TEACHER)
        return {}

    def _write_pairs(self, root: Path) -> None:
        train = self.train
        with atomic_write(root / QUERIES / PAIRS_FILE) as file:
            for query, grades in train.qrels.items():
                answers = [train.corpus[passage].full_text for passage, grade in grades.items() if grade > 0]
                record: dict[str, object] = {"query": train.queries[query], "positive": answers}
                if others := [train.corpus[passage].full_text for passage, grade in grades.items() if grade < 0]:
                    record["negative"] = others
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _find_by_bm25(self, root: Path) -> Figures:
        return {"bm25": evaluate_run(self._by_bm25, self.items.qrels)}

    def _find_by_base_model(self, root: Path) -> Figures:
        if self.continues:
            return self._measure(Path(self.base_model.path), root / BASELINES / "base-model" / "index", "base-model")
        return {"base-model": evaluate_run(self._by_dense_vectors, self.items.qrels)}

    def _find_by_mixtures(self, root: Path) -> Figures:
        if self.continues:
            index = build_index(
                Path(self.base_model.path), self.items.corpus.values(), root / BASELINES / "base-model" / "index"
            )
            dense = duplex_run(index, self.items, CANDIDATES, "dense")
        else:
            dense = self._by_dense_vectors
        mixed = {form: hybrid_run(self._by_bm25, dense, candidates=CANDIDATES, form=form) for form in FORMS}
        return {form: evaluate_run(run, self.items.qrels) for form, run in mixed.items()}

    @cached_property
    def _by_bm25(self) -> Run:
        return bm25_run(self.items, CANDIDATES)

    @cached_property
    def _by_dense_vectors(self) -> Run:
        """Rank by a base model that is no duplex model."""
        return dense_run(self.base_model.path, self.items, CANDIDATES)

    def _choose(self, root: Path) -> dict[str, Any]:
        """Make the adapted model the result, or a duplex base model that it knows less than."""
        from dupmae.duplex import DuplexEncoder

        kept, model = "adapted", str(root / self.last / "model")
        adapted = found = self._measure(Path(model), root / RESULT / "index", "duplex")
        if self.continues:
            figures = self._before("base-model")
            before = {name.replace("base-model", "duplex"): row for name, row in figures.items()}
            names = [name for name in ("duplex", "duplex-dense") if name in found]
            if any(found[name]["ndcg@10"] < before[name]["ndcg@10"] for name in names):
                kept, model, found = "base-model", self.base_model.path, before
        DuplexEncoder(model).save(str(root / RESULT / "model"))
        return found | {"kept": kept, "adapted": adapted}

    def _before(self, name: str) -> Figures:
        """Read the known items' figures of BM25 or the base model, and of its halves if it is a duplex model."""
        return self.stages.metrics(f"{BASELINES}/{name}")

    def _measure(self, model: Path, folder: Path, name: str) -> Figures:
        """Measure how well a duplex model and its halves find the known items."""
        index = build_index(model, self.items.corpus.values(), folder)
        return {
            f"{name}{ending}": evaluate_run(duplex_run(index, self.items, part=part), self.items.qrels)
            for ending, part in parts_of(index).items()
        }

    def _index(self, root: Path) -> dict[str, Any]:
        size, overlap = self.config.chunk_tokens, self.config.chunk_overlap
        model = root / RESULT / "model"
        index = build_index(model, self.documents, root / INDEX, chunk_tokens=size, chunk_overlap=overlap)
        return {"passages": len(index)}

    def _report(self) -> None:
        """Write the table of known items."""
        root = self.stages.root
        result = self.stages.metrics(RESULT)
        kept, adapted = result.pop("kept"), result.pop("adapted")
        names = ["bm25", "base-model", *(["hybrid"] if has_dense_half(self.base_model) else [])]
        before = {name: metrics for each in names for name, metrics in self._before(each).items()}
        curves = {"Pre-training": root / PRETRAIN / "metrics.jsonl"} if self.config.pretrain.all_steps else {}
        write_report(
            root,
            f"{self.items.name}: adapted without queries",
            [System(name=name, metrics=metrics) for name, metrics in (before | result).items()],
            notes=self._notes(kept, adapted, before, result),
            settings=asdict(self.config),
            curves=curves | {"Fine-tuning": root / self.last / "metrics.jsonl"},
        )

    def _notes(self, kept: str, adapted: Figures, before: Figures, result: Figures) -> list[str]:
        """Say what the table measures, what was trained on, which model is the result, and how long it took."""
        items, seconds, given = self.items, self.stages.seconds, len(self.train.queries) - self.drawn
        held_out = len(self.corpus) - len(self.text)
        spent = ", ".join(f"{name} {took:,.0f} s" for name, took in seconds.items())
        also = f" and {given:,} queries that were given" if given else ""
        kept_words = sum(items.corpus[one] == self.corpus[one] for grades in items.qrels.values() for one in grades)
        kinds, runs = "titles and sentences", ""
        if kept_words:
            kinds = "titles, sentences and runs of words"
            runs = f" {kept_words:,} are runs of words of short passages, which keep them: these are easy to find."
        best = max(before, key=lambda name: before[name]["ndcg@10"])
        was, now = before[best]["ndcg@10"], result["duplex"]["ndcg@10"]
        notes = [
            f"{len(items.queries):,} {kinds} of {held_out:,} passages that nothing was trained on, each "
            f"to find the rest of its passage among {len(items.corpus):,}. bm25, base-model and mixtures of both "
            f"(hybrid) are before, duplex is after.{runs}",
            f"The best before is {best}, NDCG@10 {was:.3f}; duplex has {now:.3f} after: {now - was:+.3f}.",
            *(
                [f"{len(self.documents):,} documents were cut into {len(self.corpus):,} passages."]
                if len(self.documents) < len(self.corpus)
                else []
            ),
            f"Trained on {self.drawn:,} queries drawn from {len(self.text):,} passages{also}. Seed {self.config.seed}.",
        ]
        if kept == "base-model":
            names = {"duplex": "the sum", "duplex-dense": "the dense half"}
            found = ", ".join(
                f"{adapted[name]['ndcg@10']:.3f} by {half}" for name, half in names.items() if name in adapted
            )
            lost = f"The adapted model found fewer (NDCG@10 {found}): the result is the base model as it came."
            logger.warning("%s", lost)
            notes.append(lost)
        return [*notes, f"Time: {spent}; {sum(seconds.values()) / 60:.1f} minutes in all."]


def _refuse(model: str, base_model: Model, teacher: Model, config: AdaptConfig, held_out: bool) -> None:
    """Refuse a tuned weight without queries, a teacher without scores, a pooling the base model was not trained for."""
    if config.finetune.tune_weights and not held_out:
        # Known items would choose badly: titles and sentences share other words with their passages than questions do.
        raise DupmaeError("finetune.tune_weights chooses by held-out queries: give pairs, and set dev_fraction above 0")
    refuse_impossible(config)
    if config.stages > 2:
        from dupmae.finetuning.teacher import refuse_no_teacher

        refuse_no_teacher(teacher)
    refuse_disagreement(base_model, config.pretrain, config.duplex)
    trained = None if base_model.kind == "duplex" else base_model.pooling
    if trained not in (None, config.duplex.dense_pooling):
        raise DupmaeError(
            f"{model} was trained with the pooling {trained}: set pretrain.dense_pooling and duplex.dense_pooling to it"
        )
