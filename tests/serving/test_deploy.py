from __future__ import annotations

import configparser
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from dupmae.cli.commands.serve import serve
from dupmae.cli.parsing import parse_command

DEPLOY = Path(__file__).parents[2] / "deploy"
TESTS_ALONE = {"httpx", "httpx2", "httpcore", "certifi"}
"""What the test's own client needs."""
SEARCH = """
import importlib.metadata, re, sys
allowed = set(sys.argv[2].split())
of = importlib.metadata.packages_distributions()


class Image:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        found = {re.sub(r"[-_.]+", "-", one).lower() for one in of.get(name.partition(".")[0], [])}
        return None if found and not found & allowed else self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Image(finder) for finder in sys.meta_path]
from functools import partial
from pathlib import Path
from starlette.testclient import TestClient
import uvicorn
import dupmae.serving.mcp
from dupmae import DuplexIndex
from dupmae.cli import main
from dupmae.serving.app import make_app

folder = Path(sys.argv[1])
with TestClient(make_app({"small": partial(DuplexIndex.open, folder)})) as client:
    assert client.post("/search", json={"queries": ["a"], "where": "year>2001", "explain": True}).status_code == 200
    assert client.post("/embed", json={"inputs": "a", "prompt_name": "query"}).status_code == 200
    assert client.post("/embed", json={"inputs": "a"}).status_code == 200
assert main(["search", str(folder), "a"]) == 0
"""


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions with their arguments."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Containerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def needed(asked: Requirement, seen: set[str]) -> set[str]:
    """A distribution and all that it needs, by name."""
    name = re.sub(r"[-_.]+", "-", asked.name).lower()
    if name not in seen or asked.extras:
        seen.add(name)
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *asked.extras)):
                needed(requirement, seen)
    return seen


def test_the_image_has_two_stages_and_its_user_is_not_root() -> None:
    steps = instructions()
    stages = [arguments for name, arguments in steps if name == "FROM"]
    assert len(stages) == 2
    assert stages[0].endswith(" AS built")
    copied = [arguments.split()[:-1] for name, arguments in steps if name == "COPY" and "--from" not in arguments]
    assert all((DEPLOY.parent / source).exists() for sources in copied for source in sources)
    last = steps[max(place for place, (name, _) in enumerate(steps) if name == "FROM") :]
    assert ("USER", "dupmae") in last
    assert not any("pip install" in arguments for _, arguments in last)


def test_the_commands_in_deploy_are_commands_of_ours() -> None:
    steps = dict(instructions())
    entry, image = yaml.safe_load(steps["ENTRYPOINT"]), yaml.safe_load(steps["CMD"])
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["dupmae"]
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "dupmae.service", encoding="utf-8")
    started = unit["Service"]["ExecStart"].split()
    assert entry == ["dupmae", "serve"] == [Path(started[0]).name, started[1]]
    for words in (image, compose["command"], started[2:]):
        positional, keyword, _ = parse_command("serve", serve, words)
        assert len(positional[0]) == 1
        assert keyword["host"] == "127.0.0.1" or "0.0.0.0" in words
    assert (DEPLOY / compose["build"]["context"] / compose["build"]["dockerfile"]).resolve() == DEPLOY / "Containerfile"
    assert int(unit["Service"]["TimeoutStopSec"]) > 30
    assert compose["stop_grace_period"] == "40s"


def test_the_images_packages_suffice_without_pytorch(built: Path) -> None:
    there = needed(Requirement("dupmae[serve,mcp]"), set())
    assert not there & {"torch", "transformers", "sentence-transformers"}
    allowed = " ".join(there | TESTS_ALONE | {"dupmae"})
    run = subprocess.run(
        [sys.executable, "-c", SEARCH, str(built), allowed], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
