"""The DupMAE objective (Eq. 1-9): one encoder, three losses."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from dupmae.backbones import Backbone
from dupmae.config import PretrainConfig
from dupmae.errors import DupmaeError
from dupmae.kernels import linear_max_pool_packed, weighted_linear_cross_entropy
from dupmae.kernels.shapes import pad_rows
from dupmae.pretraining.anchor import Anchor, distances
from dupmae.pretraining.decoder import ClsDecoder
from dupmae.pretraining.masking import decoder_visibility, mask_whole_words

TERMS = ("mlm", "cls", "bow")
"""The three losses, by the names that they have everywhere."""


class DupMAE(nn.Module):
    """Encoder, vocabulary head and [CLS] decoder under the three losses of DupMAE.

    Ordinary tokens are those that are neither padding nor one of `special_ids`; only they are masked, pooled or
    predicted, in all three losses.

    Args:
        backbone: Encoder with vocabulary head.
        special_ids: Ids of the tokenizer's special tokens, [UNK] among them.
        mask_token_id: Id of the mask token.
        settings: Mask rates, weights of the losses, `dense_pooling`, `lexical_projection`.

    Raises:
        DupmaeError: A linear projection is asked for, but the output matrix is narrower than the encoder.
    """

    special: torch.Tensor
    random_token_ids: torch.Tensor

    def __init__(
        self, backbone: Backbone, special_ids: list[int], mask_token_id: int, settings: PretrainConfig
    ) -> None:
        super().__init__()
        if (
            settings.lexical_projection == "linear"
            and settings.bow_weight
            and backbone.head_size != backbone.hidden_size
        ):
            raise DupmaeError(
                "lexical_projection linear needs an output matrix as wide as the encoder, but it is "
                f"{backbone.head_size} wide and the encoder {backbone.hidden_size}: use mlm_head."
            )
        self.backbone = backbone
        dropout = settings.dropout if settings.decoder_dropout is None else settings.decoder_dropout
        self.decoder = ClsDecoder(backbone.hidden_size, backbone.heads, dropout)
        self.settings = settings
        self.mask_token_id = mask_token_id
        special = torch.zeros(backbone.vocab_size, dtype=torch.bool)
        special[special_ids] = True
        self.register_buffer("special", special, persistent=False)  # (V,)
        self.register_buffer("random_token_ids", (~special).nonzero()[:, 0], persistent=False)
        self.encoder_frozen = False
        self.anchor = Anchor(backbone) if settings.anchor_weight and settings.anchor_model is None else None

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        word_starts: torch.Tensor,
        generator: torch.Generator,
        totals: torch.Tensor | None = None,
        anchor: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Draw masks, run the encoder once, and compute each loss that has a weight above 0.

        Args:
            input_ids: The clean text, (B, L), its first token at position 0 ([CLS]).
            attention_mask: 1 or True on tokens, 0 on padding, (B, L).
            word_starts: True on the first token of each word, (B, L).
            generator: Source of all masks, on the tensors' device.
            totals: Where these texts are a part of a batch, the :meth:`counts` of the whole batch, (3,). Each loss is
                then this part's share of the whole batch's mean, so that the parts' losses and gradients add up to
                those of the batch.
            anchor: What the clean texts' dense vectors are drawn to, (B, D); None draws those of the masked texts to
                the base model's, if there is a weight for it.

        Returns:
            The mean losses in nats, unweighted: `mlm` (Eq. 1), `cls` (Eq. 5), `bow` (Eq. 8), each only if its weight is
            above 0, `anchor` (:mod:`dupmae.pretraining.anchor`) if it has a weight and the encoder learns, and `loss`,
            their weighted sum (Eq. 9), which is the one to take gradients of.
        """
        settings = self.settings
        masked_ids, selected, ordinary = self.mask(input_ids, attention_mask, word_starts, generator)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_frozen):
            states = self.backbone.states(masked_ids if settings.decodes else input_ids, attention_mask)  # (B, L, D)
        counts = dict(zip(TERMS, self._counts(ordinary, selected) if totals is None else totals, strict=True))
        left = ordinary & ~selected
        predicted = {}
        if settings.mlm_weight:
            predicted["mlm"] = states[selected], input_ids[selected]
        if settings.cls_weight:
            visible = decoder_visibility(attention_mask, settings.decoder_mask_rate, generator)
            rebuilt = self.rebuild(states, input_ids, attention_mask, visible)
            predicted["cls"] = rebuilt[ordinary], input_ids[ordinary]  # Eq. 5
        total, losses = self._predict(predicted, counts)
        if settings.bow_weight:
            bow = self._bow_losses(states, input_ids, left)
            losses["bow"] = bow.sum() / counts["bow"].clamp(min=1)
            total = total + settings.bow_weight * losses["bow"]
        if self.anchor is not None and not self.encoder_frozen:
            anchor = self.h_cls(self.anchor.states(input_ids, attention_mask), attention_mask)
        elif anchor is not None and not self.encoder_frozen and settings.decodes:
            states = self.backbone.states(input_ids, attention_mask)  # another model's vectors are those of clean text
        if anchor is not None and not self.encoder_frozen:
            moved = distances(self.h_cls(states, attention_mask), anchor) * left.any(dim=1)
            losses["anchor"] = moved.sum() / counts["bow"].clamp(min=1)
            total = total + settings.anchor_weight * losses["anchor"]
        return losses | {"loss": total}  # Eq. 9

    def mask(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        word_starts: torch.Tensor,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mask texts as :meth:`forward` does: the masked ids, which tokens were selected, which are ordinary.

        The arguments are those of :meth:`forward`; all three results are (B, L).
        """
        settings = self.settings
        ordinary = attention_mask.bool() & ~self.special[input_ids]
        masked_ids, selected = mask_whole_words(
            input_ids,
            word_starts,
            ordinary,
            settings.encoder_mask_rate,
            self.mask_token_id,
            self.random_token_ids,
            settings.mask_token_fraction,
            settings.random_token_fraction,
            generator,
        )
        return masked_ids, selected, ordinary

    def counts(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        word_starts: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Count what each loss of :meth:`forward` is a mean over, given a generator in the same state: (3,), integers.

        In the order of :data:`TERMS`: masked tokens, ordinary tokens, texts that have an ordinary token left to pool.
        """
        _, selected, ordinary = self.mask(input_ids, attention_mask, word_starts, generator)
        return self._counts(ordinary, selected)

    def h_cls(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Pool each text to one vector, (B, D): the first token's state, or the mean over all that are not padding."""
        if self.settings.dense_pooling == "cls":
            return states[:, 0]
        weights = attention_mask.to(states.dtype)[:, :, None]  # (B, L, 1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)

    def rebuild(
        self, states: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """Decode each text from its vector and the visible context (Eq. 2-4), (B, L, D)."""
        rebuilt: torch.Tensor = self.decoder(
            self.h_cls(states, attention_mask),
            self.backbone.positions(input_ids),
            self.backbone.embed(input_ids),
            visible,
        )
        return rebuilt

    def pool(self, states: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Max-pool the logits of each term over the pooled (B, L) states (B, L, D): mu of Eq. 6-7, (B, V)."""
        backbone = self.backbone
        rows = states[pooled]  # (R, D)
        if self.settings.lexical_projection == "mlm_head":
            rows = self._transform(rows)
        return linear_max_pool_packed(rows, pooled.sum(dim=1), backbone.output_weight, backbone.output_bias)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Group the parameters that a loss uses by role: `encoder` (and embeddings), `head`, `decoder`."""
        return {
            "encoder": self.backbone.encoder_parameters(),
            "head": self.backbone.head_parameters() if self.settings.decodes else [],
            "decoder": list(self.decoder.parameters()) if self.settings.cls_weight else [],
        }

    def learn(self, groups: set[str]) -> None:
        """Let only the parameters of these groups learn; an encoder that does not learn runs without dropout."""
        self.requires_grad_(False)
        for name, parameters in self.parameter_groups().items():
            for parameter in parameters:
                parameter.requires_grad_(name in groups)
        self.encoder_frozen = "encoder" not in groups
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off, except in a frozen encoder, where it stays off."""
        super().train(mode)
        if self.encoder_frozen:
            self.backbone.encoder.eval()
        return self

    def _counts(self, ordinary: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        """Count masked tokens, ordinary tokens, and texts with something to pool: (3,)."""
        return torch.stack([selected.sum(), ordinary.sum(), (ordinary & ~selected).any(dim=1).sum()])

    def _transform(self, states: torch.Tensor) -> torch.Tensor:
        """Take states (N, D) through the vocabulary head up to its output matrix, in one of a few shapes."""
        transformed: torch.Tensor = self.backbone.transform(pad_rows(states))[: len(states)]
        return transformed

    def _predict(
        self, predicted: dict[str, tuple[torch.Tensor, torch.Tensor]], counts: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the cross-entropies of the vocabulary head, all in one pass over the vocabulary.

        Args:
            predicted: For `mlm` and `cls`, or one of them: states (N, D) and token ids (N,).
            counts: What each loss is a mean over.

        Returns:
            The weighted sum of the losses, and each loss, without a gradient of its own.
        """
        if not predicted:
            return torch.zeros((), device=counts["bow"].device), {}
        states, targets = (torch.cat(parts) for parts in zip(*predicted.values(), strict=True))
        sizes = [len(ids) for _, ids in predicted.values()]
        shares = torch.cat(
            [
                (getattr(self.settings, f"{part}_weight") / counts[part].clamp(min=1)).expand(size)
                for part, size in zip(predicted, sizes, strict=True)
            ]
        )
        backbone = self.backbone
        total, each = weighted_linear_cross_entropy(
            self._transform(states), backbone.output_weight, backbone.output_bias, targets, shares
        )
        means = {
            part: losses.sum() / counts[part].clamp(min=1)
            for part, losses in zip(predicted, torch.split(each, sizes), strict=True)
        }
        return total, means

    def _bow_losses(self, states: torch.Tensor, input_ids: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
        """Name each text's unique ordinary tokens from the max-pool over the pooled ones (Eq. 6-8): losses, (B,).

        A text's loss is the mean over its unique tokens, 0 if it has nothing to pool.
        """
        mu = self.pool(states, pooled)
        unique = torch.zeros_like(mu, dtype=torch.bool).scatter_(1, input_ids, True) & ~self.special  # (B, V)
        # `input_ids` of padding is a special token, so `unique` holds the ordinary tokens alone
        losses = -(mu.log_softmax(dim=1) * unique).sum(dim=1) / unique.sum(dim=1).clamp(min=1)  # Eq. 8
        return losses * pooled.any(dim=1)
