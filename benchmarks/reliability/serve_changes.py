"""Change an index while it is served, and look whether every answer is of one of its states.

    python benchmarks/reliability/serve_changes.py INDEX [--seconds 60] [--workers 1]

In a copy of the index three documents are replaced together again and again, deleted now and then, and the index is
compacted, while four clients search for them. An answer must hold the three documents of one state or none, and so must
its explanation; no request may fail. The index must have been built by dupmae-small.
"""

from __future__ import annotations

import argparse
import collections
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from dupmae import DuplexEncoder, DuplexIndex, Passage

PORT, DOCUMENTS = 8767, 3
QUERY = "zzyzx quorble vitamin D prevents fractures"


def ask(path: str, body: Any = None) -> Any:
    """Ask the server."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=30).read())


def versions(hits: list[Any]) -> list[str]:
    """List the versions of those of our documents that were found."""
    return [hit["text"].split()[0] for hit in hits if hit["document"].startswith("zzyzx")]


def client(ended: threading.Event, counts: collections.Counter[str], faults: list[str]) -> None:
    """Search until the end."""
    explain = False
    while not ended.is_set():
        explain = not explain
        try:
            (result,) = ask("/search", {"queries": [QUERY], "k": 10, "explain": explain})["results"]
        except (OSError, ValueError) as error:
            faults.append(repr(error)[:200])
            continue
        found = versions(result["hits"])
        counts[f"answers with {len(found)} of the documents"] += 1
        if len(found) not in (0, DOCUMENTS) or len(set(found)) > 1:
            faults.append(f"mixed: {found}")
        if explain and set(versions(result["explanation"]["hits"])) != set(found):
            faults.append(f"explained otherwise: {found}")


def change(index: DuplexIndex, seconds: float) -> int:
    """Commit states for some seconds; return how many."""
    until, states = time.monotonic() + seconds, 0
    names = [f"zzyzx{number}" for number in range(DOCUMENTS)]
    while time.monotonic() < until:
        states += 1
        index.add([Passage(name, "", f"version{states} {QUERY}", {f"field{states % 3}": states}) for name in names])
        if states % 3 == 0:
            index.delete(names)
        if states % 4 == 0:
            index.compact()
    return states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(options.index, Path(place) / "index"))
        command = [sys.executable, "-m", "dupmae", "serve", str(folder), "--port", str(PORT)]
        server = subprocess.Popen([*command, "--workers", str(options.workers)], stderr=subprocess.DEVNULL)
        ended, counts, faults = threading.Event(), collections.Counter[str](), list[str]()
        clients = [threading.Thread(target=client, args=(ended, counts, faults)) for _ in range(4)]
        try:
            while server.poll() is None:
                try:
                    ask("/ready")
                    break
                except urllib.error.URLError:
                    time.sleep(0.2)
            writer = DuplexIndex(folder, DuplexEncoder("dupmae-small"))
            for thread in clients:
                thread.start()
            states = change(writer, options.seconds)
        finally:
            ended.set()
            for thread in clients:
                if thread.is_alive():
                    thread.join()
            server.terminate()
            server.wait()
        print(json.dumps({"states": states, **counts, "faults": len(faults), "first": faults[:3]}))


if __name__ == "__main__":
    main()
