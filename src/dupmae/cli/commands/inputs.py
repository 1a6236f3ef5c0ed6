"""Take what several commands take alike: passages, queries, filters, an index, training pairs."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.config import FieldsConfig, PairsConfig, QueryEncoderName
from dupmae.errors import DupmaeError, without_passwords
from dupmae.files import is_standard_output

if TYPE_CHECKING:
    from dupmae.corpus import Benchmark, Passage
    from dupmae.index import DuplexIndex
    from dupmae.index.engines import Engine

logger = logging.getLogger(__name__)


def open_index(folder: Path, model: str | None, query_encoder: QueryEncoderName | None = None) -> DuplexIndex:
    """Open an index, with the model that built it taken from where it was or from the folder given."""
    from dupmae.index import DuplexIndex
    from dupmae.models import open_model

    found = None if model is None else open_model(model, option="--model")
    return DuplexIndex.open(folder, model=found, query_encoder=query_encoder)


def open_engine_at(url: str, api_key_file: str | None) -> Engine:
    """Connect to the search engine that a URL names, with the key that there is for it."""
    from dupmae.index.engines import NAMES, open_engine, read_api_key

    if url != without_passwords(url):
        logger.warning(
            "The password in the URL can be read by everybody who lists this machine's processes: PostgreSQL takes it "
            "from PGPASSWORD or ~/.pgpass, Qdrant its key from QDRANT_API_KEY or --api_key_file."
        )
    if url.split(":")[0] not in NAMES["pgvector"]:
        return open_engine(url, read_api_key(None if api_key_file is None else Path(api_key_file)))
    if api_key_file is not None:
        raise DupmaeError("--api_key_file is for Qdrant: PostgreSQL's password is taken from PGPASSWORD or ~/.pgpass")
    return open_engine(url)


def read_queries(path: Path, fields: FieldsConfig | None = None) -> Iterator[Passage]:
    """Read queries as passages are read, but of a text file every line that is not blank, as `dupmae search` does."""
    from dupmae.corpus.lines import file_type, numbered_lines

    if not path.is_file() or file_type(path) != ".txt":
        yield from passages_of([str(path)], fields)
        return
    from dupmae.corpus import Passage

    name, empty = "_".join(path.name.split()), True
    for number, line in numbered_lines(path):
        if text := line.strip():
            empty = False
            yield Passage(f"{name}#{number}", "", text)
    if empty:
        raise DupmaeError(f"{path} is empty: no query was found in it.")


def passages_of(
    paths: Sequence[str],
    fields: FieldsConfig | None = None,
    metadata: Sequence[str] | None = None,
    *,
    need_ids: bool = False,
    strict: bool = False,
) -> Iterator[Passage]:
    """Read the passages of several files or folders, one after the other."""
    from dupmae.corpus.folders import Unread
    from dupmae.corpus.readers import read_passages

    names = asdict(fields or FieldsConfig())
    for path in paths:
        unread = Unread(strict=strict)
        yield from read_passages(path, **names, metadata_fields=metadata or (), need_ids=need_ids, unread=unread)


def say(sentence: str) -> None:
    """Print a sentence at once."""
    print(sentence, flush=True)


@contextmanager
def beside(output: str | None) -> Iterator[None]:
    """Print to the standard error what would otherwise stand in an output that goes to the standard output."""
    with contextlib.redirect_stdout(sys.stderr) if is_standard_output(output) else contextlib.nullcontext():
        yield


def texts_of(paths: Sequence[str], fields: FieldsConfig, *, strict: bool) -> Iterator[str]:
    """Read the texts of several files' or folders' passages."""
    return (passage.full_text for passage in passages_of(paths, fields, strict=strict))


def read_train(
    command: str,
    benchmark: str | None,
    pairs: str | None,
    train_split: str,
    allow_unknown: bool,
    pair_fields: PairsConfig,
) -> Benchmark:
    """Read the queries, passages and judgements that a command trains on, given as a benchmark or as pairs."""
    if (benchmark is None) == (pairs is None):
        raise DupmaeError(f"dupmae {command} trains on either --benchmark FOLDER or --pairs FILE: give one of the two")
    from dupmae.corpus import read_benchmark, read_pairs

    if benchmark is not None:
        return read_benchmark(Path(benchmark), train_split, allow_unknown=allow_unknown)
    return read_pairs(str(pairs), **asdict(pair_fields))
