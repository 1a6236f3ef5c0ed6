"""What torchrun says in the environment is believed only where it makes sense, and only by commands that share work."""

from __future__ import annotations

import pytest

from dupmae.cli import main
from dupmae.cli.entry import COMMANDS, SHARED

GARBAGE = ["", " ", "x", "1.0", "-2", "9" * 30, "٣", "0x1", "\x1b[31m"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", GARBAGE)
@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"])
def test_garbage_is_named(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["index", "info", "nowhere"]) == 2
    assert f"The environment variable {variable} is " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE 2"),
        ({"RANK": "1"}, "RANK is 1, but WORLD_SIZE 1"),
        ({"WORLD_SIZE": "2"}, "RANK and MASTER_ADDR and MASTER_PORT not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"}, "WORLD_SIZE is 2, but MASTER_ADDR not set"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "h", "MASTER_PORT": "65536"}, "MASTER_PORT is '65536'"),
    ],
)
def test_what_no_torchrun_set_is_refused(
    environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["pretrain", "--corpus", "nowhere", "--output", "out", "--model", "m"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_torchrun_goes_before_commands_that_share_their_work_alone(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(variable, value)
    assert main([*name.split(), "--nonsense"]) == 2
    refused = f"dupmae {name} is the work of one process: start it without torchrun" in capsys.readouterr().err
    assert refused is (name not in SHARED)
