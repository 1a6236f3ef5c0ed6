"""Turn a command line and a settings file into the typed arguments of a function.

A command is a function: its positional-only parameters are the command's positional arguments, its keyword-only ones
are options, `bool` ones are flags, `list[str]` ones take several values (`| None` if they may be left out), and a
parameter annotated with a settings dataclass adds every field of that class as an option. A settings file holds the
same keys (nested for a recipe's sections); what the command line says wins over the file, wherever the file is named.
Between the two stands the environment: `DUPMAE_OPTION` gives an option that neither the command line names. All may use
the names of version 0.1 (:mod:`dupmae.cli.former_names`), and options hyphens for underscores.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, get_loader, set_loader

from dupmae.cli.former_names import FormerNames
from dupmae.cli.places import settled, settled_fields
from dupmae.cli.settings_file import Setting, read_settings, suggestion
from dupmae.config.ranges import OutOfRangeError, refuse_out_of_range
from dupmae.errors import DupmaeError

FLAG = object()
"""Stands for the type of an option that takes no value."""
SHORT = {"k": "k", "o": "output", "m": "model", "c": "corpus", "q": "quiet", "v": "verbose"}
"""Letters behind one hyphen -> the options that they stand for, wherever a command has them."""
MANY = 40
"""Options of a command from which on its help lists sections of them instead, each of which can be asked for."""
CONFIG_HELP = "YAML file that holds any of these options as keys; options given here win over it."


def _load_value(text: str) -> Any:
    """Read a value as YAML: a single one, or a list of single ones. Anything else stays text, however it is nested."""
    if (
        len(text) > 10_000
        or re.fullmatch(r"\s*[-+]?[0-9_]{40,}\s*", text)
        or re.match(r"\s*[&*!|>{?%@`#\"']", text)
        or (text.lstrip().startswith("[") and not re.fullmatch(r"\s*\[[^\[\]{}&*!]*\]\s*", text))
    ):
        return text
    return _load_yaml(text)


_load_yaml = get_loader("yaml")
set_loader("dupmae", _load_value, (yaml.YAMLError, ValueError))


class Switches(NamedTuple):
    """What every command can be told."""

    verbose: bool
    quiet: bool
    log_level: str | None


SWITCHES: dict[str, Any] = {
    "verbose": FLAG,
    "quiet": FLAG,
    "log_level": Literal["debug", "info", "warning", "error"] | None,
}
"""Their types."""


class _HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):  # type: ignore[misc]
    """jsonargparse's types, in plain words, and defaults, and descriptions printed as they are written."""

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        return re.sub(r"\(type: (.*?)(?:, (default: .*))?\)$", _in_words, str(text), flags=re.DOTALL)


def _in_words(match: re.Match[str]) -> str:
    """Write jsonargparse's `(type: list[str] | null, default: null)` as `(several texts, or null; default: null)`."""
    names = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
    kinds = []
    for kind in match[1].split(" | "):
        several = re.fullmatch(r"list\[(.*)\]", kind)
        inner = several[1] if several else kind
        if choices := re.fullmatch(r"Literal\[(.*)\]", inner):
            inner = ("some of " if several else "one of ") + choices[1].replace("'", "")
        elif several:
            inner = {"str": "texts", "int": "whole numbers", "float": "numbers"}.get(inner, inner)
        kinds.append(names.get(inner, inner))
    return f"({' or '.join(kinds)}{f'; {match[2]}' if match[2] else ''})"


