"""Encoders: what each model family calls its parts, one view of them all, loading, making one from scratch."""

from dupmae.backbones.backbone import Backbone
from dupmae.backbones.families import FAMILIES, Family
from dupmae.backbones.loading import fresh_head, load_backbone, refuse_unsuitable
from dupmae.backbones.opening import open_modules, open_tokenizer

__all__ = [
    "FAMILIES",
    "Backbone",
    "Family",
    "fresh_head",
    "load_backbone",
    "open_modules",
    "open_tokenizer",
    "refuse_unsuitable",
]
