"""Options as they are usually spelled on a command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter


class HelpFormatter(DefaultHelpFormatter):
    """Paragraphs stay apart, and lines that begin with a space, such as examples, stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n\n".join(p if "\n " in p else fill(p, width, indent) for p in text.split("\n\n"))


def usage(name: str, parser: ArgumentParser) -> str:
    """One line of what a command cannot do without."""
    needed = [name]
    for action in parser._actions:
        if not action.option_strings:
            needed.append(action.dest.upper())
        elif action.required:
            needed.append(f"{action.option_strings[-1]} {action.dest.upper()}")
    return " ".join([*needed, "[options]"])


def spell_as_usual(parser: ArgumentParser) -> None:
    """Options named after arguments get dashes, those of sections also do without the name of the section.

    Options that are true or false need no value to be true, and lists take several values. What has no dashes may stand
    in a file of options instead.
    """
    for action in parser._actions:
        if not action.option_strings and action.dest != "subcommand":
            action.nargs, action.default, action.metavar = "?", argparse.SUPPRESS, action.dest.upper()
        typehint = getattr(action, "_typehint", None)
        if typehint is bool:
            action.nargs, action.const = "?", True
        elif action.option_strings and action.option_strings[-1].endswith("+"):
            _take_several(action)
        dashed = [option.replace("_", "-") for option in action.option_strings]
        short = [f"--{option.rpartition('.')[2]}" for option in dashed if "." in option]
        parser._option_string_actions.update(dict.fromkeys([*dashed, *short], action))
        action.option_strings = short or dashed
    sections = {action.dest.rpartition(".")[0] for action in parser._actions}
    for action in parser._actions:
        if action.dest in sections:  # takes a file of its own, which --config does for all
            action.help = argparse.SUPPRESS


def _take_several(action: Any) -> None:
    """Jsonargparse would have a list as one value, or one value an option."""
    action.nargs, action._typehint = "+", str
    action.option_strings = [option for option in action.option_strings if not option.endswith("+")]


def config_first(argv: Sequence[str], commands: Mapping[str, Any]) -> list[str]:
    """Arguments with ``--config`` right after the names of the commands: of two values, jsonargparse takes the later."""
    files: list[str] = []
    others: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument == "--config":
            files += [argument, *([value] if (value := next(rest, None)) is not None else [])]
        else:
            (files if argument.startswith("--config=") else others).append(argument)
    first, here = 0, commands
    while isinstance(here, Mapping) and first < len(others) and others[first] in here:
        here, first = here[others[first]], first + 1
    return others[:first] + files + others[first:]
