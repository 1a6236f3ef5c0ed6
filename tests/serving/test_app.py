from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_serving import HOSTILE, app_of
from starlette.testclient import TestClient

from dupmae import DuplexEncoder, DuplexIndex, Passage
from dupmae.errors import DupmaeError
from dupmae.index import Weights
from dupmae.index.explanation import explain, explanation_as_record
from dupmae.serving.app import PAGE, make_app


@pytest.fixture(scope="module")
def index(built: Path) -> DuplexIndex:
    return DuplexIndex.open(built)


def searched(client: TestClient, **asked: Any) -> list[list[tuple[str, float]]]:
    """The documents and scores that a server finds for each query."""
    answer = client.post("/search", json=asked)
    assert answer.status_code == 200, answer.text
    return [[(hit["document"], hit["score"]) for hit in result["hits"]] for result in answer.json()["results"]]


def expected(index: DuplexIndex, queries: list[str], **options: Any) -> list[list[tuple[str, float]]]:
    return [[(hit.document, hit.score) for hit in hits] for hits in index.search(queries, **options)]


def test_searches_find_what_the_index_finds(client: TestClient, index: DuplexIndex, texts: list[str]) -> None:
    queries = texts[:3]
    assert searched(client, queries=queries) == expected(index, queries)
    weights = {"dense": 0.5, "lexical": 2, "words": 0}
    assert searched(client, queries=queries, k=3, group="none", weights=weights, where="year>=2005 and lang=en") == [
        [(hit.document, hit.score) for hit in hits]
        for hits in index.search(queries, 3, "year>=2005 and lang=en", weights=Weights(0.5, 2, 0), group="none")
    ]


def test_a_hit_has_the_fields_of_the_command(client: TestClient, index: DuplexIndex, texts: list[str]) -> None:
    hit = client.post("/search", json={"queries": [texts[3]], "k": 1, "explain": True}).json()["results"][0]
    first = hit["hits"][0]
    documented = (Path(__file__).parents[2] / "docs" / "file-formats.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in documented for name in first)
    start = first["snippet_start"] - first["start"]
    assert first["text"][start : start + len(first["snippet"])] == first["snippet"]
    assert hit["explanation"] == json.loads(json.dumps(explanation_as_record(explain(index, texts[3], 1))))


def test_explanations_are_those_of_the_index(client: TestClient, index: DuplexIndex, texts: list[str]) -> None:
    answer = client.post("/explain", json={"query": texts[1], "k": 2, "ids": ["p07"]}).json()
    assert answer == {"index": "small"} | json.loads(
        json.dumps(explanation_as_record(explain(index, texts[1], 2, ["p07"])))
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/search", {"queries": ["a"] * 5}, 422, "queries: 5 are more than the 4"),
        ("/search", {"queries": ["a" * 501]}, 422, "501 characters"),
        ("/search", {"queries": ["  "]}, 422, "empty"),
        ("/search", {"queries": []}, 422, "queries"),
        ("/search", {"queries": ["\ud800"]}, 422, "unicode"),
        ("/search", {"queries": ["a"], "k": 21}, 422, "k: 21 are more than the 20"),
        ("/search", {"queries": ["a"], "k": 0}, 422, "k: "),
        ("/search", {"queries": ["a"], "kk": 1}, 422, "kk: "),
        ("/search", {"queries": ["a"], "group": "all"}, 422, "group: "),
        ("/search", {"queries": ["a"], "where": "year >="}, 422, "where: "),
        (
            "/search",
            {"queries": ["a"], "where": "colour=red"},
            422,
            "no metadata field 'colour'; the index has lang, year",
        ),
        ("/search", {"queries": ["a"] * 4, "k": 20}, 422, "hits (queries times k): 80 are more than the 60"),
        ("/search", {"queries": ["a"], "k": 6, "explain": True}, 422, "6 are more than the 5"),
        ("/search", {"queries": ["a"], "where": ["year=2000"] * 60}, 422, "characters of where: 540"),
        ("/search", {"queries": ["a"], "index": "\ud800"}, 422, "index: "),
        ("/search", {"queries": ["a"], "weights": {"dense": -1}}, 422, "weights.dense: "),
        ("/search", {"queries": ["a"], "weights": {"dense": 0, "lexical": 0, "words": 0}}, 422, "weights: "),
        ("/search", {"queries": ["a"], "index": "../small"}, 404, "Name one of these indexes: small"),
        ("/explain", {"query": "a", "ids": ["nobody"]}, 404, "no passage 'nobody'"),
        ("/explain", {"query": "a", "k": 2, "ids": ["p01"] * 4}, 422, "6 are more than the 5"),
        ("/explain", {"query": "a", "where": "colour=red"}, 422, "no metadata field 'colour'"),
        ("/embed", {"inputs": []}, 422, "no text"),
        ("/embed", {"inputs": ["a"] * 4}, 422, "texts: 4 are more than the 3"),
        ("/rerank", {"query": "a", "texts": []}, 422, "texts"),
        ("/v1/embeddings", {"input": "a", "dimensions": 5}, 422, "dimensions: "),
        ("/v1/embeddings", {"input": "a", "model": "\ud800"}, 422, "model: "),
        ("/embed", {"inputs": "a", "dimensions": 5}, 422, "dimensions: "),
        ("/embed", {"inputs": "a", "truncate": False}, 422, "truncate: "),
        ("/embed", {"inputs": "a", "pooling": "mean"}, 422, "pooling: "),
        ("/nothing", {}, 404, "Not Found"),
    ],
)
def test_what_cannot_be_done_gets_a_status_and_a_sentence(
    client: TestClient, path: str, body: Any, status: int, sentence: str
) -> None:
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    record = answer.json()
    assert answer.status_code == status
    assert sentence in record["error"]
    assert len(record["error"]) <= 500
    assert record.keys() == {"error", "error_type"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *((body, 422) for body in (b"", b"{", b"[]", b'{"queries": "a"}', b"null", b'{"queries": [NaN]}')),
        *((body, 400) for body in (b"[" * 15_000, b'{"queries": ["\xff"]}', b'{"k": ' + b"9" * 6000 + b"}")),
    ],
    ids=repr,
)
def test_bodies_that_are_no_request_are_refused(client: TestClient, body: bytes, status: int) -> None:
    answer = client.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["error_type"] == {400: "BadRequest", 422: "Validation"}[status]


