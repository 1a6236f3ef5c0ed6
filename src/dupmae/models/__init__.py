"""Models: what their names mean, of what kind they are, and one file of few bits a weight to ship them in."""

from dupmae.models.checks import check_files
from dupmae.models.checksums import write_checksums
from dupmae.models.files import (
    RECORD_FILE,
    WEIGHTS,
    duplex_settings,
    is_duplex,
    model_file,
    pooling_folder,
)
from dupmae.models.model import Kind, Model, model_fingerprint, open_model
from dupmae.models.names import SMALL, resolve_model

__all__ = [
    "RECORD_FILE",
    "SMALL",
    "WEIGHTS",
    "Kind",
    "Model",
    "check_files",
    "duplex_settings",
    "is_duplex",
    "model_file",
    "model_fingerprint",
    "open_model",
    "pooling_folder",
    "resolve_model",
    "write_checksums",
]
