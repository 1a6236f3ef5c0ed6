"""Watch what a command does outside the folders it was given, by Python's audit events."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

CHANGES = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
    "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile",
}  # fmt: skip
PROCESSES = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "os.startfile"}
CALLABLES = {
    "os": None, "posix": None, "nt": None, "subprocess": None, "sys": None, "shutil": None, "importlib": None,
    "builtins": {"eval", "exec", "compile", "open", "__import__", "getattr", "breakpoint"},
}  # fmt: skip
"""What a pickle would ask for to do harm: module -> names, None for all."""


def watch(log: Path, own: list[str], secret: str) -> None:
    """Note down, from now on in this process, what is started, run or written outside `own`, or read inside `secret`.

    Args:
        log: Gets a line of JSON for each event.
        own: Folders, real paths, in which anything may be read and written, but no code run.
        secret: A folder, its real path, that nothing has to do with.
    """
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    busy = [False]

    def note(*what: object) -> None:
        os.write(out, (json.dumps([str(item)[:300] for item in what]) + "\n").encode())

    def inside(path: Any, folders: list[str]) -> bool:
        place = os.path.realpath(os.fsdecode(path))
        return any(place == folder or place.startswith(f"{folder}/") for folder in folders)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if busy[0]:
            return
        busy[0] = True
        try:
            paths = [item for item in arguments if isinstance(item, (str, bytes, os.PathLike))]
            if event == "open":
                flags = arguments[2] if isinstance(arguments[2], int) else 0
                writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                if paths and writes and not inside(paths[0], [*own, "/dev", "/proc"]):
                    note("write", paths[0])
                if paths and inside(paths[0], [secret]):
                    note("read", paths[0])
            elif event in CHANGES:
                for path in paths[:2]:
                    if not inside(path, own):
                        note(event, path)
            elif event in ("os.listdir", "os.scandir") and paths and inside(paths[0], [secret]):
                note("read", paths[0])
            elif event in PROCESSES:
                note(event, arguments)
            elif event in ("socket.connect", "socket.getaddrinfo"):
                note(event, arguments[1:])
            elif event == "pickle.find_class":
                names = CALLABLES.get(arguments[0], set())
                if names is None or arguments[1] in names:
                    note(event, arguments)
            elif event in ("exec", "compile"):
                name = getattr(arguments[0], "co_filename", None) if event == "exec" else arguments[1]
                if isinstance(name, str) and name.startswith("/") and inside(name, own):
                    note(event, name)
            elif event == "ctypes.dlopen" and paths and inside(paths[0], own):
                note(event, paths[0])
        except Exception as error:
            note("the watch failed", event, error)
        finally:
            busy[0] = False

    sys.addaudithook(hook)
