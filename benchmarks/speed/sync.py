"""Measure bringing an index in step after one file of many changed, beside building it anew.

    python benchmarks/speed/sync.py --files 1000

The files are abstracts of data/scifact. Seconds of the processor, the model loaded before; one build, and several syncs
after a change, after a renaming, and after nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from dupmae.corpus import read_passages
from dupmae.duplex import DuplexEncoder
from dupmae.index import DuplexIndex


def seconds(work: Callable[[], object]) -> float:
    """Measure processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    encoder = DuplexEncoder("dupmae-small")
    encoder.embed_documents(["warm up"] * 32)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "files"
        folder.mkdir()
        for passage in islice(read_passages("data/scifact"), options.files):
            (folder / f"{passage.id}.txt").write_text(passage.full_text, encoding="utf-8")
        files = sorted(folder.glob("*.txt"))
        index: list[DuplexIndex] = []
        build = seconds(
            lambda: index.append(DuplexIndex.build(Path(place) / "index", encoder, list(read_passages(folder))))
        )
        found: dict[str, list[float]] = {"one file changed": [], "one file renamed": [], "nothing changed": []}
        for number in range(options.rounds):
            files[number].write_text(
                f"{files[number].read_text(encoding='utf-8')} One more sentence.", encoding="utf-8"
            )
            found["one file changed"].append(seconds(lambda: index[0].sync(lambda: read_passages(folder))))
            files[-1 - number].rename(folder / f"renamed-{number}.txt")
            found["one file renamed"].append(seconds(lambda: index[0].sync(lambda: read_passages(folder))))
            found["nothing changed"].append(seconds(lambda: index[0].sync(lambda: read_passages(folder))))
        record = {"files": options.files, "passages": len(index[0]), "build": build}
        record |= {name: statistics.median(times) for name, times in found.items()}
    print(json.dumps(record, indent=2))
    for name in found:
        print(f"{name}: {record[name]:.2f} s, a build {build:.0f} s: {build / record[name]:.0f} times")
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
