"""Turn a command line, the environment and a settings file into the typed arguments of a function.

A command is a function: its positional-only parameters are the command's positional arguments, its keyword-only ones
are options, `bool` ones are flags, `list[str]` ones take several values (`| None` if they may be left out), and a
parameter annotated with a settings dataclass adds every field of that class as an option. A settings file holds the
same keys (nested for a recipe's sections); what the environment says wins over the file (`DUPMAE_OPTION`), and what the
command line says over both. All may use the names of version 0.1 (:mod:`dupmae.cli.former_names`), and options hyphens
for underscores.

argparse cuts the command line into options and their texts, and prints the help; what the texts mean is read here
(:mod:`dupmae.cli.values`), so that an error can say which option of which line of which file it is.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from dupmae.cli.former_names import FormerNames
from dupmae.cli.places import settled, settled_fields
from dupmae.cli.settings_file import Setting, read_settings, suggestion
from dupmae.cli.values import WrongValueError, choices_of, in_words, read_value
from dupmae.config.ranges import OutOfRangeError, refuse_out_of_range
from dupmae.errors import DupmaeError

FLAG = object()
"""Stands for the type of an option that takes no value."""
SHORT = {"k": "k", "o": "output", "m": "model", "c": "corpus", "q": "quiet", "v": "verbose"}
"""Letters behind one hyphen -> the options that they stand for, wherever a command has them."""
MANY = 40
"""Options of a command from which on its help lists sections of them instead, each of which can be asked for."""
CONFIG_HELP = "YAML file that holds any of these options as keys; options given here win over it."


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
_SWITCHES_HELP = {
    "verbose": "Show the messages and warnings of the libraries below.",
    "quiet": "Show no progress bars.",
    "log_level": "Which messages are shown, with their time and their library; warnings as sentences, if not given.",
}
_PRINT_HELP = "Print all options as a settings file, which --config takes, and do nothing."


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
    types = option_types(function) | SWITCHES
    former = FormerNames(types)
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    words = [_as_written(word, types) for word in arguments[:end]]
    if {"-h", "--help", "--help_all"} & set(words):
        _show_help(name, function, words)
    given, rest = _Parser(name).split(function, former.new_words(words))
    prints = given.pop("print_config", False)
    texts = _positional_texts(name, function, [*rest, *arguments[end + 1 :]])
    file = texts["recipe"] if "recipe" in texts else given.pop("config", None)
    if file is not None:
        try:
            file = settled(name, "recipe", file)
        except DupmaeError as error:
            raise DupmaeError(f"the settings file {error}") from None
    places: dict[str, str] = {}
    for setting in [] if file is None else read_settings(Path(file), list(option_types(function)), former):
        _take(setting, f"{file}, line {setting.line}: ", given, places)
    for setting, variable in _from_environment(types):
        _take(setting, f"the variable {variable}: ", given, places, over=places)
    former.warn()
    refuse = partial(_refusal, name, places, _placeholders(function))
    values = {key: _value(key, given[key], kind, refuse) for key, kind in types.items() if key in given}
    defaults = {**_defaults(function), **dict.fromkeys(SWITCHES)}
    for key in [key for key in types if f"{key}+" in given]:
        more = _value(key, given[f"{key}+"], types[key], refuse)
        values[key] = [*(values.get(key, defaults[key]) or ()), *more]
    if prints:
        print(_as_file(defaults | values, option_types(function)), end="", flush=True)
        raise SystemExit(0)
    return _bound(name, function, texts, values, refuse)


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


class _Parser(argparse.ArgumentParser):
    """argparse that gives texts, without a word of its own about them where it can be helped."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(
            prog=f"dupmae {name}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
            argument_default=SUPPRESS,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Refuse what argparse itself refuses, which is no more than a flag that is given a value."""
        raise DupmaeError(f"{message} (see {self.prog} --help)")

    def split(self, function: Callable[..., Any], words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Cut words into the texts of options and what is no option.

        Raises:
            DupmaeError: An option is unknown, or lacks its value.
        """
        add_options(self, function)
        namespace, rest = self.parse_known_args(list(words))
        given = vars(namespace)
        for key, value in given.items():
            if value is None or value == []:
                raise DupmaeError(f"--{key} takes a value, and none is given (see {self.prog} --help)")
        unknown = [word for word in rest if word.startswith("-") and len(word) > 1 and not word[1:2].isdigit()]
        if unknown:
            key = unknown[0].lstrip("-").partition("=")[0]
            known = [*option_types(function), *SWITCHES, *([] if _has_recipe(function) else ["config"])]
            hint = suggestion(key, known, "--") or f" (see {self.prog} --help)"
            raise DupmaeError(f"unknown option --{key}{hint}")
        return given, rest


