"""Find known items in long documents: chunks of several sizes against whole files and BM25.

    python benchmarks/quality/long_documents.py --encodings runs/long --json docs/results/raw/long-documents.json
    python benchmarks/quality/long_documents.py --encodings runs/long --benchmark data/scifact data/nfcorpus

The documents are this project's own, the READMEs, Markdown, reStructuredText, HTML and plain text of the Python
packages that are installed, and the topics of Python's own help: those of 600 tokens or more that are mostly words,
each up to its first 6,000 tokens, so that no change log is half of the text. Sentences are drawn from the beginning of
each (its first 256 tokens), the middle and the end; a query is such a sentence, or every other word of it, and is to
find its file among all. Sizes are chosen on one half of the files (`tune`) and reported on the other (`test`), which a
hash of their names tells apart; all are searched together.

With --benchmark, NDCG@10 of a benchmark's test queries with whole passages and with the default's chunks. Encodings are
kept, a text at a time: a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dupmae import DuplexEncoder
from dupmae.corpus import Benchmark, read_benchmark
from dupmae.corpus import chunks as cutting
from dupmae.corpus.chunking import SENTENCE_END
from dupmae.corpus.chunks import chunk_documents
from dupmae.corpus.passage import Document, Heading, Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.words import brevity, inner_products, rarity
from dupmae.evaluation import evaluate_run
from dupmae.files import write_json
from dupmae.retrievers.bm25 import bm25_searcher

ROOT = Path(__file__).parents[2]
LEAST, MOST = 600, 6000
"""Tokens of a document that is taken, and that are taken of it."""
BEGINNING = 256
"""Tokens that the encoder reads of a whole file."""
SETTINGS = [(200, 40), (100, 20), (200, 0), (240, 48)]
"""Sizes and overlaps of chunks."""
SLAB = 128
"""Texts that are encoded between two files."""
LEGAL = re.compile(r"licen[cs]e|copying|notice|authors|credits|top_level|record|vocab|errcodes|features|tlds", re.I)
"""Files that are no documentation, by name."""

Scores = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dupmae-small")
    parser.add_argument("--encodings", type=Path, required=True, help="folder that keeps what was encoded")
    parser.add_argument("--benchmark", type=Path, nargs="+", default=[], help="folders in BEIR layout, instead")
    parser.add_argument("--pool", type=int, help="passages of a benchmark to draw, and the queries that these answer")
    parser.add_argument("--tune", action="store_true", help="search the files alone that sizes are chosen by")
    parser.add_argument("--settings", nargs="+", help="sizes and overlaps, such as 200/40")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    encoder = DuplexEncoder(options.model)
    encoder.precision = "float32"
    kept = Kept(options.encodings / encoder_name(encoder), encoder)
    settings = [tuple(map(int, one.split("/"))) for one in options.settings or []] or SETTINGS
    if options.benchmark:
        found: dict[str, Any] = {
            path.name: on_benchmark(path, encoder, kept, settings, options.pool) for path in options.benchmark
        }
    else:
        found = on_long_documents(encoder, kept, settings, options.tune)
    if options.json is not None:
        write_json(options.json, found)


def encoder_name(encoder: DuplexEncoder) -> str:
    """Name the folder of a model's encodings."""
    from dupmae.models import open_model

    return open_model(str(encoder.path)).fingerprint[:16]


