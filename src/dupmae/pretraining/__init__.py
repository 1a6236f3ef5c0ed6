"""DupMAE pre-training (Eq. 1-9): an encoder learns to pack a text into its [CLS] state and its ordinary tokens."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dupmae.pretraining.trainer import pretrain as pretrain

__all__ = ["pretrain"]


def __getattr__(name: str) -> Any:
    """Import :func:`pretrain` when it is asked for: it brings torch and transformers."""
    if name == "pretrain":
        from dupmae.pretraining.trainer import pretrain

        return pretrain
    raise AttributeError(name)
