"""From a checkpoint to a duplex model that is ready for fine-tuning on a corpus."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import set_seed

from dupmae.config import DuplexConfig
from dupmae.corpus import Passage
from dupmae.duplex.calibration import (
    SAMPLE_OF_TOKENS,
    SAMPLE_PER_DIMENSION,
    calibrate,
    calibration_sample,
    project_on_principal_directions,
    weigh_tokens,
)
from dupmae.duplex.encoder import DuplexEncoder, take_transform


def start_duplex(model: str, config: DuplexConfig, corpus: Mapping[str, Passage], seed: int) -> DuplexEncoder:
    """Build a duplex model from an encoder and calibrate it; the same arguments give the same model.

    A dense half that is narrower than the encoder begins with its principal directions, and queries that have their
    own tokens alone begin with those weighted by their rarity.

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
    pooling = encoder.pooling
    if 0 < pooling.cls_dimension < pooling.hidden_size:
        sample = calibration_sample(corpus, seed, SAMPLE_PER_DIMENSION * pooling.hidden_size)
        project_on_principal_directions(encoder, sample)
    calibrate(encoder, calibration_sample(corpus, seed))
    if pooling.query_entries == "tokens":
        weigh_tokens(encoder, calibration_sample(corpus, seed, SAMPLE_OF_TOKENS))
    return encoder


@torch.no_grad()
def continue_duplex(model: str, checkpoint: str) -> DuplexEncoder:
    """Open a duplex model with what pre-training has made of its encoder and head since.

    Its dense projection, thresholds and scales stay. Pre-training has scaled the head's logits for a softmax
    (:func:`dupmae.pretraining.warm_start.warm_start_head`); its output matrix gets its old length back.

    Args:
        model: A duplex model's folder.
        checkpoint: Folder of the checkpoint that pre-training made from it.

    Raises:
        DupmaeError: As :class:`DuplexEncoder` and :func:`dupmae.pretraining.backbones.load_backbone`.
    """
    from dupmae.pretraining.backbones import load_backbone

    encoder, backbone = DuplexEncoder(model), load_backbone(checkpoint)
    pooling, weight = encoder.pooling, backbone.output_weight
    missing = encoder[0].model.load_state_dict(backbone.encoder.state_dict(), strict=False).missing_keys
    assert all(name.startswith("pooler.") for name in missing), missing
    pooling.output.weight.copy_(weight * (pooling.output.weight.norm() / weight.norm()))
    take_transform(pooling, backbone)
    return encoder
