"""Variants of a recipe, trained side by side: whether and how they pre-train, and what represents a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dupmae.config import Recipe
from dupmae.errors import DupmaeError
from dupmae.experiments.paper import Variant
from dupmae.files import fingerprint


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
        DupmaeError: The start is a duplex model, whose representation is what it is; the folder holds something else;
            or a stage refuses its input.
    """
    from dupmae.config import decisive
    from dupmae.corpus import TokenStore
    from dupmae.corpus.passage import corpus_fingerprint
    from dupmae.duplex import start_duplex
    from dupmae.experiments.run import pretrain_recipe, settings_of
    from dupmae.experiments.run_folder import RunFolder
    from dupmae.experiments.splits import read_data
    from dupmae.finetuning import finetune
    from dupmae.models import is_duplex, model_fingerprint, resolve_model
    from dupmae.pretraining import pretrain

    start, seed = resolve_model(recipe.base_model), recipe.seed
    if is_duplex(start):
        raise DupmaeError(
            f"{recipe.base_model} is a duplex model, which keeps its representation: vary one from an encoder"
        )
    run = pretrain_recipe(recipe)
    train = read_data(recipe.data, seed).train
    base_fingerprint = model_fingerprint(start)  # reads all weights
    stages = RunFolder(folder, [seed, base_fingerprint])
    data = [corpus_fingerprint(train.corpus.values()), train.queries, train.qrels]

    own = replace(recipe.pretrain, seed=seed)
    width, models = encoder_width(recipe.base_model), {}
    with stages.claim(fingerprint([settings_of(recipe), base_fingerprint, *data]), asdict(recipe)):
        for name, variant in variants.items():
            pretraining = None if variant.pretrain is None else replace(own, **variant.pretrain)
            shares: dict[str, Any] = {
                "dense_dimension": round(variant.dense * width),
                "top_k": round(variant.entries * width),
            }
            representation = replace(recipe.duplex, **shares, **variant.duplex)
            # a half that is not there has no loss
            weights = {"dense_loss_weight": variant.dense, "lexical_loss_weight": variant.entries}
            off = {name: 0.0 for name, share in weights.items() if not share}
            finetuning = replace(recipe.finetune, seed=seed, **off)  # type: ignore[arg-type]
            before = None if pretraining is None else decisive(pretraining)
            after = [asdict(representation), decisive(finetuning)]
            pretrained, tuned = f"pretrain-{fingerprint(before)}", f"finetune-{fingerprint([before, after])}"

            def work(place: Path, pretraining: Any = pretraining) -> None:
                pretrain(TokenStore.open(run / "1-store" / "store"), start, place, pretraining)

            if pretraining is None:
                checkpoint = start
            elif pretraining == own:
                checkpoint = str(run / "2-pretrain" / "model")
            else:
                checkpoint = str(folder / pretrained / "model")
                stages.stage(pretrained, f"Pre-train: {name}", before, work)

            def tune(
                place: Path, checkpoint: str = checkpoint, shape: Any = representation, schedule: Any = finetuning
            ) -> None:
                encoder = start_duplex(checkpoint, shape, train.corpus, seed)
                finetune(encoder, train, place, schedule)

            stages.stage(tuned, f"Fine-tune: {name}", [before, after], tune)
            models[name] = str(folder / tuned / "model")
    return models


def encoder_width(start: str) -> int:
    """How wide an encoder is."""
    from transformers import AutoConfig

    from dupmae.models import resolve_model

    return int(AutoConfig.from_pretrained(resolve_model(start)).hidden_size)
