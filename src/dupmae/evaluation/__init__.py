"""What measures: metrics, benchmarks and their rules, significance, comparison, reports."""

from dupmae.evaluation.metrics import ALL_METRICS, METRICS, evaluate_run, per_query
from dupmae.evaluation.report import System, write_report

__all__ = [
    "ALL_METRICS",
    "METRICS",
    "System",
    "evaluate_run",
    "per_query",
    "write_report",
]
