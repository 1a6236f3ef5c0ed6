"""What stands before all routes: keys, sizes, time, how much is done at once; and what is written of each request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from dupmae.serving.limits import Limits
from dupmae.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health", "/ready", "/", "/page.js", "/page.css", "/docs", "/docs.js", "/openapi.json"})
"""Paths that need no key: they tell nothing of what is indexed."""
REASONS = {
    401: "Unauthorized",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    413: "PayloadTooLarge",
    422: "Validation",
    429: "Overloaded",
    500: "Internal",
    501: "NotImplemented",
    503: "Unavailable",
    504: "Timeout",
}
"""Status -> the `error_type` of an answer."""

logger = logging.getLogger(__name__)


class _GoneError(Exception):
    """The client has closed the connection."""


class _RefusedError(Exception):
    """A request is refused before its route is asked."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """An ASGI application around another one.

    A request's body is read whole, up to the limit, before the inner application is called, so that nobody who sends it
    slowly holds more than a connection.

    Args:
        app: The inner application.
        limits: What is taken at most.
        keys: API keys, one of which a request has to bring as `Authorization: Bearer KEY`; none if all may ask.
        metrics: Counts requests.
        log: Takes a line of JSON for each request; None writes none.
    """

    def __init__(
        self, app: App, limits: Limits, keys: Sequence[str], metrics: Metrics, log: Callable[[str], None] | None
    ) -> None:
        self._app, self._limits, self._metrics, self._log = app, limits, metrics, log
        self._keys = [_fingerprint(key) for key in keys]
        self._running = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Take a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 499  # what a client who has gone away gets, in the log

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._running += 1
        try:
            await self._answer(scope, receive, answered, lambda: status != 499)
        except _GoneError:
            pass
        finally:
            self._running -= 1
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(route, status, seconds)
            if self._log is not None:
                record = {"time": round(time.time(), 3), "method": scope["method"], "route": route, "status": status}
                self._log(json.dumps(record | {"ms": round(1000 * seconds, 1)} | scope.get("noted", {})))

    async def _answer(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, begun: Callable[[], bool]
    ) -> None:
        """Refuse a request, or let it in with the time that it has."""
        deadline = time.monotonic() + self._limits.seconds
        try:
            self._admit(scope)
            body = await _body(scope, receive, self._limits.body_bytes, self._limits.seconds)
            waiting = asyncio.Event()
            sent = False

            async def replay() -> Message:
                nonlocal sent
                if sent:
                    await waiting.wait()  # for ever: the connection's end is seen by the time limit
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}

            try:
                await asyncio.wait_for(self._app(scope, replay, send), deadline - time.monotonic())
            except TimeoutError:
                raise _RefusedError(504, f"There was no answer within {self._limits.seconds:g} seconds.") from None
        except _RefusedError as refusal:
            if not begun():
                await _refuse(send, refusal)

    def _admit(self, scope: MutableMapping[str, Any]) -> None:
        """Refuse a request without a key, and one too many."""
        if self._keys and scope["path"] not in OPEN and not self._has_key(scope["headers"]):
            raise _RefusedError(401, "This server wants an API key: send the header Authorization: Bearer KEY.")
        if self._running > self._limits.requests and scope["path"] not in ("/health", "/metrics"):
            raise _RefusedError(429, f"{self._limits.requests} requests wait already: try again later.")

    def _has_key(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Compare what a request brings with every key, in a time that tells nothing of them."""
        brought = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, key = brought.partition(b" ")
        found = _fingerprint(key.strip().decode("latin-1"))
        matches = [hmac.compare_digest(found, one) for one in self._keys]
        return scheme.lower() == b"bearer" and any(matches)


def _fingerprint(key: str) -> bytes:
    """Hash a key, so that all are compared at one length."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


async def _body(scope: MutableMapping[str, Any], receive: Receive, most: int, seconds: float) -> bytes:
    """Read a request's body.

    Raises:
        _RefusedError: 413 or 408.
        _GoneError: The client has closed the connection.
    """
    too_large = _RefusedError(413, f"The request's body is larger than the {most:,} bytes that this server takes.")
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    parts, size = list[bytes](), 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise too_large
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise _RefusedError(408, f"The request's body did not come within {seconds:g} seconds.") from None


async def _refuse(send: Send, refusal: _RefusedError) -> None:
    """Answer with a status and a sentence."""
    body = json.dumps({"error": str(refusal), "error_type": REASONS[refusal.status]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status in (429, 504):
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
