"""Several systems in processes of their own, measured in turn: a busy machine slows all of them alike.

A system's process reads one word a line from its standard input, `run` for each measurement, and answers every line
with one of JSON; at the end of its input it answers with what it knows only then, such as its peak memory. It needs
nothing of `dupmae`, so that other packages can be measured in environments of their own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch


def comparison_parser(description: str, sizes: Mapping[str, int], rounds: int) -> argparse.ArgumentParser:
    """The options of a script that calls itself once for each system: sizes and their defaults, rounds, threads."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.add_argument("--system", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser


def peak_rss_mb() -> int:
    """The most memory that this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def serve(measure: Callable[[], dict[str, Any]]) -> None:
    """Answer the measuring process until it has had enough: the system's side."""
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)
    print(json.dumps({"peak_rss_mb": peak_rss_mb()}), flush=True)


def take_turns(commands: dict[str, list[str]], warmup: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Start each command, ask each in turn, `rounds` times after `warmup` that do not count.

    Returns:
        Of each system its measurements, one a round, the peak memory of its process in the last of them.

    Raises:
        SystemExit: A system ended before its time; its own words stand above.
    """
    processes = {
        name: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for turn in range(warmup + rounds):
        for name, process in processes.items():
            assert process.stdin is not None
            print("run", file=process.stdin, flush=True)
            answer = _answer(name, process)
            if turn >= warmup:
                measured[name].append(answer)
    for name, process in processes.items():
        assert process.stdin is not None
        process.stdin.close()
        measured[name][-1] |= _answer(name, process)
        process.wait()
    return measured


def _answer(name: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that a system says."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{name} has ended with status {process.wait()}.")
    answer: dict[str, Any] = json.loads(line)
    return answer
