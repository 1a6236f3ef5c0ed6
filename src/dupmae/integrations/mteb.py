"""Search MTEB's retrieval tasks with an exact duplex index, and write results in MTEB's layout.

MTEB gives a corpus and queries to whatever has its search protocol (`index`, `search`) and measures what comes back. It
needs `mteb` (`pip install 'dupmae[mteb]'`).
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta, ScoringFunction

from dupmae.config import BackendName
from dupmae.corpus import Benchmark, Passage, Run
from dupmae.duplex.backends import open_encoder
from dupmae.index import DuplexIndex
from dupmae.models import SMALL, open_model

SMALL_TRAINED_ON = frozenset(("MSMARCO", "NQ", "QuoraRetrieval", "CQADupstackRetrieval", "SCIDOCS"))
"""MTEB's tasks with whose training data, or data of the same source, all-MiniLM-L6-v2 was trained by its model card:
the base model of dupmae-small, which itself read Wikipedia alone."""
QUERIES_AT_A_TIME = 1024


class DuplexSearch:
    """A duplex model with MTEB's search protocol.

    Args:
        model: A folder, a packed file, or `dupmae-small`.
        trained_on: MTEB's names of the tasks whose training data the model saw, its base model's included: MTEB tells
            by them whether a result is zero-shot. None says that it is not known; that of dupmae-small is.
        backend: What encodes documents, as for `dupmae index build`.

    Raises:
        DupmaeError: There is no such duplex model.
    """

    def __init__(
        self, model: str, *, trained_on: Collection[str] | None = None, backend: BackendName = "torch"
    ) -> None:
        self.model = open_model(model)
        self.encoder = open_encoder(self.model, backend)
        self._trained_on = SMALL_TRAINED_ON if trained_on is None and model == SMALL else trained_on
        self._folder = tempfile.TemporaryDirectory(prefix="dupmae-mteb-")
        self._index: DuplexIndex | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What MTEB keeps of the model; its revision is its fingerprint."""
        name, tasks = f"dupmae/{Path(self.model.name).name}", self._trained_on
        return _meta(name, self.model.fingerprint, ["PyTorch", "Sentence Transformers"]).model_copy(
            update={
                "max_tokens": self.encoder.reads("document"),
                "training_datasets": None if tasks is None else set(tasks),
                "use_instructions": any(self.encoder.prompts.values()),
            }
        )

    def index(self, corpus: Any, *, encode_kwargs: Mapping[str, Any], **_: Any) -> None:
        """Index a task's documents, each whole, in a temporary folder."""
        folder = Path(self._folder.name) / "index"
        shutil.rmtree(folder, ignore_errors=True)
        passages = (Passage(str(row["id"]), str(row.get("title") or ""), str(row.get("text") or "")) for row in corpus)
        batch_size = int(encode_kwargs.get("batch_size", 32))
        self._index = DuplexIndex.build(
            folder, self.encoder, list(passages), model=self.model.name, batch_size=batch_size, chunk_tokens=0
        )

    def search(
        self, queries: Any, *, top_k: int, top_ranked: Mapping[str, Collection[str]] | None = None, **_: Any
    ) -> Run:
        """Rank the best documents of each query, of those in `top_ranked` where a task gives some to be ordered."""
        assert self._index is not None
        ids, texts = [str(row["id"]) for row in queries], [str(row["text"]) for row in queries]
        run: Run = {}
        for start in range(0, len(ids), QUERIES_AT_A_TIME if top_ranked is None else 1):
            part = slice(start, start + (QUERIES_AT_A_TIME if top_ranked is None else 1))
            embeddings = self.encoder.embed_queries(texts[part])
            found = self._index.search_embeddings(embeddings, top_k if top_ranked is None else len(self._index))
            for query, documents, scores in zip(ids[part], *found, strict=True):
                allowed = documents if top_ranked is None else set(top_ranked.get(query, ()))
                pairs = zip(documents, scores, strict=True)
                run[query] = dict([pair for pair in pairs if pair[0] in allowed][:top_k])
        return run


class _Found:
    """Answers with rankings that were made before."""

    def __init__(self, name: str, run: Run) -> None:
        self.mteb_model_meta = _meta(f"local/{re.sub(r'[^-.0-9A-Za-z]+', '-', name).strip('-')}", "local", [])
        self._run = run

    def index(self, corpus: Any, **_: Any) -> None:
        """Do nothing."""

    def search(self, queries: Any, *, top_k: int, **_: Any) -> Run:
        """Give the rankings."""
        return {str(row["id"]): dict(list(self._run.get(str(row["id"]), {}).items())[:top_k]) for row in queries}


def local_task(benchmark: Benchmark, language: str = "eng-Latn") -> AbsTaskRetrieval:
    """Make one of MTEB's retrieval tasks of a benchmark at hand.

    Args:
        benchmark: Gives corpus, queries and judgements, its split and its name.
        language: As MTEB writes it.
    """
    metadata = TaskMetadata(
        name=benchmark.name,
        description=f"{benchmark.name}, from a local folder",
        dataset={"path": benchmark.name, "revision": "local"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=[benchmark.split],
        eval_langs=[language],
        main_score="ndcg_at_10",
    )
    task: AbsTaskRetrieval = type(benchmark.name, (AbsTaskRetrieval,), {"metadata": metadata})()
    corpus = [{"id": one.id, "title": one.title, "text": one.text} for one in benchmark.corpus.values()]
    data = RetrievalSplitData(
        corpus=Dataset.from_list(corpus),
        queries=Dataset.from_list([{"id": query, "text": text} for query, text in benchmark.queries.items()]),
        relevant_docs=benchmark.qrels,
        top_ranked=None,
    )
    task.dataset = {"default": {benchmark.split: data}}
    task.data_loaded = True
    return task


def write_results(folder: Path, benchmark: Benchmark, runs: Mapping[str, Run], language: str = "eng-Latn") -> None:
    """Measure rankings with MTEB and write its result files, `results/local/SYSTEM/.../BENCHMARK.json`.

    Args:
        folder: What MTEB calls a cache.
        benchmark: That was searched.
        runs: Rankings by system, 1,000 deep for all of MTEB's measures.
        language: Of the benchmark, as MTEB writes it.
    """
    for system, run in runs.items():
        mteb.evaluate(
            _Found(system, run),
            local_task(benchmark, language),
            cache=mteb.ResultCache(folder),
            overwrite_strategy="always",
            co2_tracker=False,
            show_progress_bar=False,
        )


def _meta(name: str, revision: str, framework: list[Any]) -> ModelMeta:
    """Describe a model of which no more is known than its name and its version."""
    unknown = ("release_date", "languages", "n_parameters", "memory_usage_mb", "max_tokens", "embed_dim", "license")
    others = ("public_training_code", "public_training_data", "use_instructions", "training_datasets")
    nothing: dict[str, Any] = dict.fromkeys((*unknown, *others))
    return ModelMeta(
        loader=None,
        name=name,
        revision=revision,
        open_weights=None,
        framework=framework,
        similarity_fn_name=ScoringFunction.DOT_PRODUCT,
        model_type=["sparse"],
        **nothing,
    )
