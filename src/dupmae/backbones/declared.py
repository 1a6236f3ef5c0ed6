"""What follows from a run's start, which may be an encoder or a duplex model that keeps its representation."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from dupmae.models import duplex_settings, is_duplex, model_file
from dupmae.runtime.processes import is_first_process

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


def trained_pooling(model: str) -> str | None:
    """Which vector of its states an encoder was trained for, if its files say so and it is one of ours: cls, mean."""
    from dupmae.models import RECORD_FILE

    if is_duplex(model):
        return str(duplex_settings(Path(model))["dense_pooling"])
    record_file, modules_file = model_file(model, RECORD_FILE), model_file(model, "modules.json")
    if record_file is not None:
        return str(json.loads(record_file.read_text(encoding="utf-8"))["dense_pooling"])
    if modules_file is not None:
        from sentence_transformers.sentence_transformer.modules import Pooling

        for module in json.loads(modules_file.read_text(encoding="utf-8")):
            if module["type"].endswith(".Pooling"):
                mode = Pooling.load(model, subfolder=module["path"]).pooling_mode
                return mode if mode in ("cls", "mean") else None
    return None


def trained_prompts(model: str) -> dict[str, str]:
    """What an encoder was trained to read before a `query` and a `document`, as far as its files say so.

    Args:
        model: What :func:`dupmae.models.resolve_model` returned: an embedder of sentence-transformers, whose prompt of
            documents may have another name, or a checkpoint of ours, which has taken over what its start had.
    """
    from dupmae.models import RECORD_FILE

    found: dict[str, str] = {}
    for name in ("config_sentence_transformers.json", RECORD_FILE):
        file = model_file(model, name)
        if file is not None:
            found = json.loads(file.read_text(encoding="utf-8")).get("prompts") or {}
    document = (found[name] for name in ("document", "passage", "corpus") if name in found)
    return {"query": found.get("query", ""), "document": next(document, "")}


def warn_of_pooling(model: str, pooling: str) -> None:
    """Tell of an encoder that is read off another vector than it was trained for.

    Args:
        model: What :func:`dupmae.models.resolve_model` returned.
        pooling: The vector, as `dense_pooling` says: `cls` or `mean`.
    """
    trained = trained_pooling(model)
    if trained not in (None, pooling) and is_first_process():
        logger.warning(
            "%s was trained with the pooling %s, and dense_pooling is %s: set it to %s to keep what the model knows.",
            model,
            trained,
            pooling,
            trained,
        )
