"""Encoders under pre-training: what each model family calls its parts, the common view of them, and loading."""

from dupmae.pretraining.backbones.backbone import Backbone
from dupmae.pretraining.backbones.families import FAMILIES, Family
from dupmae.pretraining.backbones.loading import fresh_head, load_backbone, refuse_unsuitable

__all__ = ["FAMILIES", "Backbone", "Family", "fresh_head", "load_backbone", "refuse_unsuitable"]
