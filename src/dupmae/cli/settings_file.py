"""YAML settings files: read as text, checked for unknown and repeated keys, every complaint with its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dupmae.errors import DupmaeError, nearest


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a settings file, its value as the text that stands there (None: null or nothing at all)."""

    key: str
    value: str | tuple[str, ...] | None
    line: int


def read_settings(path: Path, known: Sequence[str]) -> list[Setting]:
    """Read a YAML mapping (sections become dotted keys) without giving any value a type yet.

    Args:
        path: The settings file.
        known: The keys it may hold, dotted.

    Raises:
        DupmaeError: The file is missing, is not YAML or not a mapping, or holds an unknown or repeated key.
    """
    try:
        node = yaml.SafeLoader(path.read_text(encoding="utf-8")).get_single_node()
    except FileNotFoundError:
        raise DupmaeError(f"{path}: no such settings file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DupmaeError(f"{path} cannot be read as a settings file: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DupmaeError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from None
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise DupmaeError(f"{path}: a settings file is a mapping of keys to values")
    settings = list(_walk(node, ""))
    seen: dict[str, int] = {}
    for setting in settings:
        if setting.key not in known:
            raise DupmaeError(
                f"{path}, line {setting.line}: unknown key {setting.key!r}{suggestion(setting.key, known)}"
            )
        if setting.key in seen:
            raise DupmaeError(
                f"{path}, line {setting.line}: {setting.key!r} already stands in line {seen[setting.key]}"
            )
        seen[setting.key] = setting.line
    return settings


def suggestion(word: str, known: Sequence[str], prefix: str = "") -> str:
    """The end of a sentence about an unknown key: the known ones that end in it, or else the nearest."""
    if any(entry.startswith(f"{word}.") for entry in known):
        return f"; it is a section, with keys such as {next(e for e in known if e.startswith(f'{word}.'))!r}"
    same = [entry for entry in known if entry.rpartition(".")[2] == word]
    close = same or [entry for entry in [nearest(word, known)] if entry]
    return f"; did you mean {' or '.join(f'{prefix}{entry}' for entry in close)}?" if close else ""


def _walk(node: yaml.MappingNode, prefix: str) -> Iterator[Setting]:
    """Every leaf of a YAML mapping under its dotted key, as text."""
    for key_node, value_node in node.value:
        key, line = f"{prefix}{key_node.value}", key_node.start_mark.line + 1
        if isinstance(value_node, yaml.MappingNode):
            yield from _walk(value_node, f"{key}.")
        elif isinstance(value_node, yaml.SequenceNode):
            yield Setting(key, tuple(str(_scalar(item)) for item in value_node.value), line)
        else:
            yield Setting(key, _scalar(value_node), line)


def _scalar(node: yaml.Node) -> str | None:
    """A scalar's text, with YAML's many spellings of null and booleans made one."""
    if node.tag.endswith(":null"):
        return None
    if node.tag.endswith(":bool"):
        return str(yaml.SafeLoader.bool_values[node.value.lower()]).lower()
    return str(node.value)
