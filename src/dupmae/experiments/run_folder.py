"""A folder of stages: what is done stays, and what a changed setting concerns is done again beside it.

Every stage leaves a record with a fingerprint of its settings and of the stages that it comes after. A stage is skipped
where its own record is found. Where another one is found, the run is done again: the stages that still hold are taken
over (as links to the same files), the others are made in the folder `.next`, and when all of them and the report are
whole they take the place of the earlier ones. A run that is killed before that leaves the earlier result as it was, and
the same command goes on in `.next`; one that is killed while results change places puts the rest in place first.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dupmae.errors import DupmaeError
from dupmae.files import fingerprint, write_json
from dupmae.index.writing.changes import LOCK_FILE
from dupmae.runtime.json_text import parse_json
from dupmae.runtime.processes import refuse_several_processes
from dupmae.runtime.resuming import sole_run

RUN_FILE = "run.json"
"""Names the run that a folder belongs to, its settings, and the fingerprints of its stages."""
DONE_FILE = "done.json"
"""A finished stage's record, in its folder."""
NEXT_FOLDER = ".next"
"""Where stages are done again, within the run's folder."""
REPLACED_FILE = "replaced.json"
"""In that folder, once all of it is whole: what takes the place of earlier results."""
REPORTS = ("figures", "gains.json", "report.json", "report.md")
"""What is written when all stages are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a run."""

    name: str
    """Its folder, relative to the run's."""
    title: str
    """How it is announced."""
    work: Callable[[Path], Mapping[str, Any] | None]
    """Does it: takes the run's folder and returns figures for the record, if it has any."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings that its result depends on: section -> a JSON-serialisable value."""
    after: Sequence[str] = ()
    """The stages whose results it reads."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A stage and what is to be done about it."""

    stage: Stage
    fingerprint: str
    """Of its settings and of the stages that it comes after."""
    place: Path | None
    """The folder of the run that has its result; None where it is to be done."""
    replaces: bool
    """Whether it is to be done in the place of an earlier result."""
    why: str
    """The reason, for people."""


