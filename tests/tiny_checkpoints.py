"""Tiny random checkpoints of each family of encoders on disk."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
V = 40
SMALL = {"vocab_size": V, "max_position_embeddings": 34, "pad_token_id": 0}
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
DEBERTA_V3: dict[str, Any] = {
    "relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0,
    "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_buckets": 8,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "bert": BertConfig(**SMALL, **WIDTHS),
    "distilbert": DistilBertConfig(**SMALL, dim=16, n_layers=2, n_heads=2, hidden_dim=32),
    "roberta": RobertaConfig(**SMALL, **WIDTHS),
    "xlm-roberta": XLMRobertaConfig(**SMALL, **WIDTHS),
    "mpnet": MPNetConfig(**SMALL, **WIDTHS),
    "electra": ElectraConfig(**SMALL, **WIDTHS, embedding_size=8),
    "deberta": DebertaV2Config(**SMALL, **WIDTHS, **DEBERTA_V3),
    "modernbert": ModernBertConfig(
        **SMALL, **WIDTHS, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3, local_attention=8
    ),
}
"""Two layers of each family; ELECTRA with factorised embeddings, ModernBERT with one local layer."""


def write_checkpoint(folder: Path, kind: str) -> Path:
    """Write a tiny checkpoint of a kind, one of `CONFIGS`, or one of them and `-without-head`."""
    torch.manual_seed(0)
    headless = kind.endswith("-without-head")
    made: Any = AutoModel if headless else AutoModelForMaskedLM
    made.from_config(deepcopy(CONFIGS[kind.removesuffix("-without-head")])).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    names = [*SPECIAL, *(f"w{number}" for number in range(V - len(SPECIAL)))]
    vocabulary = {name: number for number, name in enumerate(names)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
