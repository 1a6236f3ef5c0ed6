"""What the server says of itself: lines of JSON on the standard error."""

from __future__ import annotations

import json
import logging
import sys


class _AsJson(logging.Formatter):
    """Writes what is logged as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Lay a record out."""
        line = {"time": round(record.created, 3), "level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as_json() -> None:
    """Write this process' messages as JSON: warnings, and where the server listens."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_AsJson())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)


def log_request(line: str) -> None:
    """Write the line about a request."""
    print(line, file=sys.stderr, flush=True)
