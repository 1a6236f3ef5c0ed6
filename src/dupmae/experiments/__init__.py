"""Experiments from text to report: runs of a recipe, adaptation, variants, the paper's tables."""
