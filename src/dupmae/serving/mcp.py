"""The tools `search` and `explain` for assistants, by the Model Context Protocol over the standard input and output."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from dupmae.config import QueryEncoderName
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex
from dupmae.index.explanation import explain, explanation_as_record
from dupmae.serving.limits import Limits
from dupmae.serving.searching import Options, Searcher, ServedIndex

MOST = 50
"""Hits of a search: what an assistant reads costs it."""


def make_tools(
    folders: Mapping[str, str], model: str | None = None, query_encoder: QueryEncoderName | None = None
) -> MCPServer:
    """Make a server of the tools.

    Args:
        folders: Name -> folder of the index.
        model: Where the model is, if it is no longer where it was when the indexes were built.
        query_encoder: What encodes queries, see :meth:`DuplexIndex.open`.

    Raises:
        DupmaeError: An index cannot be opened.
    """
    indexes = {
        name: ServedIndex(name, partial(DuplexIndex.open, Path(folder), model=model, query_encoder=query_encoder))
        for name, folder in folders.items()
    }
    searcher = Searcher(indexes, lambda index, queries: None)
    listed = ", ".join(f"{name} ({served.index.snapshot.documents:,} documents)" for name, served in indexes.items())
    server = MCPServer("dupmae", instructions=f"Searches these indexes of documents: {listed}.")

    def chosen(index: str | None) -> str:
        if index is None and len(indexes) == 1:
            return next(iter(indexes))
        if index is None or index not in indexes:
            raise ToolError(f"Name one of these indexes: {', '.join(indexes)}.")
        return index

    async def search(
        query: str, k: int = 5, index: str | None = None, where: str | None = None
    ) -> list[dict[str, Any]]:
        """Find the passages that best match a query, by meaning and by words.

        Args:
            query: A question or keywords.
            k: How many documents, at most 50.
            index: Name of the index; not needed where there is one alone.
            where: Only documents with these metadata, such as `year>=2020 and lang=en`.
        """
        name = chosen(index)
        try:
            options = Options(min(max(k, 1), MOST), _filter(where))
            (hits,) = await searcher.search(name, [_query(query)], options)
        except DupmaeError as error:
            raise ToolError(str(error)) from None
        return [
            {
                "document": hit.document,
                "title": hit.title,
                "headings": list(hit.headings),
                "text": hit.text,
                "start": hit.start,
                "score": round(hit.score, 4),
                "metadata": dict(hit.metadata),
            }
            for hit, _ in hits
        ]

    async def explain_hit(query: str, document: str, index: str | None = None) -> dict[str, Any]:
        """Explain why a document is found for a query: its ranks, and the terms and words that both share.

        Args:
            query: The query.
            document: The document's id, as `search` gives it.
            index: Name of the index; not needed where there is one alone.
        """

        def work(opened: DuplexIndex) -> dict[str, Any]:
            found = explanation_as_record(explain(opened, _query(query), 1, [document]))
            return next(hit for hit in found["hits"] if document in (hit["document"], hit["id"]))

        try:
            record: dict[str, Any] = await searcher.run(chosen(index), work)
        except DupmaeError as error:
            raise ToolError(str(error)) from None
        return record

    server.add_tool(search)
    server.add_tool(explain_hit, name="explain")
    return server


def serve_tools(
    folders: Mapping[str, str], model: str | None = None, query_encoder: QueryEncoderName | None = None
) -> None:
    """Serve the tools until the standard input ends; arguments as for :func:`make_tools`."""
    make_tools(folders, model, query_encoder).run("stdio")


def _query(query: str) -> str:
    """Refuse an empty query, and one that is longer than any that is answered over HTTP."""
    if not query.strip():
        raise ToolError("The query is empty.")
    if len(query) > Limits.characters:
        raise ToolError(f"The query has {len(query):,} characters, of {Limits.characters:,} at most.")
    return query


def _filter(where: str | None) -> Any:
    """Read a filter."""
    from dupmae.index.where import read_filter

    return read_filter(where) if where else None
