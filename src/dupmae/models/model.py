"""A model as a value: where it is, of what kind, and what its files declare."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dupmae.files import file_fingerprint, fingerprint
from dupmae.models.files import RECORD_FILE, duplex_settings, is_duplex, model_file, read_settings, refuse_no_model
from dupmae.models.names import SMALL, resolve_model

Kind = Literal["duplex", "sparse", "dense", "cross-encoder", "encoder"]
"""What a model gives: both halves, a sparse or a dense vector of a text, the score of two texts, or, as an encoder that
was trained for none of these, its states alone."""

_MODEL_FILES = {".bin", ".json", ".model", ".safetensors", ".txt"}


@dataclass(frozen=True)
class Model:
    """A model that was found (:func:`open_model`). What its files say is read when it is first asked for, once."""

    path: str
    """A folder, or a Hugging Face id: what `from_pretrained` takes."""
    name: str = field(default="", compare=False)
    """What others find it by: `SMALL`, whose path is in this user's cache, or else the path."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path)

    @cached_property
    def saved_as(self) -> str | None:
        """The class that sentence-transformers wrote into its files; None without one."""
        return read_settings(self.path, "config_sentence_transformers.json").get("model_type")

    @cached_property
    def kind(self) -> Kind:
        """What it gives, by its files; `encoder` also if there is no such model."""
        if is_duplex(self.path):
            return "duplex"
        if self.saved_as == "CrossEncoder":
            return "cross-encoder"
        if self.saved_as == "SparseEncoder":
            return "sparse"
        if model_file(self.path, "modules.json") is not None:
            return "dense"
        architectures = read_settings(self.path, "config.json").get("architectures") or [""]
        scores = architectures[0].endswith(("ForSequenceClassification", "ForCausalLM"))
        return "cross-encoder" if scores else "encoder"

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change when the model does.

        Of a folder, the contents of the weights', tokenizer's and settings' files count (not their dates, nor a model
        card); of an id its text and the version on the hub.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            config = model_file(self.path, "config.json")  # .../snapshots/COMMIT/config.json
            return fingerprint(self.path if config is None else [self.path, config.parent.name])
        files = sorted(path for path in folder.rglob("*") if path.suffix in _MODEL_FILES and path.is_file())
        return fingerprint({path.relative_to(folder).as_posix(): file_fingerprint(path) for path in files})

    @cached_property
    def pooling(self) -> str | None:
        """Which vector of its states it was trained for, if its files say so and it is one of ours: `cls`, `mean`."""
        if is_duplex(self.path):
            return str(duplex_settings(Path(self.path))["dense_pooling"])
        record = read_settings(self.path, RECORD_FILE)
        if record:
            return str(record["dense_pooling"])
        modules_file = model_file(self.path, "modules.json")
        modules: list[dict[str, Any]] = [] if modules_file is None else json.loads(modules_file.read_text("utf-8"))
        for module in modules:
            if module["type"].endswith(".Pooling"):
                from sentence_transformers.sentence_transformer.modules import Pooling

                mode = Pooling.load(self.path, subfolder=module["path"]).pooling_mode
                return mode if mode in ("cls", "mean") else None
        return None

    @cached_property
    def prompts(self) -> dict[str, str]:
        """What it was trained to read before a `query` and a `document`, as far as its files say so.

        An embedder of sentence-transformers may have another name for its prompt of documents; a checkpoint of ours has
        taken over what its base model had.
        """
        found: dict[str, str] = {}
        for name in ("config_sentence_transformers.json", RECORD_FILE):
            if settings := read_settings(self.path, name):
                found = settings.get("prompts") or {}
        document = (found[name] for name in ("document", "passage", "corpus") if name in found)
        return {"query": found.get("query", ""), "document": next(document, "")}


def open_model(name: str, **hub: Any) -> Model:
    """Find a model by what a user calls it.

    Args:
        name: As for :func:`dupmae.models.resolve_model`.
        **hub: As for :func:`dupmae.models.resolve_model`.

    Raises:
        DupmaeError: As :func:`dupmae.models.resolve_model`, or a folder that holds no model.
    """
    path = resolve_model(name, **hub)
    refuse_no_model(path)
    return Model(path, name if name == SMALL else path)


def model_fingerprint(name: str) -> str:
    """Fingerprint a model (:attr:`Model.fingerprint`) by what `resolve_model` returned, or by the name `SMALL`."""
    return Model(resolve_model(name) if name == SMALL else name).fingerprint
