"""Encoders: what each model family calls its parts, one view of them all, loading, making one from scratch."""

from dupmae.backbones.backbone import Backbone
from dupmae.backbones.families import FAMILIES, Family
from dupmae.backbones.loading import fresh_head, load_backbone, refuse_unsuitable

__all__ = ["FAMILIES", "Backbone", "Family", "fresh_head", "load_backbone", "refuse_unsuitable"]
