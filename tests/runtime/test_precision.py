"""When products run in bfloat16."""

from __future__ import annotations

import pytest
import torch
from transformers import BertModel

from dupmae.runtime.precision import autocast, bfloat16_pays, prepare_for_training


@pytest.mark.parametrize(("amx", "avx512", "pays"), [(True, True, True), (False, True, True), (False, False, False)])
def test_auto_asks_the_processor_where_there_is_no_gpu(amx, avx512, pays, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert bfloat16_pays("auto") is pays
    assert bfloat16_pays("bfloat16")
    assert not bfloat16_pays("float32")
    with autocast("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.bfloat16 if pays else torch.float32)


@pytest.mark.parametrize("pays", [True, False])
def test_auto_asks_a_gpu_for_products_that_are_not_emulated(pays, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or pays)
    assert bfloat16_pays("auto") is pays


@pytest.mark.parametrize(("precision", "attention"), [("float32", "sdpa"), ("bfloat16", "eager")])
def test_a_processor_trains_with_the_attention_that_is_fast_in_its_arithmetic(
    precision, attention, bert_folder, monkeypatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = BertModel.from_pretrained(bert_folder)
    prepare_for_training(model, 0.25, precision)
    assert model.config._attn_implementation == attention
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}
