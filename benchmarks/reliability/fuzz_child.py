"""Run one command line in a forked child, with limits, and say how it ended."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import re
import resource
import signal
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 20
"""What a command may compute, and how long it may stand still."""
PATIENCE = 120
"""What it may take by the clock: other processes may keep the cores busy."""
MEMORY = 6 << 30
"""Bytes of address space that a command may take beyond what importing everything took."""
RESIDENT = 1 << 30
"""Bytes of memory that a command over inputs of some kilobytes may really use beyond that."""
FILE = 1 << 30
"""Bytes of the largest file that it may write."""
LONGEST = 500
"""Characters of a refusal."""
OVERRIDE = 0b110
"""Capabilities by which root reads and writes what no permission allows: a command does without them."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    kind: str
    """`done`, `refused`, or what is wrong: `traceback`, `signal`, `hang`, `memory`, `status`, `sentence`, `control`."""
    status: int
    """Its exit status; negative: the signal's number."""
    seconds: float
    """Processor time, its children's not counted."""
    megabytes: int
    """Its peak of resident memory, beyond what everything takes that is imported."""
    said: str
    """The refusal, or where a traceback or a stack ends."""
    place: str
    """Of a traceback or a hang: the innermost function of `dupmae` and the exception."""


def import_everything() -> None:
    """Import what any command imports, so that a forked child need not; nothing may start a thread."""
    import importlib
    import pkgutil

    import dupmae

    for module in pkgutil.walk_packages(dupmae.__path__, "dupmae."):
        if not module.name.startswith(("dupmae.__main__", "dupmae.index.engines.", "dupmae.weights")):
            importlib.import_module(module.name)
    for name in (
        "accelerate", "bm25s", "datasets", "faiss", "filelock", "ir_measures", "matplotlib.pyplot", "pyarrow.parquet",
        "rich.console", "rich.table", "safetensors.torch", "sentence_transformers", "tokenizers", "torch._dynamo",
        "transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert", "transformers.trainer",
        "transformers.models.bert.tokenization_bert",
    ):  # fmt: skip
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no fork is to go through what all of them share


def run(
    argv: Sequence[str], folder: Path, logs: Path, stdin: Path | None = None, first: Callable[[], None] | None = None
) -> Ended:
    """Run a command in a fork of this process.

    Args:
        argv: The words after `dupmae`.
        folder: Its working folder.
        logs: What it prints goes to this name and `.out`, and `.err`.
        stdin: Its standard input; empty if None.
        first: Called in the child before the command.
    """
    before = time.monotonic()
    out, err = logs.with_suffix(".out"), logs.with_suffix(".err")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(argv, folder, out, err, stdin, first)
    ended, status, usage = _watch(child, before)
    megabytes = max(0, usage.ru_maxrss - _resident_kilobytes()) >> 10
    return _judge(ended, status, usage.ru_utime + usage.ru_stime, megabytes, out.read_bytes(), err.read_bytes(), folder)