def parse_command(
    name: str, function: Callable[..., Any], arguments: Sequence[str]
) -> tuple[list[Any], dict[str, Any], Switches]:
    """Parse `arguments` into the positional and keyword arguments of `function`, and what all commands have.

    Args:
        name: The command as typed after `dupmae`; messages use it.
        function: The command; see the module's docstring for how its signature is read.
        arguments: The command line after the name.

    Returns:
        `(positional, keyword, switches)`, ready for `function(*positional, **keyword)`.

    Raises:
        DupmaeError: An unknown option or key, a value of the wrong type or outside its range, or a missing argument.
        SystemExit: After `--help` and `--print_config`.
    """
    types = option_types(function)
    former = FormerNames(types)
    end = list(arguments).index("--") if "--" in arguments else len(arguments)  # what follows is text
    words = [_as_written(word, types) for word in arguments[:end]]
    if {"-h", "--help", "--help_all"} & set(words):
        _show_help(name, function, words)
    prints = "--print_config" in words
    words = [*former.new_words([word for word in words if word != "--print_config"]), *arguments[end:]]
    first_look = _parse(_build_parser(name, function, strict=False), words)
    file = first_look.recipe if "recipe" in first_look else first_look.config
    overridden = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    if file is not None:
        try:
            file = settled(name, "recipe", file)
        except DupmaeError as error:
            raise DupmaeError(f"the settings file {error}") from None
    settings = [] if file is None else read_settings(Path(file), list(types), former)
    settings = [setting for setting in settings if setting.key not in overridden]
    places = {setting.key: f"{file}, line {setting.line}: " for setting in settings}
    for setting, variable in _from_environment({**types, **SWITCHES}, overridden):
        settings = [*(one for one in settings if one.key != setting.key), setting]
        places[setting.key] = f"the variable {variable}: "
    given = [word for one in settings for word in _as_words(one, types.get(one.key, SWITCHES.get(one.key)), places)]
    parser = _build_parser(name, function, strict=True)
    namespace = _parse(parser, [*given, *words], places)
    former.warn()
    if prints:
        print(_as_file(namespace, types), end="", flush=True)
        raise SystemExit(0)
    positional, keyword = [], {}
    hints = get_type_hints(function)
    for key, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[key]):
            value = _construct(hints[key], namespace, parser, places)
            value = settled_fields(name, value, partial(_misplaced, parser, places))
        else:
            is_query = (name, key) == ("search", "index") and namespace["engine"] is not None  # it stands in that place
            try:
                value = settled(name, "query" if is_query else key, namespace[key])
            except DupmaeError as error:
                raise _misplaced(parser, places, key, str(error)) from None
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            keyword[key] = value
    try:
        refuse_out_of_range(function, keyword)
    except OutOfRangeError as error:
        raise _refusal(parser, error.setting, error.problem, places) from None
    return positional, keyword, Switches(*(namespace[key] for key in Switches._fields))


def _as_written(word: str, types: Mapping[str, Any]) -> str:
    """Spell an option as the parameter that it stands for: `--dry-run` as `--dry_run`, `-k` as `--k`."""
    option = SHORT.get(word[1:]) if len(word) == 2 and word[0] == "-" else None
    if option is not None and (option in types or option in ("quiet", "verbose")):
        return f"--{option}"
    name, sign, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{sign}{value}" if name.startswith("--") else word


def _from_environment(types: Mapping[str, Any], overridden: Collection[str]) -> Iterator[tuple[Setting, str]]:
    """Yield the options that the environment gives and the command line does not, each with its variable's name."""
    for key in types:
        variable = f"DUPMAE_{key.upper().replace('.', '_')}"
        if (value := os.environ.get(variable)) is not None and key not in overridden:
            yield Setting(key, value, 0), variable


def _as_file(namespace: Any, types: Mapping[str, Any]) -> str:
    """Write options as a settings file with which the same command does the same."""
    tree: dict[str, Any] = {}
    for key in types:
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        value = namespace[key]
        unset = value is None and (_takes_several(types[key]) or type(None) not in get_args(types[key]))
        if not unset:
            place[last] = list(value) if isinstance(value, list | tuple) else value
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def _show_help(name: str, function: Callable[..., Any], words: Sequence[str]) -> None:
    """Print a command's help and end: all of it, or of many options those of a section, and what sections there are."""
    shown = None if "--help_all" in words or len(option_types(function)) < MANY else _section_asked_for(function, words)
    _build_parser(name, function, strict=True, shown=shown).print_help()
    sys.stdout.flush()
    raise SystemExit(0)


def _section_asked_for(function: Callable[..., Any], words: Sequence[str]) -> str:
    """Find the section of settings whose options are to be shown: the one that is named, or the options beside all."""
    return next((word for word in words if word in _sections(function)), "")


def _sections(function: Callable[..., Any]) -> dict[str, str]:
    """List the sections of a command's settings, with what each is about."""
    found: dict[str, str] = {}

    def add(kind: Any, prefix: str) -> None:
        for field, hint in get_type_hints(kind).items():
            if is_dataclass(hint):
                found[f"{prefix}{field}"] = _first_line(hint)
                add(hint, f"{prefix}{field}.")

    for hint in get_type_hints(function).values():
        if is_dataclass(hint):
            add(hint, "")
    return found


def _first_line(kind: Any) -> str:
    """Give the first line of a docstring."""
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0].rstrip(".")


def option_types(function: Callable[..., Any]) -> dict[str, Any]:
    """List the options of a command, which are its settings file's keys, too, with their types (or `FLAG`)."""
    types: dict[str, Any] = {}
    hints = get_type_hints(function)
    for key, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[key]):
            types |= _dataclass_types(hints[key])
        elif parameter.kind is not parameter.POSITIONAL_ONLY:
            types[key] = FLAG if hints[key] is bool else hints[key]
    return types


def description(function: Callable[..., Any]) -> str:
    """Return the docstring of a command up to its arguments: what it does, an example, what it writes."""
    return inspect.cleandoc(function.__doc__ or "").split("\nArgs:")[0].rstrip()


