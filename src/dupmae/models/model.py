"""A model as a value: where it is, of what kind, and what its files declare."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dupmae.files import fingerprint
from dupmae.models.checks import check_files
from dupmae.models.checksums import model_files
from dupmae.models.files import (
    RECORD_FILE,
    duplex_settings,
    is_duplex,
    listed_modules,
    model_file,
    read_settings,
    refuse_no_model,
)
from dupmae.models.names import EDITIONS, resolve_model
from dupmae.runtime.checksums import known_sha256

Kind = Literal["duplex", "sparse", "dense", "cross-encoder", "encoder"]
"""What a model gives: both halves, a sparse or a dense vector of a text, the score of two texts, or, as an encoder that
was trained for none of these, its states alone."""


@dataclass(frozen=True)
class Model:
    """A model that was found (:func:`open_model`). What its files say is read when it is first asked for, once."""

    path: str
    """A folder, or a Hugging Face id: what `from_pretrained` takes."""
    name: str = field(default="", compare=False)
    """What others find it by: that of one of `EDITIONS`, whose path is in this user's cache, or else the path."""
    option: str = field(default="", compare=False)
    """What it was given as, such as `--teacher`, for sentences about it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path)

    @property
    def label(self) -> str:
        """What a sentence calls it: the option, where one is known, and its name."""
        return f"{self.option} {self.name}".lstrip()

    @cached_property
    def modules(self) -> list[dict[str, str]]:
        """The modules of a sentence-transformers model, with `name`, `path` and `type`; none of another."""
        return listed_modules(self.path) or []

    @cached_property
    def encoder_path(self) -> str:
        """What `from_pretrained` takes for the encoder: in old folders of sentence-transformers it has one of its own.

        Such a model on the hub is fetched whole.
        """
        place = next((module["path"] for module in self.modules if module["type"].endswith("Transformer")), "")
        if not place:
            return self.path
        folder = self.path
        if not Path(folder).is_dir():
            from huggingface_hub import snapshot_download

            folder = str(snapshot_download(folder))
        return str(Path(folder) / place)

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
        if self.modules:
            return "dense"
        architectures = read_settings(self.path, "config.json").get("architectures")
        named = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
        scores = named.endswith(("ForSequenceClassification", "ForCausalLM"))
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
        return fingerprint({name: known_sha256(folder / name)[:16] for name in model_files(folder)})

    @cached_property
    def pooling_mode(self) -> str | None:
        """Which vector of its states it was trained for, in the words of its files; None where they do not say."""
        if is_duplex(self.path):
            return _text(duplex_settings(Path(self.path)).get("dense_pooling"))
        record = read_settings(self.path, RECORD_FILE)
        if record:
            return _text(record.get("dense_pooling"))
        for module in self.modules:
            if module["type"].endswith(".Pooling"):
                settings = read_settings(self.path, f"{module['path']}/config.json")
                if "pooling_mode" in settings:
                    return _text(settings["pooling_mode"])
                chosen = [name for name in _POOLING_MODES if settings.get(f"pooling_mode_{name}") is True]
                return "+".join(_POOLING_MODES[name] for name in chosen) or None
        return None

    @property
    def pooling(self) -> str | None:
        """The same, if it is one of ours: `cls`, `mean`."""
        return self.pooling_mode if self.pooling_mode in ("cls", "mean") else None

    @cached_property
    def own_prompts(self) -> dict[str, str]:
        """What it was trained to read before a text, by the names that its files give."""
        found: Any = {}
        for name in ("config_sentence_transformers.json", RECORD_FILE):
            if settings := read_settings(self.path, name):
                found = settings.get("prompts") or {}
        return (
            {str(name): text for name, text in found.items() if isinstance(text, str)}
            if isinstance(found, dict)
            else {}
        )

    @cached_property
    def prompts(self) -> dict[str, str]:
        """What it was trained to read before a `query` and a `document`, as far as its files say so.

        An embedder of sentence-transformers may have another name for its prompt of documents; a checkpoint of ours has
        taken over what its base model had.
        """
        document = (self.own_prompts[name] for name in DOCUMENT_PROMPTS if name in self.own_prompts)
        return {"query": self.own_prompts.get("query", ""), "document": next(document, "")}


DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names that embedders give to the prompt of documents."""
_POOLING_MODES = {
    "cls_token": "cls",
    "mean_tokens": "mean",
    "max_tokens": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
"""What earlier versions of sentence-transformers call their modes -> what they are called now."""


def _text(value: Any) -> str | None:
    """Take a setting that should be text."""
    return value if isinstance(value, str) else None


def open_model(name: str, *, option: str = "", **hub: Any) -> Model:
    """Find a model by what a user calls it, and check its files if it is a folder.

    Args:
        name: As for :func:`dupmae.models.resolve_model`.
        option: What it was given as, such as `--teacher`, for sentences about it.
        **hub: As for :func:`dupmae.models.resolve_model`.

    Raises:
        DupmaeError: As :func:`dupmae.models.resolve_model`, a folder that holds no model, or one whose files are
            missing, damaged, or not as they were saved (:func:`dupmae.models.checks.check_files`).
    """
    label = f"{option} {name}".lstrip()
    path = resolve_model(name, label=label, **hub)
    refuse_no_model(path, label)
    if Path(path).is_dir():
        check_files(Path(path), label)
    return Model(path, name if name in EDITIONS else path, option)


def model_fingerprint(name: str) -> str:
    """Fingerprint a model (:attr:`Model.fingerprint`) by what `resolve_model` returned, or by one of `EDITIONS`."""
    return Model(resolve_model(name) if name in EDITIONS else name).fingerprint
