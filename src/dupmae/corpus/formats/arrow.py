"""Read passages from Arrow's tables: Parquet files and saved Hugging Face data sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dupmae.corpus.formats.records import Fields, Placed, from_records
from dupmae.errors import DupmaeError


def read_parquet(path: Path, fields: Fields, prefix: str) -> Iterator[Placed]:
    """Read one passage per row of a Parquet file."""
    return from_records(str(path), "row", _parquet_rows(path, fields), fields, prefix)


def read_dataset(folder: Path, fields: Fields) -> Iterator[Placed]:
    """Read one passage per row of a data set that the library `datasets` has saved."""
    return from_records(str(folder), "row", _dataset_rows(folder, fields), fields, "")


def _parquet_rows(path: Path, fields: Fields) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a Parquet file, reading the columns that are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = fields.present(_need_text(file.schema_arrow.names, fields, str(path)))
            yield from _numbered_rows(file.iter_batches(batch_size=1024, columns=columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DupmaeError(f"{path} cannot be read as Parquet ({error}).") from None


def _dataset_rows(folder: Path, fields: Fields) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a data set that the library `datasets` has saved."""
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises what it likes on a damaged folder
        raise DupmaeError(f"{folder} cannot be read as a Hugging Face data set ({error}).") from None
    data = data.select_columns(fields.present(_need_text(data.column_names, fields, str(folder))))
    yield from _numbered_rows(data.with_format("arrow").iter(batch_size=1024))


def _need_text(columns: list[str], fields: Fields, source: str) -> list[str]:
    """Refuse columns without one of the text; hand them back."""
    if fields.text not in columns:
        raise DupmaeError(f"{source}: no column {fields.text!r} (the text); its columns are {', '.join(columns)}.")
    return columns


def _numbered_rows(batches: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number the rows of Arrow batches from 1."""
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, row
