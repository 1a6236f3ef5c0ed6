"""Make an encoder from nothing but a corpus: a tokenizer trained on it and a BERT of any size with random weights."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dupmae.config import ScratchConfig
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, fingerprint, write_json
from dupmae.models import write_checksums
from dupmae.runtime.bars import bar
from dupmae.runtime.json_text import parse_json
from dupmae.runtime.processes import is_first_process

logger = logging.getLogger(__name__)

RECORD_FILE = "from_scratch.json"
"""Record of the encoder in its folder: settings, seed, fingerprint."""
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
"""The special tokens, which come first in the vocabulary, by role."""
CONTINUES = "##"
"""Stands before a term that goes on with a word."""
CHARACTER_TERMS = 4
"""One in so many terms may be a single character that starts a word, and one that goes on with it."""


def new_encoder(
    texts: Callable[[], Iterable[str]], folder: Path, config: ScratchConfig, seed: int, *, in_use: bool = True
) -> Path:
    """Train a WordPiece tokenizer on texts and write it with a randomly initialised BERT that fits it.

    The result is a folder like any other encoder's, its vocabulary head tied to the embeddings, that
    :func:`dupmae.pretraining.pretrain` starts from. It depends on texts, settings and seed alone. A folder that holds
    it already is left as it is. The texts are read twice.

    Args:
        texts: Gives the texts, from the first one each time it is called.
        folder: Where the encoder goes.
        config: Its size and its tokenizer.
        seed: Draws the weights.
        in_use: Whether a run may have begun with the encoder that lies there, so that another one does not take its
            place.

    Returns:
        `folder`.

    Raises:
        DupmaeError: The size is impossible, a text is not valid Unicode, there is none, or the folder holds something
            else.
    """
    if config.width % config.heads:
        raise DupmaeError(f"width must be a multiple of heads, but {config.width} is none of {config.heads}.")
    record_file = folder / RECORD_FILE
    if folder.exists() and not record_file.is_file():
        raise DupmaeError(f"{folder} exists and holds something else: choose another output folder or delete it.")
    if record_file.is_file() and not is_first_process():
        return folder  # which the first process has compared
    normalizer = _normalizer(config)
    content, characters = _survey(texts(), normalizer)
    if not characters:
        raise DupmaeError("There is no text to train a tokenizer on.")
    settings = {"settings": asdict(config), "seed": seed}
    own_fingerprint = fingerprint({"content": content, **settings})
    if record_file.is_file():
        if parse_json(record_file.read_text(encoding="utf-8"))["fingerprint"] == own_fingerprint:
            return folder
        if in_use:
            raise DupmaeError(
                f"The folder {folder} holds an encoder made from other text or with other settings: choose another "
                "output folder or delete it."
            )
    tokenizer = _train_tokenizer(texts(), normalizer, characters, config)
    model = _random_bert(len(tokenizer), tokenizer.pad_token_id, config, seed)
    with atomic_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(temporary / RECORD_FILE, {"fingerprint": own_fingerprint, **settings, "entries": len(tokenizer)})
        write_checksums(temporary)
    logger.info("A new encoder of %d parameters and %d terms.", model.num_parameters(), len(tokenizer))
    return folder


def _normalizer(config: ScratchConfig) -> Any:
    """Make the normalizer: control characters out, and case and accents if they do not matter."""
    from tokenizers import normalizers

    return normalizers.BertNormalizer(lowercase=config.lowercase)


def _survey(texts: Iterable[str], normalizer: Any) -> tuple[str, Counter[str]]:
    """Hash texts and count their characters after normalising, white space aside."""
    content, characters = hashlib.sha256(), Counter[str]()
    for number, text in enumerate(bar(texts, "Read", "texts"), 1):
        try:
            encoded = text.encode()
        except UnicodeEncodeError:
            raise DupmaeError(f"Text {number} holds half of a surrogate pair, not valid Unicode.") from None
        content.update(len(encoded).to_bytes(8, "big") + encoded)
        characters.update(normalizer.normalize_str(text))
    return content.hexdigest(), Counter({name: count for name, count in characters.items() if not name.isspace()})


def _train_tokenizer(texts: Iterable[str], normalizer: Any, characters: Counter[str], config: ScratchConfig) -> Any:
    """Train a WordPiece tokenizer like BERT's.

    The trainer breaks ties between equally frequent pairs by their ids, and numbers the characters that go on with a
    word in an order that changes from call to call. So these are given to it beforehand, in a fixed order.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    def prepared(model: Any) -> Any:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    most = config.vocabulary_size // CHARACTER_TERMS
    frequent = sorted(characters, key=lambda name: (-characters[name], name))[:most]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocabulary_size,
        special_tokens=[*SPECIAL.values(), *(f"{CONTINUES}{name}" for name in sorted(frequent))],
        initial_alphabet=frequent,
        limit_alphabet=len(frequent),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    trained = prepared(models.WordPiece(unk_token=SPECIAL["unk"]))
    trained.train_from_iterator(bar(texts, "Train a tokenizer", "texts"), trainer)
    # anew from the terms, because the trained one takes all it was given beforehand for special tokens
    tokenizer = prepared(models.WordPiece(trained.get_vocab(), unk_token=SPECIAL["unk"]))
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUES)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(SPECIAL[name], trained.token_to_id(SPECIAL[name])) for name in ("cls", "sep")],
    )
    names = {f"{role}_token": token for role, token in SPECIAL.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=config.positions, **names)


def _random_bert(terms: int, pad_token_id: int, config: ScratchConfig, seed: int) -> Any:
    """Draw a BERT with its vocabulary head by `seed`, whatever was drawn before."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BertForMaskedLM(
            BertConfig(
                vocab_size=terms,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                max_position_embeddings=config.positions,
                pad_token_id=pad_token_id,
            )
        )
