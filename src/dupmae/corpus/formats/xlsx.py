"""Read records from the first sheet of a workbook (XLSX)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats.extras import needs, opened_archive
from dupmae.corpus.formats.records import Columns, Row
from dupmae.errors import DupmaeError


def rows(path: Path, columns: Columns) -> Iterator[Row]:
    """Yield a record a row; the first one that is not blank names the columns, and blank rows are passed over.

    Raises:
        DupmaeError: The file is damaged, encrypted, unpacks to too much, or has no sheet with the columns.
    """
    with needs("openpyxl", path):
        import openpyxl
    with opened_archive(path):
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            names: list[str] = []
            for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
                if all(cell is None for cell in cells):
                    continue
                if not names:
                    names = ["" if cell is None else str(cell).strip() for cell in cells]
                    columns.chosen([name for name in names if name], f"{path}, sheet {sheet.title!r}")
                    continue
                yield number, {name: cell for name, cell in zip(names, cells, strict=False) if name}
            book.close()
        except (DupmaeError, GeneratorExit):
            raise
        except Exception as error:  # the library raises what it likes on a damaged file
            raise DupmaeError(f"{path} cannot be read as XLSX ({error}).") from None
