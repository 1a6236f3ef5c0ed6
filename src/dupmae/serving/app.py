"""The routes of the server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.queries import QueryEncoder
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex, Weights
from dupmae.index.explanation import explain, explanation_as_record
from dupmae.index.highlights import hit_as_record
from dupmae.index.where import Filter, read_filter
from dupmae.serving import schemas
from dupmae.serving.embedding import embedded, scores, sparse_rows
from dupmae.serving.guard import REASONS, Guard
from dupmae.serving.limits import Limits, refuse_long, refuse_more
from dupmae.serving.metrics import Metrics
from dupmae.serving.searching import (
    Found,
    Options,
    Searcher,
    ServedIndex,
    UnknownFieldError,
    refuse_unknown_fields,
    searched,
)

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {
    "/": "index.html",
    "/page.js": "page.js",
    "/page.css": "page.css",
    "/docs": "docs.html",
    "/docs.js": "docs.js",
}
"""Path -> file of the page."""
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Failure} for status in (400, 401, 404, 408, 413, 422, 429, 500, 503, 504)
}


def make_app(
    indexes: Mapping[str, Callable[[], DuplexIndex]],
    *,
    limits: Limits | None = None,
    keys: Sequence[str] = (),
    origins: Sequence[str] = (),
    hosts: Sequence[str] = (),
    log: Callable[[str], None] | None = None,
    log_queries: bool = False,
) -> Any:
    """Make the server of some indexes, as an ASGI application.

    Args:
        indexes: Name -> what opens the index.
        limits: What a request may ask for.
        keys: API keys, one of which each request has to bring; none if all may ask.
        origins: Other sites whose pages may ask from a browser.
        hosts: Names that the server goes by: a request for another one is refused, so that no web page reaches a server
            of this machine under a name of its own. If none is given, any will do.
        log: Takes a line of JSON for each request; None writes none.
        log_queries: Whether the queries stand in it.

    Raises:
        DupmaeError: An index cannot be opened.
    """
    limits, metrics = limits or Limits(), Metrics()
    served = {name: ServedIndex(name, open_index) for name, open_index in indexes.items()}
    service = _Service(served, limits, metrics, log_queries)
    app = FastAPI(
        title="dupmae",
        version=importlib.metadata.version("dupmae"),
        description="Search by duplex (dense + lexical) vectors.",
        docs_url=None,
        redoc_url=None,
        responses=_FAILURES,
        lifespan=service.lifespan,
    )
    service.add_routes(app)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(UnknownFieldError, _unknown_field)
    app.add_exception_handler(DupmaeError, _failed)
    app.add_exception_handler(Exception, _failed)
    guarded: Any = Guard(app, limits, keys, metrics, log, hosts)
    if not origins:
        return guarded
    # Outside of all, since what a browser asks beforehand brings no key, and pages are to read refusals, too.
    return CORSMiddleware(guarded, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=["*"])


class _Service:
    """What the routes share."""

    def __init__(self, served: Mapping[str, ServedIndex], limits: Limits, metrics: Metrics, log_queries: bool) -> None:
        self.served, self.limits, self.metrics, self.log_queries = served, limits, metrics, log_queries
        self.searcher: Searcher
        self.ready = False
        self._embedding = ThreadPoolExecutor(1, "embed")  # apart from searches, which take less time

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Search once in each index, so that the first query finds all loaded; end the threads at the end."""
        self.searcher = Searcher(self.served, self.metrics.searched)
        for name in self.served:
            await self.searcher.search(name, ["a first query"], Options(1))
        self.ready = True
        yield
        self.ready = False
        await asyncio.to_thread(self.searcher.close)
        self._embedding.shutdown()

    def add_routes(self, app: FastAPI) -> None:
        """Tell the application its routes."""
        post, get = partial(app.post, response_model_exclude_none=True), app.get
        post("/search", response_model=schemas.SearchAnswer, tags=["search"])(self.search)
        post("/explain", tags=["search"])(self.explain)
        get("/documents/{document:path}", response_model=schemas.DocumentAnswer, tags=["search"])(self.document)
        get("/indexes", response_model=schemas.IndexesAnswer, tags=["search"])(self.indexes)
        post("/embed", response_model=list[list[float]], tags=["vectors"])(self.embed)
        post("/embed_sparse", response_model=list[list[schemas.SparseValue]], tags=["vectors"])(self.embed_sparse)
        post("/rerank", response_model=list[schemas.Rank], tags=["vectors"])(self.rerank)
        post("/v1/embeddings", response_model=schemas.OpenAIAnswer, tags=["vectors"])(self.openai)
        get("/health", tags=["server"])(self.health)
        get("/ready", tags=["server"])(self.is_ready)
        get("/metrics", tags=["server"], response_class=Response)(self.written_metrics)
        for path, name in PAGE_FILES.items():
            app.add_api_route(path, _page(name), include_in_schema=False)

    async def search(self, asked: schemas.SearchRequest, request: Request) -> Response:
        """Find the best documents for each query."""
        name = self._chosen(asked.index)
        refuse_more("queries", len(asked.queries), self.limits.queries)
        options = self._options(asked, asked.k, asked.queries)
        refuse_more("hits (queries times k)", len(asked.queries) * asked.k, self.limits.hits)
        if asked.explain:
            refuse_more("hits to be explained (queries times k)", len(asked.queries) * asked.k, self.limits.explained)
        self._note(request, name, asked.queries)
        if asked.explain:
            found, explanations = await self._searched_and_explained(name, asked.queries, options)
        else:
            found, explanations = await self.searcher.search(name, asked.queries, options), []
        results: list[dict[str, Any]] = [
            {"query": query, "hits": [hit_as_record(query, rank, *hit) for rank, hit in enumerate(hits, 1)]}
            for query, hits in zip(asked.queries, found, strict=True)
        ]
        for result, explanation in zip(results, explanations, strict=False):
            result["explanation"] = explanation
        return JSONResponse({"index": name, "results": results})

    async def explain(self, asked: schemas.ExplainRequest, request: Request) -> Response:
        """Show why an index finds what it finds for a query: ranks by each part of the score, terms and words."""
        name = self._chosen(asked.index)
        refuse_more("hits to be explained (k and ids)", asked.k + len(asked.ids), self.limits.explained)
        options = self._options(asked, asked.k, [asked.query])
        self._note(request, name, [asked.query])
        return JSONResponse({"index": name} | await self._explained(name, asked.query, asked.ids, options))

    async def document(self, document: str, index: str | None = None) -> Response:
        """Give a document's text, metadata and chunks."""
        name = self._chosen(index)

        def read(opened: DuplexIndex) -> list[dict[str, Any]] | None:
            if document not in opened:
                return None
            passages = opened.get([document])
            refuse_more("passages of the document", len(passages), self.limits.k)
            return [
                {
                    "id": passage.id,
                    "title": passage.title,
                    "text": passage.text,
                    "metadata": dict(passage.metadata),
                    "headings": list(passage.chunk.headings) if passage.chunk else [],
                    "start": passage.chunk.start if passage.chunk else 0,
                    "end": passage.chunk.end if passage.chunk else len(passage.text),
                }
                for passage in passages
            ]

        passages = await self.searcher.run(name, read)
        if passages is None:
            raise HTTPException(404, f"The index {name} has no document of this id.")
        return JSONResponse({"index": name, "id": document, "passages": passages})

    async def indexes(self) -> Response:
        """List the indexes, as they are now, and what may be asked of each."""

        async def described(served: ServedIndex) -> Any:
            return await self.searcher.run(served.name, lambda _: served.described())

        names = ("queries", "characters", "k", "hits", "explained")
        limits = {name: getattr(self.limits, name) for name in names}
        records = await asyncio.gather(*map(described, self.served.values()))
        return JSONResponse({"indexes": records, "limits": limits})

    async def embed(self, asked: schemas.EmbedDenseRequest) -> Response:
        """Embed texts as the dense half of their vectors, in the form of text-embeddings-inference."""
        found, _ = await self._embedded(asked.inputs, asked.prompt_name == "query")
        _refuse_other_width(asked.dimensions, found)
        vectors = found.cls
        if asked.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return JSONResponse(vectors.tolist())

    async def embed_sparse(self, asked: schemas.EmbedRequest) -> Response:
        """Embed texts as learned terms and words, in the form of text-embeddings-inference.

        The inner product of a query's dimensions with a document's, plus that of their dense halves, is their score.
        """
        found, encoder = await self._embedded(asked.inputs, asked.prompt_name == "query")
        rows = sparse_rows(found, encoder.pooling.vocabulary_size)
        return JSONResponse([[{"index": place, "value": value} for place, value in row] for row in rows])

    async def rerank(self, asked: schemas.RerankRequest) -> Response:
        """Rank texts for a query by their duplex scores, in the form of text-embeddings-inference."""
        query, encoder = await self._embedded(asked.query, True)
        texts, _ = await self._embedded(asked.texts, False)
        found = scores(query, texts, encoder.pooling.vocabulary_size)
        ranks = [
            {"index": int(place), "score": float(found[place])}
            | ({"text": asked.texts[place]} if asked.return_text else {})
            for place in np.argsort(-found, kind="stable")
        ]
        return JSONResponse(ranks)

    async def openai(self, asked: schemas.OpenAIRequest) -> Response:
        """Embed texts as the dense half of documents' vectors, in the form of OpenAI's interface."""
        found, encoder = await self._embedded(asked.input, False)
        _refuse_other_width(asked.dimensions, found)
        vectors: list[Any] = found.cls.tolist()
        if asked.encoding_format == "base64":
            vectors = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in found.cls]
        data = [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(vectors)]
        tokens = await self._apart(lambda: _count_tokens(encoder, asked.input))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": asked.model or "dupmae", "data": data, "usage": usage})

    async def health(self) -> dict[str, str]:
        """Say that the server lives."""
        return {"status": "ok"}

    async def is_ready(self) -> dict[str, str]:
        """Say whether it answers queries."""
        if not self.ready:
            raise HTTPException(503, "The server is starting or ending.")
        return {"status": "ready"}

    async def written_metrics(self) -> Response:
        """Give what the server has counted, for Prometheus."""
        return Response(self.metrics.written(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _chosen(self, name: str | None) -> str:
        """Find the index that a request asks for."""
        if name is None and len(self.served) == 1:
            return next(iter(self.served))
        if name is None or name not in self.served:
            raise HTTPException(404, f"Name one of these indexes: {', '.join(self.served)}.")
        return name

    def _options(self, asked: Any, k: int, queries: list[str]) -> Options:
        """Check what a search is asked for."""
        refuse_long("queries", queries, self.limits.characters)
        refuse_more("k", k, self.limits.k)
        try:
            weights = Weights(asked.weights.dense, asked.weights.lexical, asked.weights.words)
        except DupmaeError as error:
            raise HTTPException(422, f"weights: {error}") from None
        return Options(k, self._filter(asked.where), asked.group, weights)

    def _filter(self, where: str | list[str] | None) -> Filter | None:
        """Read a filter."""
        if not where:
            return None
        texts = [where] if isinstance(where, str) else where
        refuse_long("where", texts, self.limits.characters)
        refuse_more("characters of where", sum(map(len, texts)), self.limits.characters)
        try:
            return read_filter(where)
        except DupmaeError as error:
            raise HTTPException(422, f"where: {error}") from None

    async def _explained(self, name: str, query: str, ids: list[str], options: Options) -> dict[str, Any]:
        """Explain a query's hits."""

        def work(index: DuplexIndex) -> dict[str, Any]:
            refuse_unknown_fields(index, options.where)
            missing = [one for one in ids if one not in index]
            if missing:
                raise HTTPException(404, f"The index has no passage {missing[0]!r:.100}.")
            return _explanation(index, query, ids, options)

        record: dict[str, Any] = await self.searcher.run(name, work)
        return record

    async def _searched_and_explained(
        self, name: str, queries: list[str], options: Options
    ) -> tuple[Found, list[dict[str, Any]]]:
        """Search, and explain what is found in the same state of the index."""

        def work(index: DuplexIndex) -> tuple[Found, list[dict[str, Any]]]:
            found = searched(index, queries, options)
            self.metrics.searched(name, len(queries))
            return found, [_explanation(index, query, [], options) for query in queries]

        both: tuple[Found, list[dict[str, Any]]] = await self.searcher.run(name, work)
        return both

    async def _embedded(self, inputs: str | list[str], queries: bool) -> tuple[DuplexEmbeddings, QueryEncoder]:
        """Embed texts by the first index' model, and tell what has done it."""
        texts = [inputs] if isinstance(inputs, str) else inputs
        if not texts:
            raise HTTPException(422, "inputs: there is no text.")
        refuse_more("texts", len(texts), self.limits.texts)
        refuse_long("texts", texts, self.limits.body_bytes)
        served = next(iter(self.served.values()))

        def work() -> tuple[DuplexEmbeddings, QueryEncoder]:
            try:
                encoder = served.query_encoder if queries else served.encoder
            except ImportError:
                raise HTTPException(501, "Only queries are embedded here: passages need PyTorch, too.") from None
            return embedded(encoder, texts, queries=queries), encoder

        found: tuple[DuplexEmbeddings, QueryEncoder] = await self._apart(work)
        return found

    async def _apart(self, work: Callable[[], Any]) -> Any:
        """Do what has to do with embedding in the thread for it."""
        return await asyncio.get_running_loop().run_in_executor(self._embedding, work)

    def _note(self, request: Request, index: str, queries: list[str]) -> None:
        """Note for the log what a request asked for."""
        noted: dict[str, Any] = {"index": index, "queries": len(queries)}
        request.scope["noted"] = noted | ({"texts": queries} if self.log_queries else {})


def _explanation(index: DuplexIndex, query: str, ids: list[str], options: Options) -> dict[str, Any]:
    """Explain the first hits of a query, and those of some ids."""
    found = explain(index, query, options.k, ids, options.weights, options.where, options.group)
    return explanation_as_record(found)


def _count_tokens(encoder: QueryEncoder, inputs: str | list[str]) -> int:
    """Count all tokens of texts."""
    texts = [inputs] if isinstance(inputs, str) else inputs
    return sum(map(len, encoder.tokenizer(texts, truncation=False, verbose=False)["input_ids"]))


def _refuse_other_width(dimensions: int | None, found: DuplexEmbeddings) -> None:
    """Refuse to cut vectors."""
    width = found.cls.shape[1]
    if dimensions not in (None, width):
        raise HTTPException(422, f"dimensions: the model's dense half has {width} and cannot be cut.")


def _page(name: str) -> Callable[[], Any]:
    """Make the route of a file of the page."""
    body, kind = (PAGE / name).read_bytes(), _TYPES[Path(name).suffix]

    async def answer() -> Response:
        return Response(body, headers=PAGE_HEADERS, media_type=f"{kind}; charset=utf-8")

    return answer


def _answer(status: int, sentence: str) -> Response:
    """Write a failure."""
    return JSONResponse({"error": sentence, "error_type": REASONS.get(status, "Error")}, status)


async def _refused(_: Request, error: Exception) -> Response:
    """Answer a request that asks for what is not there."""
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, str(error.detail))


async def _unknown_field(_: Request, error: Exception) -> Response:
    """Answer a request with a filter for what the index lacks."""
    return _answer(422, f"where: {error}")


async def _invalid(_: Request, error: Exception) -> Response:
    """Answer a request that is not as described, with the first fault."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return _answer(422, f"{place or 'body'}: {first['msg']}"[:500])


async def _failed(_: Request, error: Exception) -> Response:
    """Answer where the server itself is at fault: the reason, which may name paths, is for its log."""
    logger.error("A request failed: %s: %s", type(error).__name__, error)
    return _answer(500, "The server could not do this; its log says why.")
