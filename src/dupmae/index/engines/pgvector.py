"""PostgreSQL with the extension pgvector: a table with a column of type `sparsevec`."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, LiteralString
from urllib.parse import urlsplit

import numpy as np

from dupmae.corpus import Chunk, Passage
from dupmae.errors import DupmaeError
from dupmae.index.engines.engine import Document, SparseVector, refuse_nul, translated
from dupmae.index.where import DATE, NUMBER, Condition, Every, Filter, Not, as_number, is_date, is_year, spellings

WAIT_SECONDS = 30
"""How long to wait for a server that does not answer, unless the URL or PGCONNECT_TIMEOUT says so."""
MOST_NUMBERS = 16_000
"""Numbers of a vector that are not 0, at most: the limit of the type `sparsevec`."""


_COMPARED: dict[str, LiteralString] = {
    sign: f'metadata ->> %s {sign} %s COLLATE "C"' for sign in ("<", "<=", ">", ">=")
}
_COMPARED_AS_NUMBERS: dict[str, LiteralString] = {
    sign: f"(metadata ->> %s)::numeric {sign} %s::numeric" for sign in ("<", "<=", ">", ">=")
}


class PgVector:
    """A table of a PostgreSQL database.

    Args:
        connection: An open connection.
        table: The table's name.
        secrets: What no message may hold.
    """

    def __init__(self, connection: Any, table: str, secrets: Collection[str] = ()) -> None:
        self.connection, self.table, self._secrets = connection, table, secrets

    @classmethod
    def connect(cls, url: str, table: str) -> PgVector:
        """Connect to a database."""
        try:
            import psycopg
        except ModuleNotFoundError:
            raise DupmaeError("PostgreSQL needs its client: pip install 'dupmae[pgvector]'") from None
        parts = urlsplit(url)
        parameters = [pair.partition("=") for pair in parts.query.split("&")]
        secrets = [value for name, _, value in parameters if "password" in name]
        secrets += [text for text in (parts.password, os.environ.get("PGPASSWORD")) if text]
        waits = "connect_timeout" in parts.query or "PGCONNECT_TIMEOUT" in os.environ
        with translated("The PostgreSQL server", secrets, psycopg.Error):
            return cls(psycopg.connect(url, **({} if waits else {"connect_timeout": WAIT_SECONDS})), table, secrets)

    def push(self, documents: Iterator[Document], dimensions: int) -> int:
        """Fill the table anew in one transaction: other sessions see the old rows until all new ones are there."""
        from psycopg import sql

        table, count = sql.Identifier(self.table), 0
        with self._translated(), self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
            cursor.execute(
                sql.SQL(
                    'CREATE TABLE IF NOT EXISTS {} (id text COLLATE "C" PRIMARY KEY, title text NOT NULL,'
                    " text text NOT NULL, metadata jsonb NOT NULL, model text NOT NULL, duplex sparsevec({}) NOT NULL)"
                ).format(table, sql.Literal(dimensions))
            )
            cursor.execute(
                sql.SQL(
                    'ALTER TABLE {} ADD COLUMN IF NOT EXISTS document text COLLATE "C",'
                    " ADD COLUMN IF NOT EXISTS chunk jsonb"
                ).format(table)
            )
            cursor.execute(sql.SQL("DELETE FROM {}").format(table))
            statement = sql.SQL(
                "COPY {} (id, title, text, metadata, document, chunk, model, duplex) FROM STDIN"
            ).format(table)
            with cursor.copy(statement) as copy:
                for document in documents:
                    passage = document.passage
                    refuse_nul(passage)
                    _refuse_long(document)
                    metadata = json.dumps(dict(passage.metadata), ensure_ascii=False)
                    chunk = None if passage.chunk is None else json.dumps(asdict(passage.chunk), ensure_ascii=False)
                    vector = _text(document.vector, dimensions)
                    texts = passage.id, passage.title, passage.text, metadata, passage.document, chunk
                    copy.write_row((*texts, document.model, vector))
                    count += 1
        return count

    def search(self, query: SparseVector, k: int, where: Filter | None) -> list[tuple[Document, float]]:
        """Find the k rows with the largest inner product, ties by id."""
        from psycopg import sql

        with self._translated(), self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT attname, atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s)", (f'"{self.table}"',)
            )
            columns = dict(cursor.fetchall())
            if "duplex" not in columns:
                raise DupmaeError(f"The database has no table {self.table} that `dupmae index push pgvector` made.")
            dimensions = columns["duplex"]
            if len(query.ids) and query.ids[-1] >= dimensions:
                raise DupmaeError(
                    f"The table {self.table} holds vectors of {dimensions:,} dimensions, and the model's have more, "
                    "such as those of words: push an index that was built with it."
                )
            vector = _text(query, dimensions)
            condition, values = ("true", []) if where is None else _condition(where)
            chunk = sql.SQL("chunk" if "chunk" in columns else "NULL")  # missing in what earlier versions pushed
            cursor.execute(
                sql.SQL(
                    "SELECT id, title, text, metadata, {}, model, duplex::text, -(duplex <#> %s::sparsevec) FROM {}"
                    " WHERE {} ORDER BY duplex <#> %s::sparsevec, id LIMIT %s"
                ).format(chunk, sql.Identifier(self.table), sql.SQL(condition)),
                (vector, *values, vector, k),
            )
            return [_document(row) for row in cursor.fetchall()]

    def _translated(self) -> AbstractContextManager[None]:
        """Name the table in what goes wrong."""
        import psycopg

        return translated(f"PostgreSQL, table {self.table},", self._secrets, psycopg.Error)


def _condition(where: Filter) -> tuple[LiteralString, list[Any]]:
    """Say a filter in SQL, with a place for each of the values that come with it; it is never null."""
    if isinstance(where, Not):
        text, values = _condition(where.part)
        return f"NOT {text}", values
    if not isinstance(where, Condition):
        parts = [_condition(part) for part in where.parts]
        joined = (" AND " if isinstance(where, Every) else " OR ").join(text for text, _ in parts)
        return f"({joined or 'true'})", [value for _, values in parts for value in values]
    field, sign, texts = where.field, where.sign, list(where.values)
    if sign == "=":
        numbers = [str(number) for value in texts if (number := as_number(value)) is not None]
        return (
            "coalesce(CASE jsonb_typeof(metadata -> %s)"
            " WHEN 'number' THEN (metadata ->> %s)::numeric = ANY(%s::numeric[])"
            " ELSE metadata ->> %s = ANY(%s) END, false)",
            [field, field, numbers, field, spellings(texts)],
        )
    (value,) = texts
    if sign == "^=":
        return "coalesce(starts_with(metadata ->> %s, %s), false)", [field, value]
    compared: LiteralString = _COMPARED[sign]
    when: LiteralString = "WHEN metadata ->> %s ~ %s THEN " + compared
    cases: list[tuple[LiteralString, list[Any]]] = []
    number = as_number(value)
    if number is not None:
        numeric: LiteralString = "WHEN metadata ->> %s ~ %s THEN " + _COMPARED_AS_NUMBERS[sign]
        cases.append((numeric, [field, f"^{NUMBER}$", field, str(number)]))
    if is_date(value) or is_year(value):
        cases.append((when, [field, f"^{DATE}", field, value]))
    if not cases:
        text_alone: LiteralString = "WHEN jsonb_typeof(metadata -> %s) = 'string' AND metadata ->> %s !~ %s THEN "
        cases.append((text_alone + compared, [field, field, f"^{NUMBER}$", field, value]))
    text = " ".join(case for case, _ in cases)
    return f"coalesce(CASE {text} END, false)", [one for _, values in cases for one in values]


def _refuse_long(document: Document) -> None:
    """Refuse a passage of more words than a vector of pgvector holds numbers."""
    if len(document.vector.ids) > MOST_NUMBERS:
        raise DupmaeError(
            f"the passage {document.passage.id!r} cannot be pushed: its vector has {len(document.vector.ids):,} "
            f"numbers, most of them words, and pgvector's hold {MOST_NUMBERS:,}; cut the passage up and index the parts"
        )


def _text(vector: SparseVector, dimensions: int) -> str:
    """Write a vector as pgvector reads it: dimensions count from 1."""
    pairs = zip((vector.ids + 1).tolist(), vector.values.tolist(), strict=True)
    return "{" + ",".join(f"{number}:{value!r}" for number, value in pairs) + f"}}/{dimensions}"


def _document(row: Sequence[Any]) -> tuple[Document, float]:
    """Read a document and its score from a row."""
    identifier, title, text, metadata, place, model, vector, score = row
    chunk = None if place is None else Chunk(**place | {"headings": tuple(place["headings"])})
    pairs = [pair.split(":") for pair in vector[1 : vector.index("}")].split(",") if pair]
    ids = np.array([int(number) for number, _ in pairs], np.int64) - 1
    values = np.array([value for _, value in pairs], np.float32)
    return Document(Passage(identifier, title, text, metadata, chunk), SparseVector(ids, values), model), float(score)
