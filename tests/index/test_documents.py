"""Documents of several chunks: ranked exactly, replaced and deleted as a whole, found and read by id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import (
    SPACE,
    WORDY_QUERIES,
    FakeEncoder,
    best_documents,
    chunked,
    random_rows,
)

from dupmae.corpus import Chunk, Passage
from dupmae.corpus.passage import corpus_fingerprint
from dupmae.errors import DupmaeError
from dupmae.files import fingerprint
from dupmae.index import Approximate, DuplexIndex
from dupmae.index.explanation import explain
from dupmae.index.scoring import exact
from dupmae.index.storage import segments as segments_module
from dupmae.index.writing.build import build_segments
from dupmae.index.writing.encoding import fingerprint_of, windows
from dupmae.models import Model

ROWS = random_rows(np.random.default_rng(7), 100, terms=3)
LONG = 14
"""Chunks of the longest document: the ids of the tenth and later ones stand before that of the second."""
DOCUMENTS = {f"d{n:02}": [(7 * n + 3 * m) % 40 for m in range(LONG if n == 11 else n % 5 + 1)] for n in range(30)}
"""Rows of documents; chunks of several are embedded alike, and so tie."""
LANGUAGES = {name: ("en", "de", "fr")[number % 3] for number, name in enumerate(DOCUMENTS)}


def built(folder: Path, documents: Any = None, segment: int = 25, rows: Any = ROWS, **metadata: Any) -> DuplexIndex:
    corpus = chunked(DOCUMENTS if documents is None else documents, **metadata)
    encoder = FakeEncoder(*rows, space=SPACE)
    return DuplexIndex.build(folder, encoder, corpus, model="m", segment_passages=segment)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DuplexIndex:
    """Several segments of several blocks."""
    monkeypatch.setattr(segments_module, "BLOCK_PASSAGES", 10)
    return built(tmp_path / "i", lang=LANGUAGES)


def grouped(index: DuplexIndex, k: int, **options: Any) -> list[list[tuple[str, float, str]]]:
    """Document, score and best passage of each hit."""
    found = index.search(WORDY_QUERIES, k, **options)
    embeddings = index.encoder.embed_queries(WORDY_QUERIES)
    ids, scores = index.search_embeddings(embeddings, k, **options)
    ranking = [[(hit.document, hit.score, hit.id) for hit in hits] for hits in found]
    assert [[place[:2] for place in row] for row in ranking] == [
        list(zip(*row, strict=True)) for row in zip(ids, scores, strict=True)
    ]
    return ranking


def by_hand(index: DuplexIndex, k: int, **options: Any) -> list[list[tuple[str, float, str]]]:
    """The same from the ranking of all passages."""
    embeddings = index.encoder.embed_queries(WORDY_QUERIES)
    return best_documents(list(index), *index.search_embeddings(embeddings, 1000, group="none", **options), k)


@pytest.mark.parametrize("k", [1, 2, 5, 29, 30, 31, 500])
def test_the_k_best_documents_are_those_of_all_passages_ranked(index: DuplexIndex, k: int) -> None:
    assert grouped(index, k) == by_hand(index, k)
    index.delete(["d11", "d03", "d04"])
    assert grouped(index, k) == by_hand(index, k)
    assert grouped(index, k, where="lang!=de") == by_hand(index, k, where="lang!=de")
    index.compact()
    assert grouped(index, k, where="lang in (de, fr)") == by_hand(index, k, where="lang in (de, fr)")
    assert len(grouped(index, k)[0]) == min(k, 27)


@pytest.mark.parametrize(("different", "seed"), [(4, 0), (4, 1), (20, 2), (100, 3)])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_many_ties_are_broken_by_the_documents_ids_and_the_chunks_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, different: int, seed: int, k: int
) -> None:
    """Ids of chunks are in another order than those of their documents, and than the chunks stand there: those of one
    document lie in several blocks.
    """
    monkeypatch.setattr(segments_module, "BLOCK_PASSAGES", 16)
    monkeypatch.setattr(exact, "_TASK_QUERIES", 2)
    rng = np.random.default_rng(seed)
    cls, sparse = (part[:different].repeat(100 // different, axis=0) for part in ROWS)
    corpus = []
    for name in rng.permutation([f"{letter}{end}" for letter in "abcdefgh" for end in ("", "!", "::1", "~", "é")]):
        names = rng.permutation(1000)[: rng.integers(1, 9)]
        corpus += [
            Passage(f"{number}-{name}", "", f"{rng.integers(100)}", {}, Chunk(name, (), 10 * place, 10 * place + 2))
            for place, number in enumerate(names)
        ]
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), corpus, model="m", segment_passages=50)
    queries = [str(row) for row in rng.integers(100, size=20)]
    ids, scores = index.search_embeddings(index.encoder.embed_queries(queries), 1000, group="none")
    found = [[(hit.document, hit.score, hit.id) for hit in hits] for hits in index.search(queries, k)]
    assert found == best_documents(corpus, ids, scores, k)


def test_passages_can_be_ranked_by_themselves(index: DuplexIndex) -> None:
    (hits,) = index.search(WORDY_QUERIES[:1], 1000, group="none")
    assert len(hits) == len(index) == sum(map(len, DOCUMENTS.values()))
    assert len({hit.document for hit in hits}) == len(DOCUMENTS)
    with pytest.raises(DupmaeError, match="group is 'chunk': take 'document' or 'none'"):
        index.search(["1"], group="chunk")  # type: ignore[arg-type]


def test_an_index_without_chunks_is_searched_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(tmp_path / "i", {name: rows[:1] for name, rows in DOCUMENTS.items()})
    monkeypatch.setattr(exact, "best_documents", None)
    for segment in index.snapshot.segments:
        assert sorted(segment.files) == ["ids.arrow", "texts.arrow", "vectors.safetensors"]
        monkeypatch.setitem(vars(segment), "groups", None)
    embeddings = index.encoder.embed_queries(WORDY_QUERIES)
    assert index.search_embeddings(embeddings, 9) == index.search_embeddings(embeddings, 9, group="none")


def test_a_hit_says_where_it_stands_in_its_document(index: DuplexIndex) -> None:
    hits = {hit.id: hit for hit in index.search(WORDY_QUERIES[:1], 1000, group="none")[0]}
    chunk, whole = hits["d11::12"], hits["d00"]
    assert (chunk.document, chunk.headings, chunk.start) == ("d11", ("Part", "11"), 1100)
    assert chunk.end == 1100 + len(chunk.text)
    assert (whole.document, whole.headings, whole.start, whole.end) == ("d00", (), 0, len(whole.text))


@pytest.mark.parametrize("probes", [0, 1000])
def test_approximate_search_with_everything_looked_into_ranks_documents_like_exact_search(
    index: DuplexIndex, probes: int
) -> None:
    if probes:
        pytest.importorskip("faiss", reason="the extra clusters is not installed")
        index.cluster()
    index.add(chunked({"d05": [50, 51], "new": [3, 4, 5]}))
    everything = Approximate(1000, 1000, probes)
    for k in (1, 5, 100):
        assert grouped(index, k, approximate=everything) == by_hand(index, k)
    few = index.search(WORDY_QUERIES, 5, approximate=Approximate(1, 5, min(probes, 1)))
    assert all(len({hit.document for hit in hits}) == 5 for hits in few)


def test_a_document_takes_the_place_of_all_its_former_chunks(index: DuplexIndex) -> None:
    assert index.add(chunked({"d11": [50, 51], "d00": [52, 53, 54], "d04": [55]})) == 3
    changed = DOCUMENTS | {"d11": [50, 51], "d00": [52, 53, 54], "d04": [55]}
    assert {passage.id: passage.text for passage in index} == {one.id: one.text for one in chunked(changed)}
    assert grouped(index, 50) == by_hand(index, 50)
    assert index.info()["documents"] == 30


def test_a_document_is_deleted_with_all_its_chunks_and_a_chunk_not_by_itself(index: DuplexIndex) -> None:
    before = len(index)
    with pytest.raises(DupmaeError, match=r"'d11::2' is a chunk of the document 'd11', .* delete 'd11'"):
        index.delete(["d00", "d11::2"])
    assert len(index) == before
    assert index.delete(["d11", "d00", "nobody"]) == ["nobody"]
    assert len(index) == before - LONG - 1
    assert not [passage for passage in index if passage.document in ("d11", "d00")]


def test_windows_do_not_cut_documents() -> None:
    corpus = chunked({"a": range(3), "b": range(4), "c": [1], "d": range(9), "e": [1], "f": range(2)})
    found = [[passage.document for passage in window] for window in windows(iter(corpus), 5)]
    assert [(len(window), sorted(set(window))) for window in found] == [
        (3, ["a"]),
        (5, ["b", "c"]),
        (9, ["d"]),
        (3, ["e", "f"]),
    ]
    assert [len(window) for window in windows(chunked({name: [1] for name in "abcdefg"}), 3)] == [3, 3, 1]


def test_an_interrupted_addition_leaves_every_document_whole(index: DuplexIndex) -> None:
    encoder: Any = index.encoder
    more = {f"d{n:02}": [60 + n, 61 + n, 62 + n] for n in range(20)}
    encoder.embedded, encoder.fail_after = [], 30
    with pytest.raises(KeyboardInterrupt):
        index.add(chunked(more), batch_size=1)
    index.refresh()
    there: dict[str, list[int]] = {}
    for passage in sorted(index, key=lambda passage: passage.chunk.start if passage.chunk else 0):
        there.setdefault(passage.document, []).append(int(passage.text.split()[0]))
    assert all(rows in (more.get(name), DOCUMENTS[name]) for name, rows in there.items())
    assert sum(rows == more.get(name) for name, rows in there.items()) == 8  # a window of 24
    assert set(there) == set(DOCUMENTS)
    encoder.fail_after = None
    index.add(chunked(more), batch_size=1)
    assert {passage.id for passage in index} == {passage.id for passage in chunked(DOCUMENTS | more)}


@pytest.mark.parametrize(
    ("corpus", "twice"),
    [
        ([*chunked({"a": [1, 2]}), Passage("b", "", "1"), *chunked({"a": [1, 2]})], "a::1"),
        ([*chunked({"a": [1, 2]}), Passage("b", "", "1"), Passage("a", "", "3")], "a"),
        ([*chunked({"a": [1, 2]}), Passage("b", "", "1"), Passage("a::2", "", "3")], "a::2"),
        ([Passage("a", "", "3"), Passage("b", "", "1"), *chunked({"a": [1, 2]})], "a"),
    ],
)
@pytest.mark.parametrize("segment", [2, 10])
def test_a_document_that_comes_twice_is_refused(tmp_path: Path, corpus: Any, twice: str, segment: int) -> None:
    encoder = FakeEncoder(*ROWS)
    with pytest.raises(DupmaeError, match=f"Two passages have the id '{twice}'"):
        DuplexIndex.build(tmp_path / "i", encoder, corpus, model="m", segment_passages=segment)
    index = DuplexIndex.build(tmp_path / "j", encoder, [Passage("z", "", "1")], model="m", segment_passages=segment)
    with pytest.raises(DupmaeError, match=f"'{twice}'"):
        index.add(corpus)


def test_an_id_of_another_documents_chunk_is_refused(index: DuplexIndex) -> None:
    before = list(index)
    with pytest.raises(DupmaeError, match="id 'd11::2' is taken by a passage of the document 'd11'"):
        index.add([Passage("d11::2", "", "3")])
    index.add([Passage("x::1", "", "3")])
    with pytest.raises(DupmaeError, match="id 'x::1' is taken by a passage of the document 'x::1'"):
        index.add(chunked({"x": [1, 2]}))
    assert index.add(chunked({"x::1": [4, 5]})) == 1
    assert len(index) == len(before) + 2


def test_a_document_of_more_chunks_than_a_segment_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dupmae.index.writing.encoding.MAX_PASSAGES", 8)
    with pytest.raises(DupmaeError, match="document 'long' has more than 8 chunks"):
        built(tmp_path / "i", {"short": [1], "long": range(9)}, segment=4)


def test_processes_share_documents_and_join_them(tmp_path: Path) -> None:
    corpus, options = chunked(DOCUMENTS, lang=LANGUAGES), {"batch_size": 4, "segment_passages": 12}
    encoder = FakeEncoder(*ROWS, space=SPACE)
    for rank in (1, 0):
        build_segments(tmp_path / "i", encoder, corpus, model=Model("m"), process=(rank, 2), **options)  # type: ignore[arg-type]
    joined, whole = DuplexIndex.open(tmp_path / "i"), built(tmp_path / "w", lang=LANGUAGES)
    joined.encoder = encoder
    joined.verify()
    assert list(joined) == list(whole)
    assert grouped(joined, 9) == grouped(whole, 9)
    build_segments(tmp_path / "i", encoder, corpus, model=Model("m"), process=(1, 2), **options)  # type: ignore[arg-type]
    twice = [*chunked({"d01": [1, 2]}), Passage("x", "", "1"), Passage("y", "", "1"), Passage("d01", "", "1")]
    build_segments(tmp_path / "j", encoder, twice, model=Model("m"), process=(0, 2), **options)  # type: ignore[arg-type]
    with pytest.raises(DupmaeError, match="Two passages have the id 'd01'"):
        build_segments(tmp_path / "j", encoder, twice, model=Model("m"), process=(1, 2), **options)  # type: ignore[arg-type]


def test_fingerprints_see_where_a_chunk_stands() -> None:
    passage = Passage("a::1", "", "text", {}, Chunk("a", ("x",), 0, 4))
    others = [
        Passage("a::1", "", "text"),
        *(
            Passage("a::1", "", "text", {}, chunk)
            for chunk in (Chunk("b", ("x",), 0, 4), Chunk("a", ("y",), 0, 4), Chunk("a", ("x",), 1, 4))
        ),
    ]
    for taken in (lambda one: fingerprint_of([one]), lambda one: corpus_fingerprint([one])):
        assert len({taken(one) for one in (passage, *others)}) == 5


def test_how_documents_were_cut_is_kept_and_another_cut_is_refused(tmp_path: Path) -> None:
    corpus, encoder = chunked(DOCUMENTS), FakeEncoder(*ROWS)
    options: Any = {"model": Model("m"), "batch_size": 4, "segment_passages": 25}
    build_segments(tmp_path / "i", encoder, corpus, chunks={"tokens": 200, "overlap": 40}, **options)
    assert DuplexIndex.open(tmp_path / "i").manifest.chunks == {"tokens": 200, "overlap": 40}
    build_segments(tmp_path / "i", encoder, corpus, chunks={"tokens": 200, "overlap": 40}, **options)
    with pytest.raises(DupmaeError, match="chunks of 200 tokens with an overlap of 40, not as asked now"):
        build_segments(tmp_path / "i", encoder, corpus, chunks={"tokens": 100, "overlap": 40}, **options)


def test_an_index_of_the_former_format_takes_chunks_and_metadata_of_all_kinds(tmp_path: Path) -> None:
    years = {name: str(2000 + number) for number, name in enumerate(DOCUMENTS)}
    index = built(tmp_path / "i", {name: rows[:1] for name, rows in DOCUMENTS.items()}, segment=100, year=years)
    path = index.folder / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for key in ("format", "format_version", "check", "chunks"):
        del values[key]
    head = {"format": "dupmae-index", "format_version": 4, "check": fingerprint(values)}
    path.write_text(json.dumps(head | values), encoding="utf-8")
    former = DuplexIndex.open(index.folder)
    former.encoder = index.encoder
    former.verify()
    assert (list(former), grouped(former, 9)) == (list(index), grouped(index, 9))
    assert {hit.id for hit in former.search(["1"], 50, "year>=2025")[0]} == set(list(DOCUMENTS)[25:])
    assert former.add(chunked({"d00": [1, 2, 3], "new": [4, 5]}, year={"d00": 2030, "new": 1999})) == 2
    former.compact()
    former.verify()
    assert len(former.manifest.segments) == 1
    found = {hit.document for hit in former.search(["1"], 50, "year>=2025")[0]}
    assert found == {*list(DOCUMENTS)[25:], "d00"}
    assert [passage.metadata for passage in former.get(["d00"])] == [{"year": "2030"}] * 3
    assert grouped(former, 9) == by_hand(former, 9)
    assert json.loads(path.read_text(encoding="utf-8"))["format_version"] == 5


def test_passages_are_read_by_their_ids_and_documents_with_all_their_chunks(index: DuplexIndex) -> None:
    assert [passage.id for passage in index.get(["d03::2", "d00", "d11"])] == [
        "d03::2",
        "d00",
        *(f"d11::{number}" for number in range(1, LONG + 1)),
    ]
    (passage,) = index.get(["d03::2"])
    (wanted,) = [one for one in chunked(DOCUMENTS, lang=LANGUAGES) if one.id == "d03::2"]
    assert (passage, passage.metadata) == (wanted, wanted.metadata)
    assert corpus_fingerprint(index.get(["d11"])) == corpus_fingerprint(chunked({"d11": DOCUMENTS["d11"]}))
    with pytest.raises(DupmaeError, match="has no passage 'nobody'"):
        index.get(["d00", "nobody"])
    with pytest.raises(DupmaeError, match="ids"):
        index.get("d00")
    assert "d11" in index
    assert "d11::14" in index
    assert "d11::15" not in index
    index.delete(["d11"])
    assert "d11" not in index
    assert "d11::14" not in index


def test_an_index_is_iterated_in_the_order_of_ids(index: DuplexIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dupmae.index.storage.passages._READ_TOGETHER", 4)
    index.delete(["d12", "d29"])
    index.add(chunked({"d05": [1, 2, 3]}))
    state = {name: rows for name, rows in DOCUMENTS.items() if name not in ("d12", "d29")} | {"d05": [1, 2, 3]}
    found = list(index)
    assert [passage.id for passage in found] == sorted(passage.id for passage in chunked(state))
    assert {passage.id: passage.text for passage in found} == {one.id: one.text for one in chunked(state)}
    assert len(found) == len(index)


def test_a_document_is_explained_by_its_best_chunk(index: DuplexIndex) -> None:
    query = WORDY_QUERIES[0]
    best = {document: (name, score) for document, score, name in by_hand(index, 100)[0]}
    for hit in index.explain(query, ["d11", "d04", "d00"]):
        assert (hit.id, pytest.approx(hit.score)) == best[hit.document]
    (chunk,) = index.explain(query, ["d11::3"])
    assert chunk.id == "d11::3"
    explained = explain(index, query, 3, ["d11::3"])
    order = [document for document, _, _ in by_hand(index, 100)[0]]
    assert [one.hit.document for one in explained.hits[:3]] == order[:3]
    assert explained.hits[-1].ranks[0] == order.index("d11") + 1
    limited = explain(index, query, 2, where="lang=de")
    assert {one.hit.metadata["lang"] for one in limited.hits} == {"de"}
    passages = explain(index, query, 5, group="none")
    (ids, *_), _ = index.search_embeddings(index.encoder.embed_queries([query]), 5, group="none")
    assert [one.hit.id for one in passages.hits[:5]] == ids
