"""Fine-tuning a duplex encoder on query-passage pairs."""

from dupmae.finetuning.trainer import finetune

__all__ = ["finetune"]
