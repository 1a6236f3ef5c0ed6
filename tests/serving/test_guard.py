from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from dupmae.serving.guard import Guard
from dupmae.serving.limits import Limits
from dupmae.serving.metrics import Metrics


async def asked(
    guard: Guard, parts: Sequence[dict[str, Any]] = ({"body": b"", "more_body": False},), after: Any = None
) -> tuple[int, bytes]:
    """Send a request whose body comes in parts; after the last one `after` is awaited."""
    left, sent = list(parts), list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request"} | left.pop(0)
        found: dict[str, Any] = await (asyncio.sleep(60) if after is None else after)
        return found

    async def send(message: Any) -> None:
        sent.append(message)

    await guard({"type": "http", "method": "POST", "path": "/search", "headers": []}, receive, send)
    return (sent[0]["status"], sent[1]["body"]) if sent else (0, b"")


def guarded(app: Any, lines: list[str] | None = None, **limits: Any) -> Guard:
    return Guard(app, Limits(**limits), [], Metrics(), None if lines is None else lines.append)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_bodies_reach_the_application_whole() -> None:
    parts = [{"body": b"ab", "more_body": True}, {"body": b"c", "more_body": False}]
    assert asyncio.run(asked(guarded(echo), parts)) == (200, b"abc")


def test_slow_bodies_and_slow_answers_run_out_of_time() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async def both() -> list[tuple[int, bytes]]:
        unfinished = [{"body": b"a", "more_body": True}]
        return [
            await asked(guarded(slow, seconds=0.05), unfinished, asyncio.sleep(60)),
            await asked(guarded(slow, seconds=0.05)),
        ]

    (early, first), (late, second) = asyncio.run(both())
    assert (early, late) == (408, 504)
    assert b"did not come" in first
    assert b"no answer within 0.05 seconds" in second


def test_one_request_too_many_is_sent_away_and_the_others_are_answered() -> None:
    async def several() -> list[tuple[int, bytes]]:
        go = asyncio.Event()

        async def waits(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await echo(scope, receive, send)

        guard = guarded(waits, requests=2)
        tasks = [asyncio.create_task(asked(guard)) for _ in range(3)]
        await asyncio.sleep(0.01)
        go.set()
        found = await asyncio.gather(*tasks)
        return [*found, await asked(guard)]

    assert [status for status, _ in asyncio.run(several())] == [200, 200, 429, 200]


def test_a_client_that_goes_away_is_noted_and_nobody_is_answered() -> None:
    lines: list[str] = []

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def go() -> tuple[int, bytes]:
        return await asked(guarded(echo, lines), [{"body": b"a", "more_body": True}], gone())

    assert asyncio.run(go()) == (0, b"")
    assert json.loads(lines[0])["status"] == 499


@pytest.mark.parametrize("declared", ["30", "999999999999"])
def test_a_declared_length_is_refused_before_the_body_is_read(declared: str) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("it was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"content-length", declared.encode())]}
    asyncio.run(guarded(echo, body_bytes=20)(scope, receive, send))
    assert sent[0]["status"] == 413


def test_who_sends_slowly_keeps_nobody_else_from_being_answered() -> None:
    async def several() -> list[tuple[int, bytes]]:
        guard = guarded(echo, requests=1, seconds=0.2)
        unfinished = [{"body": b"a", "more_body": True}]
        slow = [asyncio.create_task(asked(guard, unfinished)) for _ in range(3)]
        await asyncio.sleep(0.01)
        return [await asked(guard), *await asyncio.gather(*slow)]

    assert [status for status, _ in asyncio.run(several())] == [200, 408, 408, 408]


def test_bodies_may_not_fill_the_memory_together() -> None:
    async def several() -> list[int]:
        guard = guarded(echo, incoming_bytes=10, seconds=0.2)
        unfinished = [{"body": b"a" * 8, "more_body": True}]
        slow = asyncio.create_task(asked(guard, unfinished))
        await asyncio.sleep(0.01)
        refused, _ = await asked(guard, [{"body": b"b" * 4}])
        return [refused, (await slow)[0], (await asked(guard, [{"body": b"b" * 4}]))[0]]

    assert asyncio.run(several()) == [503, 408, 200]


def test_who_takes_an_answer_in_slowly_keeps_nobody_else_from_being_answered() -> None:
    async def both() -> tuple[int, bytes]:
        async def receive() -> Any:
            return {"type": "http.request", "body": b""} if scopes.pop() else await asyncio.sleep(60)

        async def clogged(message: Any) -> None:
            await asyncio.sleep(60)

        scopes, guard = [False, False, True], guarded(echo, requests=1, seconds=0.2)
        scope = {"type": "http", "method": "POST", "path": "/search", "headers": []}
        slow = asyncio.create_task(guard(scope, receive, clogged))
        await asyncio.sleep(0.01)
        found = await asked(guard)
        await slow
        return found

    assert asyncio.run(both())[0] == 200


def test_nobody_works_for_who_has_gone() -> None:
    ended: list[str] = []

    async def works(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def gone() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    lines: list[str] = []
    assert asyncio.run(asked(guarded(works, lines), after=gone())) == (0, b"")
    assert ended == ["cancelled"]
    assert json.loads(lines[0])["status"] == 499


def test_a_fault_of_the_application_is_not_hidden() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        asyncio.run(asked(guarded(fails)))


def test_a_log_that_nobody_reads_any_more_fails_no_request() -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError

    guard = Guard(echo, Limits(), [], Metrics(), broken)
    assert asyncio.run(asked(guard)) == (200, b"")