class Kept:
    """Embeddings of texts, each made once and kept in slabs."""

    def __init__(self, folder: Path, encoder: DuplexEncoder) -> None:
        self.folder, self.encoder = folder, encoder
        self.places: dict[str, tuple[int, int]] = {}
        self.slabs: list[DuplexEmbeddings] = []
        folder.mkdir(parents=True, exist_ok=True)
        for slab in sorted(file.parent for file in folder.glob("slab-*/texts.json")):
            self._add(json.loads((slab / "texts.json").read_text()), DuplexEmbeddings.load(slab))

    def _add(self, names: Sequence[str], slab: DuplexEmbeddings) -> None:
        self.places |= {name: (len(self.slabs), row) for row, name in enumerate(names)}
        self.slabs.append(slab)

    def embed(self, texts: Sequence[str], task: str = "document") -> DuplexEmbeddings:
        """Embed texts, or look them up."""
        names = [hashlib.sha256(f"{task}:{text}".encode()).hexdigest()[:32] for text in texts]
        missing = {name: text for name, text in zip(names, texts, strict=True) if name not in self.places}
        order = sorted(missing, key=lambda name: -len(missing[name]))
        embed = self.encoder.embed_documents if task == "document" else self.encoder.embed_queries
        for start in range(0, len(order), SLAB):
            some = order[start : start + SLAB]
            slab = embed([missing[name] for name in some])
            place = self.folder / f"slab-{len(self.slabs):05d}"
            (self.folder / "texts.json").write_text(json.dumps(some))
            slab.save(place)
            (self.folder / "texts.json").rename(place / "texts.json")
            self._add(some, slab)
            print(f"{start + len(some):,} of {len(order):,} {task} texts encoded", flush=True)
        found = [self.places[name] for name in names]
        parts = [self.slabs[number][np.array([row])] for number, row in found]
        width = max(part.ids.shape[1] for part in parts)
        pad = [[(0, 0), (0, width - part.ids.shape[1])] for part in parts]
        space = self.encoder.words.space if self.encoder.words is not None else None
        assert space is not None
        words = space.passages(texts) if task == "document" else space.queries(texts)
        if task == "query":
            words.data *= np.float32(self.encoder.pooling.word_scale)
        return DuplexEmbeddings(
            np.concatenate([part.cls for part in parts]),
            np.concatenate([np.pad(part.ids, to) for part, to in zip(parts, pad, strict=True)]),
            np.concatenate([np.pad(part.weights, to) for part, to in zip(parts, pad, strict=True)]),
            words,
        )


def parts_of(queries: DuplexEmbeddings, passages: DuplexEmbeddings, vocabulary: int) -> tuple[Scores, Scores]:
    """Score every query and passage by the dense and the lexical half together, and by words: two arrays (q, n)."""
    dense = queries.cls @ passages.cls.T
    lexical = matrix_of(queries, vocabulary) @ matrix_of(passages, vocabulary).T
    return dense + lexical.toarray(), by_words(queries.words, passages.words)


def matrix_of(embeddings: DuplexEmbeddings, vocabulary: int) -> sp.csr_array:
    """Lay the lexical halves out as a sparse matrix (n, V)."""
    rows = np.repeat(np.arange(len(embeddings)), embeddings.ids.shape[1])
    made = sp.coo_array(
        (embeddings.weights.ravel(), (rows, embeddings.ids.ravel().astype(np.int64))),
        shape=(len(embeddings), vocabulary),
    )
    return made.tocsr()


def by_words(queries: Any, passages: Any) -> Scores:
    """Score by words, as rare as they are among these passages, as an index does."""
    having = np.bincount(passages.indices, minlength=passages.shape[1])
    factor = rarity(passages.shape[0], having[queries.indices]) * brevity(passages.nnz / passages.shape[0])
    rare = sp.csr_array(((queries.data * factor).astype(np.float32), queries.indices, queries.indptr), queries.shape)
    return inner_products(rare, passages)


def best_of(scores: Scores, documents: NDArray[np.int64], count: int) -> Scores:
    """Score a document as its best chunk: (q, count) from (q, n)."""
    best = np.full((len(scores), count), -np.inf, np.float32)
    for column, document in enumerate(documents):
        best[:, document] = np.maximum(best[:, document], scores[:, column])
    return best


# ---------------------------------------------------------------- long documents


