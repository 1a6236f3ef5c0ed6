"""What a model is called, where it is found, and one file of few bits a weight to ship it in."""

from dupmae.models.names import (
    RECORD_FILE,
    SMALL,
    WEIGHTS,
    duplex_settings,
    is_duplex,
    model_file,
    model_fingerprint,
    pooling_folder,
    refuse_no_model,
    resolve_model,
)

__all__ = [
    "RECORD_FILE",
    "SMALL",
    "WEIGHTS",
    "duplex_settings",
    "is_duplex",
    "model_file",
    "model_fingerprint",
    "pooling_folder",
    "refuse_no_model",
    "resolve_model",
]
