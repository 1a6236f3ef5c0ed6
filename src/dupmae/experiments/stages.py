"""The stages of training, as every experiment has them: one list, from the token store to the last model.

| folder | what |
|---|---|
| `1-store` | the text as token ids |
| `2-pretrain` | DupMAE pre-training; `model/` is a Hugging Face checkpoint |
| `3-finetune` | stage 1; `model/` is a sentence-transformers folder |
| `4-mine` | candidate lists, mined with stage 1's model |
| `5-hard-negatives` | stage 2; `model/` |
| `6-teacher` | a teacher's scores of the lists, and the teacher, if it is trained |
| `7-distil` | stage 3; `model/` |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dupmae.config import PretrainConfig, decisive
from dupmae.corpus import Benchmark, Passage, TokenStore, build_token_store
from dupmae.experiments.checks import pretrains
from dupmae.experiments.run_folder import RunFolder, Stage
from dupmae.models import Model, open_model

if TYPE_CHECKING:
    from dupmae.index import DuplexIndex
    from dupmae.index.scoring.query import Part

STORE, PRETRAIN, FINETUNE, MINE = "1-store", "2-pretrain", "3-finetune", "4-mine"
HARD_NEGATIVES, TEACHER, DISTIL, INDEX = "5-hard-negatives", "6-teacher", "7-distil", "index"
EVALUATION, BASELINES = "8-evaluation", "9-baselines"
FINETUNING = (FINETUNE, HARD_NEGATIVES, DISTIL)
"""The folders of the three stages of fine-tuning."""


class Training(ABC):
    """What an experiment trains: its settings, its base model and its text, and the stages from there to a model.

    Args:
        config: The settings; their `seed` replaces the stages' own.
        base_model: What everything begins with.

    Attributes:
        config: The settings, with one seed.
        base_model: As given.
        pretrains: Whether there is a stage of pre-training.
        text: The passages that are pre-trained on, and that a new representation is calibrated on.
        train: The queries to train on.
        dev: Held-out queries, where there are any.
        stages: The run's folder.
    """

    stages: RunFolder
    text: Mapping[str, Passage]
    train: Benchmark
    dev: Benchmark | None

    def __init__(self, config: Any, base_model: Model) -> None:
        seed = config.seed
        names = ("pretrain", "finetune")
        self.config = replace(config, **{name: replace(getattr(config, name), seed=seed) for name in names})
        self.base_model = base_model
        self.pretrains = pretrains(base_model, config.pretrain)

    @abstractmethod
    def all_stages(self) -> list[Stage]:
        """List the stages of training, and what comes before and after them."""

    @abstractmethod
    def _report(self) -> None:
        """Write the report into the root of :attr:`stages`."""

    @abstractmethod
    def evaluation(self, stage: str) -> list[Stage]:
        """List what is measured between a stage of fine-tuning and the next one."""

    @abstractmethod
    def mining_index(self, root: Path) -> DuplexIndex | None:
        """Open or build what stage 1's model mines from; None where BM25 alone mines."""

    @abstractmethod
    def teacher_settings(self) -> dict[str, Any]:
        """Say what the teacher's scores depend on beside the lists."""

    @abstractmethod
    def teach(self, root: Path) -> dict[str, Any]:
        """Have the lists scored into `6-teacher`, by a teacher that is trained first or a ready one."""

    def run(self, *, dry_run: bool) -> Path:
        """Do all stages in order and write the report, or only say what would be done; return the run's folder."""
        folder = self.stages.folder
        if dry_run:
            self.stages.show(self.all_stages())
        else:
            self.stages.carry_out(self.all_stages(), asdict(self.config), self._report)
            written = f"[bold]Report:[/] {folder / 'report.md'}   [bold]Index:[/] {folder / 'index'}"
            self.stages.console.print(written)
        return folder

    def mined_lists(self, root: Path) -> Path:
        """Find the lists that `4-mine` holds."""
        from dupmae.finetuning.mining import NEGATIVES_FILE

        return root / MINE / NEGATIVES_FILE

    def training_stages(self, *, finetune_after: Iterable[str] = ()) -> list[Stage]:
        """List the stages of training.

        Args:
            finetune_after: Further stages that fine-tuning comes after.
        """
        config, stages = self.config, list[Stage]()
        if self.pretrains:
            stages += [
                Stage(name=STORE, title="Tokenise the corpus", work=self._tokenise, settings=self.store_settings()),
                Stage(
                    name=PRETRAIN,
                    title="Pre-train (Eq. 1-9)",
                    work=self._pretrain,
                    settings=pretrain_settings(config.pretrain),
                    after=[STORE],
                ),
            ]
        pretrained = [PRETRAIN] if self.pretrains else []
        stages.append(
            Stage(
                name=FINETUNE,
                title="Fine-tune (Eq. 13)",
                work=self._finetune,
                settings=self.finetune_settings(),
                after=[*pretrained, *finetune_after],
            )
        )
        if config.stages > 1:
            between = self.evaluation(FINETUNE)
            stages += [
                *between,
                Stage(
                    name=MINE,
                    title="Mine hard negatives",
                    work=self._mine,
                    settings=self._mining_settings(),
                    after=[FINETUNE, *(one.name for one in between)],
                ),
                Stage(
                    name=HARD_NEGATIVES,
                    title="Fine-tune with mined negatives (Eq. 14)",
                    work=self._finetune_on_mined,
                    settings={"hard_negatives": decisive(config.hard_negatives)},
                    after=[FINETUNE, MINE],
                ),
            ]
        if config.stages > 2:
            between = self.evaluation(HARD_NEGATIVES)
            stages += [
                *between,
                Stage(
                    name=TEACHER,
                    title="Have a teacher score the lists",
                    work=self.teach,
                    settings=self.teacher_settings(),
                    after=[*pretrained, MINE, *(one.name for one in between)],
                ),
                Stage(
                    name=DISTIL,
                    title="Distil the teacher (Eq. 15)",
                    work=self._distil,
                    settings={"distil": decisive(config.distil)},
                    after=[HARD_NEGATIVES, MINE, TEACHER],
                ),
            ]
        return stages

    @property
    def last(self) -> str:
        """The folder of the last stage of fine-tuning."""
        return FINETUNING[self.config.stages - 1]

    def store_settings(self) -> dict[str, Any]:
        """Say what the token store depends on."""
        return {"store": asdict(self.config.store)} | ({"texts": "kept"} if self._keeps_texts else {})

    @property
    def _keeps_texts(self) -> bool:
        """Whether a model with another tokenizer is to read the token store's chunks."""
        return self.config.pretrain.anchor_model is not None

    def finetune_settings(self) -> dict[str, Any]:
        """Say what the first stage of fine-tuning depends on beside what it begins with."""
        return {"duplex": asdict(self.config.duplex), "finetune": decisive(self.config.finetune)}

    def finetune_from(self, checkpoint: str | None, folder: Path) -> None:
        """Run stage 1 from the base model with what pre-training made of it, or as it is."""
        from dupmae.duplex.starting import begin_duplex
        from dupmae.finetuning import finetune

        encoder = begin_duplex(self.base_model, checkpoint, self.config.duplex, self.text, self.config.seed)
        finetune(encoder, self.train, folder, self.config.finetune, dev=self.dev)

    def _mining_settings(self) -> dict[str, Any]:
        teacher = self.config.mining.teacher
        read = None if teacher is None else open_model(teacher).fingerprint
        return {"mining": asdict(self.config.mining), "mining.teacher's fingerprint": read}

    def _tokenise(self, root: Path) -> dict[str, Any]:
        from dupmae.pretraining.checks import tokenizer_and_length

        tokenizer, longest = tokenizer_and_length(self.base_model, self.config.pretrain)
        return build_token_store(
            self.text.values(),
            tokenizer,
            root / STORE / "store",
            self.config.store,
            longest=longest,
            keep_texts=self._keeps_texts,
        ).report

    def _pretrain(self, root: Path) -> None:
        pretrain_on(root / STORE, self.base_model.path, root / PRETRAIN, self.config.pretrain)

    def _finetune(self, root: Path) -> None:
        checkpoint = str(root / PRETRAIN / "model") if self.pretrains else None
        self.finetune_from(checkpoint, root / FINETUNE)

    def _mine(self, root: Path) -> None:
        from dupmae.finetuning.mining import mine

        mine(self.mining_index(root), self.train, root / MINE, self.config.mining)

    def _finetune_on_mined(self, root: Path) -> None:
        self._finetune_further(root / FINETUNE, root / HARD_NEGATIVES, self.config.hard_negatives, root)

    def _distil(self, root: Path) -> None:
        from dupmae.finetuning.teacher import SCORES_FILE

        scores = root / TEACHER / SCORES_FILE
        self._finetune_further(root / HARD_NEGATIVES, root / DISTIL, self.config.distil, root, scores)

    def _finetune_further(
        self, before: Path, folder: Path, changes: Any, root: Path, scores: Path | None = None
    ) -> None:
        """Fine-tune an earlier stage's model on the mined lists, with the first stage's settings but for `changes`."""
        from dupmae.duplex import DuplexEncoder
        from dupmae.finetuning import finetune

        settings = replace(self.config.finetune, **vars(changes))
        encoder, lists = DuplexEncoder(str(before / "model")), self.mined_lists(root)
        finetune(encoder, self.train, folder, settings, dev=self.dev, lists=lists, scores=scores)