def sources() -> Iterator[tuple[str, str, str]]:
    """Yield the name, the type and the text of every file that might be taken."""
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        yield path.relative_to(ROOT).as_posix(), path.suffix, path.read_text(encoding="utf-8")
    for package in sorted(importlib.metadata.distributions(), key=lambda one: one.name.lower()):
        metadata: Any = package.metadata
        kind = metadata.get("Description-Content-Type") or "text/x-rst"
        text = metadata.get_payload() or metadata.get("Description") or ""
        yield f"{package.name}/README", ".md" if "markdown" in kind else ".rst", text
        for file in package.files or ():
            if file.suffix.lower() in (".md", ".rst", ".txt", ".html") and not LEGAL.search(str(file)):
                path = Path(str(file.locate()))
                if path.is_file() and path.stat().st_size < 2_000_000 and package.name != "dupmae":
                    yield file.as_posix(), file.suffix.lower(), path.read_text(encoding="utf-8", errors="replace")
    import idlelib
    import pydoc_data.topics

    for topic, text in pydoc_data.topics.topics.items():
        yield f"pydoc/{topic}", ".rst", text
    for path in sorted(Path(idlelib.__path__[0]).glob("*.txt")):
        if not LEGAL.search(path.name):
            yield f"idlelib/{path.name}", ".txt", path.read_text(encoding="utf-8", errors="replace")


def documents_of(tokenizer: Any) -> list[Document]:
    """Read the documents: long ones, mostly of words, no two alike."""
    kept: dict[str, Document] = {}
    for name, kind, text in sources():
        tokens = offsets_of(tokenizer, text)
        words = re.findall(r"\b[a-z]{2,}\b", text)
        if len(tokens) < LEAST or sum(map(len, words)) < len(text) / 2:
            continue
        text = text[: tokens[MOST][0]] if len(tokens) > MOST else text
        headings = tuple(headings_of(text, kind))
        title = headings[0].text if headings else Path(name).stem
        document = Document(name, title, text, {}, None, headings)
        kept.setdefault(hashlib.sha256(" ".join(text.split())[:2000].encode()).hexdigest(), document)
    return list(kept.values())


def headings_of(text: str, kind: str) -> Iterator[Heading]:
    """Find the headings of Markdown and reStructuredText: those of underlined ones by the order of their marks."""
    if kind == ".md":
        fenced = [match.span() for match in re.finditer(r"^(```|~~~).*?^\1", text, re.M | re.S)]
        for match in re.finditer(r"^(#{1,6}) +(.+?) *#*$", text, re.M):
            if not any(start <= match.start() < end for start, end in fenced):
                yield Heading(match.start(), len(match[1]), match[2])
    elif kind == ".rst":
        marks: list[str] = []
        for match in re.finditer(r"^(\S.*)\n(([=\-~^*+#\"'.])\3{2,}) *$", text, re.M):
            if len(match[2]) >= len(match[1].rstrip()) and match[3] not in marks:
                marks.append(match[3])
            if match[3] in marks:
                yield Heading(match.start(), marks.index(match[3]) + 1, match[1].strip())


