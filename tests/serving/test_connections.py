from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
import uvicorn

from dupmae.serving import connections


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers after a while."""
    await asyncio.sleep(0.4)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def test_a_connection_that_asks_for_nothing_is_closed_and_one_that_waits_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "SECONDS", 0.2)
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"

    async def go() -> tuple[bytes, ...]:
        server = uvicorn.Server(
            uvicorn.Config(app, port=0, http=connections.Connection, lifespan="off", log_config=None)
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]

        async def talk(*parts: bytes) -> bytes:
            """Send parts, a tenth of a second apart, and read to the end."""
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0.1)
            found = await asyncio.wait_for(reader.read(), 3)
            writer.close()
            return found

        try:
            return await asyncio.gather(talk(), talk(*(head[:place] for place in (5, 5))), talk(head, b"\r\n"))
        finally:
            server.should_exit = True
            await serving

    nothing, half, whole = asyncio.run(go())
    assert (nothing, half) == (b"", b"")
    assert whole.startswith(b"HTTP/1.1 200 OK")
    assert whole.endswith(b"ok")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_more_connections_are_allowed_than_are_usual() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 900), hard))
        connections.allow_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, connections.MOST), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
