from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from dupmae import DuplexEncoder, DuplexIndex, Passage
from dupmae.cli import main
from dupmae.errors import DupmaeError
from dupmae.serving.names import named


def ask(port: int, path: str, body: Any = None, key: str = "k1") -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def test_a_server_answers_follows_the_index_and_ends_when_told(
    folder: Path, duplex_folder: Path, texts: list[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    keys = tmp_path / "keys.txt"
    keys.write_text("k1\n\nk2\n", encoding="utf-8")
    command = [sys.executable, "-m", "dupmae", "serve", str(folder), "--port", str(port), "--api_key_file", str(keys)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"DUPMAE_API_KEYS": "k3"}, text=True)
    try:
        for _ in range(300):
            try:
                assert ask(port, "/ready") == {"status": "ready"}
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None
                time.sleep(0.1)
        for key in ("k1", "k2", "k3"):
            found = ask(port, "/search", {"queries": [texts[2]], "k": 3}, key)["results"][0]["hits"]
            assert len(found) == 3
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(port, "/search", {"queries": [texts[2]]}, "k4")
        DuplexIndex(folder, DuplexEncoder(str(duplex_folder))).add([Passage("new", "", texts[2])])
        hits = ask(port, "/search", {"queries": [texts[2]], "k": 30})["results"][0]["hits"]
        assert "new" in [hit["document"] for hit in hits]
        with socket.create_connection(("127.0.0.1", port), timeout=20) as under_way:
            body = json.dumps({"queries": [texts[2]]}).encode()
            head = "POST /search HTTP/1.1", "Host: localhost", "Authorization: Bearer k1"
            size = "Content-Type: application/json", f"Content-Length: {len(body)}"
            written = "\r\n".join([*head, *size, "", ""]).encode() + body
            under_way.sendall(written[:-5])
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            under_way.sendall(written[-5:])
            assert under_way.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM)
    records = [json.loads(line) for line in log.splitlines()]
    assert any(f"http://127.0.0.1:{port} " in record.get("message", "") for record in records)
    statuses = [record["status"] for record in records if record.get("method") == "POST"]
    assert sorted(statuses) == [200, 200, 200, 200, 200, 401]  # a line may come after the next request's
    assert texts[2] not in log
    assert "Traceback" not in log


def test_an_address_that_is_not_to_be_had_is_one_sentence(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status = main(["serve", str(built), "--port", str(taken.getsockname()[1])])
    assert status == 2
    assert "address already in use" in capsys.readouterr().err
    assert main(["serve", str(built), "--port", "70000"]) == 2
    assert "--port is 70000" in capsys.readouterr().err
    assert main(["serve", str(built), "--host", "no such host"]) == 2
    assert "choose an address" in capsys.readouterr().err


def test_what_cannot_be_served_is_said_first(
    tmp_path: Path, built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main(["serve", str(built), "--model", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    (tmp_path / "keys").write_text("\n", encoding="utf-8")
    assert main(["serve", str(built), "--api_key_file", str(tmp_path / "keys")]) == 2
    assert "holds no API key" in capsys.readouterr().err
    for extra, module, options in (("serve", "dupmae.serving.serve", []), ("mcp", "dupmae.serving.mcp", ["--mcp"])):
        monkeypatch.setitem(sys.modules, module, None)
        assert main(["serve", str(built), *options]) == 2
        assert f"pip install 'dupmae[{extra}]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--mcp", "--port", "9000"], "--port is for HTTP"),
        (["--mcp", "--log_queries"], "--log_queries is for HTTP"),
        (["--origins", "https://example.org/"], "no path behind it"),
        (["--hosts", "example.org", "example.org:80"], "'example.org:80': give a name alone"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    built: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert main(["serve", str(built), *options]) == 2
    assert sentence in capsys.readouterr().err


def test_indexes_are_named_by_their_folders(tmp_path: Path) -> None:
    folders = [str(tmp_path / place) for place in ("a/docs", "b/docs", "mail")]
    assert list(named(folders)) == ["docs", "docs-2", "mail"]
    with pytest.raises(DupmaeError, match="given twice"):
        named([folders[0], f"{folders[0]}/../docs"])


def test_assistants_get_what_the_index_finds(built: Path, texts: list[str]) -> None:
    from mcp.server.mcpserver.exceptions import ToolError

    from dupmae.serving.mcp import make_tools

    server, index = make_tools({"small": str(built)}), DuplexIndex.open(built)

    def call(name: str, **arguments: Any) -> Any:
        return asyncio.run(server.call_tool(name, arguments))

    def contents(result: Any) -> Any:
        return result.structured_content if hasattr(result, "structured_content") else result[1]

    hits = contents(call("search", query=texts[2], k=3))["result"]
    assert [hit["document"] for hit in hits] == [hit.document for hit in index.search([texts[2]], 3)[0]]
    why = contents(call("explain", query=texts[2], document="p04"))
    assert why["document"] == "p04"
    assert why["rank"] >= 1
    for wrong in (
        {"query": " "},
        {"query": "a" * 10_001},
        {"query": "a", "index": "other"},
        {"query": "a", "where": "colour=red"},
    ):
        with pytest.raises(ToolError):
            call("search", **wrong)
