"""What stands before all routes: keys, sizes, time, how much is done at once; and what is written of each request."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from typing import Any

from dupmae.serving.limits import Limits
from dupmae.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Coroutine[Any, Any, None]]

OPEN = frozenset({"/health", "/ready", "/", "/page.js", "/page.css", "/docs", "/docs.js", "/openapi.json"})
"""Paths that need no key, since they tell nothing of what is indexed, and no place among the requests worked on."""
REASONS = {
    400: "BadRequest",
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
GONE = 499
"""The status of a client who has gone away, in the log and the metrics."""

logger = logging.getLogger(__name__)


class _GoneError(Exception):
    """The client has closed the connection."""


class _RefusedError(Exception):
    """A request is refused before its route is asked."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Answer:
    """What has been sent of the answer to a request."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = GONE
        self.begun, self.ended = asyncio.Event(), False

    async def send(self, message: Message) -> None:
        """Send a part of it; browsers are told to take its type as it is said."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
            self.begun.set()
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
        await self._send(message)


class Guard:
    """An ASGI application around another one.

    A request's body is read whole, up to the limit, before the inner application is called, so that nobody who sends it
    slowly holds more than a connection. Who goes away is no longer worked for.

    Args:
        app: The inner application.
        limits: What is taken at most.
        keys: API keys, one of which a request has to bring as `Authorization: Bearer KEY`; none if all may ask.
        metrics: Counts requests.
        log: Takes a line of JSON for each request; None writes none.
        hosts: Names that the server goes by; none if any will do.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        keys: Sequence[str],
        metrics: Metrics,
        log: Callable[[str], None] | None,
        hosts: Sequence[str] = (),
    ) -> None:
        self._app, self._limits, self._metrics, self._log = app, limits, metrics, log
        self._keys = [_fingerprint(key.encode("utf-8", "surrogateescape")) for key in keys]
        self._hosts = {name.lower().strip("[]") for name in hosts}
        self._working = self._incoming = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Take a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, answer = time.perf_counter(), _Answer(send)
        try:
            await self._take(scope, receive, answer)
        except _RefusedError as refusal:
            if answer.status == GONE:  # else a part of another answer is sent already
                await _refuse(answer.send, refusal)
        except _GoneError:
            pass
        finally:
            self._note(scope, answer.status, time.perf_counter() - begun)

    def _note(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        """Count a request, and write a line about it."""
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.answered(route, status, seconds)
        if self._log is not None:
            record = {"time": round(time.time(), 3), "method": scope["method"], "route": route, "status": status}
            record |= {"ms": round(1000 * seconds, 1)} | scope.get("noted", {})
            with contextlib.suppress(OSError):  # whoever read the log has gone: that is no fault of the client's
                self._log(json.dumps(record))

    async def _take(self, scope: MutableMapping[str, Any], receive: Receive, answer: _Answer) -> None:
        """Refuse a request, or let it in with the time that it has."""
        deadline = time.monotonic() + self._limits.seconds
        self._admit(scope)
        body = await self._body(scope, receive)
        place = scope["path"] not in OPEN
        if place and self._working >= self._limits.requests and scope["path"] != "/metrics":
            raise _RefusedError(429, f"{self._limits.requests} requests wait already: try again later.")
        self._working += place
        inner = asyncio.create_task(self._app(scope, _replayed(body), answer.send))
        inner.add_done_callback(lambda _: answer.begun.set())  # also of one that fails without an answer
        begun = asyncio.create_task(answer.begun.wait())
        try:
            await self._first(deadline, receive, answer, begun)
            self._working -= place  # to take an answer in slowly keeps nobody else waiting
            place = False
            await self._first(deadline, receive, answer, inner)
            await inner
        finally:
            self._working -= place
            begun.cancel()
            inner.cancel()
            await asyncio.gather(inner, return_exceptions=True)

    async def _first(self, deadline: float, receive: Receive, answer: _Answer, work: asyncio.Task[Any]) -> None:
        """Wait for work on an answer.

        Raises:
            _RefusedError: 504, there is no time left.
            _GoneError: The client closed the connection before the answer was complete.
        """
        gone = asyncio.ensure_future(receive())  # there is no body left: all that can come is the connection's end
        try:
            await asyncio.wait([work, gone], timeout=deadline - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            if answer.ended and not work.done():  # which ends what `receive` waits for, too
                await asyncio.wait([work], timeout=deadline - time.monotonic())
            if work.done():
                return
            if gone.done():
                raise _GoneError
            raise _RefusedError(504, f"There was no answer within {self._limits.seconds:g} seconds.")
        finally:
            gone.cancel()

    def _admit(self, scope: MutableMapping[str, Any]) -> None:
        """Refuse a request under another name, and one without a key."""
        headers = scope["headers"]
        if self._hosts and _host(headers) not in self._hosts:
            raise _RefusedError(400, "This server does not go by the name that the request was sent to (--hosts).")
        if self._keys and scope["path"] not in OPEN and not self._has_key(headers):
            raise _RefusedError(401, "This server wants an API key: send the header Authorization: Bearer KEY.")

    def _has_key(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Compare what a request brings with every key, in a time that tells nothing of them."""
        scheme, _, key = _header(headers, b"authorization").partition(b" ")
        found = _fingerprint(key.strip())
        matches = [hmac.compare_digest(found, one) for one in self._keys]
        return scheme.lower() == b"bearer" and any(matches)

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> bytes:
        """Read a request's body.

        Raises:
            _RefusedError: 413, 408 or 503.
            _GoneError: The client has closed the connection.
        """
        most, seconds = self._limits.body_bytes, self._limits.seconds
        too_large = _RefusedError(413, f"The request's body is larger than the {most:,} bytes that this server takes.")
        declared = _header(scope["headers"], b"content-length")
        if declared.isdigit() and (len(declared) > 15 or int(declared) > most):
            raise too_large
        parts, size = list[bytes](), 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    part = message.get("body", b"")
                    parts.append(part)
                    size += len(part)
                    self._incoming += len(part)
                    if size > most:
                        raise too_large
                    if self._incoming > self._limits.incoming_bytes:
                        raise _RefusedError(503, "Too much is being sent to this server: try again later.")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise _RefusedError(408, f"The request's body did not come within {seconds:g} seconds.") from None
        finally:
            self._incoming -= size


def _replayed(body: bytes) -> Receive:
    """Make what gives a body that has been read to the inner application, and then nothing more."""
    left = [body]

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()  # for ever: the connection's end is seen outside
        return {"type": "http.request", "body": left.pop(), "more_body": False}

    return receive


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Find a header of a request."""
    return next((value for key, value in headers if key == name), b"")


def _host(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """Find the name that a request was sent to, without a port."""
    return re.sub(r":\d*$", "", _header(headers, b"host").decode("latin-1")).lower().strip("[]")


def _fingerprint(key: bytes) -> bytes:
    """Hash a key, so that all are compared at one length."""
    return hashlib.sha256(key).digest()


async def _refuse(send: Send, refusal: _RefusedError) -> None:
    """Answer with a status and a sentence."""
    body = json.dumps({"error": str(refusal), "error_type": REASONS[refusal.status]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status in (408, 413, 503):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status in (429, 503, 504):
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
