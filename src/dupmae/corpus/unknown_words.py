"""Say where a tokenizer does not know a text's words: a model cannot tell apart what becomes the unknown token."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

logger = logging.getLogger(__name__)

TOLERATED = 0.05
"""Share of a text that may be unknown."""
FIRST_SAMPLE = 200
"""Texts that are looked at, of the first ones that are given."""
LATER_FRACTION = 0.02
"""Fraction of all later texts that is."""
CHARACTERS = 1000
"""Of each of these texts, as many as are looked at."""


@dataclass(slots=True)
class _Seen:
    """What was counted of the texts that a tokenizer has met."""

    texts: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    characters: int = 0
    unknown_characters: int = 0
    example: str = ""
    said: bool = False

    @property
    def share(self) -> float:
        """The share that is unknown, of tokens or of characters, whichever is larger.

        A whole sentence without spaces may be one unknown token, and one character may be one, too.
        """
        return max(self.unknown_tokens / max(self.tokens, 1), self.unknown_characters / max(self.characters, 1))


_seen: WeakKeyDictionary[Any, _Seen] = WeakKeyDictionary()


def warn_of_unknown_words(tokenizer: Any, texts: Sequence[str]) -> None:
    """Warn, once a tokenizer, if it turns more than 5 % of the texts it is given into unknown tokens.

    A sample is counted: 200 texts at first, evenly spread over a call's, then one in fifty.

    Args:
        tokenizer: Of `transformers`; one without an unknown token, such as a byte-level one, knows everything.
        texts: Some of a corpus.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or not texts:
        return
    seen = _seen.setdefault(tokenizer, _Seen())
    wanted = max(FIRST_SAMPLE - seen.texts, round(len(texts) * LATER_FRACTION))
    if seen.said or not wanted:
        return
    step = max(len(texts) // wanted, 1)
    sample = [text[:CHARACTERS] for text in texts[::step] if text.strip()]
    seen.texts += len(sample)
    for text, encoding in zip(sample, _encode(tokenizer, sample), strict=True):
        seen.characters += sum(not character.isspace() for character in text)
        seen.tokens += len(encoding)
        for token, start, end in encoding:
            if token == unknown:
                seen.unknown_tokens += 1
                seen.unknown_characters += sum(not character.isspace() for character in text[start:end])
                seen.example = seen.example or text[start:end].strip()[:40]
    if seen.share > TOLERATED:
        seen.said = True
        logger.warning(
            "The tokenizer of %s does not know %.0f %% of this text%s: the model cannot tell such words apart. Take a "
            "model whose tokenizer knows the script, or pretrain --from_scratch (docs/scripts.md).",
            getattr(tokenizer, "name_or_path", "") or "the model",
            100 * seen.share,
            f", such as {seen.example!r}" if seen.example else "",
        )


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[tuple[int, int, int]]]:
    """Tokenise texts without special tokens: each token's id, start and end; (0, 0) where these are not known."""
    offsets = bool(getattr(tokenizer, "is_fast", False))
    found = tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_offsets_mapping=offsets,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    places = found["offset_mapping"] if offsets else [[(0, 0)] * len(ids) for ids in found["input_ids"]]
    return [
        [(token, start, end) for token, (start, end) in zip(ids, spans, strict=True)]
        for ids, spans in zip(found["input_ids"], places, strict=True)
    ]
