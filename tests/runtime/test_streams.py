"""Standard streams that know few characters, or that are closed, full or left by their reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

START = "import sys; from dupmae.runtime.streams import settle_streams; settle_streams(); "


def run(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    given = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(["bash", "-c", command], capture_output=True, env=given, timeout=60, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_is_printed_as_json_would_have_it(encoding):
    code = f"{START} import json; print(json.dumps(['é→東🦄', 'caf\\udce9'], ensure_ascii=False)); "
    code += "print('東', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=True
    )
    assert json.loads(done.stdout.decode(encoding)) == ["é→東🦄", "caf\udce9"]
    assert done.stderr.decode(encoding).strip() in ("\\u6771", "東")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_stream_that_is_closed_is_nothing_and_its_number_is_not_given_to_a_file(closed, tmp_path):
    code = f"{START} file = open('file', 'w'); print('out'); print('err', file=sys.stderr); "
    code += "import os; os.write(1, b'x'); file.write(str(file.fileno() > 2)); sys.stdin.read()"
    done = run(f'cd "{tmp_path}"; "$PYTHON" -c "{code}" {closed}')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "True"
    assert run(f'"$PYTHON" -m dupmae --help {closed}').returncode == 0


@pytest.mark.parametrize(
    ("command", "status", "sentence"),
    [
        ("--help > /dev/full", 1, "the standard output cannot be written to: no space left on device"),
        ("serch > /dev/full", 2, "unknown command"),
        ("serch 2> /dev/full", 2, ""),
        ("serch 2>&-", 2, ""),
    ],
)
def test_streams_that_are_full_or_closed_give_one_sentence_where_there_is_room(command, status, sentence):
    done = run(f'"$PYTHON" -m dupmae {command}')
    assert (done.returncode, done.stderr.count(b"\n")) == (status, bool(sentence)), done.stderr
    assert sentence in done.stderr.decode()


def test_a_reader_that_goes_is_no_error(tmp_path: Path):
    done = run('"$PYTHON" -m dupmae --help | head -c 0; echo "${PIPESTATUS[0]}"')
    assert done.stdout.strip() in (b"141", b"0")
    assert done.stderr == b""
