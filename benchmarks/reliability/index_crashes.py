"""Kills, full disks and concurrent readers: does an index ever lose or invent a document, or keep a part of one?

    python benchmarks/reliability/index_crashes.py [--kills 200] [--failures 50] [--readers 20]

A process adds, replaces and deletes documents of one to five chunks and compacts at random; before each change it notes
down what it is about to do. It is killed (SIGKILL) at random moments, or its writes fail beyond a random file size.
After each, the index must open, verify, hold exactly the documents of the last committed change (or of the one under
way, if that was committed), each with all its chunks and no former ones, and rank them like exhaustive search. Then
readers open and read the index while it is being changed: what each sees must be one of the committed states, never an
older one than before. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dupmae.corpus import Chunk, Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex

D, K, V, IDS = 12, 6, 80, 120
State = dict[str, str]
"""The text of each document, by its id."""


class Hashing:
    """Stands in for an encoder: a text's embedding depends on the text alone, and its numbers are stored exactly."""

    pooling = SimpleNamespace(vocabulary_size=V)
    tokenizer = None

    def chunks(self, documents: Iterable[Passage], tokens: int, overlap: int | None) -> Iterator[Passage]:
        """Leave passages as they are."""
        return iter(documents)

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        cls, ids, weights = [], [], []
        for text in texts:
            rng = np.random.default_rng(zlib.crc32(text.encode()))
            cls.append(rng.integers(-8, 9, D) / 4)
            ids.append(rng.choice(V, K, replace=False))
            weights.append(rng.integers(1, 9, K))
        return DuplexEmbeddings(np.array(cls, np.float32), np.array(ids, np.uint16), np.array(weights, np.float32))

    embed_queries = embed_documents


def opened(folder: Path) -> DuplexIndex:
    index = DuplexIndex.open(folder)
    index.encoder = Hashing()
    return index


def passages_of(name: str, text: str) -> list[Passage]:
    """Cut a document into one to five chunks, as many as its text tells."""
    count = zlib.crc32(text.encode()) % 5 + 1
    if count == 1:
        return [Passage(name, "", f"{text} 0")]
    return [
        Passage(f"{name}::{number + 1}", "", f"{text} {number}", {}, Chunk(name, ("part",), number, number + 1))
        for number in range(count)
    ]


def contents(index: DuplexIndex) -> State:
    """Read id and text of every document."""
    found: dict[str, list[Passage]] = {}
    for passage in index:
        found.setdefault(passage.document, []).append(passage)
    state = {name: passages[0].text.rpartition(" ")[0] for name, passages in found.items()}
    for name, passages in found.items():
        assert passages == passages_of(name, state[name]), f"the document {name} is not whole, or has former chunks"
    return state


def check_ranking(index: DuplexIndex, state: State, query: str) -> None:
    """Compare a search with scores written out over all passages."""
    names = sorted(state)
    if not names:
        return
    passages = [passage for name in names for passage in passages_of(name, state[name])]
    documents = Hashing().embed_documents([passage.text for passage in passages])
    wanted = Hashing().embed_queries([query])
    scores = documents.cls @ wanted.cls[0]
    for row in range(len(passages)):
        weights = dict(zip(documents.ids[row].tolist(), documents.weights[row].tolist(), strict=True))
        pairs = zip(wanted.ids[0].tolist(), wanted.weights[0].tolist(), strict=True)
        scores[row] += sum(weight * weights.get(term, 0) for term, weight in pairs)
    best: dict[str, float] = {}
    for passage, score in zip(passages, scores.tolist(), strict=True):
        best[passage.document] = max(best.get(passage.document, -np.inf), score)
    ranking = sorted((-score, name) for name, score in best.items())[:10]
    ids, found = index.search_embeddings(wanted, 10)
    assert ids[0] == [name for _, name in ranking], "another ranking than exhaustive search"
    assert found[0] == [-score for score, _ in ranking], "other scores than exhaustive search"


def draw_change(rng: random.Random, state: State) -> dict[str, Any]:
    kind = rng.choice(["add", "add", "delete", "compact"])
    if kind == "add":
        names = rng.sample(range(IDS), rng.randint(1, 40))
        return {"kind": kind, "documents": {f"p{name}": f"text {rng.random()}" for name in names}}
    if kind == "delete":
        return {"kind": kind, "ids": rng.sample(sorted(state), min(len(state), rng.randint(1, 30)))}
    return {"kind": kind}


def after(state: State, change: dict[str, Any]) -> State:
    """Tell the documents once a change is committed."""
    if change["kind"] == "add":
        return state | change["documents"]
    return {name: text for name, text in state.items() if name not in change.get("ids", ())}


def apply(index: DuplexIndex, change: dict[str, Any]) -> None:
    if change["kind"] == "add":
        index.add([passage for name, text in change["documents"].items() for passage in passages_of(name, text)])
    elif change["kind"] == "delete":
        index.delete(change["ids"])
    else:
        index.compact()


