"""`dupmae index ...`: build an index, change it and look after it."""

from __future__ import annotations

import json as json_text
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dupmae.cli.commands.inputs import open_engine_at, open_index, passages_of, read_queries, say
from dupmae.config import CHUNK_TOKENS, BackendName, FieldsConfig
from dupmae.config.ranges import Count, Fraction, Positive
from dupmae.errors import DupmaeError, without_passwords
from dupmae.models import SMALL, open_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dupmae.corpus import Passage
    from dupmae.index import DuplexIndex

logger = logging.getLogger(__name__)


def build(
    *,
    corpus: list[str],
    output: str,
    model: str = SMALL,
    batch_size: Positive = 32,
    memory_mb: Positive = 1000,
    metadata: list[str] | None = None,
    chunk_tokens: Count = CHUNK_TOKENS,
    chunk_overlap: Count | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    backend: BackendName | None = None,
    strict: bool = False,
    fields: FieldsConfig,
) -> None:
    """Encode a corpus and build the index that `dupmae search` reads.

    Example:
      dupmae index build --corpus articles.jsonl --output index
      dupmae index build --model runs/finetuned/model --corpus articles.jsonl --output index
      torchrun --nproc-per-node 8 -m dupmae index build --model model --corpus articles.jsonl --output index

    Writes the folder OUTPUT. Give the same command after an interruption and it goes on; nothing is encoded twice.
    Under torchrun each process encodes its share, and the last to finish joins them.

    Args:
        corpus: Passages, in any format that `dupmae pretrain --corpus` takes; several are read one after the other.
        output: Folder of the index.
        model: A duplex model, its folder or its packed file; searching takes it from there. dupmae-small comes with the
            package.
        batch_size: Passages encoded at a time.
        memory_mb: Megabytes to use beside the model; passages are held in memory until a segment of them is written.
        metadata: Fields of the corpus to keep, so that `dupmae search --where` can ask for them.
        chunk_tokens: Cut longer texts into chunks of so many tokens, at headings and between sentences, and no longer
            than the model reads; a search finds documents by their best chunk. 0 leaves texts whole, of which the model
            reads the beginning.
        chunk_overlap: Tokens that a chunk repeats of the one before it; a fifth of --chunk_tokens if not given.
        precision: Arithmetic of the encoder, for these passages, those added later, and queries; `auto` takes bfloat16
            where the machine multiplies in it (AMX, AVX-512, GPU).
        backend: What computes the passages: PyTorch (`torch`), ONNX Runtime on the processor (`onnx`), or there with
            products of bytes (`onnx-int8`), once `dupmae export` has made and measured them; if not given, PyTorch
            where it is installed, and else ONNX Runtime.
        strict: Refuse a corpus of which a file or a record cannot be read, instead of naming it and going on.
        fields: The names of the corpus's fields.
    """
    from dupmae.corpus.chunks import chunk_settings
    from dupmae.duplex.backends import open_encoder
    from dupmae.index.writing.build import build_segments
    from dupmae.index.writing.encoding import passages_within
    from dupmae.index.writing.joining import process_of
    from dupmae.index.writing.progress import count_passages

    _check_metadata(metadata, corpus, fields)
    found, process = open_model(model, option="--model"), process_of(os.environ)
    encoder = open_encoder(found, backend, precision)

    def chunks() -> Iterator[Passage]:
        return encoder.chunks(passages_of(corpus, fields, metadata, strict=strict), chunk_tokens, chunk_overlap)

    build_segments(
        Path(output),
        encoder,
        chunks(),
        model=found,
        batch_size=batch_size,
        segment_passages=passages_within(memory_mb),
        process=process,
        chunks=chunk_settings(chunk_tokens, chunk_overlap),
        count=lambda: count_passages(chunks()),
    )
    say(f"Written: {output}" + (f" (share of process {process[0]})" if process[1] > 1 else ""))


