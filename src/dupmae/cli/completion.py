"""Describe all commands to shtab, which writes scripts that let shells complete them."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from dupmae.cli.parsing import SHORT, SWITCHES, option_types
from dupmae.cli.places import role_of


def completion_script(commands: Mapping[str, Callable[..., Any]], shell: str) -> str:
    """Write the script of a shell (`bash`, `zsh`, `tcsh`) for commands, by what is typed after `dupmae`."""
    import shtab

    return str(shtab.complete(_tree(commands), shell=shell))


def _tree(commands: Mapping[str, Callable[..., Any]]) -> argparse.ArgumentParser:
    """Describe all commands as argparse does, as far as completion needs it."""
    import shtab

    top = argparse.ArgumentParser(prog="dupmae", description="Train a duplex retriever on your own text, and search.")
    parsers = top.add_subparsers()
    groups: dict[str, Any] = {}
    for name, function in commands.items():
        group, _, own = name.rpartition(" ")
        about = inspect.cleandoc(function.__doc__ or "").splitlines()[0]
        if group and group not in groups:
            groups[group] = parsers.add_parser(group, help=f"Commands of {group}.").add_subparsers()
        parser = (groups[group] if group else parsers).add_parser(own, help=about, description=about)
        for key, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.POSITIONAL_ONLY:
                named: Any = parser.add_argument(key)
                named.complete = shtab.FILE
        for key, kind in (option_types(function) | SWITCHES).items():
            letters = [f"-{letter}" for letter, option in SHORT.items() if option == key]
            added: Any = parser.add_argument(*letters, f"--{key}", choices=_choices(kind))
            if role_of(name, key) != "text":
                added.complete = shtab.FILE
    return top


def _choices(kind: Any) -> list[str] | None:
    """List the values that an option takes, if they are few."""
    for one in (kind, *get_args(kind)):
        if get_origin(one) is Literal:
            return [str(value) for value in get_args(one)]
    return None