def test_large_bodies_are_refused_whether_they_say_so_or_not(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        yield from [b"x" * 1000] * 30

    for content in (b"x" * 30_000, parts()):
        answer = client.post("/search", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "20,000 bytes" in answer.json()["error"]


@pytest.mark.parametrize("identifier", ["p03", "a/../b c.md", "long"])
def test_documents_are_read_by_their_ids(client: TestClient, index: DuplexIndex, identifier: str) -> None:
    answer = client.get(f"/documents/{identifier.replace('.', '%2E').replace(' ', '%20')}").json()
    passages = index.get([identifier])
    assert [(one["id"], one["text"], one["metadata"]) for one in answer["passages"]] == [
        (one.id, one.text, one.metadata) for one in passages
    ]


@pytest.mark.parametrize("path", ["%2E%2E/manifest.json", "/etc/passwd", "manifest.json", "%00", "x" * 3000])
def test_no_path_leads_to_a_file(client: TestClient, path: str) -> None:
    answer = client.get(f"/documents/{path}")
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "segment" not in answer.text


def test_vectors_and_ranks_are_those_of_the_model(client: TestClient, duplex_folder: Path, texts: list[str]) -> None:
    encoder, query, passages = DuplexEncoder(str(duplex_folder)), texts[0], texts[1:4]
    dense = np.array(client.post("/embed", json={"inputs": passages}).json())
    np.testing.assert_allclose(dense, encoder.embed_documents(passages).cls, rtol=1e-4, atol=1e-5)
    (asked,) = client.post("/embed_sparse", json={"inputs": query, "prompt_name": "query"}).json()
    vector = encoder.encode_query(query).coalesce()
    others = {int(place): float(value) for place, value in zip(vector.indices()[0], vector.values(), strict=True)}
    vocabulary, width = encoder.pooling.vocabulary_size, encoder.pooling.dense_dimension
    wanted = {place: value for place, value in others.items() if value and not vocabulary <= place < vocabulary + width}
    assert {one["index"]: pytest.approx(one["value"], rel=1e-3, abs=1e-5) for one in asked} == wanted
    ranks = client.post("/rerank", json={"query": query, "texts": passages, "return_text": True}).json()
    wanted_scores = encoder.similarity(encoder.encode_query(query), encoder.encode_document(passages))[0]
    assert [one["index"] for one in ranks] == wanted_scores.argsort(descending=True).tolist()
    assert [one["score"] for one in ranks] == pytest.approx(sorted(wanted_scores.tolist(), reverse=True), rel=1e-3)
    assert [one["text"] for one in ranks] == [passages[one["index"]] for one in ranks]


def test_openais_form_has_the_same_vectors(client: TestClient, duplex_folder: Path, texts: list[str]) -> None:
    dense = client.post("/embed", json={"inputs": texts[:2]}).json()
    plain = client.post("/v1/embeddings", json={"input": texts[:2], "model": "any"}).json()
    packed = client.post("/v1/embeddings", json={"input": texts[:2], "encoding_format": "base64"}).json()
    assert [one["embedding"] for one in plain["data"]] == dense
    assert plain["model"] == "any"
    tokenizer = DuplexEncoder(str(duplex_folder)).tokenizer
    assert plain["usage"]["prompt_tokens"] == sum(map(len, tokenizer(texts[:2])["input_ids"]))
    decoded = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in packed["data"]]
    np.testing.assert_array_equal(np.array(decoded), np.array(dense, np.float32))


def test_vectors_are_scaled_if_that_is_asked_for(client: TestClient, texts: list[str]) -> None:
    asked = {"inputs": texts[:2], "prompt_name": "query"}
    plain, scaled = (
        np.array(client.post("/embed", json=asked | {"normalize": choice}).json()) for choice in (False, True)
    )
    assert not np.allclose(np.linalg.norm(plain, axis=1), 1)
    np.testing.assert_allclose(scaled, plain / np.linalg.norm(plain, axis=1, keepdims=True), rtol=1e-6)


def test_passages_that_are_embedded_leave_searches_as_they_were(built: Path, texts: list[str]) -> None:
    opened: list[DuplexIndex] = []

    def open_index() -> DuplexIndex:
        opened.append(DuplexIndex.open(built))
        return opened[-1]

    with TestClient(make_app({"small": open_index})) as client:
        before, encoder = searched(client, queries=texts[:3]), opened[0].queries
        assert client.post("/embed", json={"inputs": texts[0]}).status_code == 200
        assert client.post("/embed", json={"inputs": texts[1]}).status_code == 200
        assert opened[0].queries is encoder
        assert searched(client, queries=texts[:3]) == before
        assert len(opened) == 2


def test_keys_are_wanted_for_all_that_tells_of_the_index(built: Path) -> None:
    with TestClient(app_of(built, keys=["secret", "other", "schlüssel"]), raise_server_exceptions=False) as client:
        assert client.get("/health").status_code == client.get("/").status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer secre"},
            {"Authorization": "secret"},
            {"Authorization": "Basic x"},
        ):
            for path in ("/indexes", "/metrics", "/documents/p01"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        for key in (b"bearer other", "Bearer  schlüssel".encode()):
            assert client.get("/indexes", headers={"Authorization": key}).status_code == 200


def test_other_names_and_other_sites_are_refused(built: Path) -> None:
    with TestClient(app_of(built, hosts=["localhost", "::1"]), base_url="http://evil.example") as client:
        assert client.get("/indexes").status_code == client.get("/").status_code == 400
        assert client.get("/indexes").json()["error_type"] == "BadRequest"
        for name in ("localhost:80", "LOCALHOST", "[::1]:8000"):
            assert client.get("/indexes", headers={"Host": name}).status_code == 200
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with TestClient(app_of(built)) as client:
        assert "access-control-allow-origin" not in client.get("/health", headers=asked).headers
    with TestClient(app_of(built, origins=["https://a.example"], keys=["secret"])) as client:
        before = client.options("/search", headers=asked | {"Access-Control-Request-Headers": "authorization"})
        assert before.status_code == 200  # without a key: browsers bring none
        assert client.get("/indexes", headers=asked).status_code == 401
        for answer in (before, client.get("/indexes", headers=asked)):
            assert answer.headers["access-control-allow-origin"] == "https://a.example"
        other = client.options("/search", headers=asked | {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


def test_changes_are_found_and_a_broken_state_is_not_searched(
    folder: Path, duplex_folder: Path, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(app_of(folder), raise_server_exceptions=False) as client:
        writer = DuplexIndex(folder, DuplexEncoder(str(duplex_folder)))
        writer.add([Passage("new", "", texts[0])])
        assert "new" in [document for document, _ in searched(client, queries=[texts[0]], k=30)[0]]
        assert searched(client, queries=[texts[0]]) == expected(DuplexIndex.open(folder), [texts[0]])
        writer.delete(["new"])
        before = searched(client, queries=[texts[0]])
        assert "new" not in [document for document, _ in before[0]]
        manifest = folder / "manifest.json"
        whole = manifest.read_bytes()
        manifest.write_bytes(whole[:50])
        assert searched(client, queries=[texts[0]]) == before
        assert "stays as it was" in caplog.text
        manifest.write_bytes(whole)
        writer.add([Passage("newer", "", texts[0], {"colour": "red"})])
        assert searched(client, queries=[texts[0]], where="colour=red")[0][0][0] == "newer"
        writer.add([Passage("newest", "", texts[0], {"shape": "round"})])
        described = client.get("/indexes").json()["indexes"][0]
        assert described["metadata"] == ["colour", "lang", "shape", "year"]
        assert (described["values"]["shape"], described["documents"]) == (["round"], 16)


def test_a_fault_of_the_server_names_no_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with TestClient(app_of(folder, log=lines.append), raise_server_exceptions=False) as client:

        def damaged(*_: Any, **__: Any) -> Any:
            raise DupmaeError(f"{folder}/segment-1 is damaged")

        monkeypatch.setattr(DuplexIndex, "search", damaged)
        answer = client.post("/search", json={"queries": ["a secret"]})
        assert answer.status_code == 500
        assert str(folder) not in answer.text
        assert client.get("/health").status_code == 200
    record = json.loads(next(line for line in lines if "/search" in line))
    assert record["status"] == 500
    assert record["queries"] == 1
    assert "secret" not in "".join(lines)


def test_queries_are_logged_if_that_is_asked_for(built: Path) -> None:
    lines: list[str] = []
    with TestClient(app_of(built, log=lines.append, log_queries=True)) as client:
        client.post("/search", json={"queries": ["a secret"]})
    assert json.loads(lines[-1])["texts"] == ["a secret"]


def test_requests_and_queries_are_counted(client: TestClient) -> None:
    def count(line: str) -> float:
        found = [one for one in client.get("/metrics").text.splitlines() if one.startswith(line)]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    queries, refused = 'dupmae_queries_total{index="small"}', 'dupmae_requests_total{route="/search",status="422"}'
    before = count(queries), count(refused)
    client.post("/search", json={"queries": ["a", "b"]})
    client.post("/search", json={"queries": []})
    assert (count(queries), count(refused)) == (before[0] + 2, before[1] + 1)


def test_the_page_takes_nothing_from_elsewhere_and_makes_no_markup_of_texts(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not any(
            word in text for word in ("http://", "https://", "innerHTML", "eval(", "document.write", " style=")
        )


def test_indexes_are_listed(client: TestClient, index: DuplexIndex) -> None:
    assert client.get("/indexes").json()["indexes"] == [
        {"name": "small", "documents": len({passage.document for passage in index}), "passages": len(index)}
        | {"metadata": ["lang", "year"], "parts": ["dense", "lexical", "words"]}
        | {"values": {"lang": ["de", "en"], "year": list(range(1998, 2012))}}
    ]
    hit = client.post("/search", json={"queries": [HOSTILE], "k": 1}).json()["results"][0]["hits"][0]
    assert hit["title"] == HOSTILE
