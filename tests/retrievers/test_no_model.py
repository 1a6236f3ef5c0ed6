"""What a folder without a model is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dupmae.errors import DupmaeError
from dupmae.retrievers.scorers import load_cross_encoder, start_cross_encoder
from dupmae.retrievers.vectors import split_kind


@pytest.mark.parametrize(
    "load", [load_cross_encoder, start_cross_encoder, split_kind, lambda folder: split_kind(f"dense:{folder}")]
)
def test_a_folder_without_a_model_is_refused(load: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match=r"holds no model \(no config.json\): name the folder of one"):
        load(str(tmp_path))


def test_a_cross_encoder_that_is_not_there_is_not_taken_for_another_model() -> None:
    with pytest.raises(DupmaeError, match=r"somebody/nothing cannot be opened .*huggingface\.co"):
        load_cross_encoder("somebody/nothing")
