"""Failures while a command runs: those that are foreseen get one sentence and a status, all others a traceback."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from tqdm import tqdm

from dupmae.cli import entry as cli
from dupmae.cli.failures import explain, fail
from dupmae.errors import DupmaeError


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (DupmaeError("corpus.jsonl, line 3: no text"), 2, "corpus.jsonl, line 3: no text"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on where it stopped"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 1, "no space left on the disk of out/x"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "left on the disk of out; the same command goes on"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "no space left on the disk of out;"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"), 1, "no space left on"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "not enough memory: take smaller"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("std::bad_alloc"), 1, "not enough memory"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] data. DefaultCPUAllocator: can't allocate memory: you tried to "
                "allocate 4 bytes. Error code 12 (Cannot allocate memory)"
            ),
            1,
            "not enough memory",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory: you tried"),
            1,
            "not en",
        ),
        (RuntimeError("can't start new thread"), 1, "not enough memory"),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object: Cannot allocate memory"),
            1,
            "not enough",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "not enough memory"),
        (
            OSError(errno.EMFILE, "Too many open files", "out/segment"),
            2,
            "too many open files: allow more with `ulimit -n`",
        ),
        (RuntimeError("I/O error: Too many open files (os error 24)"), 2, "too many open files: allow more"),
        (
            shutil.Error([("a", "out/b", "[Errno 5] Input/output error")]),
            2,
            "out/b cannot be written: [Errno 5] Input/",
        ),
        (shutil.Error([("a", "out/b", "[Errno 28] No space left on device")]), 1, "no space left on the disk of out;"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "out/x"), 1, "no space left on the disk of out/x"),
        (
            RuntimeError("cannot cache function 'f': no locator available for file 'x.py'"),
            2,
            "let DUPMAE_CACHE name one",
        ),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), 2, "let TMPDIR name one"),
        (
            OSError(errno.ENOSPC, "No space left on device", "the standard output"),
            1,
            "the standard output cannot be writ",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "data/b"),
            2,
            "data/b: no such file or directory",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "data/b/corpus.jsonl"),
            2,
            "corpus.jsonl: permission denied",
        ),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "data"), 2, "data (on the way to data/b): not a dir"),
        (OSError(errno.EACCES, "Permission denied", ".out.17.tmp", None, "out"), 2, "out: permission denied"),
        (PermissionError(errno.EACCES, "Permission denied", ".out.17.tmp"), 2, "out: permission denied"),
        (OSError("org/model is not a valid model identifier\nlisted anywhere"), 2, "org/model is not a valid model"),
        (
            OSError("We couldn't connect to 'https://huggingface.co'."),
            2,
            "the model org/model cannot be loaded: We could",
        ),
    ],
)
def test_each_foreseen_failure_gets_one_sentence_and_its_exit_status(
    error, status, sentence, run_recipe, write, capsys
):
    run_recipe.side_effect = error
    file = write("r.yaml", "output: out\nbase_model: org/model\ndata: {benchmark: data/b}\n")
    assert cli.main(["run", file]) == status
    message = capsys.readouterr().err
    assert message.startswith("dupmae: error: ")
    assert sentence in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("given", ["out", "./out", "{here}/out", "link/out"])
@pytest.mark.parametrize("touched", ["{here}/out/lock", "out/lock", "{here}/.out.lock", "{here}/out"])
def test_a_path_of_the_user_is_recognised_however_it_is_spelled(
    given, touched, run_recipe, write, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    given, touched = (name.format(here=tmp_path) for name in (given, touched))
    run_recipe.side_effect = OSError(errno.EROFS, "Read-only file system", touched)
    assert cli.main(["run", write("r.yaml", f"output: {given}\n")]) == 2
    message = capsys.readouterr().err
    assert message.removeprefix("dupmae: error: ").removeprefix("./").startswith(given.removeprefix("./"))
    assert message.endswith(": read-only file system\n")


@pytest.mark.parametrize(
    "error",
    [
        KeyError("missing"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "somewhere/else"),
        OSError("something odd"),
    ],
)
def test_a_defect_of_ours_shows_its_traceback(error, run_recipe, write):
    run_recipe.side_effect = error
    with pytest.raises(type(error)):
        cli.main(["run", write("r.yaml", "output: out\n")])


def test_interrupting_a_command_that_cannot_go_on_does_not_promise_it(stand_in, capsys):
    stand_in("dupmae.index.DuplexIndex.open", side_effect=KeyboardInterrupt)
    assert cli.main(["search", "folder", "q"]) == 130
    assert "goes on" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [os.fsdecode(b"index-\xff"), "index-\udcc3\udcaf"])
def test_a_file_whose_name_libraries_cannot_open_is_named_with_what_to_do(name: str) -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        pa.memory_map(name)
    sentence, status = explain(raised.value, {"index": name, "query": "lamp"}, resumable=False) or ("", 0)
    assert sentence.startswith(f"index is {name}, whose name is not UTF-8")
    assert "PYTHONUTF8=1" in sentence
    assert status == 2
    assert explain(raised.value, {"index": "plain"}, resumable=False) is None


def test_a_link_that_leads_back_to_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RuntimeError) as raised:
        (tmp_path / "loop").resolve()
    assert explain(raised.value, {}, resumable=False) == (
        f"'{tmp_path}/loop' is a link that leads back to itself: delete it",
        2,
    )


def test_the_sentence_comes_behind_the_bars_that_are_open(capsys: pytest.CaptureFixture[str]) -> None:
    bar = tqdm(range(3), desc="work", file=sys.stderr)
    next(iter(bar))
    assert fail("it went wrong", 1) == 1
    bar.close()
    assert capsys.readouterr().err.endswith("\ndupmae: error: it went wrong\n")
