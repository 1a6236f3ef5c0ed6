"""A duplex encoder over the tiny BERT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from naive_duplex import unsettle

from dupmae.config import DuplexConfig
from dupmae.duplex import DuplexEncoder


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed in float32 on every machine."""
    monkeypatch.setattr("dupmae.duplex.inference.bfloat16_pays", lambda _: False)


@pytest.fixture
def make_encoder(bert_folder: Path) -> Callable[..., DuplexEncoder]:
    """Builds a duplex encoder with the given settings (16 and 10 wide by default), its learned numbers not neutral."""

    def make(**settings: Any) -> DuplexEncoder:
        torch.manual_seed(3)
        encoder = DuplexEncoder.from_encoder(
            str(bert_folder), DuplexConfig(**{"dense_dimension": 16, "top_k": 10, "words": "none"} | settings)
        )
        unsettle(encoder)
        return encoder.to("cpu")

    return make
