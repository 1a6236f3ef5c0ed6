"""Damaged inputs through the real command line: does every one end in a result or in one sentence?

    python benchmarks/reliability/fuzz.py --output runs/fuzz [--inputs 2000] [--seed 1] [--doors "finetune"]

An input is a command, one of the files that it reads (texts, judgements, runs, settings, models, indexes, records of
runs), and one way to damage it. The command runs in a fork of this process, which has imported everything, with a limit
of time and memory. What is wrong with an outcome is its kind: a traceback, a signal, a hang, memory, an exit status
other than 0 and 2, a refusal that is not one sentence of at most 500 characters, control characters, something left
behind by a command that refused (`left`), or, for models and indexes, another result without a word (`another`).

Writes OUTPUT/outcomes.jsonl, an input a line, and OUTPUT/summary.json; the same command goes on where it stopped.
Input N of a seed is the same wherever the files of the package are. Linux.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import random
import shutil
import stat
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

ODD_WORDS = [
    "", " ", "\x1b[31m", "\u202e", "\udc80", "~", "$HOME", "nan", "inf", "-1", "0", "1e400", "9" * 400, "a" * 10_000,
    "[bold]x[/]", "../..", "/dev/zero", "http://127.0.0.1:99999/c", "http://[::1", "http://u:secret@127.0.0.1:1/c",
    "postgresql://u:secret@127.0.0.1:1/d#t", "null", "{}", "[1,2", "a=b=c", "=", "lang=", "=de", "te\u0301xt", "1.5",
    "true", "--", "-", "-x", "--nothing", "*", "\u0663", "0x10", "1_0", "\u2028", "[MASK] [PAD]", "!!python/none",
]  # fmt: skip
OUTPUTS = {"--output", "--json", "--encodings"}
"""Options whose value is not damaged: this machine is to be there afterwards."""
WRONG = ("traceback", "signal", "hang", "memory", "status", "sentence", "control", "left", "another")
"""Kinds of outcomes that are wrong."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--doors", default="*", help="patterns of the names of doors, such as '* index,words *'")
    parser.add_argument("--keep", action="store_true", help="keep the folder and the streams of the last input")
    options = parser.parse_args(words)
    fuzzer = Fuzzer(options.output.resolve(), options.seed, options.doors)
    file = options.output / "outcomes.jsonl"
    outcomes = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    done = {outcome["input"] for outcome in outcomes}
    todo = [number for number in range(options.first, options.first + options.inputs) if number not in done]
    begun = time.monotonic()
    with file.open("a", encoding="utf-8") as out:
        for count, number in enumerate(todo, 1):
            outcome = fuzzer.outcome(number)
            outcomes.append(outcome)
            out.write(json.dumps(outcome) + "\n")
            out.flush()
            if count % 20 == 0 or count == len(todo):
                left = (time.monotonic() - begun) / count * (len(todo) - count)
                wrong = sum(outcome["kind"] in WRONG for outcome in outcomes)
                print(f"{len(outcomes)} inputs, {wrong} wrong, {left / 60:.0f} minutes left", flush=True)
    summary = summarise(outcomes)
    (options.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary["kinds"], indent=2))
    if not options.keep:
        shutil.rmtree(fuzzer.world.case, ignore_errors=True)
    return 1 if any(outcome["kind"] in WRONG for outcome in outcomes) else 0


