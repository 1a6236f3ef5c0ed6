"""What follows for training from what an encoder's files declare (:class:`dupmae.models.Model`)."""

from __future__ import annotations

import logging

from dupmae.models import Model
from dupmae.runtime.processes import is_first_process

logger = logging.getLogger(__name__)


def warn_of_pooling(model: Model, pooling: str) -> None:
    """Warn if an encoder is read off another vector than it was trained for.

    Args:
        model: The encoder.
        pooling: The vector, as `dense_pooling` says: `cls` or `mean`.
    """
    if model.pooling not in (None, pooling) and is_first_process():
        logger.warning(
            "%s was trained with the pooling %s, and dense_pooling is %s: set it to %s to keep what the model knows.",
            model.path,
            model.pooling,
            pooling,
            model.pooling,
        )
