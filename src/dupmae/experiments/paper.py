"""What the paper reports, table by table (RetroMAE-2, ACL 2023, arXiv 2305.02564)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of merit: a benchmark by its name in `dupmae.evaluation.benchmarks`, and a metric."""

    benchmark: str
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the paper."""

    name: str
    """As it is asked for."""
    title: str
    """What it shows."""
    columns: Sequence[Column]
    """Its columns."""
    rows: Mapping[str, Sequence[float]]
    """System -> figures, in the order of the columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A row of the ablation: how it differs from the full method."""

    pretrain: Mapping[str, Any] | None = field(default_factory=dict)
    """Settings of pre-training; None does without."""
    duplex: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the representation, but for the following two."""
    dense: float = 0.5
    """Width of the dense half, as a share of the encoder's width."""
    terms: float = 0.5
    """Terms kept of a passage, as a share of the encoder's width."""


PASSAGES = Table(
    name="table1",
    title="MS MARCO passages",
    columns=(
        Column("msmarco-passage-dev", "mrr@10"),
        Column("msmarco-passage-dev", "recall@1000"),
        Column("msmarco-passage-dl19", "ndcg@10"),
    ),
    rows={
        "DupMAE, stage 2": (0.410, 0.987, 0.713),
        "SimLM, distilled": (0.411, 0.987, 0.714),
        "RetroMAE, stage 3": (0.416, 0.988, 0.681),
        "DupMAE, stage 3": (0.426, 0.989, 0.751),
    },
)
DOCUMENTS = Table(
    name="table2",
    title="MS MARCO documents",
    columns=(
        Column("msmarco-document-dev", "mrr@100"),
        Column("msmarco-document-dev", "recall@100"),
        Column("msmarco-document-dl19", "ndcg@10"),
    ),
    rows={"DupMAE, stage 2": (0.451, 0.950, 0.667)},
)
_BEIR = {
    "trec-covid": (0.656, 0.728, 0.770),
    "bioasq": (0.465, 0.508, 0.514),
    "nfcorpus": (0.325, 0.346, 0.366),
    "nq": (0.329, 0.570, 0.578),
    "hotpotqa": (0.603, 0.681, 0.683),
    "fiqa": (0.236, 0.345, 0.375),
    "signal1m": (0.330, 0.213, 0.237),
    "trec-news": (0.398, 0.427, 0.433),
    "robust04": (0.408, 0.479, 0.503),
    "arguana": (0.315, 0.474, 0.465),
    "webis-touche2020": (0.367, 0.343, 0.382),
    "cqadupstack": (0.299, 0.320, 0.336),
    "quora": (0.789, 0.845, 0.853),
    "dbpedia-entity": (0.313, 0.418, 0.419),
    "scidocs": (0.158, 0.153, 0.165),
    "fever": (0.753, 0.800, 0.817),
    "climate-fever": (0.213, 0.232, 0.219),
    "scifact": (0.665, 0.699, 0.725),
}
ZERO_SHOT = Table(
    name="table3",
    title="BEIR, zero-shot from MS MARCO (†: pre-training continued on the target corpora)",
    columns=tuple(Column(name, "ndcg@10") for name in _BEIR),
    rows={
        system: tuple(values[place] for values in _BEIR.values())
        for place, system in enumerate(("BM25", "DupMAE", "DupMAE†"))
    },
)
VARIANTS = {
    "RetroMAE": Variant(pretrain={"bow_weight": 0.0}, dense=1.0, terms=0.0),
    "[CLS] decoding alone": Variant(pretrain={"bow_weight": 0.0}),
    "OT decoding alone": Variant(pretrain={"cls_weight": 0.0}),
    "both": Variant(),
    "768:0": Variant(dense=1.0, terms=0.0),
    "0:768": Variant(dense=0.0, terms=1.0),
    "384:260": Variant(terms=260 / 768),
}
"""The ablation: what is decoded in pre-training, and how the representation is shared out ([CLS] : OT); `both` is
384:384. A share is of the encoder's width, so a narrower encoder gets a narrower representation."""
ABLATION = Table(
    name="table4",
    title="Ablation on MS MARCO passages, after stage 2",
    columns=(Column("msmarco-passage-dev", "mrr@10"),),
    rows={
        "RetroMAE": (0.3928,),
        "[CLS] decoding alone": (0.4008,),
        "OT decoding alone": (0.4002,),
        "both": (0.4102,),
        "768:0": (0.3941,),
        "0:768": (0.4019,),
        "384:260": (0.4071,),
    },
)
TABLES = {table.name: table for table in (PASSAGES, DOCUMENTS, ZERO_SHOT, ABLATION)}
"""All of them by name."""