class Fuzzer:
    """Draws inputs and judges their outcomes.

    Args:
        folder: Of the world that is damaged; others must be able to enter it.
        seed: Of all draws.
        pattern: Of the names of doors, or several with commas between them.
        quick: Only doors that are fast.
    """

    def __init__(self, folder: Path, seed: int, pattern: str = "*", *, quick: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
        from fuzz_child import import_everything
        from fuzz_doors import doors
        from fuzz_world import World

        self.world = World(folder)
        self.seed = seed
        self.doors = [door for door in doors() if _matches(door.name, pattern) and (door.quick or not quick)]
        import_everything()
        self.undamaged = cache(self._undamaged)

    def outcome(self, number: int) -> dict[str, Any]:
        """Run an input and say what became of it."""
        draw = random.Random(f"{self.seed}-{number}")
        door = draw.choices(self.doors, [door.weight for door in self.doors])[0]
        before_kind, expected = self.undamaged(door.name)
        self._lay_out(door)
        argv, damage, changed = list(door.argv), "", "word"
        target = ""
        if door.targets:
            target, changed, damage = self._damaged(door, draw)
        else:
            argv, damage = odd_words(argv, draw)
        contents = state(self.world.case)
        ended = self._run(door, argv)
        record: dict[str, Any] = {
            "input": number,
            "door": door.name,
            "room": door.room,
            "file": target,
            "damage": damage,
        }
        record |= {"change": changed, "command": " ".join(argv)[:300]} | asdict(ended)
        if door.targets and before_kind != "done":
            record["kind"] = "undamaged"
        elif ended.kind == "done" and door.same:
            record |= self._compared(door, changed, damage, expected)
        elif ended.kind == "refused" and (left := difference(contents, state(self.world.case))):
            record |= {"kind": "left", "place": ", ".join(left)[:300]}
        return record

    def _undamaged(self, name: str) -> tuple[str, str]:
        """Run a door's command on undamaged files: how it ended, and its results."""
        door = next(door for door in self.doors if door.name == name)
        self.world.needs(door.needs)
        self._lay_out(door)
        ended = self._run(door, door.argv)
        if ended.kind != "done":
            print(f"{name} fails on undamaged files: {ended}", file=sys.stderr)
        return ended.kind, self._results(door)

    def _lay_out(self, door: Any) -> None:
        for path in self.world.case.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        self.world.lay_out(door.needs)

    def _run(self, door: Any, argv: Sequence[str]) -> Any:
        from fuzz_child import run

        stdin = None if door.stdin is None else self.world.case / door.stdin
        return run(argv, self.world.case, self.world.folder / "last", stdin)

    def _damaged(self, door: Any, draw: random.Random) -> tuple[str, str, str]:
        """Damage a file of the case; its name, the mutation's and how."""
        from fuzz_mutations import ANY, mutations_of

        before = Path.cwd()
        os.chdir(self.world.case)
        try:
            files = sorted({path for pattern in door.targets for path in Path().glob(pattern) if path.is_file()})
            path = draw.choice(files)
            own = mutations_of(path)
            mutation = draw.choice(own if own and draw.random() < 0.6 else ANY)
            if door.stdin and mutation.__name__ in ("fifo", "unreadable", "link", "delete", "folder_instead"):
                mutation = ANY[0]
            return str(path), mutation.__name__, mutation(path, draw)
        finally:
            os.chdir(before)

    def _compared(self, door: Any, changed: str, damage: str, expected: str) -> dict[str, str]:
        """Judge a success by its results: they are the undamaged files', or may be others, or are wrong."""
        from fuzz_child import run
        from fuzz_mutations import VALUES_CHANGE

        if self._results(door) == expected:
            return {}
        vocabulary = "model.vocab." in damage  # an entry that is missing or has another name is another tokenizer's
        if not door.checks and (changed in VALUES_CHANGE or vocabulary):
            return {"kind": "done", "place": "other values, other results"}
        if door.room == "index" and not door.name.startswith("verify"):
            words = ["index", "verify", door.needs[1]]
            if run(words, self.world.case, self.world.folder / "verify").kind == "refused":
                return {"kind": "done", "place": "other results, which `index verify` explains"}
        return {"kind": "another", "place": "another result without a word"}

    def _results(self, door: Any) -> str:
        """Fingerprint what a command has made."""
        content = hashlib.sha256()
        for pattern in door.same.split():
            if pattern == "-":
                content.update((self.world.folder / "last.out").read_bytes())
            else:
                for path in sorted(self.world.case.glob(pattern)):
                    content.update(path.name.encode() + path.read_bytes())
        return content.hexdigest()


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))


def prepare(folder: Path) -> None:
    """Set this process's environment, before anything is imported, as a command's that keeps to one folder and core."""
    home = folder / "home"
    os.environ |= {
        "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(home / "modules"), "NUMBA_CACHE_DIR": str(home / "numba"), "TMPDIR": str(home / "tmp"),
        "MPLCONFIGDIR": str(home / "mpl"), "DUPMAE_CACHE": str(home / "dupmae"), "OMP_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "COLUMNS": "120",
        "TRANSFORMERS_VERBOSITY": "error", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg",
    }  # fmt: skip
    os.environ.pop("FORCE_COLOR", None)
    (home / "tmp").mkdir(parents=True, exist_ok=True)


def odd_words(argv: Sequence[str], draw: random.Random) -> tuple[list[str], str]:
    """Change, drop, double or add a word of a command line."""
    words = list(argv)
    free = [place for place in range(2, len(words)) if words[place - 1] not in OUTPUTS and words[place] not in OUTPUTS]
    place, odd = draw.choice(free), draw.choice(ODD_WORDS)
    match draw.randrange(6):
        case 0:
            del words[place]
            return words, f"word {place + 1} missing"
        case 1:
            words.insert(place, odd)
            return words, f"{odd[:30]!r} added as word {place + 1}"
        case _:
            words[place] = odd
            return words, f"word {place + 1} is {odd[:30]!r}"


def state(folder: Path) -> dict[str, tuple[int, ...]]:
    """List what is in a folder, each with its kind and a checksum of its content."""
    found: dict[str, tuple[int, ...]] = {}
    for path in folder.rglob("*"):
        try:
            facts = path.lstat()
            readable = stat.S_ISREG(facts.st_mode) and facts.st_size < 1 << 24
            content = path.read_bytes() if readable else b""
        except OSError:
            continue
        found[str(path.relative_to(folder))] = (facts.st_mode, zlib.crc32(content))
    return found


def difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """List what was changed, deleted or made."""
    return [
        *(f"{name} {'changed' if name in after else 'deleted'}" for name in before if after.get(name) != before[name]),
        *(f"{name} made" for name in after if name not in before),
    ]


def summarise(outcomes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Count outcomes by kind, and those that are wrong by kind, room and place, with one example each."""
    outcomes = list(outcomes)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for outcome in outcomes:
        if outcome["kind"] in WRONG:
            place = outcome["place"] if outcome["kind"] in ("traceback", "hang", "signal") else outcome["door"]
            groups.setdefault((outcome["kind"], outcome["room"], place), []).append(outcome)
    return {
        "inputs": len(outcomes),
        "kinds": dict(Counter(outcome["kind"] for outcome in outcomes).most_common()),
        "seconds": round(sum(outcome["seconds"] for outcome in outcomes)),
        "wrong": [
            {"kind": kind, "room": room, "place": place, "inputs": len(found), "example": found[0]}
            for (kind, room, place), found in sorted(groups.items(), key=lambda pair: -len(pair[1]))
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
