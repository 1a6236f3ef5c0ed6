"""`dupmae serve`: search over HTTP, with a page, or as a tool of assistants."""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

from dupmae.config import QueryEncoderName
from dupmae.config.ranges import Count, Positive
from dupmae.errors import DupmaeError

LAST_PORT = 65_535
_ORIGIN = r"\*|[a-z][a-z0-9+.-]*://[^/\s]+"
_HOST = r"[\w.-]+|\[[0-9A-Fa-f:.]+\]"


def serve(
    indexes: list[str],
    /,
    *,
    host: str = "127.0.0.1",
    port: Count = 8000,
    workers: Positive = 1,
    api_key_file: str | None = None,
    origins: list[str] | None = None,
    hosts: list[str] | None = None,
    model: str | None = None,
    query_encoder: QueryEncoderName | None = None,
    max_k: Positive = 1000,
    max_queries: Positive = 32,
    max_requests: Positive = 256,
    max_body_mb: Positive = 2,
    timeout: Positive = 30,
    log_queries: bool = False,
    mcp: bool = False,
) -> None:
    """Serve indexes over HTTP: a page to search with, and an interface for programs.

    Example:
      dupmae serve runs/scifact/index                        # then open http://127.0.0.1:8000
      dupmae serve docs-index mail-index --port 9000 --workers 2
      dupmae serve index --host 0.0.0.0 --api_key_file keys.txt
      dupmae serve index --mcp                               # as a tool, over the standard input and output

    Needs the extra `serve` (pip install 'dupmae[serve]'). The page is at /, the description of the interface at /docs.
    An index is called by its folder's name. What `dupmae sync`, `index add` and the others change while it is served is
    found from the next search on. One line of JSON a request goes to the standard error, without texts. Ends on Ctrl-C
    or SIGTERM when what is under way is answered.

    Args:
        indexes: Folders that `dupmae index build`, `dupmae run` or `dupmae adapt` wrote.
        host: Address to listen on; 0.0.0.0 for all of this machine's, which others reach.
        port: Port to listen on.
        workers: Processes; they share the index in memory.
        api_key_file: File of API keys, one a line, one of which each request has to bring as `Authorization: Bearer
            KEY`; or the environment variable DUPMAE_API_KEYS.
        origins: Other sites whose pages may ask from a browser, such as https://example.org.
        hosts: Names that the server goes by, where it is reached through a proxy; others are refused then.
        model: Folder of the duplex model, where it is no longer where it was when the indexes were built.
        query_encoder: What encodes queries, as in `dupmae search`.
        max_k: Hits of a query at most.
        max_queries: Queries of a request at most.
        max_requests: Requests that a worker has under way at most.
        max_body_mb: Megabytes of a request at most.
        timeout: Seconds for an answer at most.
        log_queries: Write queries into the log, too.
        mcp: Serve the tools `search` and `explain` by the Model Context Protocol over the standard input and output,
            instead of HTTP; needs the extra `mcp`.
    """
    given = dict(locals())
    from dupmae.serving.names import named

    if mcp:
        _refuse_others(given)
        try:
            from dupmae.serving.mcp import serve_tools
        except ImportError:
            raise DupmaeError("--mcp needs the protocol's library: pip install 'dupmae[mcp]'") from None
        serve_tools(named(indexes), model, query_encoder)
        return
    if port > LAST_PORT:
        raise DupmaeError(f"--port is {port}: the last one is {LAST_PORT}")
    try:
        from dupmae.serving.serve import KEYS_VARIABLE, Serving
        from dupmae.serving.serve import serve as run
    except ImportError:
        raise DupmaeError("the server needs its libraries: pip install 'dupmae[serve]'") from None
    from dupmae.serving.limits import Limits

    _refuse_unmatched("--origins", origins or [], _ORIGIN, "an origin, such as https://example.org: no path behind it")
    _refuse_unmatched("--hosts", hosts or [], _HOST, "a name alone, such as search.example.org: no scheme and no port")
    keys = os.environ.get(KEYS_VARIABLE, "").split()
    if api_key_file is not None:
        keys += _keys(Path(api_key_file))
    run(
        Serving(
            indexes=named(indexes),
            host=host,
            port=port,
            workers=workers,
            keys=keys,
            origins=origins or [],
            hosts=hosts or [],
            model=model,
            query_encoder=query_encoder,
            log_queries=log_queries,
            limits=Limits(
                body_bytes=1_000_000 * max_body_mb,
                queries=max_queries,
                k=max_k,
                hits=max(max_k, Limits.hits),
                requests=max_requests,
                seconds=timeout,
            ),
        )
    )


def _refuse_others(given: dict[str, Any]) -> None:
    """Refuse options that do nothing with --mcp."""
    taken = ("indexes", "model", "query_encoder", "mcp")
    for name, parameter in inspect.signature(serve).parameters.items():
        if name not in taken and given[name] != parameter.default:
            raise DupmaeError(f"--{name} is for HTTP, which --mcp serves nothing over: leave one of them out")


def _refuse_unmatched(option: str, values: list[str], pattern: str, wanted: str) -> None:
    """Refuse values that no request would ever bring."""
    for value in values:
        if not re.fullmatch(pattern, value):
            raise DupmaeError(f"{option} has {value!r:.100}: give {wanted}")


def _keys(path: Path) -> list[str]:
    """Read a file of API keys."""
    from dupmae.corpus.lines import numbered_lines

    keys = [line.strip() for _, line in numbered_lines(path) if line.strip()]
    if not keys:
        raise DupmaeError(f"{path} holds no API key: write one a line.")
    return keys
