"""Command line to function call, and errors to one line."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser

from stomics_tools import __version__
from stomics_tools.cli import diffusion
from stomics_tools.cli._compare import compare
from stomics_tools.cli._config_file import VERSION, ConfigFile
from stomics_tools.cli._demo import demo
from stomics_tools.cli._graphst import graphst
from stomics_tools.cli._info import info
from stomics_tools.cli._output import one_line
from stomics_tools.cli._praga import praga, praga_spike
from stomics_tools.cli._simulate import COMMANDS as SIMULATE
from stomics_tools.cli._spatial_components import spatial_components
from stomics_tools.cli._spelling import (
    HelpFormatter,
    config_first,
    removed_options,
    spell_as_usual,
    split_lists,
    unknown_option,
    usage,
    without_no,
    words_of,
)
from stomics_tools.cli._var_st import var_st

Command = Callable[..., None]
COMMANDS: dict[str, Command | Mapping[str, Command]] = {
    "demo": demo,
    "spatial-components": spatial_components,
    "praga-spike": praga_spike,
    "praga": praga,
    "graphst": graphst,
    "var-st": var_st,
    "compare": compare,
    "info": info,
    "diffusion": diffusion.COMMANDS,
    "simulate": SIMULATE,
}
_GROUPS = {
    "diffusion": "Positions of cells from expression, expression from positions, and both.",
    "simulate": "Slices whose truth is known, to try the other commands on.",
}


def build_parser() -> ArgumentParser:
    """Parser of all commands; the options of each are the arguments of its function."""
    return _build()[0]


def _build() -> tuple[ArgumentParser, dict[tuple[str, ...], Mapping[str, Any]]]:
    """The parser, and the options of each command by its words."""
    parser = ArgumentParser(
        prog="stomics",
        description="Deep models for spatial omics.",
        version=__version__,
        formatter_class=HelpFormatter,  # commands take it from here
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(required=True, metavar="COMMAND")
    options: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for name, what in COMMANDS.items():
        if callable(what):
            options[name,] = _add_command(commands, name, what, f"stomics {name}")
            continue
        group = ArgumentParser(description=_GROUPS[name], allow_abbrev=False)
        commands.add_subcommand(name, group, help=_GROUPS[name])
        members = group.add_subcommands(required=True, metavar="COMMAND")
        for member, function in what.items():
            options[name, member] = _add_command(members, member, function, f"stomics {name} {member}")
    return parser, options


def _add_command(commands: Any, name: str, function: Command, words: str) -> Mapping[str, Any]:
    doc, _, examples = (inspect.getdoc(function) or "").partition("\n\nExamples\n--------\n")
    command = ArgumentParser(
        description=doc.partition("\n\nParameters\n")[0],
        epilog=f"examples:\n{indent(examples, '  ')}" if examples else None,
        print_config="--print-config",
        allow_abbrev=False,
    )
    command.add_argument("--config", action=ConfigFile, help="YAML file with options; those given here win")
    command.add_argument(f"--{VERSION}", help=argparse.SUPPRESS)
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # Of annotations that are text, jsonargparse runs the imports for type checkers, and with these torch's.
    function.__annotations__ = get_type_hints(function)
    command.add_function_arguments(function, as_positional=True)
    spell_as_usual(command)
    command.usage = usage(words, command)
    commands.add_subcommand(name, command, help=doc.splitlines()[0])
    return command._option_string_actions


def _expanded(value: Any) -> Any:
    """A path with the folder of the user in place of ``~``; lists of them too."""
    if isinstance(value, list):
        return [_expanded(part) for part in value]
    return value.expanduser() if isinstance(value, Path) else value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``stomics`` command and return its exit code.

    Parameters
    ----------
    argv
        Arguments without the name of the program. Default: those of the process.

    Returns
    -------
    0 if all went well, 1 after an error, 130 after an interruption. Wrong usage ends the process with 2.
    """
    # Before torch is imported: threads that spin while they wait bring each other to a halt on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("MPLBACKEND", "Agg")  # pictures go to files: no screen is needed
    parser, known = _build()
    arguments = list(sys.argv[1:] if argv is None else argv)
    words = words_of(arguments, COMMANDS)
    options_here = known.get(words)
    if options_here is not None:
        arguments = split_lists(without_no(arguments, options_here), options_here)
    wrong = None if options_here is None else unknown_option(arguments, options_here, removed_options(words))
    if wrong is not None:
        parser.exit(2, f"stomics: error: {wrong}\n")
    # Renamed in jsonargparse 4.49; makes dataclasses of sections of options.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    options = instantiate(parser.parse_args(config_first(arguments, COMMANDS)))
    function: Any = COMMANDS
    while "subcommand" in options:
        function, options = function[options.subcommand], options[options.subcommand]
    command = {name: _expanded(value) for name, value in vars(options).items()}
    debug = command.pop("debug")
    for name in ("config", VERSION):
        command.pop(name)
    if not debug:  # of the libraries underneath, which a user of the command cannot act on
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Writing zarr v2 data", category=UserWarning)
    try:
        function(**command)
    except KeyboardInterrupt:
        print("stomics: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        print(f"stomics: error: {one_line(error)}", file=sys.stderr)
        return 1
    return 0
