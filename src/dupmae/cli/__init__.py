"""Take what people type: the `dupmae` command."""

from dupmae.cli.commands.experiments import load_recipe
from dupmae.cli.entry import main

__all__ = ["load_recipe", "main"]
