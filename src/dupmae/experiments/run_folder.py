"""A folder of stages: each leaves a record of all that it depends on, and is skipped when it finds its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from dupmae.errors import DupmaeError
from dupmae.files import fingerprint, write_json
from dupmae.runtime.processes import refuse_several_processes
from dupmae.runtime.resuming import sole_run

RUN_FILE = "run.json"
"""Names the run that a folder belongs to."""
DONE_FILE = "done.json"
"""A finished stage's record, in its folder."""


class RunFolder:
    """The stages of one run.

    Args:
        folder: The run's folder.
        common: What every stage depends on, beside its own inputs; JSON-serialisable values.

    Attributes:
        folder: The run's folder.
        console: Where the stages are announced.
        seconds: Name of a stage -> how long it took, in this run or the one that it was done in.
    """

    def __init__(self, folder: Path, common: Sequence[Any]) -> None:
        self.folder = folder
        self.console = Console(stderr=True)
        self.seconds: dict[str, float] = {}
        self._common = common

    @contextmanager
    def claim(self, mark: str, settings: Any) -> Iterator[None]:
        """Make the folder this run's for as long as the stages take, or refuse one that holds another's results.

        Args:
            mark: Fingerprint of the run: of its settings and its data.
            settings: What `run.json` says of the run.

        Raises:
            DupmaeError: The folder holds another run or other files, another process is at work in it, or `torchrun`
                has started several.
        """
        refuse_several_processes("A run of all stages")
        record_file = self.folder / RUN_FILE
        with sole_run(self.folder):
            if record_file.is_file():
                found = json.loads(record_file.read_text(encoding="utf-8"))
                if found.get("fingerprint") != mark:
                    raise DupmaeError(
                        f"the folder {self.folder} holds the results of a run with other settings or data: choose "
                        "another output or delete it"
                    )
            elif self.folder.is_dir() and any(self.folder.iterdir()):
                raise DupmaeError(f"the folder {self.folder} holds other files: choose another output or delete it")
            else:
                write_json(record_file, {"fingerprint": mark, "recipe": settings})
            yield

    def stage(self, name: str, title: str, inputs: Any, work: Callable[[Path], dict[str, Any] | None]) -> None:
        """Run a stage unless its record says that it was run on the same inputs.

        Args:
            name: Folder of the stage, relative to the run's.
            title: How it is announced.
            inputs: What it depends on; a JSON-serialisable value.
            work: Does it: takes the stage's folder and returns figures for the record, if it has any.
        """
        done_file, mark = self._done_file(name), fingerprint([inputs, *self._common])
        if done_file.is_file():
            record = json.loads(done_file.read_text(encoding="utf-8"))
            if record["fingerprint"] == mark:
                self.seconds[name] = record["seconds"]
                self.console.print(f"[dim]{title}: done before[/]")
                return
        self.console.print(f"[bold]{title}[/]")
        begun = time.monotonic()
        metrics = work(self.folder / name) or {}
        self.seconds[name] = time.monotonic() - begun
        write_json(
            done_file, {"fingerprint": mark, "seconds": self.seconds[name], "settings": inputs, "metrics": metrics}
        )

    def metrics(self, name: str) -> dict[str, Any]:
        """The figures that a finished stage left in its record."""
        metrics: dict[str, Any] = json.loads(self._done_file(name).read_text(encoding="utf-8"))["metrics"]
        return metrics

    def _done_file(self, name: str) -> Path:
        """Where a stage's record is: the index folder holds an index and nothing else, so its record lies beside it."""
        return self.folder / ("index.done.json" if name == "index" else f"{name}/{DONE_FILE}")
