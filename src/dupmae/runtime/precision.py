"""The arithmetic of a forward pass, and what else makes training fast on the machine at hand."""

from __future__ import annotations

import contextlib

import torch


def bfloat16_pays(precision: str) -> bool:
    """Decide whether the forward pass runs in bfloat16; `auto` asks GPU or processor for bfloat16 products.

    Of a processor these are AMX's matrix units or AVX-512's dot products (`benchmarks/speed/encode.py` and
    `pretraining_step.py` with and without bfloat16 have the ratios). Without them a processor converts every product
    and is slower than in float32; GPUs before Ampere emulate them, too.
    """
    if precision == "auto":
        if torch.cuda.is_available():
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return precision == "bfloat16"


def autocast(device_type: str, precision: str = "auto") -> contextlib.AbstractContextManager[object]:
    """Run matrix products within the context in bfloat16 where `precision` says so."""
    if bfloat16_pays(precision):
        return torch.autocast(device_type, torch.bfloat16)
    return contextlib.nullcontext()


def prepare_for_training(model: torch.nn.Module, dropout: float, precision: str = "auto") -> None:
    """Set a Hugging Face encoder's dropout, and on a processor the attention whose backward pass is fastest there.

    In bfloat16 the plain attention ("eager") trained all-MiniLM-L6-v2 about 1.4 times as fast as the fused one, whose
    backward pass is slow then, on two cores; in float32 the fused one, transformers' default, is the faster by 1.1.
    Drawing attention dropout took another quarter of the step.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        elif hasattr(module, "attention_dropout"):  # ModernBERT keeps a number instead of a layer
            setattr(module, "attention_dropout", dropout)  # noqa: B010 (mypy takes a module's attributes for tensors)
    if not torch.cuda.is_available() and bfloat16_pays(precision):
        model.set_attn_implementation("eager")  # type: ignore[operator]
