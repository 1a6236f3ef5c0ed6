"""List the files of a folder of text, through links as well, each folder once, and count what is not read of it."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dupmae.corpus.formats import is_known
from dupmae.corpus.formats.arrow import is_dataset
from dupmae.corpus.lines import file_type
from dupmae.errors import DupmaeError
from dupmae.runtime.once import warn_once

logger = logging.getLogger(__name__)

NAMED = 20
"""How many faults of a folder's files and records are told one by one; further ones are counted."""
_KINDS = 12
"""Kinds of files that the line at the end names."""


class Unread:
    """What was not read of a corpus, and why.

    Args:
        strict: Refuse the first file or record that cannot be read, instead of going on with the others.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.kinds = Counter[str]()
        """Files of kinds that are not read: ending, or what else they are -> how many."""
        self.refused = Counter[Path]()
        """File or folder -> how many faults it has: itself, or records in it, that could not be read."""
        self.reasons: list[str] = []
        """Sentences about the first of these."""

    def refuse(self, path: Path, error: DupmaeError) -> None:
        """Count a file, or a record in it, that cannot be read.

        Raises:
            DupmaeError: The error, if one is not to go on.
        """
        if self.strict:
            raise error
        self.refused[path] += 1
        if len(self.reasons) < NAMED:
            self.reasons.append(str(error))
            warn_once(logger, f"Not read: {error}")

    def say(self, folder: Path) -> None:
        """Say in one line what was not read of a folder, if there was anything."""
        if found := self.summary():
            warn_once(logger, f"Not read of {folder}: {found}.")

    def summary(self) -> str:
        """Count in words what was not read: `3 .png, 1 .zip`."""
        ordered = sorted(self.kinds.items(), key=lambda kind: (-kind[1], kind[0]))
        parts = [f"{count} {kind}" for kind, count in ordered[:_KINDS]]
        if others := sum(count for _, count in ordered[_KINDS:]):
            parts.append(f"{others} of other kinds")
        if errors := self.refused.total():
            named = "named above" if errors <= NAMED else f"the first {NAMED} named above"
            files = "one file" if len(self.refused) == 1 else f"{len(self.refused)} files"
            parts.append(f"{errors} {'fault' if errors == 1 else 'faults'} in {files} ({named})")
        return ", ".join(parts)


def files_of(folder: Path, unread: Unread) -> list[Path]:
    """List the files and saved data sets in a folder and its subfolders that can be read, in the order of their paths.

    Args:
        folder: The folder.
        unread: Counts the others.

    Raises:
        DupmaeError: A folder cannot be listed, a link leads nowhere, or a name is no UTF-8, and `unread` is strict.
    """
    found: list[Path] = []
    for path, problem in _walk(folder, unread):
        if problem:
            unread.kinds[problem] += 1
            continue
        if path.name.startswith("."):
            unread.kinds["hidden"] += 1
            continue
        try:
            known = path.is_dir() or is_known(path)
            leads_nowhere = path.is_symlink() and not path.exists()
        except OSError as error:  # such as a link into a folder that may not be entered
            unread.refuse(path, DupmaeError(f"{path} cannot be read ({error})."))
            continue
        if not known:
            unread.kinds[_kind_of(path)] += 1
        elif not _is_utf8(path):
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            unread.refuse(path, DupmaeError(f"{shown}: its name is not UTF-8: rename it."))
        elif leads_nowhere:
            unread.refuse(
                path, DupmaeError(f"{path} is a link that leads nowhere: delete it, or bring back what it leads to.")
            )
        else:
            found.append(path)
    return sorted(found)


def files_within(folder: Path) -> Iterator[Path]:
    """Yield all that is no folder in a folder and its subfolders, hidden folders left out.

    Raises:
        DupmaeError: A folder cannot be read.
    """
    root, seen = Path(os.path.realpath(folder)), set[str]()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = [name for name in sorted(folders) if not _unfollowed(Path(place, name), root, seen)]
        yield from (Path(place, name) for name in names)


def _walk(folder: Path, unread: Unread) -> Iterator[tuple[Path, str]]:
    """Yield what stands in a folder and its subfolders, saved data sets as one, and what folders are not entered for.

    A link to another folder is followed, once if several lead there; one that leads back into the folder is not, as
    that is read by its own name.
    """
    root, seen = Path(os.path.realpath(folder)), set[str]()

    def closed(error: OSError) -> None:
        try:
            _refuse(error)
        except DupmaeError as refused:
            unread.refuse(Path(str(error.filename)), refused)

    for place, folders, names in os.walk(folder, followlinks=True, onerror=closed):
        followed = []
        for name in sorted(folders):
            if reason := _unfollowed(Path(place, name), root, seen):
                yield Path(place, name), reason
            else:
                followed.append(name)
        if is_dataset(names) and Path(place) != folder:
            folders[:] = []
            yield Path(place), ""
            continue
        folders[:] = followed
        yield from ((Path(place, name), "") for name in names if name != "dataset_dict.json")


def _unfollowed(path: Path, root: Path, seen: set[str]) -> str:
    """Say why a subfolder is not entered, in words that can be counted; nothing if it is."""
    if path.name.startswith("."):
        return "hidden"
    if not path.is_symlink():
        return ""
    target = os.path.realpath(path)
    if target in seen or Path(target).is_relative_to(root) or root.is_relative_to(target):
        return "linked (read already)"
    seen.add(target)
    return ""


def _refuse(error: OSError) -> None:
    """Name a folder that cannot be listed."""
    reason = (error.strerror or str(error)).lower()
    raise DupmaeError(f"The folder {error.filename} cannot be read ({reason}): allow it, or leave it out.") from None


def _kind_of(path: Path) -> str:
    """Name the kind of a file by its ending."""
    ending, last = file_type(path), path.suffix.lower()
    ending = ending + last if ending != last else last
    return ending if re.fullmatch(r"(\.[a-z0-9+_-]{1,12}){1,2}", ending) else "without an ending"


def _is_utf8(path: Path) -> bool:
    """Tell whether the name of a file is valid Unicode, as an id must be."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
