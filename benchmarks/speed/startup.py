"""The cost of one `dupmae search` with each encoder of queries: seconds of processor and clock, memory at its height.

    python benchmarks/speed/startup.py [--index INDEX] [--runs 5] [--query TEXT] [--json]

Without --index an index of the first 500 bundled SciFact abstracts is built with dupmae-small in a temporary folder.
Each search is a process of its own; one of each is run first, so that files are cached. The encoders take turns, and
medians are printed.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

SCIFACT = Path(__file__).parents[2] / "data" / "scifact"
ENCODERS = ("torch", "onnx", "static")
SEARCH = "import sys; from dupmae.cli import main; sys.exit(main(sys.argv[1:]))"
PASSAGES = 500


def build(folder: Path) -> Path:
    """Build a small index with dupmae-small; in another process, whose memory would be counted for those it starts."""
    with lzma.open(SCIFACT / "corpus.jsonl.xz", "rt", encoding="utf-8") as file:
        (folder / "corpus.jsonl").write_text("".join(islice(file, PASSAGES)), encoding="utf-8")
    run("index", "build", "--corpus", str(folder / "corpus.jsonl"), "--output", str(folder / "index"), "--quiet")
    return folder / "index"


def run(*words: str) -> tuple[float, float, float]:
    """Run `dupmae` in a process: seconds of processor, seconds of clock, megabytes of memory."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", SEARCH, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"dupmae {' '.join(words)} ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begun, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, help="an index to search instead")
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=ENCODERS)
    parser.add_argument("--query", default="does vitamin D prevent fractures?")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = options.index or build(Path(folder))
        figures: dict[str, list[tuple[float, float, float]]] = {encoder: [] for encoder in options.encoders}
        for number in range(options.runs + 1):
            for encoder in options.encoders:
                measured = run("search", str(index), options.query, "--query_encoder", encoder)
                if number:
                    figures[encoder].append(measured)
    medians = {
        encoder: [statistics.median(column) for column in zip(*rows, strict=True)] for encoder, rows in figures.items()
    }
    if options.json:
        names = ("processor_seconds", "seconds", "megabytes")
        print(json.dumps({encoder: dict(zip(names, row, strict=True)) for encoder, row in medians.items()}))
        return
    print(f"{'encoder':<9} {'processor':>10} {'clock':>8} {'memory':>8}")
    for encoder, (processor, seconds, megabytes) in medians.items():
        print(f"{encoder:<9} {processor:>8.2f} s {seconds:>6.2f} s {megabytes:>5.0f} MB")


if __name__ == "__main__":
    main()