def pretrain_settings(config: PretrainConfig) -> dict[str, Any]:
    """Say what pre-training depends on beside its base model and its text."""
    settings: dict[str, Any] = {"pretrain": decisive(config)}
    if config.anchor_model is not None:
        settings["pretrain.anchor_model's fingerprint"] = open_model(config.anchor_model).fingerprint
    return settings


def pretrain_on(tokenised: Path, base_model: str, folder: Path, config: PretrainConfig) -> None:
    """Pre-train a base model on the token store of a folder such as `1-store`; an anchor's vectors stay beside that."""
    from dupmae.pretraining import pretrain
    from dupmae.pretraining.trainer import VECTORS_FOLDER

    store = TokenStore.open(tokenised / "store")
    pretrain(store, base_model, folder, config, vectors=tokenised / VECTORS_FOLDER)


def build_index(
    model: Path,
    passages: Iterable[Passage],
    folder: Path,
    *,
    dense_alone: bool = False,
    chunk_tokens: int = 0,
    chunk_overlap: int | None = None,
) -> DuplexIndex:
    """Index passages with a duplex model's folder, which the index then names; the dense half alone takes less time."""
    from dupmae.duplex import DuplexEncoder
    from dupmae.index import DuplexIndex

    encoder = DuplexEncoder(str(model))
    if dense_alone:
        encoder.pooling.top_k = 0
    return DuplexIndex.build(folder, encoder, passages, chunk_tokens=chunk_tokens, chunk_overlap=chunk_overlap)


def parts_of(index: DuplexIndex) -> dict[str, Part]:
    """Say what is measured of a duplex model, by the ending of its row: the sum, and each of several parts alone."""
    pooling, has_words = index.encoder.pooling, index.manifest.words is not None
    alone: dict[str, Part] = {"-dense": "dense"} if pooling.dense_dimension else {}
    alone |= {"-lexical": "lexical"} if pooling.top_k else {}
    alone |= {"-words": "words"} if has_words else {}
    whole: dict[str, Part] = {"": "all"}
    return whole | (alone if len(alone) > 1 else {})


def identity_of(base_model: Model, corpora: Iterable[Iterable[Passage]], judged: Iterable[Benchmark]) -> list[Any]:
    """Say what makes a run this one and no other: its base model, its passages, its queries and judgements."""
    from dupmae.corpus.passage import corpus_fingerprint

    read = [corpus_fingerprint(passages) for passages in corpora]
    return [base_model.fingerprint, read, [[one.queries, one.qrels] for one in judged]]
