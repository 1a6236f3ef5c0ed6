"""Read YAML settings files: values stay text, unknown and repeated keys are refused, every complaint has its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dupmae.cli.former_names import FormerNames
from dupmae.corpus.lines import refuse_irregular
from dupmae.errors import DupmaeError, nearest

LARGEST_FILE = 256 * 1024
"""Bytes of a settings file; a recipe has some thousand, and PyYAML takes seconds for a megabyte."""
DEEPEST = 16
"""Mappings and lists within each other; settings have two or three."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a settings file, its value as the text that stands there (None: null or nothing at all)."""

    key: str
    value: str | tuple[str, ...] | None
    line: int


def read_settings(path: Path, known: Sequence[str], former: FormerNames) -> list[Setting]:
    """Read a YAML mapping (sections become dotted keys) without giving any value a type yet.

    Args:
        path: The settings file.
        known: The keys it may hold, dotted.
        former: Gives keys and values of version 0.1 the names that they have now.

    Raises:
        DupmaeError: The file is missing, larger than :data:`LARGEST_FILE`, not YAML or not a mapping; it holds an
            unknown or repeated key, an alias, a tag, or more than :data:`DEEPEST` sections within each other.
    """
    node = _read_node(path)
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise DupmaeError(f"{path}: a settings file is a mapping of keys to values")
    settings: dict[str, Setting] = {}
    written: dict[str, str] = {}
    for setting in _walk(node, "", path):
        place, key = f"{path}, line {setting.line}", former.new_name(setting.key)
        if key not in known:
            raise DupmaeError(f"{place}: unknown key {setting.key[:80]!r}{suggestion(setting.key, known)}")
        if key in settings:
            other = f" as {written[key]!r}" if written[key] != setting.key else ""
            raise DupmaeError(f"{place}: {setting.key!r} already stands in line {settings[key].line}{other}")
        value = setting.value
        if isinstance(value, tuple):
            value = tuple(former.new_value(key, one) for one in value)
        settings[key], written[key] = Setting(key, value, setting.line), setting.key
    return list(settings.values())


def _read_node(path: Path) -> yaml.Node | None:
    """Parse a settings file, but none of its values; None for an empty one."""
    refuse_irregular(path)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise DupmaeError(f"{path} is larger than {LARGEST_FILE // 1024} KB: this is no settings file")
        text = content.decode("utf-8-sig")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            place = f"{path}, line {event.start_mark.line + 1}" if event.start_mark else str(path)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise DupmaeError(
                    f"{place}: more than {DEEPEST} mappings or lists within each other: no setting is one"
                )
            _refuse_strange(event, place)
        return yaml.SafeLoader(text).get_single_node()
    except FileNotFoundError:
        raise DupmaeError(f"{path}: no such settings file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DupmaeError(f"{path} cannot be read as a settings file: {error}") from None
    except yaml.reader.ReaderError as error:  # its position counts characters
        line = text.count("\n", 0, error.position) + 1
        raise DupmaeError(
            f"{path}, line {line}: not valid YAML (the character U+{int(error.character):04X} cannot stand in it)"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DupmaeError(f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from None


def _refuse_strange(event: yaml.Event, place: str) -> None:
    """Refuse what settings never need: aliases, by which a small file becomes a huge value, and tags."""
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise DupmaeError(f"{place}: anchors and aliases (&name, *name) are not read: write the value out, or quote it")
    if (tag := getattr(event, "tag", None)) is not None:
        raise DupmaeError(f"{place}: tags ({tag[:40]}) are not read: write the value alone, or quote it")


def suggestion(word: str, known: Sequence[str], prefix: str = "") -> str:
    """End a sentence about an unknown key: with the known ones whose last part it is, or else with the nearest."""
    within = [key for key in known if key.startswith(f"{word}.")]
    if within:
        return f"; it is a section, with keys such as {within[0]!r}"
    same = [key for key in known if key.rpartition(".")[2] == word]
    close = same or [key for key in [nearest(word, known)] if key]
    return f"; did you mean {' or '.join(f'{prefix}{key}' for key in close)}?" if close else ""


def _walk(node: yaml.MappingNode, prefix: str, path: Path) -> Iterator[Setting]:
    """Yield every leaf of a YAML mapping under its dotted key, as text."""
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise DupmaeError(f"{path}, line {line}: a key must be one word, not a list or a mapping")
        key = f"{prefix}{key_node.value}"
        if isinstance(value_node, yaml.MappingNode):
            yield from _walk(value_node, f"{key}.", path)
        elif isinstance(value_node, yaml.SequenceNode):
            if not all(isinstance(item, yaml.ScalarNode) for item in value_node.value):
                raise DupmaeError(f"{path}, line {line}: the list {key[:80]!r} must hold single values alone")
            yield Setting(key, tuple(str(_scalar(item)) for item in value_node.value), line)
        else:
            yield Setting(key, _scalar(value_node), line)


def _scalar(node: yaml.Node) -> str | None:
    """Return a scalar's text, with YAML's many spellings of null and booleans made one."""
    if node.tag.endswith(":null"):
        return None
    if node.tag.endswith(":bool"):
        return str(yaml.SafeLoader.bool_values[node.value.lower()]).lower()
    return str(node.value)
