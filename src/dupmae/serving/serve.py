"""Serve indexes over HTTP with uvicorn, in one process or several."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import tempfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from dupmae.config import QueryEncoderName
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex
from dupmae.serving.app import make_app
from dupmae.serving.connections import Connection, allow_connections
from dupmae.serving.limits import Limits
from dupmae.serving.logs import log_as_json, log_request
from dupmae.serving.metrics import FOLDER

VARIABLE = "DUPMAE_SERVING"
"""Environment variable in which workers find what they serve."""
KEYS_VARIABLE = "DUPMAE_API_KEYS"
"""Environment variable with API keys, separated by white space."""
LOCAL = ("127.0.0.1", "localhost", "::1")
DRAIN_SECONDS = 30
"""Time that requests under way have when the server is told to end."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is served, and how."""

    indexes: dict[str, str]
    """Name -> folder."""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    keys: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    """Names of the server beside those of this machine; where there are none, and it is not bound to this machine
    alone, any name will do."""
    model: str | None = None
    """Where the model is, if it is no longer where it was when the indexes were built."""
    query_encoder: QueryEncoderName | None = None
    log_queries: bool = False
    limits: Limits = field(default_factory=Limits)


def serve(serving: Serving) -> None:
    """Serve until the process is told to end (SIGTERM, SIGINT); what is under way is answered before.

    Raises:
        DupmaeError: An index or its model cannot be opened, or the address or the port is not to be had.
    """
    if serving.host not in LOCAL and not serving.keys:
        logger.warning(
            "Anybody who reaches %s:%d may search: name a file of API keys (--api_key_file), or serve to this machine"
            " alone (--host 127.0.0.1).",
            serving.host,
            serving.port,
        )
    for name in serving.indexes:
        open_index(serving, name).queries  # noqa: B018, a fault is said once, before any worker begins
    refuse_taken(serving.host, serving.port)
    allow_connections()
    log_as_json()
    counted = tempfile.mkdtemp(prefix="dupmae-metrics-") if serving.workers > 1 else None
    if counted is not None:
        os.environ[FOLDER] = counted
    os.environ[VARIABLE] = json.dumps(asdict(serving))
    try:
        uvicorn.run(
            "dupmae.serving.serve:app_of_environment",
            factory=True,
            host=serving.host,
            port=serving.port,
            workers=serving.workers,
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    except KeyboardInterrupt:  # as a server is ended at a terminal
        return
    except SystemExit as end:
        if end.code:
            raise DupmaeError("The server did not start, or did not go on: its last lines say why.") from None
    finally:
        del os.environ[VARIABLE]
        if counted is not None:
            os.environ.pop(FOLDER, None)
            shutil.rmtree(counted, ignore_errors=True)


def open_index(serving: Serving, name: str) -> DuplexIndex:
    """Open one of the indexes.

    Raises:
        DupmaeError: As :meth:`DuplexIndex.open`.
    """
    folder = Path(serving.indexes[name])
    return DuplexIndex.open(folder, model=serving.model, query_encoder=serving.query_encoder)


def refuse_taken(host: str, port: int) -> None:
    """Refuse an address that this machine has not, or a port that others have.

    Raises:
        DupmaeError: Why nobody can listen there.
    """
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise DupmaeError(
            f"Nobody can listen on {host}, port {port} ({reason}): choose an address of this machine (--host) and a"
            " port that is free (--port)."
        ) from None


def app_of_environment() -> Any:
    """Make a worker's application of what :func:`serve` has left in the environment."""
    log_as_json()
    values = json.loads(os.environ[VARIABLE])
    serving = Serving(**values | {"limits": Limits(**values["limits"])})
    hosts = [*LOCAL, serving.host, *serving.hosts] if serving.host in LOCAL or serving.hosts else []
    return make_app(
        {name: partial(open_index, serving, name) for name in serving.indexes},
        limits=serving.limits,
        keys=serving.keys,
        origins=serving.origins,
        hosts=hosts,
        log=log_request,
        log_queries=serving.log_queries,
    )
