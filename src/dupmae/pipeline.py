"""A recipe run end to end: text in; a retriever, its index and a report out.

The run folder reads in the order of the paper:

| folder | what |
|---|---|
| `1-store` | the corpus as token ids |
| `2-pretrain` | DupMAE pre-training; `model/` is a Hugging Face checkpoint |
| `3-finetune` | stage 1; `model/` is a sentence-transformers folder |
| `4-baselines` | BM25, the start as it comes, the same fine-tuning without pre-training |
| `5-evaluation` | rankings of the test queries as TREC runs |
| `index` | what `dupmae search` opens |
| `report.md`, `report.json`, `figures/` | the result |

Every stage leaves a `done.json` with the fingerprint of all that it depends on, and is skipped when it finds its own.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dupmae.config import Recipe
from dupmae.corpus import (
    Run,
    TokenStore,
    build_token_store,
    read_benchmark,
    read_run,
    split_queries,
    write_run,
)
from dupmae.corpus.digest import corpus_digest
from dupmae.errors import DupmaeError
from dupmae.evaluation import System, bm25_run, dense_run, duplex_run, evaluate_run, write_report
from dupmae.files import fingerprint
from dupmae.models import model_fingerprint, resolve_model
from dupmae.run_folder import RunFolder

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex

QUOTED = {
    "scifact": {"BM25 (paper)": 0.665, "DupMAE (paper)": 0.699, "DupMAE† (paper)": 0.725},
    "nfcorpus": {"BM25 (paper)": 0.325, "DupMAE (paper)": 0.346, "DupMAE† (paper)": 0.366},
}
"""NDCG@10 that the paper reports, by the name of the benchmark's folder."""
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
    if not recipe.output:
        raise DupmaeError("the recipe names no output folder: set output")
    if not recipe.data.benchmark:
        raise DupmaeError("the recipe names no benchmark: set data.benchmark to a folder in BEIR layout")
    for name in ("dense_pooling", "ot_projection"):
        before, after = getattr(recipe.pretrain, name), getattr(recipe.duplex, name)
        if before != after:
            raise DupmaeError(f"pretrain.{name} is {before} and duplex.{name} is {after}: give both the same")
    return _Walk(recipe).run()


