"""Makes the golden files: what a version of dupmae leaves on disk, and what that version makes of it.

    python tests/golden/make.py tests/golden/0.1

From the folder's recipe.yaml it writes files.tar.xz and expected.json. It runs with the code that the files are of:
those of 0.1 were made at commit 5f77744. Later code only reads them (tests/test_golden.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from dupmae import (
    DuplexConfig,
    DuplexEmbeddings,
    DuplexEncoder,
    DuplexIndex,
    StoreConfig,
    build_token_store,
    read_passages,
    run_recipe,
)
from dupmae.cli import load_recipe, main
from dupmae.models import model_fingerprint, resolve_model

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "bay beam bell boat bright calm chart cliff cloud coast deck door drift fire flame flood foam fog gale glass gull "
    "harbour hill horn ice island keeper lamp lens light mast mirror moon night oil pier rain reef rock rope sail "
    "salt sand shell ship shore sky spark stair star steel stone storm tide tower wave wick wind winter wreck"
)
VOCABULARY = [*SPECIAL, *WORDS.split(), "find", "##s", ".", "a", "e", "o"]
QUERIES = ["lamp oil and a keeper", "storms, ships: the reef at night", "bright stars of winter"]
NEEDLESS = ("run/figures", "run/**/*.png")
"""Left out: pictures."""


def make(folder: Path) -> None:
    """Write `files.tar.xz` and `expected.json` into a folder with a recipe."""
    torch.cpu._is_amx_tile_supported = torch.cpu._is_avx512_bf16_supported = lambda: False  # float32 on every machine
    folder = folder.resolve()
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        os.chdir(place)  # so that all files name each other by relative paths
        shutil.copy(folder / "recipe.yaml", "recipe.yaml")
        write_files()
        expected = measure()
        Path("recipe.yaml").unlink()
        archive(folder / "files.tar.xz")
        os.chdir(folder)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
    (folder / "expected.json").write_text(f"{{\n{lines}\n}}\n")


def write_files() -> None:
    """Everything but the expectations, in the current folder."""
    write_data(Path("data"))
    passages = list(read_passages("data/corpus.jsonl", metadata_fields=("place", "year")))
    encoder = write_model(Path("model"))
    build_token_store(passages, encoder.tokenizer, "store", StoreConfig(max_length=24, min_length=4))
    index = DuplexIndex.build(Path("index"), encoder, passages[:-1], model="model")
    index.delete(["p03"])
    index.add(passages[-1:])
    assert main(["pack", "model", "packed.safetensors"]) == 0
    assert main(["encode", "--model", "model", "--input", "data/corpus.jsonl", "--output", "embeddings"]) == 0
    run_recipe(load_recipe("recipe.yaml"))
    for pattern in NEEDLESS:
        for path in Path().glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def measure() -> dict[str, Any]:
    """What this version makes of the files."""
    from dupmae.corpus import TokenStore

    embeddings, store = DuplexEmbeddings.load("embeddings"), TokenStore.open("store")
    index, run_index = DuplexIndex.open(Path("index")), DuplexIndex.open(Path("run/index"))
    checkpoint = DuplexEncoder.from_encoder("run/2-pretrain/model", DuplexConfig(dense_pooling="mean", top_k=24))
    return {
        "queries": QUERIES,
        "model": {"fingerprint": model_fingerprint("model"), "scores": scores(DuplexEncoder("model"))},
        "packed": {"scores": scores(DuplexEncoder(resolve_model("packed.safetensors")))},
        "index": {"passages": len(index), "hits": hits(index)},
        "store": {
            "fingerprint": store.fingerprint,
            "counts": store.report,
            "first_token_ids": store[0]["input_ids"].tolist(),
        },
        "embeddings": {
            "dense": embeddings.cls.sum(axis=0).tolist(),
            "ids": embeddings.ids.sum(axis=0).tolist(),
            "weights": embeddings.weights.sum(axis=0).tolist(),
        },
        "checkpoint": {"scores": scores(checkpoint)},
        "run": {
            "passages": len(run_index),
            "hits": hits(run_index),
            "scores": scores(DuplexEncoder("run/7-distil/model")),
            "systems": json.loads(Path("run/report.json").read_text())["systems"],
        },
    }


def scores(encoder: DuplexEncoder) -> list[list[float]]:
    """A list a query, a score a passage."""
    texts = [passage.full_text for passage in read_passages("data/corpus.jsonl")]
    return encoder.similarity(encoder.encode_query(QUERIES), encoder.encode_document(texts)).tolist()


def hits(index: DuplexIndex) -> list[list[list[Any]]]:
    """A list a query, of each of its five best passages the id, the score and its two parts."""
    return [[[hit.id, hit.score, hit.cls_score, hit.ot_score] for hit in row] for row in index.search(QUERIES, k=5)]


def archive(file: Path) -> None:
    """Put all files of the current folder into one; equal files give an equal one."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime = entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with tarfile.open(file, "w:xz", preset=9) as tar:
        for path in sorted(Path().iterdir()):
            tar.add(path, filter=plain)


def write_data(folder: Path) -> None:
    """A benchmark of 24 passages with metadata, 16 train and 5 test queries."""
    draw = random.Random(1)
    (folder / "qrels").mkdir(parents=True)
    passages, queries = [], []
    for n in range(24):
        words = draw.sample(WORDS.split(), 10 if n % 6 else 30)  # every sixth takes two chunks
        text = " ".join(words[2:6]) + "s . " + " ".join(words[6:]) + " ."
        metadata = {"place": ("shore", "sea")[n % 2], "year": 1820 + n % 3}
        passages.append({"_id": f"p{n:02}", "title": " ".join(words[:2]), "text": text, "metadata": metadata})
        queries.append({"_id": f"q{n:02}", "text": " ".join(words[1:4])})
    for name, records in (("corpus", passages), ("queries", queries[:21])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for split, numbers in (("train", range(16)), ("test", range(16, 21))):
        lines = "".join(f"q{n:02}\tp{n:02}\t1\n" for n in numbers)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)


def write_model(folder: Path) -> DuplexEncoder:
    """A duplex model over a BERT of one layer, 8 wide, all of whose numbers are random."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=32,
        initializer_range=1.0,
    )
    ids = {entry: number for number, entry in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    names = {f"{entry.strip('[]').lower()}_token": entry for entry in SPECIAL}
    with tempfile.TemporaryDirectory() as start:
        BertForMaskedLM(config).save_pretrained(start)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(start)
        encoder = DuplexEncoder.from_encoder(start, load_recipe("recipe.yaml").duplex)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() < 2:  # biases, norms and scales, which begin neutral
                parameter += 0.3 * torch.randn_like(parameter)
    encoder.save(str(folder))
    return DuplexEncoder(str(folder))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
