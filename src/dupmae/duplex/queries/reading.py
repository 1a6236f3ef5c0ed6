"""Read texts as :class:`dupmae.DuplexEncoder` does, without PyTorch and transformers: tokens, terms, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from dupmae.corpus.cutting import cut_texts
from dupmae.corpus.unknown_words import warn_of_unknown_words
from dupmae.corpus.unread import Unread
from dupmae.duplex.declared import check_declared
from dupmae.duplex.words import Words
from dupmae.errors import DupmaeError, refuse_string, refuse_surrogates
from dupmae.models import Model, duplex_settings, pooling_folder
from dupmae.models.checks import AGAIN
from dupmae.models.files import WEIGHTS, read_settings
from dupmae.models.mapped import MappedWeights

Task = Literal["query", "document"]
"""What a text is."""
FROM_PADDING = {"roberta": None, "xlm-roberta": None, "mpnet": 1}
"""Families whose first position is the one behind the padding token's id, and that id where settings do not say it."""
Terms = tuple[NDArray[Any], NDArray[np.float32]]
"""Ids and weights of a query's learned terms, each (m,)."""
NO_TERMS: Terms = (np.zeros(0, np.int64), np.zeros(0, np.float32))
"""Those of a query that has none."""
TINY = 1e-12
"""What a length is divided by at least, as PyTorch does."""


@dataclass(frozen=True, slots=True)
class Representation:
    """What a model's pooling module declares, as far as queries are concerned."""

    vocabulary_size: int
    """V."""
    dense_dimension: int
    """d'."""
    dense_pooling: str
    """The state that the dense half reduces: `cls`, the first token's, or `mean`, that of all."""
    has_terms: bool
    """Whether there is a lexical half."""
    own_tokens: bool
    """Whether a query's terms are its own tokens, and not all that its logits raise."""
    normalize: bool
    """Whether each half is scaled to unit length."""
    settings: dict[str, Any]
    """All that it declares."""