def add(
    index: str,
    /,
    *,
    corpus: list[str],
    batch_size: Positive = 32,
    metadata: list[str] | None = None,
    chunk_tokens: Count | None = None,
    chunk_overlap: Count | None = None,
    model: str | None = None,
    backend: BackendName | None = None,
    strict: bool = False,
    fields: FieldsConfig,
) -> None:
    """Encode passages into an index; a document whose id is there already takes that one's place.

    Example:
      dupmae index add index --corpus new-articles.jsonl

    Writes to the folder INDEX. Searches that run meanwhile see the index before or after, never between. Give the same
    command after an interruption and it goes on. Prints how many documents are new and how many took another's place.

    Args:
        index: Folder of the index.
        corpus: Passages, in any format that `dupmae pretrain --corpus` takes, if each has an id of its own; several are
            read one after the other.
        batch_size: Passages encoded at a time.
        metadata: Fields of the corpus to keep; those that the index has, where none is named.
        chunk_tokens: Cut longer texts into chunks of so many tokens; as at building, if not given.
        chunk_overlap: Tokens that a chunk repeats of the one before it; as at building, if not given.
        model: Folder of the duplex model, where it is no longer where it was when the index was built.
        backend: What computes the passages, as for `dupmae index build`; what fits the index, if not given.
        strict: Refuse a corpus of which a file or a record cannot be read, instead of naming it and going on.
        fields: The names of the corpus's fields.
    """
    _check_metadata(metadata, corpus, fields)
    opened = open_index(Path(index), model)
    opened.backend = backend
    kept = opened.info()["metadata"] if metadata is None else metadata
    before = opened.snapshot.documents
    given = passages_of(corpus, fields, kept, need_ids=True, strict=strict)
    count = opened.add(given, batch_size, chunk_tokens=chunk_tokens, chunk_overlap=chunk_overlap)
    held = opened.snapshot.documents
    new = held - before
    say(
        f"Added to {index}: {new} new documents, {count - new} in the place of earlier ones; it holds"
        f" {_counted(held, opened)}"
    )


def delete(index: str, /, *, ids: list[str] | None = None, file: str | None = None) -> None:
    """Delete documents from an index, each with all its chunks.

    Example:
      dupmae index delete index --ids 4983 31715818
      dupmae index delete index --file outdated.txt

    Prints how many were there. Their space comes back with `dupmae index compact`.

    Args:
        index: Folder of the index.
        ids: Ids of the documents.
        file: File with one id a line, instead of --ids.
    """
    if (ids is None) == (file is None):
        raise DupmaeError("dupmae index delete takes either --ids or --file")
    from dupmae.corpus.lines import numbered_lines
    from dupmae.index import DuplexIndex

    lines = ids if ids is not None else [line for _, line in numbered_lines(Path(str(file)))]
    wanted = [identifier for identifier in lines if identifier]
    opened = DuplexIndex.open(Path(index))
    missing = opened.delete(wanted)
    count = len(set(wanted)) - len(missing)
    say(f"Deleted from {index}: {count} documents; it holds {_counted(opened.snapshot.documents, opened)}")
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        say(f"Not there: {names}")


def _counted(documents: int, index: DuplexIndex) -> str:
    """Write how much an index holds."""
    return str(documents) if documents == len(index) else f"{documents} in {len(index)} chunks"


def compact(index: str, /) -> None:
    """Give back the space of deleted passages and join small segments.

    Example:
      dupmae index compact index

    Writes to the folder INDEX. Scores do not change, and searches that run meanwhile are not disturbed.

    Args:
        index: Folder of the index.
    """
    from dupmae.index import DuplexIndex

    opened = DuplexIndex.open(Path(index))
    before = len(opened.manifest.segments)
    opened.compact()
    say(f"Compacted: {index}, {before} segments became {len(opened.manifest.segments)}; it holds {len(opened)}")


