"""Build the small models, texts, indexes and runs that are damaged; each part once, when it is first asked for."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [a + b + c for a in ("ka", "lo", "mi", "ru") for b in ("na", "te", "vo") for c in ("d", "l", "r", "s", "t")]
VOCABULARY = [*SPECIAL, *WORDS, ".", *"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmn")]
LENGTHS = ["--query_max_length", "16", "--document_max_length", "32", "--top_k", "12"]
SHORT = ["--epochs", "1", "--batch_size", "4", "--max_length", "24", "--precision", "float32"]
PRETRAIN = [
    "--corpus", "corpus.jsonl", "--model", "models/encoder", "--max_length", "24", "--min_length", "4", "--steps", "2",
    "--new_layers_steps", "1", "--warm_start_sequences", "10", "--batch_size", "4", "--held_out_texts", "2",
    "--precision", "float32",
]  # fmt: skip
RESUMED = [
    "--model", "models/encoder", "--pairs", "pairs.jsonl", *SHORT, "--save_steps", "2", *LENGTHS, "--negatives", "0"
]  # fmt: skip


class World:
    """A folder of parts.

    Commands run in `case`, at one and the same path for all inputs, since records of runs name absolute paths; parts
    are built there, too, and kept in `parts`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.case, self.parts = folder / "case", folder / "parts"
        for made in (folder, self.case, self.parts, folder / "home"):
            made.mkdir(parents=True, exist_ok=True)

    def needs(self, names: tuple[str, ...]) -> None:
        """Build the parts that are not there, with what they are built from."""
        for name in names:
            if not (self.parts / name).exists():
                self.needs(FROM.get(name, ()))
                self.lay_out(FROM.get(name, ()))
                _in_child(BUILDERS[name], self.case)
                if not (self.case / name).exists():
                    raise SystemExit(f"the part {name} was not built: see {self.case}")
                shutil.move(self.case / name, self.parts / name)

    def lay_out(self, names: tuple[str, ...]) -> None:
        """Empty the case's folder and copy parts into it."""
        empty(self.case)
        for name in names:
            source, place = self.parts / name, self.case / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, place, symlinks=True) if source.is_dir() else shutil.copy2(source, place)


