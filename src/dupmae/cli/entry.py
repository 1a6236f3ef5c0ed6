"""Run the `dupmae` command: a table of typed functions, and the way from a command line to one of them."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from dupmae.cli.commands import evaluate, experiments, index, model, search, serve, sync, train
from dupmae.cli.failures import explain, fail, on_broken_pipe
from dupmae.cli.parsing import description, parse_command
from dupmae.cli.places import refuse_outputs, tidied
from dupmae.errors import DupmaeError, nearest
from dupmae.runtime.bars import bars_shown, heartbeat
from dupmae.runtime.processes import refuse_bad_environment, refuse_several_processes
from dupmae.runtime.quiet import hide_progress, show_messages, silence, silence_other_processes
from dupmae.runtime.streams import OUTPUT, settle_streams
from dupmae.runtime.terminal import guarded_streams


def completion(shell: Literal["bash", "zsh", "tcsh"], /) -> None:
    """Print a script that lets a shell complete commands, options, choices and files.

    Example:
      dupmae completion bash > ~/.local/share/bash-completion/completions/dupmae
      dupmae completion zsh > ~/.zfunc/_dupmae      # with fpath+=~/.zfunc before compinit in ~/.zshrc

    Prints the script; it names what this version has, so that completing starts no Python.

    Args:
        shell: Which shell.
    """
    from dupmae.cli.completion import completion_script

    print(completion_script(COMMANDS, shell))


COMMANDS: dict[str, Callable[..., None]] = {
    "run": experiments.run,
    "recipes": experiments.recipes,
    "adapt": experiments.adapt,
    "pretrain": train.pretrain,
    "finetune": train.finetune,
    "mine": train.mine,
    "teach": train.teach,
    "rerank": evaluate.rerank,
    "encode": model.encode,
    "pack": model.pack,
    "unpack": model.unpack,
    "export": model.export,
    "distil-queries": model.distil_queries,
    "sync": sync.sync,
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
    "serve": serve.serve,
    "evaluate": evaluate.evaluate,
    "reproduce": experiments.reproduce,
    "completion": completion,
}
"""What is typed after `dupmae` -> what it calls; names of two words form a group."""
RESUMABLE = {"run", "reproduce", "adapt", "pretrain", "finetune", "mine", "teach", "index build", "index add", "sync"}
"""Commands that go on where they stopped when they are given again."""
SHARED = {"pretrain", "finetune", "index build"}
"""Commands whose work the processes share that `torchrun` starts; any other would be done by each of them at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 0, or what :mod:`dupmae.cli.failures` says of the exception."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    settle_streams()
    with guarded_streams(), bars_shown():
        return _run(words)


def _run(words: list[str]) -> int:
    """Run a command line whose output is guarded."""
    name, named = "", dict[str, Any]()
    try:
        refuse_bad_environment()
        silence_other_processes()
        group = words[:1] if words and words[0] in _groups() else []
        if words[len(group) :] in ([], ["-h"], ["--help"]):
            print(_group_help(group[0]) if group else _overview(), flush=True)
            return 0 if len(words) > len(group) else 2
        if words[0] == "--version":
            print(f"dupmae {importlib.metadata.version('dupmae')}", flush=True)
            return 0
        name = command_name(words)
        if name not in SHARED:
            refuse_several_processes(f"dupmae {name}")
        words = words[len(name.split()) :]
        positional, keyword, switches = parse_command(name, COMMANDS[name], words)
        named = dict(inspect.signature(COMMANDS[name]).bind(*positional, **keyword).arguments)
        if switches.log_level is not None:
            show_messages(switches.log_level)
        elif not switches.verbose:
            silence()
        if switches.quiet:
            hide_progress()
        if not named.get("dry_run"):
            refuse_outputs(name, named)
        with tidied(name, named), heartbeat():
            COMMANDS[name](*positional, **keyword)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and error.filename in (None, OUTPUT):
            return on_broken_pipe()
        sentence = explain(error, named, resumable=name in RESUMABLE)
        if sentence is None:
            raise
        return fail(*sentence)
    return 0


def command_name(words: Sequence[str]) -> str:
    """Find the command that the first one or two words name, or refuse them."""
    for name in COMMANDS:
        if list(words[: len(name.split())]) == name.split():
            return name
    if words[0] in _groups():
        names = ", ".join(name.split()[1] for name in _commands_of(words[0]))
        raise DupmaeError(f"dupmae {words[0]} is followed by one of {names} (see dupmae {words[0]} --help)")
    close = nearest(" ".join(words[:2]), list(COMMANDS)) or nearest(words[0], list(COMMANDS))
    hint = f"; did you mean {close}?" if close else ""
    raise DupmaeError(f"unknown command {words[0]!r}{hint} (see dupmae --help)")


def _groups() -> set[str]:
    """List the first words of the commands that have two."""
    return {name.split()[0] for name in COMMANDS if " " in name}


def _commands_of(group: str) -> list[str]:
    """List the commands that begin with a group's word."""
    return [name for name in COMMANDS if name.startswith(f"{group} ")]


def _listed(names: Iterable[str]) -> str:
    """Write a line for each command, with its first sentence."""
    return "\n".join(f"  {name:<13} {description(COMMANDS[name]).splitlines()[0]}" for name in names)


def _overview() -> str:
    """Write the help of `dupmae` itself."""
    return f"""usage: dupmae COMMAND [options]

Train a duplex (dense + lexical) retriever on your own text, and search with it.

{_listed(COMMANDS)}

Example:
  dupmae run recipes/scifact.yaml
  dupmae search runs/scifact/index "does vitamin D prevent fractures?"

`dupmae COMMAND --help` explains a command and lists its options; `dupmae --version` prints the version."""


def _group_help(group: str) -> str:
    """Write the help of a group of commands."""
    return f"""usage: dupmae {group} COMMAND [options]

{_listed(_commands_of(group))}

`dupmae {group} COMMAND --help` explains a command and lists its options."""
