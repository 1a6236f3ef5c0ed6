"""List the doors: which command reads which files, and what of its results must not change in silence."""

from __future__ import annotations

from dataclasses import dataclass

from fuzz_world import LENGTHS, PRETRAIN, RESUMED, SHORT

CORPORA = (
    "corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.xz", "corpus.jsonl.zst", "corpus.tsv", "corpus.txt",
    "corpus.parquet", "dataset", "texts",
)  # fmt: skip
QUERY = "kanad lonat"


@dataclass(frozen=True)
class Door:
    """A command and the files that are damaged before it runs."""

    name: str
    argv: tuple[str, ...]
    needs: tuple[str, ...]
    """Parts of the world that the command reads or changes."""
    targets: tuple[str, ...] = ()
    """Patterns of what is damaged; nothing: a word of the command line is."""
    room: str = "inputs"
    """Whose it is."""
    same: tuple[str, ...] = ()
    """What must be as without the damage if the command succeeds: patterns of files, `-` for what it prints."""
    checks: bool = False
    """Whether the files damaged have checksums, so that no damage to them may change a result."""
    stdin: str | None = None
    weight: float = 1.0
    """How often it is drawn: less where the command is slow."""
    quick: bool = True
    """Whether it, and what it needs, is fast enough for the test suite."""


def doors() -> list[Door]:
    """List all doors."""
    return [*_texts(), *_settings(), *_models(), *_indexes(), *_runs(), *_words()]


def _texts() -> list[Door]:
    encode = ("encode", "--model", "models/duplex", "--output", "out", "--input")
    found = [
        Door(f"encode {name}", (*encode, name), ("models/duplex", name), (name if "." in name else f"{name}/**/*",))
        for name in CORPORA
    ]
    found += [
        Door("encode queries", (*encode, "queries.txt", "--task", "query"), ("models/duplex", "queries.txt"), ("queries.txt",)),
        Door("index build corpus", ("index", "build", "--model", "models/duplex", "--corpus", "corpus.jsonl", "--output", "out",
             "--metadata", "lang", "year"), ("models/duplex", "corpus.jsonl"), ("corpus.jsonl",)),
        Door("index add corpus", ("index", "add", "index", "--corpus", "more.jsonl"), ("models/duplex", "index", "more.jsonl"),
             ("more.jsonl",)),
        Door("index delete ids", ("index", "delete", "index", "--file", "ids.txt"), ("index", "ids.txt"), ("ids.txt",)),
        Door("index tune queries", ("index", "tune", "index", "--queries", "queries.txt", "--k", "5"),
             ("models/duplex", "index", "queries.txt"), ("queries.txt",), weight=0.5),
        Door("search stdin", ("search", "index", "--json"), ("models/duplex", "index", "queries.txt"), ("queries.txt",),
             stdin="queries.txt"),
        Door("pretrain corpus", ("pretrain", "--output", "out", *PRETRAIN), ("models/encoder", "corpus.jsonl"),
             ("corpus.jsonl",), weight=0.4, quick=False),
        Door("adapt corpus", ("adapt", "corpus.jsonl", "--output", "out", "--model", "models/embedder", "--dry_run"),
             ("models/embedder", "corpus.jsonl"), ("corpus.jsonl",), weight=0.3),
        Door("evaluate benchmark", ("evaluate", "--model", "bm25", "--benchmark", "benchmark", "--json", "out.json"),
             ("benchmark",), ("benchmark/*.jsonl", "benchmark/qrels/test.tsv"), weight=2),
        Door("mine benchmark", ("mine", "--source", "bm25", "--benchmark", "benchmark", "--output", "out"), ("benchmark",),
             ("benchmark/*.jsonl", "benchmark/qrels/train.tsv")),
        Door("mine pairs", ("mine", "--source", "bm25", "--pairs", "pairs.jsonl", "--output", "out"), ("pairs.jsonl",),
             ("pairs.jsonl",), weight=2),
        Door("evaluate run", ("evaluate", "--run", "run.trec", "--qrels", "benchmark/qrels/test.tsv", "--json", "out.json"),
             ("benchmark", "run.trec"), ("run.trec", "benchmark/qrels/test.tsv"), weight=2),
        Door("evaluate run of three columns", ("evaluate", "--run", "run.tsv", "--qrels", "qrels.trec"),
             ("run.tsv", "qrels.trec"), ("run.tsv", "qrels.trec"), weight=2),
        Door("rerank run", ("rerank", "--model", "models/cross", "--run", "run.trec", "--benchmark", "benchmark", "--output",
             "out.trec", "--depth", "2"), ("models/cross", "benchmark", "run.trec"), ("run.trec", "benchmark/*.jsonl")),
        Door("teach lists", ("teach", "--ready", "--model", "models/cross", "--lists", "lists.jsonl", "--pairs", "pairs.jsonl",
             "--output", "out"), ("models/cross", "pairs.jsonl", "lists.jsonl"), ("lists.jsonl", "pairs.jsonl"), weight=1.5),
        Door("finetune scores", ("finetune", "--model", "models/duplex", "--lists", "lists.jsonl", "--scores", "scores.jsonl",
             "--pairs", "pairs.jsonl", "--output", "out", *SHORT, "--negatives", "1"),
             ("models/duplex", "pairs.jsonl", "lists.jsonl", "scores.jsonl"), ("scores.jsonl", "lists.jsonl", "pairs.jsonl"),
             weight=1, quick=False),
    ]  # fmt: skip
    return found


