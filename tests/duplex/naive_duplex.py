"""Eq. 10-12 written out over one query and one document, in numpy, token by token."""

from __future__ import annotations

import math

import numpy as np
import torch

from dupmae.duplex import DuplexEncoder

V = 176
"""Terms of the tiny vocabulary."""


def unsettle(encoder: DuplexEncoder) -> None:
    """Move the numbers that start neutral."""
    pooling = encoder.pooling
    with torch.no_grad():
        pooling.entry_log_scale += 0.3 * torch.randn_like(pooling.entry_log_scale)
        pooling.output.bias += torch.randn_like(pooling.output.bias)
        if pooling.query_terms == "tokens":
            pooling.token_log_scale += torch.randn_like(pooling.token_log_scale)
        pooling.cls_log_scale.fill_(0.7)
        pooling.ot_log_scale.fill_(-0.4)


def naive_halves(encoder: DuplexEncoder, text: str, task: str) -> tuple[np.ndarray, np.ndarray]:
    """h^ (d',) and mu (V,) of one text before scaling to unit length: Eq. 10, 6, 7, in numpy, token by token."""
    pooling = encoder.pooling
    numbers = {name: value.detach().double().numpy() for name, value in pooling.named_parameters()}
    features = encoder.preprocess([text], task=task)
    ids = features["input_ids"][0].tolist()
    with torch.no_grad():
        states = encoder.eval()[0](features)["token_embeddings"][0].double().numpy()  # (L, D)
    pooled = states[0] if pooling.dense_pooling == "cls" else states.mean(axis=0)
    dense = numbers["cls_projection.weight"] @ pooled
    ordinary = [token not in encoder.tokenizer.all_special_ids for token in ids]
    if task == "query" and pooling.query_terms == "tokens":
        mu = np.zeros(pooling.vocabulary_size)
        for token in np.array(ids)[ordinary]:
            mu[token] = np.exp(numbers["token_log_scale"][token])
        return dense, mu
    mu = np.full(pooling.vocabulary_size, -np.inf)
    for state in states[ordinary]:
        if pooling.lexical_projection == "mlm_head":
            state = numbers["transform.0.weight"] @ state + numbers["transform.0.bias"]
            state = np.array([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in state])
            state = (state - state.mean()) / np.sqrt(state.var() + pooling.layer_norm_eps)
            state = state * numbers["transform.2.weight"] + numbers["transform.2.bias"]
        mu = np.maximum(mu, numbers["output.weight"] @ state + numbers["output.bias"])
    if np.isinf(mu).all():
        mu = np.zeros_like(mu)
    if pooling.lexical_activation != "none":
        mu = np.maximum(mu, 0)
    if pooling.lexical_activation == "log1p_relu":
        mu = np.log(1 + mu)
    mu *= np.exp(numbers["entry_log_scale"])
    mu[encoder.tokenizer.all_special_ids] = 0
    return dense, mu


def naive_score(encoder: DuplexEncoder, query: str, document: str) -> float:
    """Eq. 12, scaled as :class:`DuplexPooling` says."""
    pooling = encoder.pooling
    h_q, mu_q = naive_halves(encoder, query, "query")
    h_d, mu_d = naive_halves(encoder, document, "document")
    kept = sorted(range(len(mu_d)), key=lambda term: -mu_d[term])[: pooling.top_k]  # I_d of Eq. 11
    dense = math.fsum(h_q * h_d)
    lexical = math.fsum(mu_q[term] * mu_d[term] for term in kept)
    if pooling.normalize:
        dense /= (np.linalg.norm(h_q) * np.linalg.norm(h_d)) or 1
        lexical /= (np.linalg.norm(mu_q) * (np.linalg.norm(mu_d[kept]) if pooling.document_norm == "unit" else 1)) or 1
    dense_scale, lexical_scale = pooling.cls_log_scale.exp().item(), pooling.ot_log_scale.exp().item()
    return (dense_scale * dense if pooling.dense_dimension else 0) + (lexical_scale * lexical if pooling.top_k else 0)
