"""Encoders under pre-training: what each model family calls its parts, the common view of them, and loading."""

from dupmae.backbones.backbone import Backbone
from dupmae.backbones.families import FAMILIES, Family
from dupmae.backbones.loading import fresh_head, load_backbone, refuse_unsuitable

__all__ = ["FAMILIES", "Backbone", "Family", "fresh_head", "load_backbone", "refuse_unsuitable"]