class _Walk:
    """The stages of one run; what they share is read once."""

    def __init__(self, recipe: Recipe) -> None:
        seed = recipe.seed
        self.recipe = replace(
            recipe, pretrain=replace(recipe.pretrain, seed=seed), finetune=replace(recipe.finetune, seed=seed)
        )
        self.folder = Path(recipe.output)
        self.start = resolve_model(recipe.start)
        self.start_mark = model_fingerprint(self.start)  # reads all weights, so once for all stages
        data = recipe.data
        self.test = read_benchmark(Path(data.benchmark), data.test_split, allow_unknown=data.allow_unknown)
        pairs = read_benchmark(Path(data.benchmark), data.train_split, allow_unknown=data.allow_unknown)
        self.train, self.dev = split_queries(pairs, data.dev_fraction, seed)
        self.stages = RunFolder(self.folder, [seed, self.start_mark])

    def run(self) -> Path:
        """All stages in order."""
        self._claim()
        recipe, stage = self.recipe, self.stages.stage
        stage("1-store", "Tokenise the corpus", asdict(recipe.store), self._store)
        pretrained = [asdict(recipe.store), asdict(recipe.pretrain)]
        stage("2-pretrain", "Pre-train (Eq. 1-9)", pretrained, self._pretrain)
        finetuned = [asdict(recipe.duplex), asdict(recipe.finetune), recipe.data.dev_fraction]
        checkpoint = str(self.folder / "2-pretrain" / "model")
        stage(
            "3-finetune",
            "Fine-tune (Eq. 13)",
            [pretrained, finetuned],
            lambda folder: self._finetune(checkpoint, folder),
        )
        stage("index", "Index the corpus", [pretrained, finetuned], self._index)
        stage("5-evaluation", "Search the test queries", [pretrained, finetuned], self._evaluate)
        stage("4-baselines/bm25", "Baseline: BM25", [], lambda folder: self._save(folder, bm25_run(self.test, DEPTH)))
        stage(
            "4-baselines/start",
            f"Baseline: {recipe.start} as it comes",
            [],
            lambda folder: self._save(folder, dense_run(recipe.start, self.test, DEPTH)),
        )
        stage(
            "4-baselines/finetuned-without-pretraining",
            "Baseline: the same fine-tuning without pre-training",
            finetuned,
            self._without_pretraining,
        )
        self._report()
        written = f"[bold]Report:[/] {self.folder / 'report.md'}   [bold]Index:[/] {self.folder / 'index'}"
        self.stages.console.print(written)
        return self.folder

    def _claim(self) -> None:
        """Make the run folder this run's, or refuse one that holds another's results."""
        settings = asdict(self.recipe) | {"output": None}
        test, train, corpus = self.test, self.train, corpus_digest(self.test.corpus.values())
        data = [test.qrels, train.qrels, test.queries, train.queries, corpus]
        self.stages.claim(fingerprint([settings, self.start_mark, *data]), asdict(self.recipe))

    def _store(self, folder: Path) -> dict[str, Any]:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.start)
        return build_token_store(self.test.corpus.values(), tokenizer, folder / "store", self.recipe.store).report

    def _pretrain(self, folder: Path) -> None:
        from dupmae.pretraining import pretrain

        pretrain(TokenStore.open(self.folder / "1-store" / "store"), self.start, folder, self.recipe.pretrain)

    def _finetune(self, model: str, folder: Path) -> None:
        from transformers import set_seed

        from dupmae.duplex import DuplexEncoder, calibrate, calibration_sample
        from dupmae.finetuning import finetune

        set_seed(self.recipe.seed)
        encoder = DuplexEncoder.from_encoder(model, self.recipe.duplex)
        calibrate(encoder, calibration_sample(self.train.corpus, self.recipe.seed))
        finetune(encoder, self.train, folder, self.recipe.finetune)

    def _index(self, folder: Path) -> dict[str, Any]:
        index = self._build(self.folder / "3-finetune" / "model", folder)
        return {"passages": len(index), "passages_cut": self._cut(index.encoder.tokenizer)}

    def _build(self, model: Path, folder: Path) -> DuplexIndex:
        """Index the corpus with a fine-tuned model."""
        from dupmae.duplex import DuplexEncoder
        from dupmae.index import DuplexIndex

        return DuplexIndex.build(folder, DuplexEncoder(str(model)), self.test.corpus.values(), model=str(model))

    def _evaluate(self, folder: Path) -> dict[str, Any]:
        from dupmae.index import DuplexIndex

        index = DuplexIndex.open(self.folder / "index")
        metrics: dict[str, Any] = {"dev": evaluate_run(duplex_run(index, self.dev, DEPTH), self.dev.qrels)}
        for part, name in (("both", "duplex"), ("cls", "duplex-cls"), ("ot", "duplex-ot")):
            metrics[name] = self._save(folder / name, duplex_run(index, self.test, DEPTH, part))  # type: ignore[arg-type]
        return metrics

    def _without_pretraining(self, folder: Path) -> dict[str, Any]:
        self._finetune(self.start, folder / "finetune")
        index = self._build(folder / "finetune" / "model", folder / "index")
        return self._save(folder, duplex_run(index, self.test, DEPTH))

    def _save(self, folder: Path, run: Run) -> dict[str, Any]:
        """Write a ranking as a TREC run and measure it."""
        write_run(folder / "run.trec", run, tag=folder.name)
        return evaluate_run(run, self.test.qrels)

    def _cut(self, tokenizer: Any) -> int:
        """How many passages are longer than the encoder reads."""
        limit = self.recipe.duplex.document_max_length
        texts = [passage.full_text for passage in self.test.corpus.values()]
        return sum(len(ids) > limit for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"])

    def _report(self) -> None:
        """The table, with every system measured on its saved ranking."""
        rankings = {
            "bm25": "4-baselines/bm25",
            "start": "4-baselines/start",
            "finetuned-without-pretraining": "4-baselines/finetuned-without-pretraining",
            "duplex": "5-evaluation/duplex",
            "duplex-cls": "5-evaluation/duplex-cls",
            "duplex-ot": "5-evaluation/duplex-ot",
        }
        systems = [
            System(name=name, metrics=evaluate_run(read_run(self.folder / place / "run.trec"), self.test.qrels))
            for name, place in rankings.items()
        ]
        quoted = QUOTED.get(Path(self.recipe.data.benchmark).name, {})
        systems += [System(name=name, metrics={"ndcg@10": value}, quoted=True) for name, value in quoted.items()]
        write_report(
            self.folder,
            f"{self.recipe.name or self.folder.name}: {self.test.name} {self.test.split}",
            systems,
            notes=self._notes(),
            settings=asdict(self.recipe),
            curves={
                "Pre-training": self.folder / "2-pretrain" / "metrics.jsonl",
                "Fine-tuning": self.folder / "3-finetune" / "metrics.jsonl",
            },
        )

    def _notes(self) -> list[str]:
        """What the table does not say: data, lengths, dev figures, time."""
        store, index = self.stages.metrics("1-store"), self.stages.metrics("index")
        dev, seconds = self.stages.metrics("5-evaluation")["dev"], self.stages.seconds
        spent = ", ".join(f"{name} {took:,.0f} s" for name, took in seconds.items())
        pairs = sum(grade > 0 for judged in self.train.qrels.values() for grade in judged.values())
        return [
            f"{len(self.test.corpus):,} passages; trained on {pairs:,} pairs of {len(self.train.queries):,} queries; "
            f"{len(self.dev.queries):,} train queries held out; {len(self.test.queries):,} test queries, only "
            f"reported. Seed {self.recipe.seed}.",
            f"For pre-training {store['texts_cut']:,} passages were cut into chunks, {store['chunks']:,} in all; "
            f"{store['chunks_dropped']:,} were too short and dropped. For search {index['passages_cut']:,} of "
            f"{index['passages']:,} passages were cut at {self.recipe.duplex.document_max_length} tokens.",
            f"On the held-out queries: NDCG@10 {dev['ndcg@10']:.3f}, MRR@10 {dev['mrr@10']:.3f}, "
            f"R@100 {dev['recall@100']:.3f}.",
            f"Time: {spent}; {sum(seconds.values()) / 60:.1f} minutes in all.",
        ]
