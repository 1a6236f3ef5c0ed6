"""Hold the settings of every stage and of whole runs, and the ranges that their numbers keep."""

from dupmae.config.ranges import CheckedSettings
from dupmae.config.recipe import AdaptConfig, Baseline, DataConfig, Recipe
from dupmae.config.sections import (
    CHUNK_TOKENS,
    NEUTRAL,
    DuplexConfig,
    FieldsConfig,
    FinetuneConfig,
    FurtherStageConfig,
    HoldOut,
    MiningConfig,
    PairsConfig,
    PretrainConfig,
    PseudoQueryConfig,
    QueryEncoderName,
    ScratchConfig,
    StoreConfig,
    TeacherConfig,
    WordLanguage,
    decisive,
)

__all__ = [
    "CHUNK_TOKENS",
    "NEUTRAL",
    "AdaptConfig",
    "Baseline",
    "CheckedSettings",
    "DataConfig",
    "DuplexConfig",
    "FieldsConfig",
    "FinetuneConfig",
    "FurtherStageConfig",
    "HoldOut",
    "MiningConfig",
    "PairsConfig",
    "PretrainConfig",
    "PseudoQueryConfig",
    "QueryEncoderName",
    "Recipe",
    "ScratchConfig",
    "StoreConfig",
    "TeacherConfig",
    "WordLanguage",
    "decisive",
]
