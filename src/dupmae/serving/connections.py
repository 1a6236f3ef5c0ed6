"""Connections that ask for nothing, or take for ever to ask, are closed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 65_536
"""Files that a process may have open, connections among them, where the system lets it have so many."""
SECONDS = 30
"""Time that a request's head may take, from the connection or from the answer before it on."""


class Connection(H11Protocol):
    """An HTTP/1.1 connection of uvicorn's, whose own limit ends with the first byte of a request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next one."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Give the client its time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(SECONDS, self._close)

    def _close(self) -> None:
        """Close the connection, unless a request is being answered."""
        cycle: Any = self.cycle
        if not self.transport.is_closing() and (cycle is None or cycle.response_complete):
            self.transport.close()


def allow_connections() -> None:
    """Let this process, and those that it starts, have more connections than the 1,024 files that are usual."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