def _become(
    argv: Sequence[str], folder: Path, out: Path, err: Path, stdin: Path | None, first: Callable[[], None] | None
) -> None:
    """Turn this process, a fork, into the command; it never returns."""
    status = 1
    try:
        os.setsid()
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for limit, value in (
            (resource.RLIMIT_AS, size + MEMORY),
            (resource.RLIMIT_FSIZE, FILE),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, SECONDS + 10),
        ):
            resource.setrlimit(limit, (value, value))
        os.chdir(folder)
        for path, descriptor, flags in (
            (stdin or Path(os.devnull), 0, os.O_RDONLY),
            (out, 1, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (err, 2, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            opened = os.open(path, flags, 0o644)
            os.dup2(opened, descriptor)
            os.close(opened)
        obey_permissions()
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        faulthandler.enable(sys.stderr)
        faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=False)
        sys.argv = ["dupmae", *argv]
        from dupmae.cli.entry import main

        if first is not None:
            first()
        try:
            status = main(list(argv))
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def obey_permissions() -> None:
    """Let this process, if it is root's, read and write only what permissions allow."""
    if os.geteuid() == 0 and sys.platform == "linux":
        libc = ctypes.CDLL(None)
        head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc.capget(head, sets)
        for place in (0, 1, 2):  # effective, permitted, inheritable: the lower 32 of each
            sets[place] &= ~OVERRIDE
        libc.capset(head, sets)


def _watch(child: int, before: float) -> tuple[str, int, resource.struct_rusage]:
    """Wait for a child; end one that computes too long, or that stands still."""
    why, pause, moved, last = "", 0.002, before, -1.0
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            _end_group(child)
            return why, os.waitstatus_to_exitcode(status), usage
        now = time.monotonic()
        computed, state = _state(child)
        if computed != last or state != "S":
            moved, last = now, computed
        if not why and (computed > SECONDS or now - before > PATIENCE or now - moved > SECONDS):
            why = "hang"
            os.kill(child, signal.SIGUSR1)  # its stack goes to its standard error
            time.sleep(0.5)
            _end_group(child)
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)


def _end_group(child: int) -> None:
    """End a child and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def _state(child: int) -> tuple[float, str]:
    """Read how many seconds a process has computed, and whether it runs or sleeps."""
    try:
        words = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1.0, "Z"
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK"), words[0]


def _resident_kilobytes() -> int:
    """Read what this process has in memory, which a fork begins with."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 10


def _judge(why: str, status: int, seconds: float, megabytes: int, out: bytes, err: bytes, folder: Path) -> Ended:
    """Name what is wrong with how a command ended, if anything."""
    text = err.decode("utf-8", "replace")
    text = re.sub(r"[^\n]*\r", "", text)  # of progress bars the last state
    lines = text.strip().splitlines()
    said, place = (lines[-1][:700] if lines else ""), ""
    if "Traceback (most recent call last)" in text or why or status < 0:
        place = _innermost(text)
    if why or status == -signal.SIGXCPU:
        kind = "hang"
    elif status < 0:
        kind = "signal"
    elif "Traceback (most recent call last)" in text:
        kind = "traceback"
    elif megabytes > RESIDENT >> 20:
        kind = "memory"
    elif status not in (0, 2):
        kind = "status"
    elif control := _controls(out.decode("utf-8", "replace") + text):
        kind, place = "control", control
    elif status == 2:
        kind, said = _refusal(text)
    else:
        kind = "done"
    return Ended(kind, status, round(seconds, 2), megabytes, said.replace(f"{folder}/", ""), place)


def _refusal(text: str) -> tuple[str, str]:
    """Read the sentence of a refusal."""
    _, mark, sentence = text.partition("dupmae: error: ")
    sentence = sentence.rstrip("\n")
    if not mark or "\n" in sentence or len(sentence) > LONGEST:
        return "sentence", sentence[:700] or text[-700:]
    return "refused", sentence


def _controls(text: str) -> str:
    """Find characters that change a terminal or the order of what it shows."""
    found = {
        character
        for character in text
        if (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t\r")
        or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    }
    return " ".join(sorted(f"U+{ord(character):04X}" for character in found))


def _innermost(text: str) -> str:
    """Find the innermost function of `dupmae` in a traceback, or in a stack, and the exception's type."""
    ordered = "Traceback (most recent call last)" in text
    frames = re.findall(r'File "[^"]*/dupmae/([^"]+)", line \d+,? in (\S+)', text)
    frames = [frame for frame in frames if frame[0] != "fuzz_child.py"]
    frame = (frames[-1] if ordered else frames[0]) if frames else ("", "")
    types = re.findall(r"^([\w.]*(?:Error|Exception|Interrupt|Warning|Exit|Full|Timeout|[A-Z]\w+))(?::|$)", text, re.M)
    return f"{frame[0]}:{frame[1]} {types[-1] if types and ordered else ''}".strip()