def _build_parser(name: str, function: Callable[..., Any], *, strict: bool, shown: str | None = None) -> ArgumentParser:
    """Build the parser of one command.

    Args:
        name: The command.
        function: What it calls.
        strict: Whether what must be given is required, or not, to look up the settings file first.
        shown: The section of settings that its help shows; None shows all.
    """
    listed = {} if shown is None else _sections(function)
    width = max(map(len, listed), default=0)
    sections = [f"  {section:<{width}}  {about}" for section, about in listed.items()]
    more = f"Sections of settings, shown by dupmae {name} --help SECTION (all: --help-all):"
    parser = ArgumentParser(
        prog=f"dupmae {name}",
        usage=_usage(name, function),
        description=description(function) if not shown else listed[shown],
        epilog="\n".join([more, *sections]) if sections else None,
        formatter_class=_HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
        parser_mode="dupmae",
    )
    help_texts = _help_texts(function)
    parameters = inspect.signature(function).parameters
    hints = get_type_hints(function)
    for key, parameter in parameters.items():
        hint, optional = hints[key], parameter.default is not parameter.empty
        if is_dataclass(hint):
            defaults: Any = hint
            _add_settings(parser, defaults(), shown)
            continue
        options: dict[str, Any] = {"help": help_texts[key], "type": hint}
        if hint is bool:
            options = {"help": help_texts[key], "action": "store_true"}
        elif _takes_several(hint):
            options |= {"type": str, "nargs": "+"}
        if parameter.kind is parameter.POSITIONAL_ONLY:
            # A plain string where any will do: jsonargparse would take the word null of an optional one for no value.
            options |= {"type": hint if get_origin(hint) is Literal else str, "metavar": _placeholder(key, hint)}
            if _takes_several(hint):
                options["nargs"] = "+" if strict else "*"
            else:
                options |= {"nargs": "?"} if optional or not strict else {}
        elif not optional:
            options["required"] = strict
        elif hint is not bool:
            options["default"] = parameter.default
        if parameter.kind is parameter.POSITIONAL_ONLY:
            parser.add_argument(key, **options)
        else:
            options |= {"help": SUPPRESS} if shown else {}
            parser.add_argument(*_short(key), f"--{key}", **options)
    if "recipe" not in parameters:
        parser.add_argument("--config", type=str | None, default=None, metavar="FILE", help=CONFIG_HELP)
    others = {
        "verbose": "Show the messages and warnings of the libraries below.",
        "quiet": "Show no progress bars.",
        "print_config": "Print all options as a settings file (--config FILE takes it), and do nothing.",
    }
    for key, text in others.items():
        parser.add_argument(*_short(key), f"--{key}", action="store_true", help=SUPPRESS if shown else text)
    log = "Which messages are shown, with their time and their library; warnings as sentences, if not given."
    parser.add_argument("--log_level", type=SWITCHES["log_level"], default=None, help=SUPPRESS if shown else log)
    return parser


def _short(key: str) -> list[str]:
    """Give the short form of an option, if it has one."""
    return [f"-{letter}" for letter, option in SHORT.items() if option == key]


def _add_settings(parser: ArgumentParser, defaults: Any, shown: str | None, prefix: str = "") -> None:
    """Add a group of options for the fields of a settings dataclass, then one for each dataclass inside it."""
    kind: Any = type(defaults)
    visible = shown is None or prefix == (f"{shown}." if shown else "")
    group = parser.add_argument_group(_first_line(kind)) if visible else parser
    help_texts, hints = _help_texts(kind), get_type_hints(kind)
    for field in fields(kind):
        default = getattr(defaults, field.name)
        if is_dataclass(hints[field.name]):
            _add_settings(parser, default, shown, f"{prefix}{field.name}.")
            continue
        text = help_texts[field.name] if visible else SUPPRESS
        options = {"type": hints[field.name], "default": default, "help": text}
        group.add_argument(*(_short(field.name) if not prefix else []), f"--{prefix}{field.name}", **options)


@cache
def _help_texts(source: Any) -> dict[str, str]:
    """Find what the docstring of a function, or the attribute docstrings of a class, say of each parameter."""
    parsed = docstring_parser.parse_from_object(source)
    return {doc.arg_name: doc.description or "" for doc in parsed.params}


def _usage(name: str, function: Callable[..., Any]) -> str:
    """Put into one line what must be given, then `[options]`."""
    words, hints = [f"dupmae {name}"], get_type_hints(function)
    for key, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty
        if parameter.kind is parameter.POSITIONAL_ONLY:
            placeholder = _placeholder(key, hints[key])
            words.append(placeholder if required else f"[{placeholder}]")
        elif required and not is_dataclass(hints[key]):
            words.append(f"--{key} {key.upper()}")
    return " ".join([*words, "[options]"])