def add_options(parser: argparse.ArgumentParser, function: Callable[..., Any], shown: str | None = None) -> None:
    """Add the options of a command to a parser, each with its help; their values stay texts.

    Args:
        parser: The parser.
        function: The command.
        shown: The section of settings whose help is shown, an empty text for what is in none; None shows all.
    """
    hints, help_texts = get_type_hints(function), _help_texts(function)
    for key, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[key]):
            settings: Any = hints[key]
            _add_settings(parser, settings(), shown)
        elif parameter.kind is not parameter.POSITIONAL_ONLY:
            default = None if parameter.default is parameter.empty else parameter.default
            kind = FLAG if hints[key] is bool else hints[key]
            _add_option(parser, key, kind, help_texts[key], default, hidden=bool(shown))
    if not _has_recipe(function):
        _add_option(parser, "config", str | None, CONFIG_HELP, None, hidden=bool(shown), metavar="FILE")
    for key, kind in SWITCHES.items():
        _add_option(parser, key, kind, _SWITCHES_HELP[key], None, hidden=bool(shown))
    _add_option(parser, "print_config", FLAG, _PRINT_HELP, None, hidden=bool(shown))


def _add_settings(parser: argparse.ArgumentParser, defaults: Any, shown: str | None, prefix: str = "") -> None:
    """Add a group of options for the fields of a settings dataclass, then one for each dataclass inside it."""
    kind: Any = type(defaults)
    visible = shown is None or prefix == (f"{shown}." if shown else "")
    group: Any = parser.add_argument_group(_first_line(kind)) if visible else parser
    help_texts, hints = _help_texts(kind), get_type_hints(kind)
    for field in fields(kind):
        default = getattr(defaults, field.name)
        if is_dataclass(hints[field.name]):
            _add_settings(parser, default, shown, f"{prefix}{field.name}.")
            continue
        text, key = help_texts[field.name], f"{prefix}{field.name}"
        _add_option(group, key, hints[field.name], text, default, hidden=not visible)


def _add_option(
    group: Any, key: str, kind: Any, text: str, default: Any, *, hidden: bool, metavar: str | None = None
) -> None:
    """Add one option."""
    letters = [f"-{letter}" for letter, option in SHORT.items() if option == key]
    names, shown = [*letters, f"--{key}"], text.replace("%", "%%")
    if kind is FLAG:
        group.add_argument(*names, dest=key, action="store_true", help=SUPPRESS if hidden else shown)
        return
    written = "null" if default is None else ", ".join(map(str, default)) if isinstance(default, list) else default
    shown += f" ({in_words(kind)}; default: {str(written).replace('%', '%%')})"
    choices = choices_of(kind)
    stands = metavar or (f"{{{','.join(choices)}}}" if choices and len(choices) < 9 else key.rpartition(".")[2].upper())
    several = _takes_several(kind)
    group.add_argument(
        *names, dest=key, nargs="*" if several else "?", metavar=stands, help=SUPPRESS if hidden else shown
    )
    if several:  # what is added to those of a file
        group.add_argument(f"--{key}+", dest=f"{key}+", nargs="*", help=SUPPRESS)


def _as_written(word: str, types: Mapping[str, Any]) -> str:
    """Spell an option as the parameter that it stands for: `--dry-run` as `--dry_run`, `-k` as `--k`."""
    option = SHORT.get(word[1:]) if len(word) == 2 and word[0] == "-" else None
    if option is not None and option in types:
        return f"--{option}"
    name, sign, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{sign}{value}" if name.startswith("--") else word


