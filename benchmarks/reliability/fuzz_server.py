"""Run commands and inputs of the fuzz for another process, which need not import what they take (the test suite does).

    python benchmarks/reliability/fuzz_server.py FOLDER

Reads requests, a line of JSON each, from the standard input, and answers each with a line: `{"needs": [...]}` builds
parts of the world and lays them out in FOLDER/case; `{"argv": [...]}` runs a command there, watched, and answers how it
ended and what the watch has seen; `{"input": 3}` runs an input of the fuzz.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fuzz import Fuzzer
from fuzz_child import run
from fuzz_watch import watch


def main(folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed is no answer
    fuzzer = Fuzzer(folder, seed=1, quick=True)
    for line in sys.stdin:
        answers.write(json.dumps(_answer(fuzzer, json.loads(line))) + "\n")
        answers.flush()


def _answer(fuzzer: Fuzzer, request: dict[str, Any]) -> Any:
    world = fuzzer.world
    if "needs" in request:
        world.needs(tuple(request["needs"]))
        world.lay_out(tuple(request["needs"]))
        return None
    if "input" in request:
        return fuzzer.outcome(request["input"])
    log, secret = world.folder / "last.watch", world.folder / "secret"
    own = [str(world.folder / name) for name in ("case", "home")]
    stdin = None if request.get("stdin") is None else world.case / request["stdin"]
    ended = run(request["argv"], world.case, world.folder / "last", stdin, partial(watch, log, own, str(secret)))
    seen = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return asdict(ended) | {"seen": seen}


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
