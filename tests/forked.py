"""Commands in forks of a process of their own, which has imported everything once, without the tests' threads."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "reliability"
if str(SCRIPTS) not in sys.path:
    sys.path.append(str(SCRIPTS))


class Forked:
    """A server (`benchmarks/reliability/fuzz_server.py`) and its folder.

    Attributes:
        case: Where commands run.
        secret: A folder beside it, of which commands know nothing; what is run by an attack leaves `ran` there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.case, self.secret = self.folder / "case", self.folder / "secret"
        self.ran = self.secret / "ran"
        self.secret.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, str(SCRIPTS / "fuzz_server.py"), str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(self.folder / "server.log").open("w"), text=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for its answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, (self.folder / "server.log").read_text("utf-8")[-2000:]
        return json.loads(answer)

    def lay_out(self, *parts: str) -> None:
        """Empty the case's folder and put parts of the world there."""
        self.ask(needs=parts)

    def run(self, argv: Sequence[str], stdin: str | None = None) -> dict[str, Any]:
        """Run a command: how it ended, and, as `seen`, what it did that is not its own affair."""
        return self.ask(argv=list(argv), stdin=stdin)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the server and delete its folder."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


@cache
def forked() -> Forked:
    """Start the server of this process's tests, or find it."""
    server = Forked(Path(tempfile.mkdtemp(prefix="dupmae-forked-")))
    atexit.register(server.close)
    return server
