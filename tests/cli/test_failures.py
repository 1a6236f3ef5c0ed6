"""Failures while a command runs: those that are foreseen get one sentence and a status, all others a traceback."""

from __future__ import annotations

import errno

import pytest
import torch

from dupmae.cli import entry as cli
from dupmae.errors import DupmaeError


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (DupmaeError("corpus.jsonl, line 3: no text"), 2, "corpus.jsonl, line 3: no text"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on where it stopped"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 1, "no space left on the disk of out/x"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space left on the disk of out; nothing half-written"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "no space left on the disk of out;"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"), 1, "no space left on"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "not enough memory: take smaller"),
        (MemoryError(), 1, "not enough memory"),
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
