"""Kill workers of a server under load, and look whether any answer is wrong and whether it goes on.

    python benchmarks/reliability/serve_kills.py INDEX [--kills 20]

Two workers answer eight clients; every second one of them is killed (SIGKILL). Each answer must be the index' own;
connections may break, after which a client connects anew. At last every query must be answered again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dupmae import DuplexIndex

PORT, K = 8766, 5


async def ask(query: str) -> Any:
    """Ask over a new connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    try:
        body = json.dumps({"queries": [query], "k": K}).encode()
        writer.write(
            b"POST /search HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.decode()[:60] or "nothing came")
        return [(hit["document"], hit["score"]) for hit in json.loads(answer)["results"][0]["hits"]]
    finally:
        writer.close()


def children(process: int) -> list[int]:
    """List the workers of a server."""
    found = subprocess.run(
        ["pgrep", "-P", str(process), "-f", "spawn_main"], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


async def clients(expected: dict[str, Any], server: int, kills: int) -> dict[str, Any]:
    """Ask while workers are killed."""
    counts, ended = {"right": 0, "wrong": 0, "broken": 0}, asyncio.Event()

    async def client(seed: int) -> None:
        draw = random.Random(seed)
        while not ended.is_set():
            query = draw.choice(list(expected))
            try:
                counts["right" if same(await ask(query), expected[query]) else "wrong"] += 1
            except (OSError, asyncio.IncompleteReadError, json.JSONDecodeError):
                counts["broken"] += 1
                await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(client(seed)) for seed in range(8)]
    killed = 0
    while killed < kills:
        await asyncio.sleep(1)
        workers = children(server)
        if len(workers) == 2:  # one is left to answer
            os.kill(random.choice(workers), signal.SIGKILL)
            killed += 1
    ended.set()
    await asyncio.gather(*tasks)
    while len(children(server)) < 2:
        await asyncio.sleep(0.5)
    after = [same(await ask(query), hits) for query, hits in expected.items()]
    return counts | {"kills": killed, "right_afterwards": sum(after), "queries": len(after)}


def same(found: Any, expected: Any) -> bool:
    """Tell whether hits are those that were expected."""
    names, scores = zip(*found, strict=True), zip(*expected, strict=True)
    (left, left_scores), (right, right_scores) = tuple(names), tuple(scores)
    return left == right and np.allclose(left_scores, right_scores, rtol=1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    index = DuplexIndex.open(options.index)
    queries = [passage.text[:60] for _, passage in zip(range(40), index, strict=False)]
    hits = [index.search([query], K)[0] for query in queries]
    expected = {query: [(hit.document, hit.score) for hit in found] for query, found in zip(queries, hits, strict=True)}
    command = [sys.executable, "-m", "dupmae", "serve", str(options.index), "--port", str(PORT), "--workers", "2"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while len(children(server.pid)) < 2:
            time.sleep(0.5)
        time.sleep(10)
        print(json.dumps(asyncio.run(clients(expected, server.pid, options.kills))))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