def _take(
    setting: Setting, place: str, given: dict[str, Any], places: dict[str, str], over: Collection[str] = ()
) -> None:
    """Take a setting that the command line has not given, or one that a weaker source gave, and note its place."""
    if setting.key in given and setting.key not in over:
        return
    given[setting.key] = list(setting.value) if isinstance(setting.value, tuple) else setting.value
    places[setting.key] = place


def _from_environment(types: Mapping[str, Any]) -> Iterator[tuple[Setting, str]]:
    """Yield the options that the environment gives, each with its variable's name."""
    for key in types:
        variable = f"DUPMAE_{key.upper().replace('.', '_')}"
        if (value := os.environ.get(variable)) is not None:
            yield Setting(key, value, 0), variable


def _value(key: str, given: Any, kind: Any, refuse: Callable[[str, str], DupmaeError]) -> Any:
    """Read the value of an option."""
    if given is True:
        return True
    if given is None and type(None) not in get_args(kind):
        if _takes_several(kind):
            return []
        raise refuse(key, "has no value")
    try:
        return None if given is None else read_value(given, bool if kind is FLAG else kind)
    except WrongValueError as error:
        raise refuse(key, str(error)) from None


def _positional_texts(name: str, function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Give positional arguments their texts, in order; those that are left out are not there."""
    hints, left, texts = get_type_hints(function), list(words), dict[str, Any]()
    for key in _placeholders(function):
        if _takes_several(hints[key]):
            texts[key], left = left, []
        elif left:
            texts[key] = left.pop(0)
    if left:
        raise DupmaeError(
            f"dupmae {name} does not know what to do with the argument {left[0]!r} (see dupmae {name} --help)"
        )
    return texts


def _bound(
    name: str,
    function: Callable[..., Any],
    texts: Mapping[str, Any],
    values: Mapping[str, Any],
    refuse: Callable[[str, str], DupmaeError],
) -> tuple[list[Any], dict[str, Any], Switches]:
    """Make the arguments of a command of its texts and values, paths settled and ranges kept."""
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    placeholders = _placeholders(function)
    missing = [
        placeholders.get(key, f"--{key}")
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and not is_dataclass(hints[key])
        and key not in values
        and not texts.get(key)
    ]
    if missing:
        raise DupmaeError(f"dupmae {name} needs {', '.join(missing)} (see dupmae {name} --help)")
    positional, keyword = list[Any](), dict[str, Any]()
    for key, parameter in parameters.items():
        if is_dataclass(hints[key]):
            settings: Any = hints[key]
            value = settled_fields(name, _construct(settings(), values, refuse), refuse)
        else:
            value = values.get(key, parameter.default)
            if key in texts and key in placeholders:
                value = texts[key]
                if get_origin(hints[key]) is Literal:
                    value = _value(key, value, hints[key], refuse)
            is_query = (name, key) == ("search", "index") and values.get(
                "engine"
            ) is not None  # it stands in that place
            try:
                value = settled(name, "query" if is_query else key, value)
            except DupmaeError as error:
                raise refuse(key, str(error)) from None
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            keyword[key] = value
    try:
        refuse_out_of_range(function, keyword)
    except OutOfRangeError as error:
        raise refuse(error.setting, error.problem) from None
    verbose, quiet, level = (values.get(key) for key in Switches._fields)
    return positional, keyword, Switches(bool(verbose), bool(quiet), level)


def _construct(
    defaults: Any, values: Mapping[str, Any], refuse: Callable[[str, str], DupmaeError], prefix: str = ""
) -> Any:
    """Build a settings dataclass, and those inside it, from what is given; what is out of range is named in full."""
    chosen = {}
    for field in fields(defaults):
        key, default = f"{prefix}{field.name}", getattr(defaults, field.name)
        nested = is_dataclass(default)
        chosen[field.name] = _construct(default, values, refuse, f"{key}.") if nested else values.get(key, default)
    try:
        return type(defaults)(**chosen)
    except OutOfRangeError as error:
        raise refuse(f"{prefix}{error.setting}", error.problem) from None


def _refusal(
    name: str, places: Mapping[str, str], placeholders: Mapping[str, str], key: str, problem: str
) -> DupmaeError:
    """Say what is wrong with the value of an argument, or of a setting and then where it stands."""
    if key in places:
        return DupmaeError(f"{places[key]}{key} {problem}")
    option = placeholders.get(key, f"--{key}")
    if option.startswith("{"):  # choices
        option = f"dupmae {name}"
    return DupmaeError(f"{option} {problem} (see dupmae {name} --help)")


def _as_file(values: Mapping[str, Any], types: Mapping[str, Any]) -> str:
    """Write options as a settings file with which the same command does the same."""
    tree: dict[str, Any] = {}
    for key, kind in types.items():
        value = values.get(key)
        if value is None and (_takes_several(kind) or type(None) not in get_args(kind)):
            continue
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120))


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Find the defaults of a command's options."""
    hints, found = get_type_hints(function), dict[str, Any]()

    def add(settings: Any, prefix: str) -> None:
        for field in fields(settings):
            value = getattr(settings, field.name)
            if is_dataclass(value):
                add(value, f"{prefix}{field.name}.")
            else:
                found[f"{prefix}{field.name}"] = value

    for key, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[key]):
            settings: Any = hints[key]
            add(settings(), "")
        elif parameter.default is not parameter.empty:
            found[key] = parameter.default
    return found


