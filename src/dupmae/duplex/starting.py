"""From a checkpoint to a duplex model that is ready for fine-tuning on a corpus."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import set_seed

from dupmae.config import DuplexConfig
from dupmae.corpus import Passage
from dupmae.duplex.calibration import calibrate, calibration_sample
from dupmae.duplex.encoder import DuplexEncoder


def start_duplex(model: str, config: DuplexConfig, corpus: Mapping[str, Passage], seed: int) -> DuplexEncoder:
    """Build a duplex model from an encoder and calibrate it; the same arguments give the same model.

    Args:
        model: As for :meth:`DuplexEncoder.from_encoder`.
        config: The representation.
        corpus: What will be searched; some passages of it are read.
        seed: Seeds what is random in new layers, and which passages are read.

    Raises:
        DupmaeError: As :meth:`DuplexEncoder.from_encoder`.
    """
    set_seed(seed)
    encoder = DuplexEncoder.from_encoder(model, config)
    calibrate(encoder, calibration_sample(corpus, seed))
    return encoder
