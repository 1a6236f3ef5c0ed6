"""Frameworks find through their adapters what the index finds, and the examples of their page run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from dupmae import DuplexEncoder, DuplexIndex, DupmaeError, Passage

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
NEEDS = {
    "MTEB": "mteb",
    "PyTerrier": "pyterrier",
    "LangChain": "langchain_qdrant",
    "LlamaIndex": "llama_index",
    "Haystack": "haystack",
    "sentence-transformers": "sentence_transformers",
}
"""Heading of the page -> the package without which its examples are not run."""
QUERIES = ["how do lamps guide ships?", "bread and yeast"]
TEXTS = {
    "sea": ("Lights", "A lamp behind a lens guides ships at night. " * 30),
    "bread": ("Baking", "Wild yeast makes sourdough rise."),
    "bees": ("", "Bees dance to tell where flowers are."),
    "device": ("Device", "Hold both buttons to reset the device."),
}


@pytest.fixture(scope="module")
def encoder() -> DuplexEncoder:
    """The model that ships."""
    return DuplexEncoder("dupmae-small", device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, encoder) -> Path:
    """A folder with an index, of which one document is in chunks."""
    place = tmp_path_factory.mktemp("frameworks")
    passages = [Passage(name, title, text, {"kind": name[0]}) for name, (title, text) in TEXTS.items()]
    encoder.precision = "float32"
    DuplexIndex.build(place / "index", encoder, passages, chunk_tokens=60)
    return place


@pytest.fixture(scope="module")
def index(folder) -> DuplexIndex:
    """The index, opened."""
    return DuplexIndex.open(folder / "index")


def examples() -> list[tuple[str, str]]:
    """The page's blocks of Python, with their headings."""
    parts = re.split(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = zip(parts[1::2], parts[2::2], strict=True)
    return [
        (heading, block)
        for heading, text in sections
        for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize(
    ("heading", "block"), [pytest.param(*one, id=f"{one[0]}-{n}") for n, one in enumerate(examples())]
)
def test_the_examples_of_the_page_run(heading, block, folder, encoder, monkeypatch, capsys) -> None:
    if importlib.util.find_spec(NEEDS[heading]) is None:
        pytest.skip(f"{NEEDS[heading]} is not installed")
    monkeypatch.chdir(folder)
    if heading == "sentence-transformers":
        encoder.save("model")
    exec(compile(block, str(PAGE), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out


def test_pyterrier_retrieves_and_scores_again(index) -> None:
    pytest.importorskip("pyterrier")
    import pandas as pd

    from dupmae.integrations.pyterrier import DuplexRetriever

    topics = pd.DataFrame([{"qid": str(number), "query": query} for number, query in enumerate(QUERIES)])
    expected = [[(hit.document, hit.score) for hit in hits] for hits in index.search(QUERIES, 3)]
    for with_text in (False, True):
        found = DuplexRetriever(index, num_results=3, with_text=with_text)(topics)
        for number, hits in enumerate(expected):
            rows = found[found.qid == str(number)].sort_values("rank")
            assert rows.docno.tolist() == [document for document, _ in hits]
            assert rows.score.tolist() == pytest.approx([score for _, score in hits], rel=1e-6)
            assert rows["rank"].tolist() == [0, 1, 2]
    assert set(found.columns) == {"qid", "query", "docno", "score", "rank", "title", "text"}
    turned = found.assign(score=-found.score)
    again = (DuplexRetriever(index))(turned)
    assert again.sort_values(["qid", "rank"]).docno.tolist() == found.sort_values(["qid", "rank"]).docno.tolist()
    only = DuplexRetriever(index, num_results=3, where="kind=b")(topics)
    assert set(only.docno) == {"bread", "bees"}
    with pytest.raises(DupmaeError, match="some are given"):
        DuplexRetriever(index, where="kind=b")(found)
    asked_again = found[["qid", "query", "score", "rank"]].drop_duplicates("qid")
    assert DuplexRetriever(index, num_results=3)(asked_again).docno.tolist() == found.docno.tolist()
    (sea,) = (hit for hit in index.search([QUERIES[0]], 4)[0] if hit.document == "sea")
    assert sea.id != "sea"
    chunk = DuplexRetriever(index)(pd.DataFrame([{"qid": "1", "query": QUERIES[0], "docno": sea.id}]))
    assert chunk.score.tolist() == pytest.approx([sea.score], rel=1e-6)
    assert len(DuplexRetriever(index)(topics.iloc[:0])) == 0


def test_pyterrier_encodes(encoder) -> None:
    pytest.importorskip("pyterrier")
    import pandas as pd

    from dupmae.integrations.pyterrier import DuplexVectors

    row = DuplexVectors(encoder, "query")(pd.DataFrame([{"qid": "1", "query": "lamps"}])).iloc[0]
    embedded = encoder.embed_queries(["lamps"])
    assert row.query_vec.tolist() == pytest.approx(embedded.cls[0].tolist(), rel=1e-5)
    assert sum(row.query_toks.values()) == pytest.approx(float(embedded.weights.sum()), rel=1e-5)
    texts = pd.DataFrame([{"docno": "1", "text": "lamps at sea"}])
    assert "sea" in DuplexVectors(encoder, "document")(texts).iloc[0].toks


def test_langchain_retrieves(index, encoder) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.vectorstores import InMemoryVectorStore

    from dupmae.integrations.langchain import DenseEmbeddings, DuplexRetriever

    found = DuplexRetriever(index=index, k=2).invoke(QUERIES[0])
    (expected,) = index.search([QUERIES[0]], 2)
    assert [one.id for one in found] == [hit.id for hit in expected]
    assert [one.metadata["score"] for one in found] == [hit.score for hit in expected]
    assert found[0].metadata["document"] == "sea"
    with pytest.raises(ValueError, match="top_k"):  # a setting that there is not is not passed over
        DuplexRetriever(index=index, top_k=2)
    texts = [text for _, text in TEXTS.values()]
    store = InMemoryVectorStore.from_texts(texts, DenseEmbeddings(encoder))
    assert store.similarity_search("loaves", k=1)[0].page_content == TEXTS["bread"][1]


def scores_of(encoder: DuplexEncoder, query: str, texts: list[str]) -> list[float]:
    """The whole score, with words of the rarity that the model knows."""
    return encoder.similarity(encoder.encode_query(query), encoder.encode_document(texts))[0].tolist()


def test_langchains_qdrant_store_has_the_whole_score(encoder) -> None:
    pytest.importorskip("langchain_qdrant")
    from langchain_qdrant import QdrantVectorStore, RetrievalMode

    from dupmae.integrations.langchain_qdrant import DuplexEmbeddings

    texts = [text for _, text in TEXTS.values()]
    store = QdrantVectorStore.from_texts(
        texts,
        sparse_embedding=DuplexEmbeddings(encoder),
        retrieval_mode=RetrievalMode.SPARSE,
        location=":memory:",
    )
    found = {one.page_content: score for one, score in store.similarity_search_with_score(QUERIES[1], k=4)}
    assert [found[text] for text in texts] == pytest.approx(scores_of(encoder, QUERIES[1], texts), rel=1e-5)


def test_llama_index_retrieves(index) -> None:
    pytest.importorskip("llama_index.core")
    from llama_index.core.schema import MetadataMode

    from dupmae.integrations.llama_index import DuplexRetriever

    found = DuplexRetriever(index, similarity_top_k=2).retrieve(QUERIES[1])
    (expected,) = index.search([QUERIES[1]], 2)
    assert [(one.node.node_id, one.score) for one in found] == [(hit.id, hit.score) for hit in expected]
    read = found[0].node.get_content(metadata_mode=MetadataMode.LLM)
    assert expected[0].title in read
    assert "score" not in read


def test_haystack_retrieves_and_is_written_down(folder, index) -> None:
    pytest.importorskip("haystack")
    from haystack import Pipeline

    from dupmae.integrations.haystack import DuplexRetriever

    pipeline = Pipeline()
    pipeline.add_component("retriever", DuplexRetriever(folder / "index", top_k=2))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["dupmae.integrations.haystack"])
    found = again.run({"retriever": {"query": QUERIES[0]}})["retriever"]["documents"]
    (expected,) = index.search([QUERIES[0]], 2)
    assert [(one.id, one.score) for one in found] == [(hit.id, hit.score) for hit in expected]


def test_haystacks_qdrant_store_ranks_by_the_whole_score(encoder) -> None:
    pytest.importorskip("haystack_integrations.document_stores.qdrant")
    from haystack import Document
    from haystack_integrations.components.retrievers.qdrant import QdrantSparseEmbeddingRetriever
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    from dupmae.integrations.haystack import DuplexDocumentEmbedder, DuplexTextEmbedder

    store = QdrantDocumentStore(":memory:", use_sparse_embeddings=True, recreate_index=True)
    texts = [text for _, text in TEXTS.values()]
    of_documents, of_query = DuplexDocumentEmbedder("dupmae-small"), DuplexTextEmbedder("dupmae-small")
    of_documents.encoder = of_query.encoder = encoder
    store.write_documents(of_documents.run([Document(content=text) for text in texts])["documents"])
    retriever = QdrantSparseEmbeddingRetriever(store, top_k=4, scale_score=False)
    found = retriever.run(query_sparse_embedding=of_query.run(QUERIES[1])["sparse_embedding"])["documents"]
    scores = {one.content: one.score for one in found}
    assert [scores[text] for text in texts] == pytest.approx(scores_of(encoder, QUERIES[1], texts), rel=1e-5)


def test_haystacks_embedders_give_the_whole_score(encoder) -> None:
    pytest.importorskip("haystack")
    from haystack import Document

    from dupmae.integrations.haystack import DuplexDocumentEmbedder, DuplexTextEmbedder

    documents = [Document(content=text, meta={"title": title}) for title, text in TEXTS.values()]
    made = DuplexDocumentEmbedder("dupmae-small"), DuplexTextEmbedder("dupmae-small")
    for one in made:
        one.encoder = encoder
    embedded = made[0].run(documents)["documents"]
    query = made[1].run(QUERIES[0])["sparse_embedding"]
    weights = dict(zip(query.indices, query.values, strict=True))
    texts = [Passage("", title, text).full_text for title, text in TEXTS.values()]
    found = [
        sum(
            weights.get(place, 0.0) * value
            for place, value in zip(one.sparse_embedding.indices, one.sparse_embedding.values, strict=True)
        )
        for one in embedded
    ]
    assert found == pytest.approx(scores_of(encoder, QUERIES[0], texts), rel=1e-5)
    assert documents[0].sparse_embedding is None  # those that were given stay as they are
