"""Load a server over loopback, from another process: queries a second and waiting times for several numbers of clients.

    python benchmarks/speed/serve.py [--passages 100000] [--seconds 20] [--json]
    python benchmarks/speed/serve.py --clients 8 --seconds 600     # does memory stay flat?

The index has synthetic vectors at dupmae-small's sizes and words of SciFact's abstracts; queries are SciFact's claims,
encoded by dupmae-small as the server does it. Each client asks for the 10 best, waits for the answer and asks again.
`alone` is the same search one query after the other in one Python process, texts and highlights included. `disturbed`
are 8 clients beside 500 connections that ask nothing and 20 that send their request a byte at a time. The last two take
20 seconds at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from index import draw
from rich.console import Console
from rich.table import Table

from dupmae import DuplexIndex, Passage, read_benchmark
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.queries import open_queries
from dupmae.index.highlights import highlight
from dupmae.models import open_model

MODEL = "dupmae-small"
SCIFACT = Path(__file__).parents[2] / "data" / "scifact"
K, SHORT = 10, 20


class Drawn:
    """Stands in for an encoder of passages: the text "n ..." is embedded as row n, its words as they are."""

    path = MODEL

    def __init__(self, queries: Any, embeddings: DuplexEmbeddings) -> None:
        self.pooling, self.tokenizer, self.words = queries.pooling, queries.tokenizer, queries.words
        self.embed_queries, self.embeddings = queries.embed_queries, embeddings

    def chunks(self, documents: Iterable[Passage], tokens: int, overlap: int | None) -> Iterator[Passage]:
        """Leave passages as they are."""
        return iter(documents)

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Look rows up."""
        rows = np.array([int(text.split()[0]) for text in texts])
        return replace(self.embeddings[rows], words=self.words.space.passages(texts))


def build(folder: Path, count: int) -> list[str]:
    """Build the index; return the queries."""
    benchmark, rng = read_benchmark(SCIFACT, "train"), np.random.default_rng(0)
    sentences = [part for passage in benchmark.corpus.values() for part in passage.text.split(". ") if part]
    queries = open_queries(open_model(MODEL))
    drawn = draw(0, count, 384, 384, queries.pooling.vocabulary_size)
    passages = [
        Passage(f"p{row}", "", f"{row} " + ". ".join(sentences[one] for one in chosen))
        for row, chosen in enumerate(rng.integers(len(sentences), size=(count, 6)))
    ]

    DuplexIndex.build(folder, Drawn(queries, drawn), passages, model=MODEL, batch_size=256)
    return list(benchmark.queries.values())


async def client(port: int, queries: Sequence[str], until: float, times: list[float], errors: list[str]) -> None:
    """Ask again and again over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = 0
    while time.perf_counter() < until:
        body = json.dumps({"queries": [queries[number % len(queries)]], "k": K}).encode()
        number += 1
        head = (
            f"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        begun = time.perf_counter()
        writer.write(head.encode() + b"\r\n\r\n" + body)
        header = await reader.readuntil(b"\r\n\r\n")
        length = int(
            next(line.split(b":")[1] for line in header.split(b"\r\n") if line.lower().startswith(b"content-l"))
        )
        answer = await reader.readexactly(length)
        times.append(time.perf_counter() - begun)
        if not header.startswith(b"HTTP/1.1 200"):
            errors.append(answer.decode()[:200])
    writer.close()


async def trickle(port: int, until: float) -> None:
    """Send a request a byte at a time."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for byte in b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n" + b"x" * 400:
            if time.perf_counter() > until:
                break
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.1)
    except ConnectionError:
        pass
    writer.close()


async def load(port: int, queries: Sequence[str], clients: int, seconds: float, *, disturbed: bool) -> dict[str, Any]:
    """Run clients for some seconds."""
    times, errors = list[float](), list[str]()
    until = time.perf_counter() + seconds
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(500 if disturbed else 0)]
    others = [trickle(port, until) for _ in range(20 if disturbed else 0)]
    parts = np.array_split(np.array(queries, object), clients)
    await asyncio.gather(*(client(port, list(part), until, times, errors) for part in parts), *others)
    for _, writer in idle:
        writer.close()
    found = 1000 * np.array(times)
    return {
        "clients": clients,
        "disturbed": disturbed,
        "queries_per_s": len(found) / seconds,
        **{f"p{place}_ms": float(np.percentile(found, place)) for place in (50, 95, 99)},
        "errors": len(errors),
        "first_error": errors[0] if errors else "",
    }


