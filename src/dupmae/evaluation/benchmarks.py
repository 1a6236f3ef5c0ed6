"""The benchmarks that figures are published for, each with the rules that make figures comparable.

A folder in BEIR layout whose name is one of these follows the rules of that benchmark; any other folder follows none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dupmae.errors import DupmaeError, nearest
from dupmae.retrievers.lengths import Lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A benchmark: what it consists of and how it is measured."""

    name: str
    """What it is asked for by."""
    folder: str = ""
    """Name of its folder, which several sets of judgements over one collection share; the name if empty."""
    title: str = ""
    """As tables call it; the name if empty."""
    split: str = "test"
    """Which judgements figures are published for."""
    passages: int | None = None
    """How many there are, to recognise another edition; None where it is not known."""
    queries: int | None = None
    """How many have judgements in the split, the parts' added up."""
    ir_datasets: str = ""
    """Id of the judged queries in the package `ir_datasets`; `{part}` stands for a part's name. Empty: not there."""
    hub: str = ""
    """Data set on the Hugging Face hub that holds passages and queries; see `dupmae.evaluation.sources`."""
    parts: tuple[str, ...] = ()
    """Sub-collections, searched each on its own; the figure is the mean of theirs, however many queries each has."""
    drop_self: bool = False
    """The queries are themselves passages: what has the query's own id is taken out of its ranking."""
    titles: bool = True
    """Whether a title is read before the text. False: the official passages have none; titles that a folder brings
    along are left out."""
    query_length: int | None = None
    """Tokens of a query that must be read, for queries longer than encoders expect; None leaves it to the model."""
    document_length: int | None = None
    """Tokens of a passage beyond which nothing is read, whatever the model could; None leaves it to the model."""
    relevant_from: int = 1
    """Grades that count as relevant in all metrics but NDCG@10."""
    metric: str = "ndcg@10"
    """The metric it is ranked by."""
    unavailable_because: str = ""
    """Why it cannot be fetched, and where it is to be had; empty where it can."""

    @property
    def lengths(self) -> Lengths:
        """Its rules on lengths, as retrievers take them."""
        return Lengths(self.query_length, self.document_length)


CQADUPSTACK = (
    "android",
    "english",
    "gaming",
    "gis",
    "mathematica",
    "physics",
    "programmers",
    "stats",
    "tex",
    "unix",
    "webmasters",
    "wordpress",
)
"""The twelve forums."""

_TIPSTER = "its documents are distributed under a licence to be signed"

BEIR = (
    Definition(
        name="trec-covid",
        title="TREC-COVID",
        passages=171_332,
        queries=50,
        ir_datasets="beir/trec-covid",
        hub="BeIR/trec-covid",
    ),
    Definition(
        name="bioasq",
        title="BioASQ",
        passages=14_914_602,
        queries=500,
        unavailable_because="the BioASQ challenge (task 9b) gives it to registered users",
    ),
    Definition(
        name="nfcorpus",
        title="NFCorpus",
        passages=3_633,
        queries=323,
        ir_datasets="beir/nfcorpus/test",
        hub="BeIR/nfcorpus",
    ),
    Definition(name="nq", title="NQ", passages=2_681_468, queries=3_452, ir_datasets="beir/nq", hub="BeIR/nq"),
    Definition(
        name="hotpotqa",
        title="HotpotQA",
        passages=5_233_329,
        queries=7_405,
        ir_datasets="beir/hotpotqa/test",
        hub="BeIR/hotpotqa",
    ),
    Definition(
        name="fiqa",
        title="FiQA",
        passages=57_638,
        queries=648,
        ir_datasets="beir/fiqa/test",
        hub="BeIR/fiqa",
        titles=False,
    ),
    Definition(
        name="signal1m",
        title="Signal-1M",
        passages=2_866_316,
        queries=97,
        unavailable_because="its tweets must be asked for from Signal AI",
    ),
    Definition(
        name="trec-news",
        title="TREC-NEWS",
        passages=594_977,
        queries=57,
        unavailable_because=f"{_TIPSTER} (Washington Post, from NIST)",
    ),
    Definition(
        name="robust04",
        title="Robust04",
        passages=528_155,
        queries=249,
        unavailable_because=f"{_TIPSTER} (TREC disks 4 and 5, from NIST)",
    ),
    Definition(
        name="arguana",
        title="ArguAna",
        passages=8_674,
        queries=1_406,
        ir_datasets="beir/arguana",
        hub="BeIR/arguana",
        drop_self=True,
        query_length=512,
    ),
    Definition(
        name="webis-touche2020",
        title="Touché-2020",
        passages=382_545,
        queries=49,
        ir_datasets="beir/webis-touche2020/v2",
        hub="BeIR/webis-touche2020",
    ),
    Definition(
        name="cqadupstack",
        title="CQADupStack",
        passages=457_199,
        queries=13_145,
        ir_datasets="beir/cqadupstack/{part}",
        parts=CQADUPSTACK,
    ),
    Definition(
        name="quora",
        title="Quora",
        passages=522_931,
        queries=10_000,
        ir_datasets="beir/quora/test",
        hub="BeIR/quora",
        drop_self=True,
        titles=False,
    ),
    Definition(
        name="dbpedia-entity",
        title="DBPedia",
        passages=4_635_922,
        queries=400,
        ir_datasets="beir/dbpedia-entity/test",
        hub="BeIR/dbpedia-entity",
    ),
    Definition(
        name="scidocs",
        title="SCIDOCS",
        passages=25_657,
        queries=1_000,
        ir_datasets="beir/scidocs",
        hub="BeIR/scidocs",
    ),
    Definition(
        name="fever",
        title="FEVER",
        passages=5_416_568,
        queries=6_666,
        ir_datasets="beir/fever/test",
        hub="BeIR/fever",
    ),
    Definition(
        name="climate-fever",
        title="Climate-FEVER",
        passages=5_416_593,
        queries=1_535,
        ir_datasets="beir/climate-fever",
        hub="BeIR/climate-fever",
    ),
    Definition(
        name="scifact",
        title="SciFact",
        passages=5_183,
        queries=300,
        ir_datasets="beir/scifact/test",
        hub="BeIR/scifact",
    ),
)
"""The 18 data sets of the paper's zero-shot table, in its order."""