def _settings() -> list[Door]:
    return [
        Door("run recipe", ("run", "recipe.yaml", "--dry_run"), ("models/encoder", "benchmark", "recipe.yaml"),
             ("recipe.yaml",), weight=3),
        Door("finetune config", ("finetune", "--config", "finetune.yaml"), ("models/encoder", "pairs.jsonl", "finetune.yaml"),
             ("finetune.yaml",), weight=0.7, quick=False),
        Door("index build config", ("index", "build", "--config", "build.yaml"), ("models/duplex", "corpus.jsonl", "build.yaml"),
             ("build.yaml",)),
        Door("evaluate config", ("evaluate", "--config", "evaluate.yaml"), ("benchmark", "run.trec", "evaluate.yaml"),
             ("evaluate.yaml",)),
    ]  # fmt: skip


def _models() -> list[Door]:
    found = []
    all_files = {kind: (f"models/{kind}/**/*",) for kind in ("encoder", "duplex", "embedder", "cross")}
    for model, name, argv, needs, same, weight, quick in (
        ("duplex", "encode", ("encode", "--input", "queries.txt", "--output", "out"), ("queries.txt",), ("out/*",), 4, True),
        ("duplex", "index build", ("index", "build", "--corpus", "corpus.jsonl", "--output", "out"), ("corpus.jsonl",),
         ("out/segment*/*",), 2, True),
        ("duplex", "finetune", ("finetune", "--pairs", "pairs.jsonl", "--output", "out", *SHORT, "--negatives", "0"),
         ("pairs.jsonl",), ("out/model/model.safetensors",), 0.7, False),
        ("duplex", "pretrain", ("pretrain", "--output", "out", *PRETRAIN[:2], *PRETRAIN[4:]), ("corpus.jsonl",),
         ("out/model/model.safetensors",), 0.5, False),
        ("duplex", "pack", ("pack", "out.safetensors"), (), (), 1, True),
        ("duplex", "evaluate", ("evaluate", "--benchmark", "benchmark", "--k", "20", "--output", "out"), ("benchmark",),
         ("out/runs/*/*.trec*",), 1, True),
        ("encoder", "finetune", ("finetune", "--pairs", "pairs.jsonl", "--output", "out", *SHORT, *LENGTHS, "--negatives",
         "0"), ("pairs.jsonl",), ("out/model/model.safetensors",), 2, False),
        ("encoder", "pretrain", ("pretrain", "--output", "out", *PRETRAIN[:2], *PRETRAIN[4:]), ("corpus.jsonl",),
         ("out/model/model.safetensors",), 1.5, False),
        ("encoder", "teach", ("teach", "--lists", "lists.jsonl", "--pairs", "pairs.jsonl", "--output", "out", "--epochs", "1"),
         ("pairs.jsonl", "lists.jsonl"), ("out/model/model.safetensors",), 0.7, False),
        ("embedder", "evaluate", ("evaluate", "--benchmark", "benchmark", "--k", "20", "--output", "out"), ("benchmark",),
         ("out/runs/*/*.trec*",), 3, True),
        ("embedder", "teach", ("teach", "--ready", "--lists", "lists.jsonl", "--pairs", "pairs.jsonl", "--output", "out"),
         ("pairs.jsonl", "lists.jsonl"), ("out/teacher.jsonl",), 1, True),
        ("embedder", "finetune", ("finetune", "--pairs", "pairs.jsonl", "--output", "out", *SHORT, *LENGTHS, "--negatives",
         "0"), ("pairs.jsonl",), ("out/model/model.safetensors",), 0.7, False),
        ("cross", "rerank", ("rerank", "--run", "run.trec", "--benchmark", "benchmark", "--output", "out.trec"),
         ("run.trec", "benchmark"), ("out.trec",), 3, True),
        ("cross", "evaluate", ("evaluate", "--benchmark", "benchmark", "--model", "bm25", "--rerank_depth", "3", "--k", "20",
         "--output", "out"), ("benchmark",), ("out/runs/*/*.trec*",), 1, True),
    ):  # fmt: skip
        option = ("--reranker",) if (model, name) == ("cross", "evaluate") else ("--model",)
        place = len(name.split())
        given = (f"models/{model}",) if name == "pack" else (*option, f"models/{model}")
        words = (*argv[:place], *given, *argv[place:])
        found.append(Door(f"{name} {model} model", words, (f"models/{model}", *needs), all_files[model], "opening", same,
                          weight=weight, quick=quick))  # fmt: skip
    packed = "models/packed.safetensors"
    found += [
        Door("encode packed model", ("encode", "--model", packed, "--input", "queries.txt", "--output", "out"),
             (packed, "queries.txt"), (packed,), "opening", ("out/*",), weight=3),
        Door("finetune pretrained model", ("finetune", "--model", "pretrained/model", "--pairs", "pairs.jsonl", "--output", "out",
             *SHORT, *LENGTHS, "--negatives", "0"), ("pretrained", "pairs.jsonl"), ("pretrained/model/*",), "opening",
             ("out/model/model.safetensors",), weight=1.5, quick=False),
        Door("pretrain pretrained model", ("pretrain", "--output", "out", *PRETRAIN[:2], "--model", "pretrained/model",
             *PRETRAIN[4:]), ("pretrained", "corpus.jsonl"), ("pretrained/model/*",), "opening",
             ("out/model/model.safetensors",), weight=1, quick=False),
        Door("search model of index", ("search", "index", QUERY, "--json"), ("models/duplex", "index"), all_files["duplex"],
             "opening", ("-",), weight=1),
    ]  # fmt: skip
    return found


