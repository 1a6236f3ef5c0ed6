"""Metrics, baselines and reports."""

from dupmae.evaluation.baselines import bm25_run, dense_run, duplex_run
from dupmae.evaluation.metrics import ALL_METRICS, METRICS, evaluate_run, per_query
from dupmae.evaluation.report import System, write_report

__all__ = [
    "ALL_METRICS",
    "METRICS",
    "System",
    "bm25_run",
    "dense_run",
    "duplex_run",
    "evaluate_run",
    "per_query",
    "write_report",
]
