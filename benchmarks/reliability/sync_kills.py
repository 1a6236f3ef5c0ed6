"""Kill `dupmae sync` at random moments, and look whether the index then misses a document or holds a stale one.

    python benchmarks/reliability/sync_kills.py --kills 50

In each round some files of a folder are changed, renamed, added and deleted, a sync is killed, and the index is opened:
each of its documents must be one that the folder has, or had before the round, and none that stayed may be missing. A
second sync must then leave exactly the folder, and a third find nothing to do.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dupmae.cli import main as dupmae
from dupmae.corpus import read_passages
from dupmae.index import DuplexIndex

WORDS = [
    "lamp",
    "lens",
    "keeper",
    "ship",
    "fog",
    "reef",
    "storm",
    "tower",
    "light",
    "harbour",
    "signal",
    "coast",
    "rock",
    "night",
    "tide",
    "boat",
]


def text(draw: random.Random) -> str:
    """Write a page of nonsense, a heading and some sentences, often longer than a chunk."""
    sentences = (" ".join(draw.choices(WORDS, k=draw.randint(4, 12))).capitalize() for _ in range(draw.randint(2, 60)))
    return f"# {draw.choice(WORDS).capitalize()} {draw.random()}\n\n" + ". ".join(sentences) + ".\n"


def change(folder: Path, draw: random.Random) -> None:
    """Change, rename, add and delete some files."""
    files = sorted(folder.glob("*.md"))
    for file in draw.sample(files, 3):
        file.write_text(text(draw))
    for file in draw.sample(files, 3):
        file.rename(folder / f"{draw.getrandbits(40):010x}.md")
    for _ in range(3):
        (folder / f"{draw.getrandbits(40):010x}.md").write_text(text(draw))
    for file in draw.sample(sorted(folder.glob("*.md")), 3):
        file.unlink()


def documents(folder: Path) -> set[tuple[str, str]]:
    """List the files of a folder as pairs of id and text."""
    return {(passage.id, passage.text) for passage in read_passages(folder)}


def held(index: Path) -> dict[str, list[tuple[int, int, str]]]:
    """List the documents of an index with the places and texts of their passages."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for passage in DuplexIndex.open(index):
        place = (0, len(passage.text)) if passage.chunk is None else (passage.chunk.start, passage.chunk.end)
        found.setdefault(passage.document, []).append((*place, passage.text))
    return found


def is_whole(parts: list[tuple[int, int, str]], whole: str) -> bool:
    """Tell whether passages are those of a text and leave nothing of it out."""
    covered = 0
    for start, end, part in sorted(parts):
        if whole[start:end] != part or whole[covered:start].strip():
            return False
        covered = max(covered, end)
    return not whole[covered:].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=8, help="until a kill, at most")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    draw, finished, faults = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory() as place:
        folder, index = Path(place) / "files", Path(place) / "index"
        folder.mkdir()
        for number in range(options.files):
            (folder / f"{number}.md").write_text(text(draw))
        assert dupmae(["index", "build", "--corpus", str(folder), "--output", str(index), "--quiet"]) == 0
        for kill in range(options.kills):
            before = documents(folder)
            change(folder, draw)
            after = documents(folder)
            running = subprocess.Popen([sys.executable, "-m", "dupmae", "sync", str(index), str(folder), "--quiet"])
            time.sleep(draw.uniform(0.5, options.seconds))
            running.send_signal(signal.SIGKILL)
            finished += running.wait() == 0
            found = held(index)
            known = before | after
            stale = [
                name
                for name, parts in found.items()
                if not any(is_whole(parts, own) for at, own in known if at == name)
            ]
            missing = [name for name, _ in before & after if name not in found]
            assert dupmae(["sync", str(index), str(folder), "--quiet"]) == 0
            found, texts = held(index), dict(documents(folder))
            left = list(found.keys() ^ texts.keys())
            left += [name for name in found.keys() & texts.keys() if not is_whole(found[name], texts[name])]
            faults += len(stale) + len(missing) + len(left)
            print(f"{kill + 1}: stale {stale}, missing {missing}, wrong after the next sync {left}", flush=True)
        DuplexIndex.open(index).verify()
        synced = DuplexIndex.open(index).sync(lambda: read_passages(folder), dry_run=True).difference
    print(f"{options.kills} kills, {finished} of them after the end; faults: {faults}; at last {synced}")


if __name__ == "__main__":
    main()