def _indexes() -> list[Door]:
    found = []
    for name, argv, same, weight in (
        ("search", ("search", "{}", QUERY, "--json", "--k", "30"), ("-",), 4),
        ("search where", ("search", "{}", QUERY, "--json", "--where", "lang=de"), ("-",), 1),
        ("explain", ("explain", "{}", QUERY, "--json"), ("-",), 1),
        ("info", ("index", "info", "{}", "--json"), (), 1),
        ("verify", ("index", "verify", "{}"), ("-",), 2),
        ("delete", ("index", "delete", "{}", "--ids", "p5"), (), 1),
        ("compact", ("index", "compact", "{}"), (), 2),
        ("add", ("index", "add", "{}", "--corpus", "more.jsonl"), (), 1),
        ("tune", ("index", "tune", "{}", "--queries", "queries.txt", "--k", "5"), (), 0.5),
    ):
        for index in ("index", "clustered"):
            words = tuple(word.format(index) for word in argv)
            if index == "clustered" and name == "search":
                words = (*words, "--terms", "4", "--probes", "1", "--candidates", "5")
            needs = ("models/duplex", index, *(part for part in ("more.jsonl", "queries.txt") if part in argv))
            found.append(Door(f"{name} {index}", words, needs, (f"{index}/**/*",), "index", same, checks=True,
                              weight=weight * (1 if index == "index" else 0.5)))  # fmt: skip
    return found