class RunFolder:
    """The stages of one run.

    Args:
        folder: The run's folder.
        identity: What makes the run this one and no other: the base model and the data, JSON-serialisable.
        common: What every stage depends on beside its own settings; JSON-serialisable.

    Attributes:
        folder: The run's folder.
        root: Where its stages are being done: `folder`, or the folder within in which they are done again.
        console: Where the stages are announced.
        seconds: Name of a stage -> how long it took, in this run or the one that it was done in.
    """

    def __init__(self, folder: Path, identity: Any, common: Sequence[Any]) -> None:
        self.folder = self.root = folder
        self.console = Console(stderr=True)
        self.seconds: dict[str, float] = {}
        self._next = folder / NEXT_FOLDER
        self._identity, self._common = fingerprint(identity), list(common)

    def plan(self, stages: Sequence[Stage]) -> list[Planned]:
        """Say of each stage whether it is done, and why or why not.

        Raises:
            DupmaeError: The folder holds another run or other files.
        """
        self._refuse_other_run()
        planned: dict[str, Planned] = {}
        for stage in stages:
            before = [planned[name] for name in stage.after]
            own_fingerprint = fingerprint([stage.settings, [one.fingerprint for one in before], *self._common])
            place = next(
                (root for root in (self.folder, self._next) if _holds(root, stage.name, own_fingerprint)), None
            )
            earlier = _record_of(self.folder, stage.name)
            why = "done before" if place else _reason(stage, before, earlier)
            planned[stage.name] = Planned(stage, own_fingerprint, place, place is None and earlier is not None, why)
        return list(planned.values())

    def show(self, stages: Sequence[Stage]) -> None:
        """Print what :meth:`carry_out` would do, and do none of it.

        Raises:
            DupmaeError: As :meth:`plan`.
        """
        table = Table("stage", "state", "why", title=f"Dry run of {self.folder}", title_justify="left")
        for one in self.plan(stages):
            table.add_row(one.stage.name, "done" if one.place else "to do", one.why)
        Console().print(table)

    def carry_out(self, stages: Sequence[Stage], settings: Any, report: Callable[[], None] | None = None) -> None:
        """Do the stages that are not done, in order, then the report.

        Args:
            stages: In the order of their work.
            settings: What `run.json` says of the run.
            report: Writes the report into :attr:`root`.

        Raises:
            DupmaeError: The folder holds another run or other files, another process is at work in it, `torchrun` has
                started several, or a stage refuses its input.
        """
        refuse_several_processes("A run of all stages")
        with sole_run(self.folder):
            self._refuse_other_run()
            self._put_in_place()
            planned = self.plan(stages)
            self._choose_root(planned)
            self._drop_other_beginnings(planned)
            begun = self._begun() | {one.stage.name: one.fingerprint for one in planned}
            write_json(self.root / RUN_FILE, {"fingerprint": self._identity, "recipe": settings, "stages": begun})
            for number, one in enumerate(planned, 1):
                self._do(one, f"Stage {number} of {len(planned)}: {one.stage.title}")
            if report is not None:
                report()
            if self.root != self.folder:
                self._replace(planned)

    def metrics(self, name: str) -> dict[str, Any]:
        """Read the figures that a finished stage left in its record."""
        record = _record_of(self.root, name)
        if record is None:
            raise DupmaeError(
                f"{_done_file(self.root, name)} is gone: give the same command again, which makes it anew"
            )
        metrics: dict[str, Any] = record["metrics"]
        return metrics

    def _refuse_other_run(self) -> None:
        """Refuse a folder that holds another run's results, or other files."""
        record_file = self.folder / RUN_FILE
        if not record_file.is_file():
            record_file = self._next / RUN_FILE  # a kill while results change places may have left it there alone
        if record_file.is_file():
            found = _read_object(record_file, {}, "choose another output or delete the folder")
            if "stages" not in found:
                raise DupmaeError(
                    f"the folder {self.folder} holds a run of dupmae 0.1: its index and its models open as before, but "
                    "this version does not go on with it; choose another output or delete it"
                )
            if found.get("fingerprint") != self._identity and self._holds_work():
                raise DupmaeError(
                    f"the folder {self.folder} holds the results of a run with another base model or other data: "
                    "choose another output or delete it"
                )
        elif self.folder.is_dir() and not all(item.name.startswith(".") for item in self.folder.iterdir()):
            # what a process left that was killed while it wrote its first file has a hidden name
            raise DupmaeError(f"the folder {self.folder} holds other files: choose another output or delete it")

    def _holds_work(self) -> bool:
        """Tell whether anything but the record of a run that was refused at once lies in the folder."""
        return any(path.is_file() for path in self.folder.rglob("*") if path != self.folder / RUN_FILE)

    def _choose_root(self, planned: Sequence[Planned]) -> None:
        """Work beside earlier results where some of them are to be replaced, with those that still hold at hand."""
        again = [f"{one.stage.name} ({one.why})" for one in planned if one.replaces]
        if again:
            listed = ", ".join(again)
            self.console.print(f"Done again: {listed}. The earlier results stay until the new ones are whole.")
        elif self._next.exists() and not any(one.place == self._next for one in planned):
            self.console.print(f"Deleted: {self._next}, which was begun with other settings")
            shutil.rmtree(self._next)
        self.root = self._next if again or self._next.exists() else self.folder
        if self.root == self._next:
            for one in planned:
                if one.place == self.folder and not _holds(self._next, one.stage.name, one.fingerprint):
                    self._take_over(one.stage.name)

    def _take_over(self, name: str) -> None:
        """Link the files of an earlier stage whose result still holds into the folder of the next run."""
        _delete(self._next, name)
        for item in _items(name):
            place = self._next / item
            place.parent.mkdir(parents=True, exist_ok=True)
            if (self.folder / item).is_dir():
                copy = self._next / ".copy"
                shutil.rmtree(copy, ignore_errors=True)
                ignored = shutil.ignore_patterns(LOCK_FILE, ".dupmae-*")  # no part of what is copied
                try:
                    shutil.copytree(self.folder / item, copy, copy_function=_link, ignore=ignored)
                except shutil.Error as error:  # one for all files, which names none
                    source, target, reason = error.args[0][0]
                    raise DupmaeError(f"{source} cannot be taken over to {target}: {reason}") from None
                copy.replace(place)
            else:
                _link(str(self.folder / item), str(place))

    def _begun(self) -> dict[str, str]:
        """Read the fingerprints that stages were begun with; a stage that is not done may have left a part of it."""
        record_file = self.root / RUN_FILE
        if not record_file.is_file():
            return {}
        record = _read_object(record_file, {"stages": dict}, "choose another output or delete the folder")
        begun: dict[str, str] = record["stages"]
        return begun

    def _drop_other_beginnings(self, planned: Sequence[Planned]) -> None:
        """Delete what was begun, but not finished, with settings that have changed since."""
        begun = self._begun()
        for one in planned:
            name = one.stage.name
            other = begun.get(name) != one.fingerprint and not _holds(self.root, name, one.fingerprint)
            if other and any((self.root / item).exists() for item in _items(name)):
                self.console.print(f"Deleted: {self.root / name}, which was begun with other settings")
                _delete(self.root, name)

    def _do(self, one: Planned, title: str) -> None:
        """Do a stage unless it is done."""
        name = one.stage.name
        found = _record_of(self.root, name)
        if found is not None and found["fingerprint"] == one.fingerprint:
            self.seconds[name] = found["seconds"]
            self.console.print(f"[dim]{title}: done before[/]")
            return
        self.console.print(f"[bold]{title}[/]")
        begun = time.monotonic()
        metrics = one.stage.work(self.root) or {}
        self.seconds[name] = time.monotonic() - begun
        record = {"fingerprint": one.fingerprint, "seconds": self.seconds[name], "settings": dict(one.stage.settings)}
        record |= {"metrics": dict(metrics)}
        write_json(_done_file(self.root, name), record | {"check": fingerprint(record)})

    def _replace(self, planned: Sequence[Planned]) -> None:
        """Put the results of the next run in the place of the earlier ones; :meth:`_put_in_place` ends it if killed."""
        names: list[str] = []
        for one in planned:
            name = one.stage.name
            within = any(name.startswith(f"{outer}/") for outer in names)
            if not within and not _holds(self.folder, name, one.fingerprint):
                names.append(name)
        items = [item for name in names for item in _items(name)]
        write_json(self._next / REPLACED_FILE, [*items, *REPORTS, RUN_FILE])
        self._put_in_place()
        self.root = self.folder

    def _put_in_place(self) -> None:
        """Move what is whole in the next run's folder to its place, if all of it is."""
        record = self._next / REPLACED_FILE
        if not record.is_file():
            return
        for number, item in enumerate(_read_names(record)):
            new, place, aside = self._next / item, self.folder / item, self._next / f".earlier-{number}"
            if not new.exists():
                continue
            if place.exists():
                if aside.exists():
                    _remove(aside)
                place.replace(aside)
            place.parent.mkdir(parents=True, exist_ok=True)
            new.replace(place)
        shutil.rmtree(self._next)


