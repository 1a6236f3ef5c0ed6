"""What requests call the indexes that are served."""

from __future__ import annotations

from pathlib import Path

from dupmae.errors import DupmaeError


def named(folders: list[str]) -> dict[str, str]:
    """Name indexes by their folders' last parts, made different where two are alike.

    Raises:
        DupmaeError: A folder is given twice.
    """
    names: dict[str, str] = {}
    for folder in folders:
        path = Path(folder).resolve()
        if str(path) in names.values():
            raise DupmaeError(f"{folder} is given twice: name each index once.")
        name, number = path.name or "index", 2
        while name in names:
            name, number = f"{path.name}-{number}", number + 1
        names[name] = str(path)
    return names