def _runs() -> list[Door]:
    return [
        Door("pretrain over store", ("pretrain", "--output", "stored", *PRETRAIN), ("models/encoder", "corpus.jsonl", "stored"),
             ("stored/**/*",), "training", ("stored/model/model.safetensors",), checks=True, weight=1, quick=False),
        Door("pretrain again", ("pretrain", "--output", "pretrained", *PRETRAIN),
             ("models/encoder", "corpus.jsonl", "pretrained"), ("pretrained/*", "pretrained/store/*"), "training", weight=0.7,
             quick=False),
        Door("finetune resumed", ("finetune", "--output", "interrupted", *RESUMED),
             ("models/encoder", "pairs.jsonl", "interrupted"), ("interrupted/**/*",), "training",
             ("interrupted/model/model.safetensors",), checks=True, weight=3, quick=False),
        Door("run again", ("run", "recipe.yaml"), ("models/encoder", "benchmark", "recipe.yaml", "run"),
             ("run/*", "run/*/*", "run/*/*/*"), "scripts", weight=2, quick=False),
        Door("run dry", ("run", "recipe.yaml", "--dry_run"), ("models/encoder", "benchmark", "recipe.yaml", "run"),
             ("run/*.json", "run/*/*.json"), "scripts", weight=1, quick=False),
        Door("mine again", ("mine", "--source", "bm25", "--pairs", "pairs.jsonl", "--output", "mined"), ("pairs.jsonl", "mined"),
             ("mined/**/*",), "scripts", weight=0.7),
        Door("evaluate again", ("evaluate", "--model", "models/duplex", "bm25", "--benchmark", "benchmark", "--output",
             "compared", "--k", "20"), ("models/duplex", "benchmark", "compared"), ("compared/**/*",), "scripts",
             ("compared/runs/*/*.trec*",), weight=1.5),
    ]  # fmt: skip


def _words() -> list[Door]:
    return [
        Door("words of search", ("search", "index", QUERY, "--k", "3", "--where", "lang=de", "--terms", "4", "--candidates", "5"),
             ("models/duplex", "index"), room="inputs", weight=2),
        Door("words of explain", ("explain", "index", QUERY, "--k", "2", "--ids", "p1"), ("models/duplex", "index"), weight=1),
        Door("words of delete", ("index", "delete", "index", "--ids", "p1", "p2"), ("index",), weight=1),
        Door("words of evaluate", ("evaluate", "--model", "bm25", "--benchmark", "benchmark", "--k", "20", "--split", "test",
             "--window_words", "8"), ("benchmark",), weight=1),
        Door("words of build", ("index", "build", "--output", "out", "--model", "models/duplex", "--corpus", "corpus.jsonl",
             "--metadata", "lang", "--memory_mb", "100", "--batch_size", "8"), ("models/duplex", "corpus.jsonl"), weight=1),
        Door("words of run", ("run", "recipe.yaml", "--dry_run", "--seed", "3", "--pretrain.steps", "1", "--name", "x",
             "--data.benchmark", "benchmark"), ("models/encoder", "benchmark", "recipe.yaml"), weight=2),
        Door("words of push", ("index", "push", "qdrant", "index", "http://127.0.0.1:1/c"), ("index",), weight=0.5),
        Door("words of engine", ("search", QUERY, "--engine", "http://127.0.0.1:1/c", "--model", "models/duplex"),
             ("models/duplex",), weight=0.5),
    ]  # fmt: skip