def info(index: str, /, *, json: bool = False) -> None:
    """Say what an index holds and what it takes on disk.

    Example:
      dupmae index info index

    Prints counts, sizes in bytes, the model and the metadata fields.

    Args:
        index: Folder of the index.
        json: Print one JSON document instead, for programs.
    """
    from dupmae.index import DuplexIndex

    facts = DuplexIndex.open(Path(index)).info()
    if json:
        print(json_text.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else value
        print(f"{name.replace('_', ' ')}: {shown}")


def verify(index: str, /) -> None:
    """Compare every byte of an index with the checksums it was written with.

    Example:
      dupmae index verify index

    Prints the first file that is damaged and ends with status 2.

    Args:
        index: Folder of the index.
    """
    from dupmae.index import DuplexIndex

    opened = DuplexIndex.open(Path(index))
    opened.verify()
    say(f"Sound: {index}, {len(opened)} passages in {len(opened.manifest.segments)} segments")


def tune(
    index: str,
    /,
    *,
    queries: str,
    k: Positive = 100,
    recall: Fraction = 0.99,
    clusters: bool = False,
    model: str | None = None,
    json: bool = False,
) -> None:
    """Measure on your own queries what approximate search would gain and lose, and propose settings.

    Example:
      dupmae index tune index --queries queries.jsonl --clusters

    Prints recall beside latency for a grid of settings, and the options of `dupmae search` that are the fastest with
    enough recall.

    Args:
        index: Folder of the index.
        queries: Queries like those that will come, in any format that `dupmae pretrain --corpus` takes, but of a .txt
            file every line is a query; 200 are used.
        k: Passages that a search asks for.
        recall: Share of the exact top k that a proposed setting must find.
        clusters: Make clusters of the dense halves first and try them too; needs faiss and d' bytes a passage.
        model: Folder of the duplex model, where it is no longer where it was when the index was built.
        json: Print one JSON document instead, for programs.
    """
    from itertools import islice

    from dupmae.cli.display import PlainConsole, show_trials, trials_as_json
    from dupmae.index.tune import measure, propose

    opened = open_index(Path(index), model)
    texts = [passage.full_text for passage in islice(read_queries(Path(queries)), 200)]
    if clusters:
        opened.cluster()
    trials = measure(opened, opened.queries.embed_queries(texts), k)
    best = propose(trials, recall)
    if json:
        print(trials_as_json(trials, best))
    else:
        show_trials(PlainConsole(), trials, best, k, len(texts))


def push(engine: Literal["qdrant", "pgvector"], index: str, url: str, /, *, api_key_file: str | None = None) -> None:
    """Copy an index into a search engine, for those who outgrow one machine.

    Example:
      dupmae index push qdrant index http://localhost:6333/articles
      dupmae index push pgvector index "postgresql://me@localhost/search#articles"
      dupmae search "how do lighthouses work?" --engine http://localhost:6333/articles --model runs/finetuned/model

    Writes to the engine: its collection then holds the passages of the index and no others. Scores stay the same.

    Args:
        engine: qdrant, or pgvector for PostgreSQL with that extension.
        index: Folder of the index.
        url: http://HOST:PORT/COLLECTION for Qdrant, postgresql://USER@HOST/DATABASE#TABLE for pgvector.
        api_key_file: File with Qdrant's API key, where the environment variable QDRANT_API_KEY or DUPMAE_API_KEY does
            not hold it. PostgreSQL's password is taken from PGPASSWORD or ~/.pgpass.
    """
    from dupmae.index import DuplexIndex
    from dupmae.index.engines import NAMES
    from dupmae.index.engines.exchange import push as push_to

    if url.split(":")[0] not in NAMES[engine]:
        raise DupmaeError(
            f"{without_passwords(url)} is no URL of {engine}: it begins with {' or '.join(NAMES[engine])}"
        )
    opened = open_engine_at(url, api_key_file)
    count = push_to(DuplexIndex.open(Path(index)), opened)
    say(f"Pushed: {count} passages to {without_passwords(url)}")


def _check_metadata(metadata: list[str] | None, corpus: list[str], fields: FieldsConfig) -> None:
    """Refuse metadata fields that an index cannot have, and warn, before the work, of those that no passage has."""
    from dupmae.index.storage.passages import refuse_reserved

    refuse_reserved(metadata or ())
    missing = set(metadata or ())
    for passage in passages_of(corpus, fields, metadata) if missing else ():
        missing.difference_update(passage.metadata)
        if not missing:
            break
    for field in sorted(missing):
        logger.warning("No passage of the corpus has a value in the field %r: check the name after --metadata.", field)
