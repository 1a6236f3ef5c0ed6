"""Find where things lie on a machine: paths with `~` and `$NAME`, and folders for caches, where there is no home, too.

numba unpickles what it has cached, and models are unpacked into a cache and trusted from then on. So a cache lies where
nobody else can write: in the user's own cache, or, where there is none to be written to, in a folder of this user alone
where the system keeps temporary ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import tempfile
from pathlib import Path, PurePosixPath

from dupmae.errors import DupmaeError

VARIABLE = "DUPMAE_CACHE"
"""Names the folder of all caches of ours."""
_NAMED = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
_COMPILED = ("kernels", "index/scoring")
"""Folders of our modules that numba compiles, and beside which it keeps the result if it can."""


def expanded(path: str) -> str:
    """Put homes in the place of `~` and `~user` where a path begins, and values in that of `$NAME` and `${NAME}`.

    What cannot be replaced stays if something of that very name exists.

    Raises:
        DupmaeError: There is no such home or variable, or the path holds a NUL character; the sentence goes on from the
            name of a setting.
    """
    if "\0" in path:
        raise DupmaeError("holds a NUL character, which no path can")
    beginning, slash, rest = path.partition("/")
    if beginning.startswith("~"):
        home = os.path.expanduser(beginning)  # noqa: PTH111 - that of Path raises where there is no home
        if home == beginning and not os.path.lexists(path):
            raise DupmaeError(
                f"begins with {beginning}, whose home this machine does not know: give the path in full, or ./{path} "
                "for one of that name"
            )
        beginning = home

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ and not os.path.lexists(path):
            raise DupmaeError(f"names the variable ${name}, which is not set: set it, or give the path in full")
        return os.environ.get(name, match[0])

    return _NAMED.sub(value, beginning) + slash + _NAMED.sub(value, rest)


def shipped(path: str) -> Path | None:
    """Find a recipe or bundled data that comes with the package by its path in the repository, such as `data/sample`.

    Returns:
        None if nothing of that path comes with it.
    """
    top = PurePosixPath(path).parts[:1]
    if top not in (("data",), ("recipes",)) or ".." in PurePosixPath(path).parts:
        return None
    package = Path(__file__).parents[1]
    places = (package / "shipped" / path, package.parents[1] / path)  # of a wheel, of a clone
    return next((place for place in places if place.exists()), None)


def cache_folder() -> Path:
    """Find the folder of our caches, and make it.

    It is what the variable `DUPMAE_CACHE` names, or else the user's cache; where that cannot be written to, a temporary
    folder, which is said once.

    Raises:
        DupmaeError: `DUPMAE_CACHE` names a folder that cannot be made or written to.
    """
    given = os.environ.get(VARIABLE)
    if given:
        try:
            folder = Path(expanded(given)).absolute()
        except DupmaeError as error:
            raise DupmaeError(f"{VARIABLE}={given} {error}") from None
        if not _can_write(folder):
            raise DupmaeError(f"{VARIABLE} names the folder {folder}, which cannot be written to: name another one.")
        return folder
    from platformdirs import user_cache_path

    folder = user_cache_path("dupmae")
    if folder.is_absolute() and _can_write(folder):
        return folder
    os.environ[VARIABLE] = str(temporary_cache(f"{folder} cannot be written to"))  # for the processes that we start
    return Path(os.environ[VARIABLE])


def temporary_cache(reason: str) -> Path:
    """Make a cache of this user's alone where the system keeps temporary folders, and say so.

    It has the same name each time, so that nothing is compiled or unpacked twice, unless another user has taken that.
    """
    folder = Path(tempfile.gettempdir()) / f"dupmae-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        own = _is_own(folder)
    except OSError:
        own = False
    if not own:
        folder = Path(tempfile.mkdtemp(prefix="dupmae-"))
    if os.environ.get("RANK", "0") == "0" and sys.stderr is not None:
        print(f"dupmae: {reason}: caches go to {folder} ({VARIABLE} names another place)", file=sys.stderr)
    return folder


def settle_caches() -> None:
    """Give numba and the libraries of models places for their caches, where those that they would take are not fit.

    To be called before any of them is imported: `import dupmae` does. Where there is no place at all, nothing changes.
    """
    with contextlib.suppress(OSError):
        changed = _library_caches()
        compiled = os.environ.get("NUMBA_CACHE_DIR")
        if compiled:
            if not _is_safe(Path(compiled).absolute()):
                reason = f"NUMBA_CACHE_DIR={compiled} is open to others or cannot be written to"
                changed["NUMBA_CACHE_DIR"] = str(temporary_cache(reason) / "numba")
        elif not all(_can_be_made(Path(__file__).parents[1] / folder / "__pycache__") for folder in _COMPILED):
            changed["NUMBA_CACHE_DIR"] = str(_compiled_cache())
        os.environ.update(changed)
        if "numba" in sys.modules and "NUMBA_CACHE_DIR" in changed:
            sys.modules["numba"].config.CACHE_DIR = changed["NUMBA_CACHE_DIR"]


def _library_caches() -> dict[str, str]:
    """Find the variables of libraries that keep files in the home, with other places where it cannot be written to."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - that of Path raises where there is no home
    kept = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    models = Path(os.environ.get("HF_HOME") or kept / "huggingface")
    places = {
        "HF_HOME": models,
        "HF_MODULES_CACHE": models / "modules",
        "HF_DATASETS_CACHE": models / "datasets",
        "TORCH_HOME": kept / "torch",
        "TORCHINDUCTOR_CACHE_DIR": kept,  # its own is of the user's name, which there may not be either
        "TRITON_CACHE_DIR": home / ".triton",
        "MPLCONFIGDIR": Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "matplotlib",
    }
    unfit = [
        variable
        for variable, place in places.items()
        if variable not in os.environ and not (place.is_absolute() and _can_be_made(place))
    ]
    if "HF_HOME" in unfit and models.is_dir():
        unfit.remove("HF_HOME")  # models may lie there, which can be read
    if not unfit:
        return {}
    if not os.environ.get(VARIABLE):
        os.environ[VARIABLE] = str(temporary_cache(f"the home {home} cannot be written to"))
    return {variable: str(_own_cache() / variable.lower()) for variable in unfit}


def _own_cache() -> Path:
    """Find the folder of our caches, a temporary one where the named one cannot be written to."""
    try:
        return cache_folder()
    except DupmaeError as error:  # is told when it is needed
        return temporary_cache(str(error))


def _compiled_cache() -> Path:
    """Find a folder for compiled code, which is unpickled."""
    folder = _own_cache() / "numba"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder if _is_safe(folder) else temporary_cache(f"{folder} is open to others") / "numba"


def _can_be_made(folder: Path) -> bool:
    """Tell whether a folder can be written to, or made; nothing is changed."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _can_write(folder: Path) -> bool:
    """Make a folder if need be, and tell whether it can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _is_safe(folder: Path) -> bool:
    """Tell whether a folder of code that is unpickled can be written to, or made, and by nobody else."""
    if not _can_be_made(folder):
        return False
    there = next(place for place in (folder, *folder.parents) if place.exists())
    found = there.lstat()
    return there != folder or (stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_IWOTH and _is_ours(found))


def _is_own(folder: Path) -> bool:
    """Tell whether a folder, and no link, is this user's and nobody else's."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and _is_ours(found) and not found.st_mode & 0o077


def _is_ours(found: os.stat_result) -> bool:
    """Tell whether something belongs to this user."""
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