def _placeholder(key: str, hint: Any) -> str:
    """Return what stands for a positional argument in the help: its choices, if it has them, or its name."""
    return f"{{{','.join(get_args(hint))}}}" if get_origin(hint) is Literal else key.upper()


def _parse(parser: ArgumentParser, words: Sequence[str], places: dict[str, str] | None = None) -> Any:
    """Parse; complaints become one sentence, which `places` begins for settings that a file gave."""
    try:
        return parser.parse_args(list(words))
    except argparse.ArgumentError as error:
        message = " ".join(str(error).split())
    see = f" (see {parser.prog} --help)"
    if match := re.match(r'Parser key "([^"]+)": (.*?)(?:Given value type: .*)?G(?:ot|iven) value: (.*)', message):
        key, expected, value = match.groups()
        raise _refusal(parser, key, f"takes {_expectation(expected)}, not {value!r}", places or {})
    if match := re.match(r'Parser key "([^"]+)"', message):
        raise _refusal(parser, match.group(1), "has a value that cannot be read", places or {})
    if match := re.match(r"unrecognized arguments: (\S+)", message):
        word = match.group(1)
        if not word.startswith("-"):
            raise DupmaeError(f"{parser.prog} does not know what to do with the argument {word!r}{see}")
        key = word.lstrip("-").partition("=")[0]
        known = list(vars(parser.get_defaults().as_flat()))
        raise DupmaeError(f"unknown option --{key}{suggestion(key, known, '--') or see}")
    if match := re.match(r"the following arguments are required: (.*)", message):
        placeholders = _positional(parser)
        needed = ", ".join(placeholders.get(key, f"--{key}") for key in match.group(1).split(", "))
        raise DupmaeError(f"{parser.prog} needs {needed}{see}")
    raise DupmaeError(f"{message}{see}")


def _refusal(parser: ArgumentParser, key: str, problem: str, places: dict[str, str]) -> DupmaeError:
    """Say what is wrong with the value of an argument, or of a file's setting and then in which line."""
    if key in places:
        return DupmaeError(f"{places[key]}{key} {problem}")
    return DupmaeError(
        f"{parser.prog if key in _positional(parser) else f'--{key}'} {problem} (see {parser.prog} --help)"
    )


def _misplaced(parser: ArgumentParser, places: dict[str, str], key: str, problem: str) -> DupmaeError:
    """Say what is wrong with a path or a text, with its place in a file or else as it is typed."""
    option = _positional(parser).get(key, f"--{key}")
    return DupmaeError(f"{places[key]}{key} {problem}" if key in places else f"{option} {problem}")


def _positional(parser: ArgumentParser) -> dict[str, str]:
    """Find the positional arguments of a command, with what stands for each in the help."""
    return {action.dest: action.metavar for action in parser._actions if not action.option_strings}


def _expectation(expected: str) -> str:
    """Put jsonargparse's `Expected a <class 'int'>` or `typing.Literal[...]` into plain words."""
    if match := re.search(r"Literal\[(.*?)\]", expected):
        return "one of " + match.group(1).replace("'", "")
    kinds = re.findall(r"<class '(\w+)'>", expected)
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
    return " or ".join(dict.fromkeys(names.get(kind, kind) for kind in kinds))


def _dataclass_types(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted names of all fields of a settings dataclass, each with its type."""
    for field, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from _dataclass_types(hint, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", hint


def _as_words(setting: Setting, hint: Any, places: dict[str, str]) -> list[str]:
    """Write a file's setting as the words of a command line."""
    key, value = setting.key, setting.value
    if value is None and type(None) not in get_args(hint):
        raise DupmaeError(f"{places[key]}{key} has no value")
    if hint is FLAG and value in ("true", "false"):
        return [f"--{key}"] if value == "true" else []
    if _takes_several(hint):
        return [f"--{key}", *([value] if isinstance(value, str) else value or ())]
    if isinstance(value, tuple):
        value = f"[{', '.join(value)}]"
    return [f"--{key}={'null' if value is None else value}"]


def _takes_several(hint: Any) -> bool:
    """Tell whether an option takes several values: `list[str]`, or that or nothing."""
    return hint == list[str] or list[str] in get_args(hint)


def _construct(kind: Any, namespace: Any, parser: ArgumentParser, places: dict[str, str], prefix: str = "") -> Any:
    """Build a settings dataclass, and those inside it, from parsed values; what is out of range is named in full."""
    values = {
        field: _construct(hint, namespace[field], parser, places, f"{prefix}{field}.")
        if is_dataclass(hint)
        else namespace[field]
        for field, hint in get_type_hints(kind).items()
    }
    try:
        return kind(**values)
    except OutOfRangeError as error:
        raise _refusal(parser, f"{prefix}{error.setting}", error.problem, places) from None
