"""Paths with `~` and variables, and caches where a machine has no home, or one that is not to be written to."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dupmae.errors import DupmaeError
from dupmae.runtime import places
from dupmae.runtime.places import cache_folder, expanded, settle_caches

LIBRARIES = ("HF_HOME", "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME", "TRITON_CACHE_DIR", "MPLCONFIGDIR")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of which no variable says anything but the home; gives the folder of temporary files."""
    for variable in (*LIBRARIES, "TORCHINDUCTOR_CACHE_DIR", "NUMBA_CACHE_DIR", "DUPMAE_CACHE", "RANK"):
        monkeypatch.setenv(variable, "")  # so that what the tested code sets goes with the test
        monkeypatch.delenv(variable)
    for variable, folder in (("HOME", "home"), ("XDG_CACHE_HOME", "home/.cache"), ("TMPDIR", "tmp")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "tmp"


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders to be taken for read-only, for root, too."""
    folders: list[Path] = []
    access, mkdir = os.access, Path.mkdir

    def within(path: object) -> bool:
        return any(Path(str(path)).is_relative_to(folder) for folder in folders)

    def refuse_mkdir(path: Path, *arguments: int, **options: bool) -> None:
        if within(path) and not path.exists():
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *arguments, **options)

    monkeypatch.setattr(os, "access", lambda path, mode: not within(path) and access(path, mode))
    monkeypatch.setattr(Path, "mkdir", refuse_mkdir)
    return folders


def test_homes_and_variables_are_put_in_their_places(bare, monkeypatch, tmp_path):
    monkeypatch.setenv("WHERE", "some where")
    home = str(tmp_path / "home")
    for given, meant in {
        "~": home,
        "~/x": f"{home}/x",
        "$HOME/x": f"{home}/x",
        "${HOME}/x": f"{home}/x",
        "a/${WHERE}b/$WHERE": "a/some whereb/some where",
        "~root/x": f"{Path('~root').expanduser()}/x",
        "./~/x": "./~/x",
        "a~b": "a~b",
        "a$/b": "a$/b",
        "price$5": "price$5",
        "": "",
    }.items():
        assert expanded(given) == meant, given


@pytest.mark.parametrize(
    ("path", "reason"),
    [("~nobody-at-all/x", "whose home"), ("a/$NOT_SET/x", r"\$NOT_SET, which is not set"), ("a\0b", "NUL")],
)
def test_what_cannot_be_expanded_is_refused_unless_it_is_there_by_that_name(path, reason, bare, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DupmaeError, match=reason):
        expanded(path)
    if "\0" not in path:
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
        assert expanded(path) == path


def test_the_cache_is_the_users_own_or_the_named_one(bare, monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "home" / ".cache" / "dupmae"
    monkeypatch.setenv("DUPMAE_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "home" / "kept"
    assert cache_folder().is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("DUPMAE_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(DupmaeError, match="DUPMAE_CACHE names the folder"):
        cache_folder()


def test_without_a_home_to_write_to_caches_are_private_and_this_is_said_once(bare, read_only, tmp_path, capsys):
    read_only.append(tmp_path / "home")
    settle_caches()
    own = cache_folder()
    assert own == bare / f"dupmae-{os.getuid()}"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    for variable in (*LIBRARIES, "TORCHINDUCTOR_CACHE_DIR"):
        assert Path(os.environ[variable]).is_relative_to(own), variable
    assert "NUMBA_CACHE_DIR" not in os.environ  # beside the sources, which can be written to
    assert capsys.readouterr().err.count("\n") == 1


def test_models_in_a_home_that_can_only_be_read_are_still_found(bare, read_only, tmp_path):
    (tmp_path / "home" / ".cache" / "huggingface").mkdir(parents=True)
    read_only.append(tmp_path / "home")
    settle_caches()
    assert "HF_HOME" not in os.environ
    assert Path(os.environ["HF_MODULES_CACHE"]).is_relative_to(bare)


def test_a_home_to_write_to_changes_nothing(bare, capsys):
    before = dict(os.environ)
    settle_caches()
    assert dict(os.environ) == before
    assert capsys.readouterr().err == ""


def test_compiled_code_goes_to_the_cache_where_the_package_is_read_only(bare, read_only, tmp_path, monkeypatch):
    read_only.append(Path(places.__file__).parents[1])
    settle_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "home" / ".cache" / "dupmae" / "numba")


@pytest.mark.parametrize("how", ["open to all", "a link", "read-only"])
def test_compiled_code_is_never_read_from_where_others_can_write(how, bare, read_only, tmp_path, monkeypatch, capsys):
    given = tmp_path / "compiled"
    (tmp_path / "elsewhere").mkdir()
    given.symlink_to("elsewhere") if how == "a link" else given.mkdir()
    given.chmod(0o777 if how == "open to all" else 0o755)
    if how == "read-only":
        read_only.append(given)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(given))
    settle_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == str(bare / f"dupmae-{os.getuid()}" / "numba")
    assert "NUMBA_CACHE_DIR" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["open to others", "a link", "a file"])
def test_a_temporary_cache_that_another_user_has_laid_out_is_not_used(how, bare, read_only, tmp_path):
    planted = bare / f"dupmae-{os.getuid()}"
    if how == "a file":
        planted.touch()
    else:
        (tmp_path / "elsewhere").mkdir()
        planted.symlink_to(tmp_path / "elsewhere") if how == "a link" else planted.mkdir()
        planted.chmod(0o777)
    read_only.append(tmp_path / "home")
    own = cache_folder()
    assert own not in (planted, tmp_path / "elsewhere")
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_importing_the_package_loads_nothing_that_takes_time():
    code = "import sys, dupmae; sys.exit(bool({'numba', 'torch', 'numpy', 'platformdirs'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