def offsets_of(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Find the characters of all tokens."""
    encoded = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False, return_offsets_mapping=True)
    found: list[tuple[int, int]] = encoded["offset_mapping"]
    return found


def is_test(document: Passage) -> bool:
    """Tell whether a document is one of those that are reported on."""
    return hashlib.sha256(document.id.encode()).digest()[0] % 2 == 1


@dataclasses.dataclass(frozen=True)
class Item:
    """A sentence of a document."""

    document: int
    place: str
    text: str

    @property
    def half(self) -> str:
        """Every other word of it."""
        return " ".join(self.text.split()[::2])


def items_of(documents: Sequence[Document], tokenizer: Any, each: int = 2) -> list[Item]:
    """Draw sentences from the beginning, the middle and the end of each document, which no other document has."""
    items, draw = [], random.Random(42)
    for number, document in enumerate(documents):
        tokens = offsets_of(tokenizer, document.text)
        first = tokens[min(BEGINNING - 30, len(tokens) - 1)][0]  # its title and the special tokens take some
        later = tokens[BEGINNING][0]
        last = later + 2 * (len(document.text) - later) // 3
        places: dict[str, list[str]] = {"beginning": [], "middle": [], "end": []}
        for start, end in spans(document.text):
            sentence = " ".join(document.text[start:end].split())
            words = re.findall(r"\b[A-Za-z]{2,}\b", sentence)
            if not 8 <= len(words) <= 30 or sum(map(len, words)) < 0.7 * len(sentence):
                continue
            if end <= first:
                places["beginning"].append(sentence)
            elif start >= later:
                places["middle" if start < last else "end"].append(sentence)
        texts = [" ".join(one.text.split()) for one in documents]
        for place, sentences in places.items():
            own = [one for one in sentences if sum(one in text for text in texts) == 1]
            items += [Item(number, place, one) for one in draw.sample(own, min(each, len(own)))]
    return items


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Find a text's sentences."""
    first = 0
    for match in SENTENCE_END.finditer(text):
        yield first, match.end()
        first = match.end()


def on_long_documents(encoder: DuplexEncoder, kept: Kept, settings: Sequence[Any], tune: bool) -> dict[str, Any]:
    """Measure every setting on the two halves of the documents."""
    documents = [one for one in documents_of(encoder.tokenizer) if not (tune and is_test(one))]
    items = items_of(documents, encoder.tokenizer)
    tokens = [len(offsets_of(encoder.tokenizer, document.text)) for document in documents]
    test = np.array([is_test(one) for one in documents])
    queries = {"sentence": [item.text for item in items], "every other word": [item.half for item in items]}
    embedded = {form: kept.embed(texts, "query") for form, texts in queries.items()}
    answers = np.array([item.document for item in items])
    record: dict[str, Any] = {
        "model": encoder.path,
        "files": len(documents),
        "tokens": sum(tokens),
        "tokens_read_of_whole_files": sum(min(count, BEGINNING) for count in tokens),
        "queries": {
            half: {place: sum(item.place == place for item in part) for place in ("beginning", "middle", "end")}
            for half, part in (
                ("tune", [item for item in items if not test[item.document]]),
                ("test", [item for item in items if test[item.document]]),
            )
        },
        "systems": {},
    }
    print({key: value for key, value in record.items() if key != "systems"}, flush=True)

    def measure(name: str, chunks: int, score: Callable[[str], Scores]) -> None:
        rows = {}
        for form in queries:
            scores = score(form)
            own = scores[np.arange(len(items)), answers]
            # equal scores are no find: each counts as ranked before
            ranks = (scores >= own[:, None]).sum(axis=1)
            for half, of_half in (("tune", ~test[answers]), ("test", test[answers])):
                if not of_half.any():
                    continue
                for place, of_place in (
                    ("beginning", [item.place == "beginning" for item in items]),
                    ("beyond", [item.place != "beginning" for item in items]),
                ):
                    chosen = ranks[of_half & np.array(of_place)]
                    rows[f"{half}, {place}, {form}"] = {
                        "recall@1": float((chosen == 1).mean()),
                        "mrr": float((1 / chosen).mean()),
                    }
        record["systems"][name] = {"chunks": chunks} | rows
        show(name, record["systems"][name])

    texts = {one.id: Passage(one.id, one.title, one.text) for one in documents}
    bm25 = bm25_searcher(texts)
    places = {one.id: number for number, one in enumerate(documents)}

    def score_bm25(form: str) -> Scores:
        found = bm25({str(number): text for number, text in enumerate(queries[form])}, len(documents))
        scores = np.zeros((len(items), len(documents)), np.float32)
        for query, ranking in found.items():
            for name, value in ranking.items():
                scores[int(query), places[name]] = value
        return scores

    measure("bm25, whole files", len(documents), score_bm25)
    vocabulary = encoder.pooling.vocabulary_size

    def measure_passages(name: str, passages: Sequence[Passage]) -> None:
        encoded = kept.embed([passage.full_text for passage in passages])
        owners = np.array([places[passage.document] for passage in passages])
        parts = {form: parts_of(vectors, encoded, vocabulary) for form, vectors in embedded.items()}
        measure(name, len(passages), lambda form: best_of(sum(parts[form]), owners, len(documents)))  # type: ignore[arg-type]
        if name == "chunks 200/40" and not tune:
            whole = kept.encoder.words.space.passages([one.full_text for one in documents])  # type: ignore[union-attr]
            by_document = {form: by_words(vectors.words, whole) for form, vectors in embedded.items()}
            for title, share in (("and its document's words, half each", 0.5), ("and its document's words alone", 1.0)):

                def joined(form: str, share: float = share) -> Scores:
                    chunk = parts[form][0] + np.float32(1 - share) * parts[form][1]
                    return best_of(chunk, owners, len(documents)) + np.float32(share) * by_document[form]

                measure(f"{name} {title}", len(passages), joined)

    measure_passages("whole files", list(texts.values()))
    plain = [dataclasses.replace(one, headings=()) for one in documents]
    for size, overlap in settings:
        measure_passages(f"chunks {size}/{overlap}", cut(documents, encoder, size, overlap))
    if len(settings) > 2:
        measure_passages("chunks 200/40, headings ignored", cut(plain, encoder, 200, 40))
        for tiny in (1000, 1):
            cutting.TINY = tiny
            measure_passages(f"chunks 200/40, tiny below {200 // tiny}", cut(documents, encoder, 200, 40))
    return record


def cut(documents: Sequence[Passage], encoder: DuplexEncoder, size: int, overlap: int) -> list[Passage]:
    """Cut documents as the index does."""
    limit = encoder[0].document_length - encoder.tokenizer.num_special_tokens_to_add()
    return list(chunk_documents(documents, encoder.tokenizer, size, overlap, limit=limit))


def show(name: str, row: Mapping[str, Any]) -> None:
    """Print a system's figures."""
    table = Table("", "recall@1", "MRR", title=f"{name}: {row['chunks']:,} passages", title_justify="left")
    for key, value in row.items():
        if key != "chunks":
            table.add_row(key, f"{value['recall@1']:.3f}", f"{value['mrr']:.3f}")
    Console(width=100).print(table)


# ---------------------------------------------------------------- benchmarks


def on_benchmark(
    path: Path, encoder: DuplexEncoder, kept: Kept, settings: Sequence[Any], pool: int | None
) -> dict[str, Any]:
    """Measure a benchmark with whole passages and with chunks."""
    benchmark = read_benchmark(path, "test")
    if pool is not None:
        benchmark = drawn(benchmark, pool)
    names = sorted(benchmark.corpus)
    places = {name: number for number, name in enumerate(names)}
    queries = kept.embed(list(benchmark.queries.values()), "query")
    found: dict[str, Any] = {"queries": len(benchmark.queries), "documents": len(names)}
    whole = [benchmark.corpus[name] for name in names]
    for setting in [None, *settings[:1]]:
        passages = whole if setting is None else cut(whole, encoder, *setting)
        encoded = kept.embed([passage.full_text for passage in passages])
        parts = parts_of(queries, encoded, encoder.pooling.vocabulary_size)
        owners = np.array([places[passage.document] for passage in passages])
        scores = {"own words": best_of(parts[0] + parts[1], owners, len(names))}
        if setting is not None:
            words = by_words(queries.words, encoder.words.space.passages([one.full_text for one in whole]))  # type: ignore[union-attr]
            scores["its document's words"] = best_of(parts[0], owners, len(names)) + words
        for title, matrix in scores.items():
            best = np.argsort(-matrix, axis=1, kind="stable")[:, :100]
            run = {
                query: {names[place]: float(matrix[row, place]) for place in best[row]}
                for row, query in enumerate(benchmark.queries)
            }
            name = "whole" if setting is None else f"chunks {setting[0]}/{setting[1]}, {title}"
            found[name] = {"passages": len(passages), "ndcg@10": evaluate_run(run, benchmark.qrels)["ndcg@10"]}
            print(path.name, name, found[name], flush=True)
    return found


def drawn(benchmark: Benchmark, pool: int) -> Benchmark:
    """Draw passages, up to half of them with judgements, and keep the queries that some of them answer."""
    draw = random.Random(42)
    judged = sorted({name for grades in benchmark.qrels.values() for name in grades})
    kept = set(draw.sample(judged, min(pool // 2, len(judged))))
    kept |= set(draw.sample(sorted(benchmark.corpus.keys() - kept), pool - len(kept)))
    qrels = {
        query: {name: grade for name, grade in grades.items() if name in kept}
        for query, grades in benchmark.qrels.items()
    }
    qrels = {query: grades for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    return dataclasses.replace(
        benchmark,
        corpus={name: benchmark.corpus[name] for name in sorted(kept)},
        queries={query: benchmark.queries[query] for query in qrels},
        qrels=qrels,
    )


if __name__ == "__main__":
    main()
