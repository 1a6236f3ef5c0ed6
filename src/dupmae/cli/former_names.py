"""Take the names that settings had in version 0.1, from files and from the command line, with a warning."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence

from dupmae.config.renamed import RENAMED, RENAMED_VALUES
from dupmae.errors import DupmaeError
from dupmae.runtime.processes import is_first_process

logger = logging.getLogger(__name__)

_RENAMED_OPTIONS = {"window_words": "chunk_tokens"}
_OTHER_UNITS = {"window_words": ", and counts tokens, of which three words have about four"}


class FormerNames:
    """The former names of a command's options, and which of them were used.

    Args:
        options: The options; where they are those of one section they go without its name, and so do the former names.
    """

    def __init__(self, options: Collection[str]) -> None:
        flat = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in RENAMED.items()}
        self._names = {old: new for old, new in (flat | RENAMED | _RENAMED_OPTIONS).items() if new in options}
        self._used: dict[str, str] = {}

    def new_name(self, key: str) -> str:
        """Return the name that an option has now."""
        if key not in self._names:
            return key
        self._used[key] = f"{key} is now called {self._names[key]}{_OTHER_UNITS.get(key, '')}"
        return self._names[key]

    def new_value(self, key: str, text: str) -> str:
        """Return a value of an option, or a list of them, with the names that they have now."""
        for old, new in RENAMED_VALUES.get(key, {}).items():
            text, count = re.subn(rf"(?<![\w./-]){re.escape(old)}(?![\w./-])", new, text)
            if count:
                self._used[f"{key}: {old}"] = f"{old} among {key} is now called {new}"
        return text

    def new_words(self, words: Sequence[str]) -> list[str]:
        """Return a command line with the names that options and their values have now.

        Raises:
            DupmaeError: An option is given under both its names.
        """
        new, option, given = list[str](), "", dict[str, str]()
        for word in words:
            if word.startswith("--"):
                written, sign, value = word[2:].partition("=")
                option = self.new_name(written)
                if given.setdefault(option, written) != written:
                    old = next(name for name in (written, given[option]) if name != option)
                    raise DupmaeError(f"--{old} is now called --{option}, which is given as well: leave out --{old}")
                new.append(f"--{option}{sign}{self.new_value(option.rstrip('+'), value)}")
            else:
                new.append(self.new_value(option.rstrip("+"), word))
        return new

    def warn(self) -> None:
        """Log one warning for each former name that was used."""
        if is_first_process():
            for sentence in self._used.values():
                logger.warning("%s; the old name goes with version 0.3", sentence)
