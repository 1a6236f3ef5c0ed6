"""Turn a command line and a settings file into the typed arguments of a function.

A command is a function: its positional-only parameters are the command's positional arguments, its keyword-only ones
are options, `bool` ones are flags, `list[str]` ones take several values (`| None` if they may be left out), and a
parameter annotated with a settings dataclass adds every field of that class as an option. A settings file holds the
same keys (nested for a recipe's sections); what the command line says wins over the file, wherever the file is named.
Both may use the names of version 0.1 (:mod:`dupmae.cli.former_names`), and options hyphens for underscores.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

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


class _HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):  # type: ignore[misc]
    """jsonargparse's types and defaults, and descriptions printed as they are written."""


def parse_command(
    name: str, function: Callable[..., Any], arguments: Sequence[str]
) -> tuple[list[Any], dict[str, Any]]:
    """Parse `arguments` into the positional and keyword arguments of `function`.

    Args:
        name: The command as typed after `dupmae`; messages use it.
        function: The command; see the module's docstring for how its signature is read.
        arguments: The command line after the name.

    Returns:
        `(positional, keyword)`, ready for `function(*positional, **keyword)`.

    Raises:
        DupmaeError: An unknown option or key, a value of the wrong type or outside its range, or a missing argument.
        SystemExit: After `--help`.
    """
    types = option_types(function)
    former = FormerNames(types)
    end = list(arguments).index("--") if "--" in arguments else len(arguments)  # what follows is text
    words = [*former.new_words([_with_underscores(word) for word in arguments[:end]]), *arguments[end:]]
    asks_for_help = bool({"-h", "--help"} & set(words))
    first_look = _parse(_build_parser(name, function, strict=asks_for_help), words)
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
    from_file = [word for setting in settings for word in _as_words(setting, types[setting.key], places)]
    parser = _build_parser(name, function, strict=True)
    namespace = _parse(parser, [*from_file, *words], places)
    former.warn()
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
    return positional, keyword


def _with_underscores(word: str) -> str:
    """Spell an option as the parameter that it stands for, `--dry-run` as `--dry_run`."""
    name, sign, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{sign}{value}" if name.startswith("--") else word


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


def _build_parser(name: str, function: Callable[..., Any], *, strict: bool) -> ArgumentParser:
    """Build the parser of one command; not `strict`: nothing is required, to look up the settings file first."""
    parser = ArgumentParser(
        prog=f"dupmae {name}",
        usage=_usage(name, function),
        description=description(function),
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
            _add_settings(parser, defaults())
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
        parser.add_argument(key if parameter.kind is parameter.POSITIONAL_ONLY else f"--{key}", **options)
    if "recipe" not in parameters:
        parser.add_argument("--config", type=str | None, default=None, metavar="FILE", help=CONFIG_HELP)
    parser.add_argument("--verbose", action="store_true", help="Show the messages and warnings of the libraries below.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress bars.")
    return parser


def _add_settings(parser: ArgumentParser, defaults: Any, prefix: str = "") -> None:
    """Add a group of options for the fields of a settings dataclass, then one for each dataclass inside it."""
    kind: Any = type(defaults)
    group = parser.add_argument_group(inspect.cleandoc(kind.__doc__).splitlines()[0].rstrip("."))
    help_texts, hints = _help_texts(kind), get_type_hints(kind)
    for field in fields(kind):
        default = getattr(defaults, field.name)
        if is_dataclass(hints[field.name]):
            _add_settings(parser, default, f"{prefix}{field.name}.")
            continue
        options = {"type": hints[field.name], "default": default, "help": help_texts[field.name]}
        group.add_argument(f"--{prefix}{field.name}", **options)


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