def _items(name: str) -> list[str]:
    """List what a stage consists of: the index folder holds an index and nothing else, so its record lies beside it."""
    return ["index", "index.done.json"] if name == "index" else [name]


def _done_file(root: Path, name: str) -> Path:
    """Find the place of a stage's record."""
    return root / (_items(name)[1] if name == "index" else f"{name}/{DONE_FILE}")


def _record_of(root: Path, name: str) -> dict[str, Any] | None:
    """Read a stage's record, if it is done.

    Raises:
        DupmaeError: It is not what was written.
    """
    file = _done_file(root, name)
    if not file.is_file():
        return None
    cure = "delete that file, and the stage is done again"
    fields = {"fingerprint": str, "seconds": (int, float), "settings": dict, "metrics": dict}
    record = _read_object(file, fields, cure)
    check = record.pop("check", None)  # records of version 0.1 and 0.2.0 have none
    if check is not None and check != fingerprint(record):
        raise DupmaeError(f"{file} is damaged (its content is not what was written): {cure}")
    return record


def _read_json(file: Path, cure: str) -> Any:
    """Read a file of JSON that this module has written."""
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DupmaeError(f"{file} is damaged ({str(error)[:100]}): {cure}") from None


def _read_object(file: Path, fields: Mapping[str, Any], cure: str) -> dict[str, Any]:
    """Read a JSON object with fields of certain types."""
    record = _read_json(file, cure)
    if not isinstance(record, dict):
        raise DupmaeError(f"{file} is damaged (it is no JSON object): {cure}")
    for name, kind in fields.items():
        if not isinstance(record.get(name), kind):
            raise DupmaeError(f"{file} is damaged (it has no proper {name!r}): {cure}")
    return record


def _read_names(file: Path) -> list[str]:
    """Read which folders and files of a run change places; none of them may lie outside it."""
    names = _read_json(file, f"delete the folder {file.parent}")
    for name in names if isinstance(names, list) else [names]:
        parts = name.replace("\\", "/").split("/") if isinstance(name, str) else [""]
        if len(parts) > 2 or any(part[:1] in ("", ".") or ":" in part or "\0" in part for part in parts):
            raise DupmaeError(f"{file} is damaged (it names {str(name)[:80]!r}): delete the folder {file.parent}")
    return list(names)


def _holds(root: Path, name: str, wanted: str) -> bool:
    """Tell whether a run's folder has a stage's result with a fingerprint."""
    record = _record_of(root, name)
    return record is not None and record["fingerprint"] == wanted


def _reason(stage: Stage, before: Sequence[Planned], earlier: Mapping[str, Any] | None) -> str:
    """Say why a stage is to be done."""
    if earlier is None:
        return "not done yet"
    changes = _changes(earlier["settings"], stage.settings)
    if changes:
        return "; ".join(changes)
    again = [one.stage.name for one in before if not one.place]
    return f"after {', '.join(again)}" if again else "comes after other stages than before"


def _changes(before: Any, now: Any, name: str = "") -> list[str]:
    """List what differs between two settings, as `name: before -> now`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        return [
            change
            for key in keys
            for change in _changes(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    same = fingerprint(before) == fingerprint(now)
    return [] if same else [f"{name}: {before} -> {now}"]


def _delete(root: Path, name: str) -> None:
    """Delete a stage's folder and record."""
    for item in _items(name):
        if (root / item).exists():
            _remove(root / item)


def _remove(path: Path) -> None:
    """Delete a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _link(source: str, place: str) -> None:
    """Give a file a second name, or copy it where the disk knows no links."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)
