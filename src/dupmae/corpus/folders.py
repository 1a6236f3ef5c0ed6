"""List the files of a folder of text, through links as well, each folder once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from dupmae.errors import DupmaeError

logger = logging.getLogger(__name__)


def files_within(folder: Path) -> Iterator[Path]:
    """Yield all that is no folder in a folder and its subfolders, hidden folders left out, links that lead nowhere too.

    A link to another folder is followed, once if several lead there; one that leads back into the folder is not, as
    that is read by its own name.

    Raises:
        DupmaeError: A folder cannot be read.
    """
    root, seen = Path(os.path.realpath(folder)), set[str]()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        followed = []
        for name in sorted(folders):
            path = Path(place, name)
            target = os.path.realpath(path)
            if name.startswith(".") or (path.is_symlink() and Path(target).is_relative_to(root)):
                continue
            if path.is_symlink() and (target in seen or root.is_relative_to(target)):
                logger.warning("Passed over: %s, a link to the folder %s, which is read already.", path, target)
                continue
            if path.is_symlink():
                seen.add(target)
            followed.append(name)
        folders[:] = followed
        yield from (Path(place, name) for name in names)


def _refuse(error: OSError) -> None:
    """Name a folder that cannot be listed."""
    reason = (error.strerror or str(error)).lower()
    raise DupmaeError(f"The folder {error.filename} cannot be read ({reason}): allow it, or leave it out.") from None