def alone(folder: Path, queries: Sequence[str], seconds: float) -> dict[str, Any]:
    """Search one query after the other in this process."""
    index, times = DuplexIndex.open(folder), list[float]()
    index.search(list(queries[:4]), K)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        query = queries[len(times) % len(queries)]
        begun = time.perf_counter()
        for hit in index.search([query], K)[0]:
            highlight(hit, query, index.queries.tokenizer, "english")
        times.append(time.perf_counter() - begun)
    found = 1000 * np.array(times)
    return {
        "clients": "alone",
        "disturbed": False,
        "queries_per_s": 1000 / float(found.mean()),
        **{f"p{place}_ms": float(np.percentile(found, place)) for place in (50, 95, 99)},
        "errors": 0,
        "first_error": "",
    }


def memory_mb(process: int) -> float:
    """Read how much memory a process and its workers have to themselves, the mapped index left out."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    own = int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024
    workers = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    return own + sum(memory_mb(int(worker)) for worker in workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--index", type=Path, help="folder that keeps the index")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--load", nargs=3, metavar=("CLIENTS", "DISTURBED", "QUERIES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load is not None:
        queries = json.loads(Path(options.load[2]).read_text(encoding="utf-8"))
        disturbed = options.load[1] == "1"
        print(
            json.dumps(
                asyncio.run(load(options.port, queries, int(options.load[0]), options.seconds, disturbed=disturbed))
            )
        )
        return
    with tempfile.TemporaryDirectory() as place:
        folder = options.index or Path(place) / "index"
        queries = build(folder, options.passages)
        written = Path(place) / "queries.json"
        written.write_text(json.dumps(queries), encoding="utf-8")
        rows = [alone(folder, queries, min(options.seconds, SHORT))]
        command = [sys.executable, "-m", "dupmae", "serve", str(folder), "--port", str(options.port)]
        command += ["--workers", str(options.workers)]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
        try:
            _wait(options.port)
            time.sleep(2 * (options.workers - 1))  # for the others
            for clients, disturbed in [*((count, False) for count in options.clients), (8, True)]:
                seconds = min(options.seconds, SHORT) if disturbed else options.seconds
                own = [sys.executable, __file__, "--port", str(options.port), "--seconds", str(seconds)]
                own += ["--load", str(clients), str(int(disturbed)), str(written)]
                memory = [memory_mb(server.pid)]
                with subprocess.Popen(own, stdout=subprocess.PIPE, text=True) as loading:
                    while loading.poll() is None:
                        time.sleep(seconds / 20)
                        memory.append(memory_mb(server.pid))
                    found = loading.stdout.read()
                rows.append(json.loads(found) | {"memory_mb": memory})
        finally:
            server.terminate()
            server.wait()
    if options.json:
        print(json.dumps({"passages": options.passages, "k": K, "rows": rows}, indent=2))
        return
    table = Table(
        "clients", "queries/s", "p50 ms", "p95", "p99", "p99 / p50", "errors", "MB before", "half way", "after"
    )
    for row in rows:
        name = f"{row['clients']}{', disturbed' if row['disturbed'] else ''}"
        cells = [row["queries_per_s"], row["p50_ms"], row["p95_ms"], row["p99_ms"], row["p99_ms"] / row["p50_ms"]]
        seen = row.get("memory_mb", [])
        memory = [f"{seen[place]:.0f}" if seen else "" for place in (0, len(seen) // 2, -1)]
        table.add_row(name, *(f"{cell:.1f}" for cell in cells), str(row["errors"]), *memory)
    Console(width=120).print(table)


def _wait(port: int) -> None:
    """Wait until the server answers."""
    import urllib.error
    import urllib.request

    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready").read()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)


if __name__ == "__main__":
    main()
