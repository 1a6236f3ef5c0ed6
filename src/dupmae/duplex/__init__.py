"""The duplex representation: a reduced dense vector plus the heaviest vocabulary entries (Eq. 10-12)."""

from dupmae.duplex.calibration import calibrate, calibration_sample
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.encoder import DuplexEncoder
from dupmae.duplex.pooling import DuplexPooling

__all__ = ["DuplexEmbeddings", "DuplexEncoder", "DuplexPooling", "calibrate", "calibration_sample"]
