"""The model card of a duplex model: how it is loaded and used, with dupmae and without."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from dupmae.files import atomic_write

CARD_FILE = "README.md"
TAGS = ("dupmae", "retromae-2", "retrieval", "sparse-encoder", "sentence-transformers")
LANGUAGES = {"english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "dutch": "nl"}
"""What stemmers call languages -> what the metadata does."""
USE = """```python
from sentence_transformers import SparseEncoder

# modeling_duplex.py in this folder is run, a copy of dupmae's own dupmae/duplex/pooling.py
model = SparseEncoder("path/to/this/folder", trust_remote_code=True)
queries = model.encode_query(["how do lighthouses work?"])
passages = model.encode_document(["A lamp behind a lens guides ships at night.", "Wild yeast makes sourdough rise."])
print(model.similarity(queries, passages))
```"""
USE_OF_DUPMAE = """```python
from dupmae import DuplexEncoder

model = DuplexEncoder("path/to/this/folder")  # runs no code of the folder
passages = model.embed_documents(["A lamp behind a lens guides ships at night."])
```"""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measurement that a card reports in its metadata, where hubs and leaderboards read it (`model-index`)."""

    data: str
    """The data set."""
    split: str
    """Which queries of it."""
    metric: str
    """As the metrics are called here, such as `ndcg@10`."""
    value: float


def write_card(folder: Path, encoder: Any, loaded: str | None) -> None:
    """Write a duplex model's card in the place of the one that sentence-transformers has written.

    Args:
        folder: The saved model. Without a card it gets none.
        encoder: The model, a :class:`dupmae.duplex.DuplexEncoder`.
        loaded: The card that it was loaded with; if it is what was written, and knows of dupmae, it stays, unless the
            model was trained since.
    """
    file = folder / CARD_FILE
    if not file.is_file():
        return
    written = file.read_text(encoding="utf-8")
    if written == loaded and "dupmae" in written and not encoder.history:
        return
    pooling, transformer = encoder.pooling, encoder[0]
    terms = "its own tokens" if pooling.query_terms == "tokens" else "all terms that its tokens raise"
    prompts = {task: encoder.prompts.get(task) or "" for task in ("query", "document")}
    parts = [
        f"---\n{_metadata(encoder).to_yaml()}\n---",
        "# A duplex retriever",
        f"It encodes a text in two halves (DupMAE, also RetroMAE-2, arXiv 2305.02564): a dense vector of "
        f"{pooling.dense_dimension} dimensions, and weights of the {pooling.vocabulary_size:,} terms of its "
        f"vocabulary, of which a passage keeps the {pooling.top_k} heaviest and a query has {terms}. The inner product "
        "of a query and a passage is the score, so that queries and passages have to be encoded as what they are: with "
        "`encode_query` and `encode_document`, never with `encode` for both.",
        *_of_words(encoder),
        *(["## How it was made", encoder.history] if encoder.history else []),
        "## Use",
        "With sentence-transformers alone (6.2 or later):",
        USE,
        "With dupmae, which also indexes and searches:",
        "```sh\npip install dupmae\n"
        "dupmae index build --model path/to/this/folder --corpus articles.jsonl --output index\n"
        'dupmae search index "how do lighthouses work?"\n```',
        USE_OF_DUPMAE,
        "## What it reads",
        "| | tokens | prompt before the text |\n|:--|--:|:--|\n"
        f"| query | {transformer.query_length or transformer.max_seq_length} | `{prompts['query']!r}` |\n"
        f"| passage | {transformer.document_length or transformer.max_seq_length} | `{prompts['document']!r}` |",
        f"Made with dupmae {version('dupmae')}. `SHA256SUMS` holds the checksums of its files, which dupmae compares "
        "when it opens them.",
    ]
    with atomic_write(file) as opened:
        opened.write("\n\n".join(parts) + "\n")


def _metadata(encoder: Any) -> ModelCardData:
    """Say of a model what is known, and nothing that its base model's card says of that one."""
    base = str(encoder[0].model.config._name_or_path)
    language = "" if encoder.words is None else LANGUAGES.get(encoder.words.space.language, "")
    results = [
        EvalResult(
            task_type="text-retrieval",
            task_name="Retrieval",
            dataset_type=figure.data,
            dataset_name=figure.data,
            dataset_split=figure.split,
            metric_type=figure.metric.replace("@", "_at_"),
            metric_name=figure.metric.upper(),
            metric_value=round(figure.value, 4),
        )
        for figure in encoder.figures
    ]
    return ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="feature-extraction",
        tags=list(TAGS),
        language=language or None,
        base_model=base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists() else None,
        model_name=Path(encoder.path or "duplex retriever").name,
        eval_results=results or None,
    )


def _of_words(encoder: Any) -> list[str]:
    """Say what the third part of the score is, where there is one."""
    if encoder.words is None:
        return []
    space = encoder.words.space
    return [
        "Whole words are a third part of the score: BM25 "
        f"(language `{space.language}`, k1 {space.k1}, b {space.b}, average length {space.average_length:g} words; "
        f"`words.json`) times {encoder.pooling.word_scale:.3g}, of all of a passage however far the encoder reads. "
        "They are computed by dupmae; sentence-transformers alone leaves them out, and says so."
    ]
