"""The `dupmae` command: a table of typed functions, and the walk from a command line to one of them."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dupmae.cli.commands import evaluate, experiments, index, model, search, train
from dupmae.cli.failures import explain, fail, on_broken_pipe
from dupmae.cli.parsing import description, parse_command
from dupmae.errors import DupmaeError, nearest
from dupmae.runtime.quiet import silence, silence_other_processes

COMMANDS: dict[str, Callable[..., None]] = {
    "run": experiments.run,
    "adapt": experiments.adapt,
    "pretrain": train.pretrain,
    "finetune": train.finetune,
    "mine": train.mine,
    "teach": train.teach,
    "rerank": evaluate.rerank,
    "encode": model.encode,
    "pack": model.pack,
    "index build": index.build,
    "index add": index.add,
    "index delete": index.delete,
    "index compact": index.compact,
    "index info": index.info,
    "index verify": index.verify,
    "index tune": index.tune,
    "index push": index.push,
    "search": search.search,
    "explain": search.explain,
    "evaluate": evaluate.evaluate,
    "reproduce": experiments.reproduce,
}
RESUMABLE = {"run", "reproduce", "adapt", "pretrain", "finetune", "mine", "teach", "index build", "index add"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or what `dupmae.cli.failures` says of the exception."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    silence_other_processes()
    name, named = "", dict[str, Any]()
    try:
        if words[:1] in ([], ["-h"], ["--help"]):
            print(_overview())
            return 0 if words else 2
        if words[0] == "--version":
            print(f"dupmae {importlib.metadata.version('dupmae')}")
            return 0
        name = _command_name(words)
        words = words[len(name.split()) :]
        positional, keyword = parse_command(name, COMMANDS[name], words)
        named = {str(place): value for place, value in enumerate(positional)} | keyword
        if "--verbose" not in words:
            silence()
        COMMANDS[name](*positional, **keyword)
        sys.stdout.flush()
    except BrokenPipeError:
        return on_broken_pipe()
    except (Exception, KeyboardInterrupt) as error:
        sentence = explain(error, named, resumable=name in RESUMABLE)
        if sentence is None:
            raise
        return fail(*sentence)
    return 0


def _overview() -> str:
    """The help of `dupmae` itself."""
    lines = [f"  {name:<13} {description(function).splitlines()[0]}" for name, function in COMMANDS.items()]
    return "\n".join(
        [
            "usage: dupmae COMMAND [options]",
            "",
            "Train a duplex (dense + vocabulary) retriever on your own text, and search with it.",
            "",
            *lines,
            "",
            "Example:",
            "  dupmae run recipes/scifact.yaml",
            '  dupmae search runs/scifact/index "does vitamin D prevent fractures?"',
            "",
            "`dupmae COMMAND --help` explains a command and lists its options; `dupmae --version` prints the version.",
        ]
    )


def _command_name(words: Sequence[str]) -> str:
    """Which command the first one or two words name."""
    for name in COMMANDS:
        if list(words[: len(name.split())]) == name.split():
            return name
    group = [name.split()[1] for name in COMMANDS if name.split()[0] == words[0]]
    if group:
        raise DupmaeError(f"dupmae {words[0]} is followed by one of {', '.join(group)} (see dupmae --help)")
    close = nearest(" ".join(words[:2]), list(COMMANDS)) or nearest(words[0], list(COMMANDS))
    hint = f"; did you mean {close}?" if close else ""
    raise DupmaeError(f"unknown command {words[0]!r}{hint} (see dupmae --help)")