def _show_help(name: str, function: Callable[..., Any], words: Sequence[str]) -> None:
    """Print a command's help and end: all of it, or of many options those of a section, and what sections there are."""
    sections = _sections(function)
    few = "--help_all" in words or len(option_types(function)) < MANY
    shown = None if few else next((word for word in words if word in sections), "")
    width = max(map(len, sections), default=0)
    listed = [f"  {section:<{width}}  {about}" for section, about in sections.items()]
    more = f"Sections of settings, shown by dupmae {name} --help SECTION (all: --help-all):"
    parser = _Parser(
        name,
        usage=_usage(name, function),
        description=sections[shown] if shown else description(function),
        epilog=None if shown is None else "\n".join([more, *listed]),
    )
    help_texts = _help_texts(function)
    for key, placeholder in _placeholders(function).items():
        if not shown:
            parser.add_argument(key, metavar=placeholder, help=help_texts[key].replace("%", "%%"))
    parser.add_argument(
        "-h", "--help", action="store_true", help=SUPPRESS if shown else "Show this help, and do nothing."
    )
    add_options(parser, function, shown)
    for action in parser._actions:
        if action.option_strings and action.nargs in ("?", "*"):  # so that a missing value is told of here
            action.nargs = None if action.nargs == "?" else "+"
    parser.print_help()
    sys.stdout.flush()
    raise SystemExit(0)


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


@cache
def _help_texts(source: Any) -> dict[str, str]:
    """Find what the docstring of a function, or the attribute docstrings of a class, say of each parameter."""
    parsed = docstring_parser.parse_from_object(source)
    return {doc.arg_name: doc.description or "" for doc in parsed.params}


def _usage(name: str, function: Callable[..., Any]) -> str:
    """Put into one line what must be given, then `[options]`."""
    words, hints, placeholders = [f"dupmae {name}"], get_type_hints(function), _placeholders(function)
    for key, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty
        if key in placeholders:
            words.append(placeholders[key] if required else f"[{placeholders[key]}]")
        elif required and not is_dataclass(hints[key]):
            words.append(f"--{key} {key.upper()}")
    return " ".join([*words, "[options]"]).replace("%", "%%")


def _placeholders(function: Callable[..., Any]) -> dict[str, str]:
    """Find the positional arguments of a command, with what stands for each in the help: its choices, or its name."""
    hints, found = get_type_hints(function), dict[str, str]()
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            choices = choices_of(hints[key])
            found[key] = f"{{{','.join(choices)}}}" if choices else key.upper()
    return found


def _has_recipe(function: Callable[..., Any]) -> bool:
    """Tell whether a command takes its settings file by its place."""
    return "recipe" in inspect.signature(function).parameters


def _dataclass_types(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted names of all fields of a settings dataclass, each with its type."""
    for field, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from _dataclass_types(hint, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", hint


def _takes_several(kind: Any) -> bool:
    """Tell whether an option takes several values: a list, or that or nothing."""
    return kind is not FLAG and any(get_origin(one) is list for one in (kind, *get_args(kind)))