class TextReader:
    """What all encoders without PyTorch share: a model's settings, its tokenizer, its look-ups.

    Args:
        model: A duplex model.
        task: What it reads.

    Raises:
        DupmaeError: The folder is none of a duplex model, or a file that reading needs is missing or damaged.
    """

    def __init__(self, model: Model, task: Task) -> None:
        self.task = task
        if model.kind != "duplex" or not Path(model.path).is_dir():
            raise DupmaeError(f"{model.label} is no folder of a duplex model.")
        check_declared(model)
        root = Path(model.path)
        settings = duplex_settings(root)
        self.label, self.root, self.encoder_folder = model.label, root, Path(model.encoder_path)
        self.pooling = Representation(
            vocabulary_size=settings["vocabulary_size"],
            dense_dimension=settings["dense_dimension"],
            dense_pooling=settings["dense_pooling"],
            has_terms=settings["top_k"] > 0,
            own_tokens=settings["query_terms"] == "tokens",
            normalize=settings["normalize"],
            settings=settings,
        )
        self.config = read_settings(str(self.encoder_folder), "config.json")
        self.weights = MappedWeights(pooling_folder(root) / WEIGHTS, model.label, root)
        self.words = Words.load(model) if settings.get("words") else None
        self.prompt = model.prompts[task]
        self.tokenizer = PlainTokenizer(self.encoder_folder, model.label)
        self.limit = self._limit()
        self.ordinary = np.ones(self.pooling.vocabulary_size, bool)
        """Which terms are pooled, (V,)."""
        self.ordinary[settings["special_ids"]] = False

    def scale(self, half: str) -> np.float32:
        """Look up what a half of a query is multiplied by: `cls`, `ot` or `word`."""
        return np.float32(np.exp(self.weights[f"{half}_log_scale"]))

    def scaled(self, values: NDArray[np.float32], half: str) -> NDArray[np.float32]:
        """Scale rows (n, d) to their length, and with the learned scale of their half."""
        if self.pooling.normalize:
            lengths = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
            values = values / np.maximum(lengths, np.float32(TINY))
        return values * self.scale(half)

    def token_ids(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Tokenise texts, prompt included, to what the model reads of them; special tokens stand around.

        Raises:
            DupmaeError: One string instead of a list, or a text that is not valid Unicode.
        """
        refuse_string(texts, "texts")
        refuse_surrogates(texts, "Text")
        if self.task == "query":
            warn_of_long_queries(self.tokenizer, texts, self.prompt, self.reads, words=self.words is not None)
        else:
            warn_of_unknown_words(self.tokenizer, texts)
        cut = cut_texts(texts, self.tokenizer, self.limit)
        return self.tokenizer.ids([self.prompt + text for text in cut], self.limit)

    @property
    def reads(self) -> int:
        """Tokens that are read of a text, special ones left out."""
        return self.limit - self.tokenizer.special_around

    def word_shares(self, texts: Sequence[str]) -> sp.csr_array | None:
        """Weigh the whole words of passages, or of queries without their rarity; None of a model without words."""
        if self.words is None:
            return None
        if self.task == "document":
            return self.words.space.passages(texts)
        found = self.words.space.queries(texts)
        found.data *= self.scale("word")
        return found

    def looked_up_terms(self, rows: Sequence[NDArray[np.int64]]) -> list[Terms]:
        """Look up the learned terms of queries whose terms are their own tokens; of others there are none to be had."""
        if not (self.pooling.has_terms and self.pooling.own_tokens):
            return [NO_TERMS] * len(rows)
        weights, found = self.weights["token_log_scale"], []
        for ids in rows:
            terms = np.unique(ids)
            terms = terms[self.ordinary[terms]]
            found.append((terms, self.scaled(np.exp(weights[terms])[None], "ot")[0]))
        return found

    def around(self, token: int) -> NDArray[np.int64]:
        """Give the token ids of a query of one token: the prompt before it, special tokens around both."""
        (prompt,) = self.tokenizer.ids([self.prompt], self.limit)
        behind = self.tokenizer.special_behind
        end = len(prompt) - behind
        return np.concatenate([prompt[:end], [token], prompt[end:]])

    def _limit(self) -> int:
        """Tell how many tokens of a text are read, special ones included."""
        declared = read_settings(str(self.encoder_folder), "sentence_bert_config.json")
        limit = declared.get(f"{self.task}_length") or declared.get("max_seq_length")
        most = self.config.get("max_position_embeddings")
        if limit is None:
            limit = self.tokenizer.settings.get("model_max_length", most)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 3 or not isinstance(most, int):
            raise DupmaeError(f"{self.label} does not say how many tokens of a {self.task} it reads: {AGAIN}")
        return min(limit, most - first_position(self.config))


def first_position(config: Mapping[str, Any]) -> int:
    """Tell the position of a text's first token by the settings of its encoder."""
    kind = config.get("model_type")
    if kind not in FROM_PADDING:
        return 0
    known = FROM_PADDING[kind]
    return 1 + int(config["pad_token_id"] if known is None else known)


class PlainTokenizer:
    """A tokenizer.json in the `tokenizers` library alone, called as a tokenizer of transformers is.

    Args:
        folder: Of the encoder.
        label: What the user calls the model.

    Raises:
        DupmaeError: There is no tokenizer.json, or a damaged one.
    """

    is_fast = True

    def __init__(self, folder: Path, label: str) -> None:
        from tokenizers import Tokenizer

        file = folder / "tokenizer.json"
        if not file.is_file():
            raise DupmaeError(f"{label} has no tokenizer.json, which reading queries without PyTorch needs.")
        try:
            self.backend = Tokenizer.from_file(str(file))
        except Exception as error:  # of no kind of its own
            raise DupmaeError(f"{label}: tokenizer.json is damaged ({str(error)[:120]}): {AGAIN}") from None
        self.backend.no_truncation()
        self.backend.no_padding()
        self.settings = read_settings(str(folder), "tokenizer_config.json")
        self.backend.encode_special_tokens = bool(self.settings.get("split_special_tokens", True))
        self.truncation_side = str(self.settings.get("truncation_side", "right"))
        self.special_around: int = self.backend.num_special_tokens_to_add(is_pair=False)
        """Special tokens that stand around a text."""
        unknown = self.settings.get("unk_token")
        self.unk_token_id: int | None = self.backend.token_to_id(unknown) if isinstance(unknown, str) else None
        """The term that stands for what it does not know; None of one that knows everything."""
        marks = self.backend.encode("a").special_tokens_mask
        self.special_behind: int = next((place for place, mark in enumerate(reversed(marks)) if not mark), 0)
        """Those of them that stand behind it."""

    @property
    def backend_tokenizer(self) -> Any:
        """The tokenizer of the library, as transformers calls it."""
        return self.backend

    def __call__(self, text: str | Sequence[str], **_: Any) -> Tokenised:
        """Tokenise all of a text, or of several, without special tokens."""
        texts = [text] if isinstance(text, str) else list(text)
        encodings = self.backend.encode_batch(texts, add_special_tokens=False)
        return Tokenised(encodings, single=isinstance(text, str))

    def ids(self, texts: Sequence[str], limit: int) -> list[NDArray[np.int64]]:
        """Tokenise texts to so many tokens, special ones around each included."""
        found = []
        for read in self.backend.encode_batch(texts, add_special_tokens=False):
            read.truncate(limit - self.special_around, direction=self.truncation_side)
            found.append(np.array(self.backend.post_process(read).ids, np.int64))
        return found

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Name terms."""
        return [str(self.backend.id_to_token(one)) for one in ids]


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Texts as tokens."""

    encodings: list[Any]
    """Of the `tokenizers` library, one a text."""
    single: bool
    """Whether one text was given by itself."""

    def __getitem__(self, name: str) -> Any:
        """Give `input_ids`: those of each text, or of the one."""
        if name != "input_ids":
            raise KeyError(name)
        ids = [encoding.ids for encoding in self.encodings]
        return ids[0] if self.single else ids


def warn_of_long_queries(tokenizer: Any, texts: Sequence[str], prompt: str, reads: int, *, words: bool) -> None:
    """Say how much of queries is not read.

    Args:
        tokenizer: The model's.
        texts: The queries.
        prompt: What stands before each.
        reads: Tokens that the model reads of one, special ones left out.
        words: Whether the rest counts by its words.
    """
    unread = Unread(reads)
    long = [prompt + text for text in texts if len(prompt + text) > reads]  # as many characters at least
    if long:
        unread.count(map(len, tokenizer(long, add_special_tokens=False, verbose=False)["input_ids"]))
        unread.texts = len(texts)
        unread.warn("queries", words)


def as_rows(terms: Sequence[Terms], vocabulary: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Lay terms of queries out as :class:`dupmae.DuplexEmbeddings` has them: ids and weights (n, k), heaviest first."""
    width = max((len(ids) for ids, _ in terms), default=0)
    ids = np.zeros((len(terms), width), np.uint16 if vocabulary <= 2**16 - 1 else np.uint32)
    weights = np.zeros((len(terms), width), np.float32)
    for row, (found, values) in enumerate(terms):
        order = np.argsort(-np.abs(values), kind="stable")
        ids[row, : len(found)], weights[row, : len(found)] = found[order], values[order]
    return ids, weights
