"""Tiny random checkpoints on disk, texts in their language, and the same random numbers for every test."""

from __future__ import annotations

import functools
import gc
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Before PyTorch is imported: on tiny tensors threads wait for each other, those of two processes all the more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before anything of Hugging Face is imported: no network, and code of model folders kept out of the user's cache.
_MODULES = tempfile.TemporaryDirectory()
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_MODULES_CACHE"] = _MODULES.name
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
WORDS = [SYLLABLES[i] + SYLLABLES[(7 * i + 3 * j) % len(SYLLABLES)] for j in range(2) for i in range(len(SYLLABLES))]
PIECES = ["##s", "##ne", "##to", ".", ",", *"abcdefghijklmnopqrstuvwxyz"]
VOCABULARY = [*SPECIAL, *WORDS, *PIECES]

SLOWEST = (
    "test_run",
    "test_index_faults",
    "test_finetune",
    "test_pretrain",
    "test_adapt",
    "test_fault_doors",
    "test_frameworks",
    "test_without_training",
    "test_installed",
    "test_site",
    "test_headers",
    "test_fuzz",
    "test_processes",
    "test_damage",
    "test_reproduce",
    "test_variants",
    "test_code",
    "test_finetune_processes",
)
"""Files of tests that take longest; they come first, so that at the end no process is left with one of them alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first."""
    place = {name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same random numbers."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _frozen_heap() -> None:
    """Keep what was imported out of garbage collections: each training ends with one, over millions of objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _compiled_templates() -> Iterator[None]:
    """Compile each template once: sentence-transformers does so for the model card of every checkpoint."""
    import jinja2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", functools.lru_cache(64)(jinja2.Environment.compile))
        yield


@pytest.fixture(scope="session", autouse=True)
def save_figure() -> Iterator[Callable[[Any, Path], None]]:
    """What writes a figure, for tests that look at one; all others get an empty file, which takes no time."""
    from dupmae.runtime import curves

    genuine = curves.save_figure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "save_figure", _save_nothing)
        yield genuine


def _save_nothing(figure: Any, path: Path) -> None:
    """Leave an empty file where the figure belongs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture(scope="session")
def words() -> list[str]:
    """The words that are one token each."""
    return WORDS


@pytest.fixture(scope="session")
def texts(words: list[str]) -> list[str]:
    """Twelve texts of 1 to 40 words, long and short mixed, no two the same."""
    draw = random.Random(1)
    return [" ".join(draw.choices(words, k=size)) for size in (3, 40, 1, 12, 7, 25, 2, 18, 5, 33, 9, 4)]


@pytest.fixture(scope="session")
def write_data(words: list[str]) -> Callable[[Path], Path]:
    """Writes a benchmark of 30 passages, 16 train and 8 test queries."""

    def write(folder: Path) -> Path:
        from dupmae.corpus import Passage, write_benchmark

        draw = random.Random(5)
        texts = [" ".join(draw.sample(words, 12)) for _ in range(30)]
        passages = [Passage(f"p{n}", text.split()[0], text) for n, text in enumerate(texts)]
        queries = {f"q{n}": " ".join(text.split()[:3]) for n, text in enumerate(texts[:24])}
        splits = {"train": range(16), "test": range(16, 24)}
        qrels = {split: {f"q{n}": {f"p{n}": 1} for n in numbers} for split, numbers in splits.items()}
        write_benchmark(folder, passages, queries, qrels)
        return folder

    return write


@pytest.fixture(scope="session")
def small_run() -> dict[str, Any]:
    """What makes a recipe small enough for that benchmark."""
    return {
        "store.max_length": 32,
        "store.min_length": 4,
        "pretrain.warm_start_sequences": 20,
        "pretrain.new_layers_steps": 1,
        "pretrain.steps": 1,
        "pretrain.batch_size": 8,
        "duplex.document_max_length": 48,
        "finetune.epochs": 1,
        "finetune.batch_size": 8,
    }


@pytest.fixture(scope="session")
def write_tokenizer() -> Callable[[Path], None]:
    """Writes a WordPiece tokenizer over some 170 terms to a folder."""

    def write(folder: Path) -> None:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        ids = {term: number for number, term in enumerate(VOCABULARY)}
        tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
        )
        names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)

    return write


@pytest.fixture(scope="session")
def bert_config() -> Any:
    """Two layers, 32 wide, 64 positions."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.2,
    )


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory, bert_config: Any, write_tokenizer: Any) -> Path:
    """A masked-language model: a tiny BERT with its vocabulary head, no bias or norm of which is neutral."""
    from transformers import BertForMaskedLM

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    model = _randomised(BertForMaskedLM, bert_config)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def embedder_folder(tmp_path_factory: pytest.TempPathFactory, bert_config: Any, write_tokenizer: Any) -> Path:
    """A sentence-transformers embedder: a tiny BERT without a vocabulary head, mean pooling, normalisation."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertModel

    encoder = tmp_path_factory.mktemp("encoders") / "encoder"
    _randomised(BertModel, bert_config).save_pretrained(encoder)
    write_tokenizer(encoder)
    folder = tmp_path_factory.mktemp("models") / "tiny-embedder"
    modules = [Transformer(str(encoder)), Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="session")
def write_benchmark(words: list[str]) -> Callable[..., Path]:
    """Writes passages of 3 to 12 words, and queries of three words of the passage that answers them."""

    def write(folder: Path, seed: int = 3, passages: int = 30, queries: int = 8) -> Path:
        from dupmae import corpus

        draw = random.Random(seed)
        texts = {f"p{number:02d}": draw.sample(words, draw.randint(3, 12)) for number in range(passages)}
        answers = draw.sample(sorted(texts), queries)
        corpus.write_benchmark(
            folder,
            [corpus.Passage(name, text[0], " ".join(text[1:])) for name, text in texts.items()],
            {f"q{n}": " ".join(texts[name][:3]) for n, name in enumerate(answers)},
            {"test": {f"q{n}": {name: 1} for n, name in enumerate(answers)}},
        )
        return folder

    return write


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory, write_benchmark: Callable[..., Path]) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def duplex_folder(tmp_path_factory: pytest.TempPathFactory, bert_folder: Path) -> Path:
    """A tiny duplex model."""
    import torch

    from dupmae import DuplexConfig, DuplexEncoder

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-duplex"
    encoder = DuplexEncoder.from_encoder(
        str(bert_folder), DuplexConfig(top_k=16, document_max_length=48, query_terms="logits")
    )
    encoder.save_pretrained(str(folder))
    return folder


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """Puts a folder into a cache of the hub, as if it had been fetched; gives its id."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(folder: Path) -> str:
        place = tmp_path / "hub" / f"models--somebody--{folder.name}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("abc123", encoding="utf-8")
        shutil.copytree(folder, place / "snapshots" / "abc123")
        return f"somebody/{folder.name}"

    return put


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a tiny checkpoint of a kind (:func:`tiny_checkpoints.write_checkpoint`)."""
    from tiny_checkpoints import write_checkpoint

    return lambda kind: write_checkpoint(tmp_path / kind, kind)


def _randomised(kind: Any, config: Any) -> Any:
    """A model whose vectors (biases, norms) are as random as its matrices."""
    import torch

    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
    return model
