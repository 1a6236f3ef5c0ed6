"""The files of a model in a folder or on the Hugging Face hub, and what they say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dupmae.config.renamed import with_new_names
from dupmae.errors import DupmaeError
from dupmae.models.checks import read_modules, read_object

RECORD_FILE = "dupmae.json"
"""Name of the record in a checkpoint."""
WEIGHTS = "model.safetensors"
"""Name of the file with a model's weights."""
STATIC_FILE = "queries.static"
"""Name of the table for static queries beside a model; what ends so does not count for the model's fingerprint."""


def model_file(model: str, file: str, **hub: Any) -> Path | None:
    """Find a file of a model, which is fetched if the model is on the hub.

    Args:
        model: A folder or an id.
        file: The file's name.
        **hub: As for :func:`dupmae.models.resolve_model`.

    Returns:
        Its path; None if the model has no such file, or there is no such model.
    """
    if Path(model).is_dir():
        found = Path(model) / file
        return found if found.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return Path(hf_hub_download(model, file, **hub))
    except (
        OSError,
        EntryNotFoundError,
        HFValidationError,
    ):  # no such file or model, or no way to it; whoever loads it says so
        return None


def read_settings(model: str, file: str) -> dict[str, Any]:
    """Read a JSON object among a model's files; empty if there is no such file."""
    found = model_file(model, file)
    return {} if found is None else read_object(found, model, found.parent)


def listed_modules(model: str) -> list[dict[str, str]] | None:
    """Read which modules a model of sentence-transformers consists of; None of another one."""
    found = model_file(model, "modules.json")
    return None if found is None else read_modules(found.parent, model)


def refuse_no_model(path: str, label: str) -> None:
    """Refuse a folder that holds no model before a library says so in words of its own; an id is not looked at."""
    folder = Path(path)
    if not folder.is_dir() or _holds_model(folder):
        return
    inner = folder / "model"
    raise DupmaeError(
        f"{label} holds no model"
        + (f": is {inner} meant?" if _holds_model(inner) else " (no config.json): name the folder of one.")
    )


def is_duplex(path: str) -> bool:
    """Tell whether a model is a folder that `DuplexEncoder` saved, by the class that its modules name."""
    modules = Path(path) / "modules.json"
    try:
        return modules.is_file() and b".DuplexPooling" in modules.read_bytes()
    except OSError:
        return False


def pooling_folder(model: Path) -> Path:
    """Find the pooling module in a duplex model's folder.

    Raises:
        DupmaeError: `modules.json` names none.
    """
    for module in read_modules(model, str(model)) or []:
        if module["type"].endswith(".DuplexPooling"):
            return model / module["path"]
    raise DupmaeError(f"{model}: modules.json names no DuplexPooling: fetch or save the model again.")


def duplex_settings(model: Path) -> dict[str, Any]:
    """Read the settings of a duplex model's pooling module, under the names that they have now."""
    file = pooling_folder(model) / "config.json"
    return with_new_names("duplex", read_object(file, str(model), model))


def _holds_model(folder: Path) -> bool:
    """Tell whether a folder has a file that transformers or sentence-transformers would begin with."""
    return any((folder / name).is_file() for name in ("config.json", "modules.json", "adapter_config.json"))