_NANO = {
    "climate-fever": "NanoClimateFEVER",
    "dbpedia-entity": "NanoDBPedia",
    "fever": "NanoFEVER",
    "fiqa": "NanoFiQA2018",
    "hotpotqa": "NanoHotpotQA",
    "msmarco": "NanoMSMARCO",
    "nfcorpus": "NanoNFCorpus",
    "nq": "NanoNQ",
    "quora": "NanoQuoraRetrieval",
    "scidocs": "NanoSCIDOCS",
    "arguana": "NanoArguAna",
    "scifact": "NanoSciFact",
    "webis-touche2020": "NanoTouche2020",
}
NANO_BEIR = tuple(
    Definition(
        name=f"nano-{name}",
        title=title,
        queries=49 if name == "webis-touche2020" else 50,
        ir_datasets=f"nano-beir/{name}",
        hub=f"sentence-transformers/NanoBEIR-en:{title}",
        drop_self=name in ("arguana", "quora"),
        query_length=512 if name == "arguana" else None,
    )
    for name, title in _NANO.items()
)
"""NanoBEIR's thirteen, each of 49 or 50 queries."""


def _ms_marco(kind: str) -> tuple[Definition, ...]:
    """Define the sets of judgements over one of MS MARCO's two collections, `passage` or `document`."""
    passage = kind == "passage"
    count = 8_841_823 if passage else 3_213_835
    dev = "dev/small" if passage else "dev"
    sets = (
        ("dev", "dev", dev, 6_980 if passage else 5_193, 1, "mrr@10" if passage else "mrr@100"),
        ("dl19", "TREC DL 2019", "trec-dl-2019/judged", 43, 2 if passage else 1, "ndcg@10"),
        ("dl20", "TREC DL 2020", "trec-dl-2020/judged", 54 if passage else 45, 2 if passage else 1, "ndcg@10"),
        ("train", "train", "train/judged" if passage else "train", 502_939 if passage else 367_013, 1, "mrr@10"),
    )
    return tuple(
        Definition(
            name=f"msmarco-{kind}-{name}",
            folder=f"msmarco-{kind}",
            title=f"{title} {kind}" if title.startswith("TREC") else f"MS MARCO {kind} {title}",
            split=name,
            passages=count,
            queries=queries,
            ir_datasets=f"msmarco-{kind}/{place}",
            relevant_from=relevant_from,
            metric=metric,
            titles=not passage,
            document_length=512,
        )
        for name, title, place, queries, relevant_from, metric in sets
    )


MS_MARCO = (*_ms_marco("passage"), *_ms_marco("document"))
"""Development queries, TREC Deep Learning 2019 and 2020, and what to train on, for passages and for documents."""

DEFINITIONS = {definition.name: definition for definition in (*BEIR, *NANO_BEIR, *MS_MARCO)}
"""All of them by name."""
GROUPS = {
    "beir": tuple(definition.name for definition in BEIR),
    "nano-beir": tuple(definition.name for definition in NANO_BEIR),
}
"""Names that stand for several."""


def definitions_in(folder: str) -> list[Definition]:
    """List the benchmarks that live in a folder of that name."""
    return [definition for definition in DEFINITIONS.values() if folder == (definition.folder or definition.name)]


def definition_of(folder: str, split: str | None) -> Definition:
    """Look up the rules for a folder of that name: its benchmark's, or none for a folder that is no benchmark's.

    Args:
        folder: The folder's name.
        split: Which judgements; None for those that figures are published for (`test` where nothing is known).
    """
    there = definitions_in(folder) or [Definition(name=folder)]
    for definition in there:
        if split in (None, definition.split):
            return definition
    return replace(there[0], name=folder, split=str(split), queries=None)


def expand_groups(names: Iterable[str]) -> list[str]:
    """Put the members in the place of a group's name; a name that came before is not repeated."""
    return list(dict.fromkeys(member for name in names for member in GROUPS.get(name, (name,))))


def known_definition(name: str) -> Definition:
    """Look up a benchmark by its name, which is no folder's.

    Raises:
        DupmaeError: There is none.
    """
    if name not in DEFINITIONS:
        close = nearest(name, [*DEFINITIONS, *GROUPS])
        known = ", ".join([*GROUPS, *(definition.name for definition in BEIR)])
        hint = f"did you mean {close}?" if close else f"known are {known}, nano-SET, msmarco-passage-dev and others."
        raise DupmaeError(f"There is no benchmark {name[:80]!r} and no such folder; {hint}")
    return DEFINITIONS[name]