def quiet() -> None:
    """Keep progress bars off the screen."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def change_until_killed(folder: Path, journal: Path, seed: int) -> None:
    quiet()
    rng, index = random.Random(seed), opened(folder)
    state = contents(index)
    with journal.open("w", encoding="utf-8") as file:
        while True:
            change = draw_change(rng, state)
            file.write(json.dumps(change) + "\n")
            file.flush()
            apply(index, change)
            state = after(state, change)
            file.write("done\n")
            file.flush()


def change_with_failing_writes(folder: Path, journal: Path, seed: int) -> None:
    quiet()
    rng, index = random.Random(seed), opened(folder)
    state = contents(index)
    change = draw_change(rng, state)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest ** rng.random()), resource.RLIM_INFINITY))
    outcome = "done\n"
    try:
        apply(index, change)
    except Exception:
        outcome = "failed\n"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.write_text(json.dumps(change) + "\n" + outcome, encoding="utf-8")


def read_until_told(folder: Path, stop: Any, started: Any, results: Any) -> None:
    quiet()
    seen: list[str] = []
    try:
        while not stop.is_set():
            index = opened(folder)
            state = contents(index)
            check_ranking(index, state, "query")
            seen.append(json.dumps(state, sort_keys=True))
            if len(seen) == 1:
                started.release()
        results.put(seen)
    except BaseException as error:
        results.put(f"{type(error).__name__}: {error}")
        raise


def committed(journal: Path, state: State, found: State) -> tuple[State, str]:
    """Check what was found after a kill or a failure; tell the present state and how the last change ended."""
    lines = journal.read_text(encoding="utf-8").splitlines()
    changes = [json.loads(line) for line in lines if line.endswith("}")]
    ended = [line for line in lines if line in ("done", "failed")]
    for change, how in zip(changes, ended, strict=False):
        state = after(state, change) if how == "done" else state
    if len(changes) == len(ended):
        assert found == state, "the index does not hold the committed passages"
        return found, ended[-1] if ended else "idle"
    assert found in (state, after(state, changes[-1])), "neither the state before a change nor the one after it"
    return found, f"killed in {changes[-1]['kind']}"


def disturb(
    context: ForkServerContext, folder: Path, state: State, target: Any, rounds: int, seed: int, kill: bool
) -> tuple[State, dict[str, int]]:
    """Let a process change the index and be disturbed, again and again."""
    rng, outcomes = random.Random(seed), dict[str, int]()
    journal = folder.parent / "journal"
    for number in range(rounds):
        journal.unlink(missing_ok=True)
        process = context.Process(target=target, args=(folder, journal, seed * 10_000 + number))
        process.start()
        if kill:
            while process.is_alive() and not (journal.exists() and journal.stat().st_size):
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.4))
            assert process.is_alive(), "the process that changes the index ended by itself"
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        index = opened(folder)
        index.verify()
        state, outcome = committed(journal, state, contents(index))
        check_ranking(index, state, f"query {number}")
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return state, outcomes


def read_during_changes(context: ForkServerContext, folder: Path, state: State, readers: int, changes: int) -> int:
    """Change the index under the eyes of readers; returns how many states they saw in all."""
    stop, started, results = context.Event(), context.Semaphore(0), context.Queue()
    words = (folder, stop, started, results)
    processes = [context.Process(target=read_until_told, args=words) for _ in range(readers)]
    for process in processes:
        process.start()
    assert all(started.acquire(timeout=300) for _ in processes), "a reader could not read the first state"
    rng, index, states = random.Random(99), opened(folder), [state]
    for _ in range(changes):
        change = draw_change(rng, states[-1])
        apply(index, change)
        states.append(after(states[-1], change))
    stop.set()
    order = {json.dumps(one, sort_keys=True): number for number, one in enumerate(states)}
    total = 0
    for _ in processes:
        seen = results.get(timeout=300)
        assert isinstance(seen, list), seen
        numbers = [order[one] for one in seen]  # a KeyError is a state that was never committed
        assert numbers == sorted(numbers), "a reader saw an older state after a newer one"
        total += len(seen)
    for process in processes:
        process.join()
    return total


def refuses_a_second_writer(folder: Path) -> bool:
    from dupmae.index.writing.changes import sole_writer

    try:
        with sole_writer(folder):
            opened(folder).delete(["p1"])
    except DupmaeError as error:
        return "Another process is changing" in str(error)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"kills": 200, "failures": 50, "readers": 20, "changes": 60, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dupmae.index", "dupmae.duplex.embeddings"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        state = {f"p{name}": f"text {name}" for name in range(60)}
        corpus = [passage for name, text in state.items() for passage in passages_of(name, text)]
        DuplexIndex.build(folder, Hashing(), corpus, model="hashing")
        state, kills = disturb(context, folder, state, change_until_killed, options.kills, options.seed, True)
        seed = options.seed + 1
        state, failures = disturb(context, folder, state, change_with_failing_writes, options.failures, seed, False)
        seen = read_during_changes(context, folder, state, options.readers, options.changes)
        result = {
            "kills": kills,
            "failing_writes": failures,
            "states_read_during_changes": seen,
            "second_writer_refused": refuses_a_second_writer(folder),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
