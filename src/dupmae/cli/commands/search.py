"""`dupmae search` and `explain`: find passages, and show why they are found.

As in all modules of commands each is a typed function whose docstring is its help (:mod:`dupmae.cli.parsing`), and
the stages are imported where they run, so that `dupmae --help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import json as json_text
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dupmae.cli.commands.inputs import open_engine_at, open_index
from dupmae.config import QueryEncoderName
from dupmae.config.ranges import Count, Factor, Positive
from dupmae.errors import DupmaeError

if TYPE_CHECKING:
    from dupmae.duplex.queries import QueryEncoder
    from dupmae.index import Hit


def search(
    index: str | None = None,
    query: str | None = None,
    /,
    *,
    k: int = 10,
    where: list[str] | None = None,
    terms: int | None = None,
    candidates: Positive = 400,
    probes: Count = 0,
    dense_weight: Factor = 1.0,
    lexical_weight: Factor = 1.0,
    word_weight: Factor = 1.0,
    group: Literal["document", "none"] = "document",
    json: bool = False,
    model: str | None = None,
    query_encoder: QueryEncoderName | None = None,
    engine: str | None = None,
    api_key_file: str | None = None,
) -> None:
    """Search an index, and show why each passage was found.

    Example:
      dupmae search runs/scifact/index "does vitamin D prevent fractures?"
      dupmae search runs/scifact/index --json < queries.txt > hits.jsonl
      dupmae search index "how do lighthouses work?" --where "year>=2020 and lang in (en, de)"
      dupmae search "does vitamin D prevent fractures?" --engine http://localhost:6333/scifact --model model

    Prints ranked documents: the score, its parts, where the best chunk stands, the terms and whole words that matched
    with what each added, and the stretch where they stand. Without a query: a prompt at a terminal (an empty line or
    Ctrl-D ends), else one query a line from the standard input, each answered at once. Writes no file. Search is exact
    unless --terms says otherwise.

    Args:
        index: Folder that `dupmae index build` or `dupmae run` wrote; left out with --engine.
        query: The query.
        k: Documents to show, each by the best of its chunks.
        where: Only passages with these metadata, such as `lang=en`, "year>=2020 and not path^=drafts/" or "author in
            (a, b)": compared with =, !=, <, <=, >, >=, ^= (begins with) and in, joined by and, or, not and parentheses;
            quotes around values that hold such signs. Several all count; but of several FIELD=VALUE with one field any.
        terms: Choose candidates with so many of the query's heaviest terms, for speed; they are rescored with all of
            it. `dupmae index tune` proposes this and the next two.
        candidates: Passages that are rescored, with --terms.
        probes: Clusters that are looked into, with --terms; 0 reads all dense halves.
        dense_weight: What the dense half of the score is multiplied by, for this search; 0 leaves it out.
        lexical_weight: The same for the learned terms.
        word_weight: The same for whole words.
        group: What is ranked: each document by the best of its chunks, or with none every chunk by itself.
        json: Print one JSON object a line and hit, for programs, and nothing else (docs/file-formats.md).
        model: Folder of the duplex model, where it is no longer where it was when the index was built.
        query_encoder: What encodes the query: the model in ONNX Runtime or in PyTorch, which takes seconds to load, or
            the table that `dupmae distil-queries` made of it, a little less exact; `onnx` if not given, or `torch` with
            a model that ONNX Runtime cannot run.
        engine: URL of a search engine that `dupmae index push` filled, to search instead of INDEX; needs --model.
        api_key_file: File with the API key of that engine, where the environment variable QDRANT_API_KEY or
            DUPMAE_API_KEY does not hold it.
    """
    from dupmae.cli.display import PlainConsole, show_hits
    from dupmae.index import Weights
    from dupmae.index.highlights import highlight, hit_as_record
    from dupmae.index.where import read_filter
    from dupmae.index.writing.encoding import word_language_of

    if k < 1:
        raise DupmaeError(f"--k counts the documents to show, at least 1, not {k}")
    weights = Weights(dense_weight, lexical_weight, word_weight)
    options: dict[str, Any] = {} if weights == Weights() else {"weights": weights}
    options |= {} if where is None else {"where": read_filter(where)}
    options |= {} if group == "document" else {"group": group}
    if terms is not None:
        from dupmae.index import Approximate

        options["approximate"] = Approximate(terms, candidates, probes)
    find: Callable[..., list[list[Hit]]]
    encoder: QueryEncoder
    if engine is not None:
        if model is None or query is not None or terms is not None:
            raise DupmaeError("dupmae search --engine URL takes --model and QUERY, and neither INDEX nor --terms")
        query, (find, encoder) = index, _engine_search(engine, api_key_file, model, query_encoder)
    elif index is None:
        raise DupmaeError("dupmae search needs INDEX (see dupmae search --help)")
    else:
        opened = open_index(Path(index), model, query_encoder)
        find, encoder = opened.search, opened.queries
    console, language = PlainConsole(), word_language_of(encoder)
    for text in _queries(query, interactive=not json and sys.stdin.isatty()):
        hits = find([text], k, **options)[0]
        shown = [highlight(hit, text, encoder.tokenizer, language) for hit in hits]
        if not json:
            show_hits(console, text, hits, shown)
        for rank, (hit, highlights) in enumerate(zip(hits, shown, strict=True) if json else (), start=1):
            print(json_text.dumps(hit_as_record(text, rank, hit, highlights), ensure_ascii=False))
        sys.stdout.flush()  # a reader of a pipe waits for the answer before it asks on


def _engine_search(
    url: str, api_key_file: str | None, model: str, query_encoder: QueryEncoderName | None
) -> tuple[Callable[..., list[list[Hit]]], QueryEncoder]:
    """Make the function that searches an engine as `DuplexIndex.search` does an index, and the encoder it takes."""
    from dupmae.duplex.queries import open_queries
    from dupmae.index.engines.exchange import search as search_engine
    from dupmae.models import open_model

    opened, found = open_engine_at(url, api_key_file), open_model(model, option="--model")
    encoder = open_queries(found, query_encoder)
    return partial(search_engine, opened, encoder, found.fingerprint), encoder


def _queries(query: str | None, *, interactive: bool) -> Iterator[str]:
    """Yield the one query given, or what is typed at a prompt, or the lines of the standard input."""
    if query is not None:
        if not query.strip():
            raise DupmaeError("the query is empty: give words to search for, or no QUERY to be asked for them")
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
    """Read one line from the prompt, empty at its end."""
    try:
        return input("query> ").strip()
    except EOFError:
        print()
        return ""


def explain(
    index: str,
    query: str,
    /,
    *,
    k: int = 3,
    ids: list[str] | None = None,
    where: list[str] | None = None,
    group: Literal["document", "none"] = "document",
    dense_weight: Factor = 1.0,
    lexical_weight: Factor = 1.0,
    word_weight: Factor = 1.0,
    model: str | None = None,
    query_encoder: QueryEncoderName | None = None,
    json: bool = False,
) -> None:
    """Show why an index finds what it finds: what each part contributes, and which words are matched or only meant.

    Example:
      dupmae explain runs/scifact/index "does vitamin D prevent fractures?"
      dupmae explain runs/scifact/index "does vitamin D prevent fractures?" --k 1 --ids 4983 --json

    Prints the query's terms and words; then the best passages by the sum, by the dense half alone, by the lexical half
    alone and by words alone, each with its rank in all of these, the parts of its score, the terms that stand in both
    texts, those that the model has added to one of them, and the words that the query and all of the passage share.

    Args:
        index: Folder that `dupmae index build` or `dupmae run` wrote.
        query: The query.
        k: Documents from the top of each of the rankings.
        ids: Further passages or documents to explain, such as one that should have been found.
        where: Only passages with these metadata have ranks, as in `dupmae search`.
        group: What is ranked: each document by the best of its chunks, or with none every chunk by itself.
        dense_weight: What the dense half of the score is multiplied by; 0 leaves it out of the sum.
        lexical_weight: The same for the learned terms.
        word_weight: The same for whole words.
        model: Folder of the duplex model, where it is no longer where it was when the index was built.
        query_encoder: What encodes the query: the model in ONNX Runtime or in PyTorch, which takes seconds to load, or
            the table that `dupmae distil-queries` made of it, a little less exact; `onnx` if not given, or `torch` with
            a model that ONNX Runtime cannot run.
        json: Print one JSON document instead, for programs.
    """
    if k < 1:
        raise DupmaeError(f"--k counts the passages to explain, at least 1, not {k}")
    from dupmae.cli.display import PlainConsole, show_explanation
    from dupmae.index import Weights
    from dupmae.index.explanation import explain as explain_query
    from dupmae.index.explanation import explanation_as_record
    from dupmae.index.highlights import highlight
    from dupmae.index.where import read_filter
    from dupmae.index.writing.encoding import word_language_of

    if not query.strip():
        raise DupmaeError("the query is empty: give the words that were searched for")
    condition = None if where is None else read_filter(where)
    weights, opened = Weights(dense_weight, lexical_weight, word_weight), open_index(Path(index), model, query_encoder)
    explanation = explain_query(opened, query, k, ids or [], weights, condition, group)
    if json:
        print(json_text.dumps(explanation_as_record(explanation), indent=2, ensure_ascii=False))
    else:
        tokenizer, language = opened.queries.tokenizer, word_language_of(opened.queries)
        shown = [highlight(explained.hit, query, tokenizer, language) for explained in explanation.hits]
        show_explanation(PlainConsole(), explanation, shown)
