"""Serve indexes over HTTP with uvicorn, in one process or several."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from dupmae.duplex.queries import QueryEncoderName
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex
from dupmae.serving.app import make_app
from dupmae.serving.limits import Limits
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
    query_encoder: QueryEncoderName | None = None
    log_queries: bool = False
    limits: Limits = field(default_factory=Limits)


def serve(serving: Serving) -> None:
    """Serve until the process is told to end (SIGTERM, SIGINT); what is under way is answered before.

    Raises:
        DupmaeError: An index cannot be opened, or the port is taken.
    """
    if serving.host not in LOCAL and not serving.keys:
        logger.warning(
            "Anybody who reaches %s:%d may search: name a file of API keys (--api_key_file), or serve to this machine"
            " alone (--host 127.0.0.1).",
            serving.host,
            serving.port,
        )
    for folder in serving.indexes.values():
        DuplexIndex.open(Path(folder))  # a fault is said once, before any worker begins
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
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    except SystemExit as end:
        if end.code:
            raise DupmaeError(
                f"The server did not start on {serving.host}:{serving.port}: is the port taken? Choose one (--port)."
            ) from None
    finally:
        del os.environ[VARIABLE]
        if counted is not None:
            os.environ.pop(FOLDER, None)
            shutil.rmtree(counted, ignore_errors=True)


def app_of_environment() -> Any:
    """Make a worker's application of what :func:`serve` has left in the environment."""
    values = json.loads(os.environ[VARIABLE])
    serving = Serving(**values | {"limits": Limits(**values["limits"])})
    hosts = ["*"]
    if serving.host in LOCAL or serving.hosts:
        hosts = [*LOCAL, "[::1]", serving.host, *serving.hosts]
    return make_app(
        {
            name: partial(DuplexIndex.open, Path(folder), query_encoder=serving.query_encoder)
            for name, folder in serving.indexes.items()
        },
        limits=serving.limits,
        keys=serving.keys,
        origins=serving.origins,
        hosts=hosts,
        log=partial(print, file=sys.stderr, flush=True),
        log_queries=serving.log_queries,
    )
