"""A BERT with random weights: the encoder of every benchmark, and of every system that it measures."""

from __future__ import annotations

from transformers import BertConfig, BertForMaskedLM


def random_bert(layers: int, hidden: int, vocabulary: int, dropout: float = 0.1) -> BertForMaskedLM:
    """A BERT of a given size, with heads 64 wide."""
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=max(1, hidden // 64),
            intermediate_size=4 * hidden,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    )
