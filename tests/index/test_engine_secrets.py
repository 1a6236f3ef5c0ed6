"""Keys and passwords reach the engine, and nobody else: no stream, no message, no file, no other host."""

from __future__ import annotations

import base64
import json
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_index import FakeEncoder, random_rows

from dupmae.cli import main
from dupmae.corpus import Passage
from dupmae.errors import DupmaeError, without_passwords
from dupmae.index import DuplexIndex
from dupmae.index.engines import open_engine, qdrant, read_api_key

KEY = "s3cr3t-k3y-0123456789"
PASSWORD = "p@ss/w%rd#1"
IN_URL = "p%40ss%2Fw%25rd%231"

pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")


class Server(ThreadingHTTPServer):
    """Answers every request alike, and remembers what each brought along."""

    daemon_threads = True

    def __init__(self, answer: str, elsewhere: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.elsewhere, self.seen = answer, elsewhere, list[dict[str, str]]()
        self.release = threading.Event()
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = json.dumps(self.server.seen[-1]).encode()  # a server that repeats what it was told
        match self.server.answer:
            case "good":
                path = self.path.rpartition("/")[2]
                result: Any = {"exists": True} if path == "exists" else {"operation_id": 1, "status": "completed"}
                self._send(200, json.dumps({"result": result, "status": "ok", "time": 0}).encode())
            case "garbage":
                self._send(200, b"<html>" + told)
            case "closes":
                self.connection.close()
            case "hangs":
                self.server.release.wait(20)
            case "redirects":
                self._send(302, b"", Location=f"http://{self.server.elsewhere}{self.path}")
            case status:
                self._send(int(status), told)

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(answer: str, elsewhere: str = "") -> Server:
        running.append(Server(answer, elsewhere))
        return running[-1]

    yield start
    for server in running:
        server.release.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def index(tmp_path: Path) -> str:
    cls, sparse = random_rows(np.random.default_rng(4), 5)
    corpus = [Passage(f"p{n}", f"{n}", f"text {n}") for n in range(5)]
    DuplexIndex.build(tmp_path / "index", FakeEncoder(cls, sparse), corpus, model="m")
    return str(tmp_path / "index")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUPMAE_API_KEY", "QDRANT_API_KEY", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(qdrant, "WAIT_SECONDS", 1)


def assert_silent(shown: str, folder: Path) -> None:
    """Fail if a form of a secret was shown, or written to a file other than that of the key."""
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    written = [file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != "key"]
    for secret in (KEY, PASSWORD, IN_URL, basic):
        assert secret not in shown
        assert not any(secret.encode() in content for content in written)


ANSWERS = ["good", "401", "403", "404", "500", "garbage", "closes", "hangs", "redirects"]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("given", ["DUPMAE_API_KEY", "QDRANT_API_KEY", "file", "url"])
def test_a_key_is_sent_and_never_shown_whatever_the_server_answers(
    given: str,
    answer: str,
    serve: Callable[..., Server],
    index: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    other = serve("good")
    server = serve(answer, other.place)
    words = ["index", "push", "qdrant", index, f"http://{server.place}/articles"]
    if given == "file":
        (tmp_path / "key").write_text(f"{KEY}\n")
        words += ["--api_key_file", str(tmp_path / "key")]
    elif given == "url":
        words[4] = f"http://me:{IN_URL}@{server.place}/articles"
    else:
        monkeypatch.setenv(given, KEY)
    status = main(words)
    out, err = capfd.readouterr()
    assert status == (0 if answer == "good" else 2), err
    assert_silent(out + err, tmp_path)
    assert other.seen == []  # a redirection is not followed
    expected = f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}" if given == "url" else KEY
    assert {seen.get("authorization" if given == "url" else "api-key") for seen in server.seen} == {expected}
    sentence = err.splitlines()[-1:] or [""]
    assert answer == "good" or (sentence[0].startswith("dupmae: error: ") and len(sentence[0]) < 520)
    assert answer not in ("401", "403") or "QDRANT_API_KEY" in sentence[0]


@pytest.mark.parametrize("answer", ["401", "500", "garbage"])
def test_a_traceback_of_a_failed_push_holds_no_secret(answer: str, serve: Callable[..., Server], index: str) -> None:
    engine = open_engine(f"http://me:{IN_URL}@{serve(answer).place}/articles", KEY)
    with pytest.raises(DupmaeError) as caught:
        engine.push(iter(()), 5)
    assert_silent("".join(traceback.format_exception(caught.value)), Path(index) / "none")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:SECRET@127.0.0.1:1/d#t",
        "postgresql://me:SECRET%zz@127.0.0.1:1/d#t",
        "postgresql://me:SECRET@127.0.0.1:port/d#t",
        "postgresql://me:SECRET@127.0.0.1:99999/d#t",
        "postgresql://me:SEC@SECRET@127.0.0.1:1/d#t",
        "postgresql://me:SECRET/x@127.0.0.1:1/d#t",
        "postgresql://me:SECRET@[::1/d#t",
        "postgresql://me:SECRET@127.0.0.1:1/d",
        "postgresql://127.0.0.1:1/d?user=me&password=SECRET#t",
        "postgresql://me:SECRET@127.0.0.1:1/d?nonsense=1#t",
        "ftp://me:SECRET@host/c",
        "http://me:SECRET@host:port/c",
        "http://me:SECRET@host",
        "http://me:SECRET@host/c?api-key=SECRET",
        "http://me:SECRET@host/c d",
        "http://me:SECRET@/c",
    ],
)
def test_no_error_about_a_url_holds_its_password(url: str, index: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    assert main(["index", "push", "qdrant" if url.startswith("http") else "pgvector", index, url]) == 2
    assert main(["search", "a query", "--engine", url, "--model", "no-model"]) == 2
    out, err = capfd.readouterr()
    assert "SECRET" not in out + err
    assert all(len(line) < 520 for line in err.splitlines())


@pytest.mark.parametrize("content", ["", " ", "two words", "two\nlines", "\x1b[2J", "ключ", "x" * 9000])
def test_what_is_no_key_is_refused_without_being_quoted(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DupmaeError, match="--api_key_file names holds no API key") as caught:
        read_api_key(file)
    assert not content.strip() or content not in str(caught.value)


def test_a_key_given_in_the_place_of_its_file_is_not_shown(index: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "push", "qdrant", index, "http://127.0.0.1:9/c", "--api_key_file", KEY]) == 2
    assert main(["index", "push", "qdrant", index, "http://127.0.0.1:9/c", "--api_key", KEY]) == 2
    out, err = capfd.readouterr()
    assert KEY not in out + err
    assert "did you mean --api_key_file?" in err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:pw@host/c and http://host:80/c", "at http://me:***@host/c and http://host:80/c"),
        ("postgresql://h/d?user=a&password=pw&sslmode=x", "postgresql://h/d?user=a&password=***&sslmode=x"),
        ("http://me@host:80/c", "http://me@host:80/c"),
        ("a: b@c", "a: b@c"),
    ],
)
def test_passwords_in_urls_are_left_out_and_nothing_else_is(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
