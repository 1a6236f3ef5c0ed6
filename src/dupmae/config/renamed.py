"""The names that settings had in version 0.1, which files of that time and people's habits still use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "start": "base_model",
    "teacher_start": "teacher_model",
    "pretrain.ot_projection": "pretrain.lexical_projection",
    "duplex.cls_dimension": "duplex.dense_dimension",
    "duplex.query_entries": "duplex.query_terms",
    "duplex.ot_activation": "duplex.lexical_activation",
    "duplex.ot_projection": "duplex.lexical_projection",
    "duplex.cls_scale": "duplex.dense_scale",
    "duplex.ot_scale": "duplex.lexical_scale",
    "finetune.share": "finetune.interpolation",
    "finetune.balance": "finetune.tune_weights",
    "finetune.tune_lexical_weight": "finetune.tune_weights",
    "finetune.cls_weight": "finetune.dense_loss_weight",
    "finetune.ot_weight": "finetune.lexical_loss_weight",
}
"""Former name of a recipe's key -> its name now; a former name is taken with a warning until version 0.3."""

RENAMED_VALUES = {"baselines": {"start": "base-model"}}
"""Key of a recipe -> former name of one of its values -> that value's name now."""


def with_new_names(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read a section's settings as a file of any version has them.

    Args:
        section: Its name in a recipe, such as `pretrain`; empty for a whole recipe.
        settings: Key -> value; a mapping among the values is a section.

    Returns:
        The same values under the names that the keys have now.
    """
    read: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{section}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            value = with_new_names(key, value)
        elif key in RENAMED_VALUES:
            value = [RENAMED_VALUES[key].get(one, one) for one in value]
        read[RENAMED.get(key, name).rpartition(".")[2]] = value
    return read
