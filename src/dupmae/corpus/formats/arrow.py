"""Read records from Arrow's tables: Parquet files and saved Hugging Face data sets."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from dupmae.corpus.formats.records import Columns, Row
from dupmae.corpus.lines import refuse_bomb, refuse_irregular
from dupmae.errors import DupmaeError
from dupmae.runtime.json_text import parse_strict_json

_ROWS = 64
"""Rows of a Parquet file in memory at a time: pages may repeat one large text for as many rows as a file names."""


def rows_of_parquet(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a Parquet file, reading the columns that are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    refuse_irregular(path)
    try:
        packed = path.stat().st_size
        with pq.ParquetFile(path) as file:
            chosen = columns.chosen(file.schema_arrow.names, str(path))
            refuse_bomb(path, _unpacked_bytes(file.metadata, chosen), packed)
            batches = file.iter_batches(batch_size=_ROWS, columns=chosen)
            yield from _numbered_rows(_within_bounds(path, packed, batches))
    except (pa.ArrowException, OSError, MemoryError, OverflowError, UnicodeDecodeError) as error:
        raise DupmaeError(f"{path} cannot be read as Parquet ({error}).") from None


def _unpacked_bytes(metadata: Any, columns: list[str]) -> int:
    """Add up what the pages of some columns unpack to, as the footer has it."""
    sizes = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = map(group.column, range(group.num_columns))
        sizes += sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns)
    return sizes


def _within_bounds(path: Path, packed: int, batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches until they have taken more memory than a file of `packed` bytes may unpack to."""
    unpacked = 0
    for batch in batches:
        unpacked += batch.nbytes
        refuse_bomb(path, unpacked, packed)
        yield batch


def is_dataset(names: Container[str]) -> bool:
    """Tell from the names in a folder whether it is a data set that the library `datasets` has saved."""
    return "dataset_info.json" in names and "state.json" in names


def rows_of_dataset(folder: Path, columns: Columns) -> Iterator[Row]:
    """Yield the rows of a data set that the library `datasets` has saved."""
    import datasets

    try:
        _refuse_strange_files(folder)
        data = datasets.load_from_disk(str(folder))
    except DupmaeError:
        raise
    except Exception as error:  # the library raises what it likes on a damaged folder
        raise DupmaeError(f"{folder} cannot be read as a Hugging Face data set ({error}).") from None
    chosen = columns.chosen(data.column_names, str(folder))
    try:
        batches = data.select_columns(chosen).with_format("arrow").iter(batch_size=1024)
        yield from _numbered_rows(_valid(batches))
    except (DupmaeError, GeneratorExit):
        raise
    except Exception as error:
        raise DupmaeError(f"{folder} cannot be read as a Hugging Face data set ({error}).") from None


def _refuse_strange_files(folder: Path) -> None:
    """Refuse a data set that is empty, or whose record names files outside its folder."""
    for file in folder.iterdir():
        refuse_irregular(file)
    state = parse_strict_json((folder / "state.json").read_text(encoding="utf-8"))
    names = [entry["filename"] for entry in state["_data_files"]]
    if not names:
        raise DupmaeError(f"{folder} is empty: the data set has no row.")
    for name in names:
        if name != Path(name).name:
            raise DupmaeError(f"{folder}: state.json names the file {name!r}, which is not one of that folder.")


def _valid(batches: Iterable[Any]) -> Iterator[Any]:
    """Check every offset of tables that come from a memory map: a wrong one would read outside it."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _numbered_rows(batches: Iterable[Any]) -> Iterator[Row]:
    """Number the rows of Arrow batches from 1."""
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, row
