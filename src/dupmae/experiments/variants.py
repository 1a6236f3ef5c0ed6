"""Variants of a recipe, trained side by side: whether and how they pre-train, and what represents a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from dupmae.config import DuplexConfig, FinetuneConfig, PretrainConfig, Recipe, decisive
from dupmae.corpus import Benchmark
from dupmae.errors import DupmaeError
from dupmae.experiments.paper import Variant
from dupmae.experiments.run import pretrain_recipe
from dupmae.experiments.run_folder import RunFolder, Stage
from dupmae.experiments.splits import read_data
from dupmae.experiments.stages import PRETRAIN, STORE, identity_of, pretrain_on, pretrain_settings
from dupmae.files import fingerprint
from dupmae.models import open_model


def train_variants(recipe: Recipe, folder: Path, variants: Mapping[str, Variant]) -> dict[str, str]:
    """Pre-train and fine-tune (stage 1) every variant of a recipe; what two have in common is done once.

    Variants that pre-train as the recipe does take the checkpoint of the recipe's own run, whose first two stages are
    run if they are not done. Fine-tuning keeps the last state of every variant and measures nothing on the way.

    Args:
        recipe: What they vary; its `output` is the folder of its own run.
        folder: Of the variants' stages; what is done is not done again.
        variants: Name -> what is different.

    Returns:
        Name -> folder of the model.

    Raises:
        DupmaeError: The base model is a duplex model, whose representation is what it is; the folder holds something
            else; or a stage refuses its input.
    """
    base_model, seed = open_model(recipe.base_model), recipe.seed
    if base_model.kind == "duplex":
        raise DupmaeError(
            f"{recipe.base_model} is a duplex model, which keeps its representation: vary one from an encoder"
        )
    run = pretrain_recipe(recipe)
    train = read_data(recipe.data, seed).train

    own = replace(recipe.pretrain, seed=seed)
    width, stages, models = encoder_width(recipe.base_model), dict[str, Stage](), dict[str, str]()
    for name, variant in variants.items():
        pretraining = None if variant.pretrain is None else replace(own, **variant.pretrain)
        sizes: dict[str, Any] = {
            "dense_dimension": round(variant.dense * width),
            "top_k": round(variant.terms * width),
        }
        representation = replace(recipe.duplex, **sizes, **variant.duplex)
        # a half that is not there has no loss
        weights = {"dense_loss_weight": variant.dense, "lexical_loss_weight": variant.terms}
        off: dict[str, Any] = {name: 0.0 for name, size in weights.items() if not size}
        finetuning = replace(recipe.finetune, seed=seed, **off)
        learnt = {"pretrain": None} if pretraining is None else pretrain_settings(pretraining)
        before = {"store": asdict(recipe.store)} | learnt
        after = {"duplex": asdict(representation), "finetune": decisive(finetuning)}
        pretrained, tuned = f"pretrain-{fingerprint(before)}", f"finetune-{fingerprint([before, after])}"
        if pretraining is None:
            checkpoint = base_model.path
        elif pretraining == own:
            checkpoint = str(run / PRETRAIN / "model")
        else:
            checkpoint = str(folder / pretrained / "model")
            work = partial(_pretrain, run, base_model.path, pretrained, pretraining)
            stages[pretrained] = Stage(name=pretrained, title=f"Pre-train: {name}", work=work, settings=before)
        work = partial(_finetune, checkpoint, representation, train, tuned, finetuning)
        stages[tuned] = Stage(name=tuned, title=f"Fine-tune: {name}", work=work, settings=before | after)
        models[name] = str(folder / tuned / "model")
    identity = identity_of(base_model, [train.corpus.values()], [train])
    RunFolder(folder, identity, [seed, base_model.fingerprint]).carry_out(list(stages.values()), asdict(recipe))
    return models


def encoder_width(name: str) -> int:
    """Read how wide an encoder is."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(open_model(name).path).hidden_size)


def _pretrain(run: Path, base_model: str, stage: str, config: PretrainConfig, root: Path) -> None:
    """Pre-train a variant on the token store of the recipe's run."""
    pretrain_on(run / STORE, base_model, root / stage, config)


def _finetune(
    checkpoint: str, representation: DuplexConfig, train: Benchmark, stage: str, config: FinetuneConfig, root: Path
) -> None:
    """Fine-tune a variant, measuring nothing on the way."""
    from dupmae.duplex import start_duplex
    from dupmae.finetuning import finetune

    finetune(start_duplex(checkpoint, representation, train.corpus, config.seed), train, root / stage, config)
