"""Describe all commands to shtab, which writes scripts that let shells complete them."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dupmae.cli.parsing import SWITCHES, add_options, option_types
from dupmae.cli.places import role_of
from dupmae.cli.values import choices_of


def completion_script(commands: Mapping[str, Callable[..., Any]], shell: str) -> str:
    """Write the script of a shell (`bash`, `zsh`, `tcsh`) for commands, by what is typed after `dupmae`."""
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
        add_options(parser, function)
        types = option_types(function) | SWITCHES
        actions: list[Any] = parser._actions
        for action in actions:
            if action.dest in types and action.nargs != 0:
                action.choices = choices_of(types[action.dest])
            if role_of(name, action.dest) != "text":
                action.complete = shtab.FILE
    return str(shtab.complete(top, shell=shell))