def empty(folder: Path) -> None:
    """Delete all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _in_child(build: Callable[[], None], folder: Path) -> None:
    """Build a part in a child, so that this process starts no thread."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(folder)
            log = os.open("../build.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            build()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.waitpid(child, 0)


def command(*words: str) -> None:
    """Run a command that must succeed."""
    from dupmae.cli.entry import main

    status = main(list(words))
    if status != 0:
        raise SystemExit(f"status {status}: {' '.join(words)}")


def _texts() -> list[str]:
    draw = random.Random(5)
    return [" ".join(draw.sample(WORDS, 12)) + " ." for _ in range(30)]


def _lines(name: str, records: list[Any]) -> None:
    place = Path(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _records() -> list[dict[str, Any]]:
    return [
        {"_id": f"p{n}", "title": text.split()[0], "text": text, "lang": ["en", "de"][n % 2], "year": 2000 + n}
        for n, text in enumerate(_texts())
    ]


def _queries() -> list[dict[str, str]]:
    return [{"_id": f"q{n}", "text": " ".join(text.split()[:3])} for n, text in enumerate(_texts()[:24])]


def _corpus_jsonl() -> None:
    _lines("corpus.jsonl", _records())


def _more_jsonl() -> None:
    _lines("more.jsonl", [record | {"_id": f"m{n}"} for n, record in enumerate(_records()[:4])])


def _compressed(name: str) -> None:
    content = "".join(json.dumps(record) + "\n" for record in _records()).encode()
    if name.endswith(".gz"):
        Path(name).write_bytes(gzip.compress(content))
    elif name.endswith(".xz"):
        Path(name).write_bytes(lzma.compress(content))
    else:
        import pyarrow as pa

        with pa.output_stream(name, compression="zstd") as file:
            file.write(content)


def _tsv() -> None:
    Path("corpus.tsv").write_text(
        "".join(f"{record['_id']}\t{record['title']}\t{record['text']}\n" for record in _records()), encoding="utf-8"
    )


def _txt() -> None:
    Path("corpus.txt").write_text("\n\n".join(_texts()) + "\n", encoding="utf-8")


def _parquet() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(_records()), "corpus.parquet")


def _dataset() -> None:
    import datasets

    datasets.Dataset.from_list(_records()).save_to_disk("dataset")


def _folder_of_texts() -> None:
    Path("texts/inner").mkdir(parents=True)
    for number, text in enumerate(_texts()[:6]):
        Path("texts", *(["inner"] if number % 2 else []), f"{number}.txt").write_text(text, encoding="utf-8")


def _folder_of_documents() -> None:
    import csv
    import zipfile

    import docx
    import openpyxl
    from matplotlib.figure import Figure

    folder, texts = Path("documents"), _texts()
    folder.mkdir()
    page = f"<html lang=en><head><title>{texts[0][:20]}</title></head><body><h1>{texts[1][:20]}</h1><p>{texts[2]}</p>"
    (folder / "a.html").write_text(page, encoding="utf-8")
    (folder / "b.md").write_text(f"---\nyear: 2020\n---\n# {texts[3][:20]}\n\n- {texts[4]}\n", encoding="utf-8")
    (folder / "c.rst").write_text(f"Title\n=====\n\n.. note:: {texts[5]}\n", encoding="utf-8")
    (folder / "d.json").write_text(json.dumps(_records()[:4]), encoding="utf-8")
    with (folder / "e.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *([f"e{n}", text] for n, text in enumerate(texts[:4]))])
    document, book, figure = docx.Document(), openpyxl.Workbook(), Figure()
    document.add_heading(texts[6][:20])
    document.add_paragraph(texts[6])
    document.save(str(folder / "f.docx"))
    for row in (["_id", "text"], ["g1", texts[7]]):
        book.active.append(row)
    book.save(folder / "g.xlsx")
    figure.text(0.1, 0.5, texts[8][:60])
    figure.savefig(folder / "h.pdf")
    with zipfile.ZipFile(folder / "i.epub", "w") as archive:
        archive.writestr("META-INF/container.xml", '<c><rootfile full-path="b.opf"/></c>')
        item = '<manifest><item id="a" href="a.html" media-type="text/html"/></manifest>'
        archive.writestr("b.opf", f'<p>{item}<spine><itemref idref="a"/></spine></p>')
        archive.writestr("a.html", page)


def _benchmark() -> None:
    _lines("benchmark/corpus.jsonl", _records())
    _lines("benchmark/queries.jsonl", _queries())
    Path("benchmark/qrels").mkdir()
    for split, numbers in (("train", range(16)), ("test", range(16, 24))):
        rows = "".join(f"q{n}\tp{n}\t1\n" for n in numbers)
        Path(f"benchmark/qrels/{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows, encoding="utf-8")


def _ranked(columns: int) -> str:
    return "".join(
        f"q{q} Q0 p{(q + rank) % 30} {rank + 1} {9.5 - rank} tag\n" if columns == 6 else
        f"q{q}\tp{(q + rank) % 30}\t{rank + 1}\n"
        for q in range(16, 24)
        for rank in range(5)
    )  # fmt: skip


def _lists() -> None:
    _lines("lists.jsonl", [
        {"query_id": f"q{n}", "positives": {f"p{n}": 9.5}, "negatives": {f"p{n + 1}": 8.5, f"p{n + 2}": 7.25}}
        for n in range(1, 13)
    ])  # fmt: skip


def _scores() -> None:
    _lines("scores.jsonl", [
        {"query_id": f"q{n}", "scores": {f"p{n}": 4.5, f"p{n + 1}": -0.5, f"p{n + 2}": -2.25}} for n in range(1, 13)
    ])  # fmt: skip


RECIPE = """\
name: tiny
output: run
base_model: models/encoder
seed: 7
data: {benchmark: benchmark, dev_fraction: 0.2, hold_out: queries}
store: {max_length: 24, min_length: 4}
pretrain:
  steps: 1
  new_layers_steps: 1
  warm_start_sequences: 10
  batch_size: 8
  held_out_texts: 2
  precision: float32
duplex: {document_max_length: 32, query_max_length: 16, top_k: 16}
finetune:
  epochs: 1
  batch_size: 8
  max_length: 24
  precision: float32
baselines: [bm25]
"""
CONFIGS = {
    "recipe.yaml": RECIPE,
    "finetune.yaml": "model: models/encoder\npairs: pairs.jsonl\nepochs: 1\nbatch_size: 4\nlearning_rate: 3e-5\n"
    "dropout: 0.0\nmax_length: 24\nnegatives: 0\ntop_k: 12\noutput: out\n",
    "build.yaml": "corpus: [corpus.jsonl]\nmodel: models/duplex\nmetadata: [lang, year]\nbatch_size: 8\noutput: out\n",
    "evaluate.yaml": "run:\n- run.trec\nqrels: benchmark/qrels/test.tsv\nk: 100\nties: id\n",
}


def _models_encoder() -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained("models/encoder")
    ids = {entry: number for number, entry in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained("models/encoder")


def _models_duplex() -> None:
    import torch

    from dupmae import DuplexConfig, DuplexEncoder

    torch.manual_seed(1)
    config = DuplexConfig(dense_dimension=8, top_k=12, query_max_length=16, document_max_length=32)
    DuplexEncoder.from_encoder("models/encoder", config).save("models/duplex")


def _models_embedder() -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    modules = [Transformer("models/encoder"), Pooling(16, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save("models/embedder", create_model_card=False)


def _models_cross() -> None:
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(2)
    CrossEncoder("models/encoder", num_labels=1, max_length=48, device="cpu").save_pretrained(
        "models/cross", create_model_card=False
    )


def _index() -> None:
    records = _records()
    _lines("first.jsonl", records[:14])
    _lines("second.jsonl", records[12:22])
    command("index", "build", "--model", "models/duplex", "--corpus", "first.jsonl", "--output", "index",
            "--metadata", "lang", "year")  # fmt: skip
    command("index", "add", "index", "--corpus", "second.jsonl")
    command("index", "delete", "index", "--ids", "p3", "p15")


def _clustered() -> None:
    shutil.move("index", "clustered")
    Path("queries.txt").write_text("".join(f"{query['text']}\n" for query in _queries()), encoding="utf-8")
    command("index", "tune", "clustered", "--queries", "queries.txt", "--clusters", "--k", "5")


def _interrupted() -> None:
    """Leave a run of fine-tuning as a kill in its fifth step leaves it."""
    from transformers import Trainer

    step, taken = Trainer.training_step, [0]

    def dying_step(*args: Any, **kwargs: Any) -> Any:
        taken[0] += 1
        if taken[0] > 4:
            os._exit(9)
        return step(*args, **kwargs)

    Trainer.training_step = dying_step
    command("finetune", "--output", "interrupted", *RESUMED)


def _stored() -> None:
    """Leave the token store of a run of pre-training, and nothing else of it."""
    Path("stored").mkdir()
    shutil.move("pretrained/store", "stored/store")


BUILDERS: dict[str, Callable[[], None]] = {
    "corpus.jsonl": _corpus_jsonl,
    "more.jsonl": _more_jsonl,
    "corpus.jsonl.gz": lambda: _compressed("corpus.jsonl.gz"),
    "corpus.jsonl.xz": lambda: _compressed("corpus.jsonl.xz"),
    "corpus.jsonl.zst": lambda: _compressed("corpus.jsonl.zst"),
    "corpus.tsv": _tsv,
    "corpus.txt": _txt,
    "corpus.parquet": _parquet,
    "dataset": _dataset,
    "texts": _folder_of_texts,
    "documents": _folder_of_documents,
    "benchmark": _benchmark,
    "queries.jsonl": lambda: _lines("queries.jsonl", _queries()),
    "queries.txt": lambda: Path("queries.txt").write_text("".join(f"{q['text']}\n" for q in _queries())),
    "ids.txt": lambda: Path("ids.txt").write_text("p1\np2\np20\n"),
    "pairs.csv": lambda: Path("pairs.csv").write_text("".join(
        f'"{query}","{text}"\n'
        for query, text in [("query", "answer"), *zip((q["text"] for q in _queries()), _texts(), strict=False)]
    )),
    "pairs.jsonl": lambda: _lines("pairs.jsonl", [
        {"query": query["text"], "positive": text} for query, text in zip(_queries(), _texts(), strict=False)
    ]),
    "lists.jsonl": _lists,
    "scores.jsonl": _scores,
    "run.trec": lambda: Path("run.trec").write_text(_ranked(6)),
    "run.tsv": lambda: Path("run.tsv").write_text(_ranked(3)),
    "qrels.trec": lambda: Path("qrels.trec").write_text("".join(f"q{n} 0 p{n} 1\n" for n in range(16, 24))),
    "models/encoder": _models_encoder,
    "models/duplex": _models_duplex,
    "models/embedder": _models_embedder,
    "models/cross": _models_cross,
    "models/packed.safetensors": lambda: command("pack", "models/duplex", "models/packed.safetensors"),
    "index": _index,
    "clustered": _clustered,
    "pretrained": lambda: command("pretrain", "--output", "pretrained", *PRETRAIN),
    "stored": _stored,
    "run": lambda: command("run", "recipe.yaml"),
    "interrupted": _interrupted,
    "mined": lambda: command("mine", "--source", "bm25", "--pairs", "pairs.jsonl", "--output", "mined"),
    "compared": lambda: command("evaluate", "--model", "models/duplex", "bm25", "--benchmark", "benchmark", "--output",
                                "compared", "--k", "20"),
} | {name: (lambda name=name, text=text: Path(name).write_text(text)) for name, text in CONFIGS.items()}  # fmt: skip
"""Name of a part, and its place -> what builds it."""
FROM: dict[str, tuple[str, ...]] = {
    "models/duplex": ("models/encoder",),
    "models/embedder": ("models/encoder",),
    "models/cross": ("models/encoder",),
    "models/packed.safetensors": ("models/duplex",),
    "index": ("models/duplex",),
    "clustered": ("models/duplex", "index"),
    "pretrained": ("models/encoder", "corpus.jsonl"),
    "stored": ("pretrained",),
    "run": ("models/encoder", "benchmark", "recipe.yaml"),
    "interrupted": ("models/encoder", "pairs.jsonl"),
    "mined": ("pairs.jsonl",),
    "compared": ("models/duplex", "benchmark"),
}
"""What a part is built from."""
