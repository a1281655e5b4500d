"""Command line to function call, and errors to one line."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser

from stomics_tools import __version__
from stomics_tools.cli._demo import demo
from stomics_tools.cli._info import info

COMMANDS: dict[str, Callable[..., None]] = {"demo": demo, "info": info}


def build_parser() -> ArgumentParser:
    """Parser of all commands; the options of each are the arguments of its function."""
    parser = ArgumentParser(
        prog="stomics", description="Deep models for spatial omics.", version=__version__, allow_abbrev=False
    )
    commands = parser.add_subcommands(required=True, metavar="COMMAND")
    for name, function in COMMANDS.items():
        doc = inspect.getdoc(function) or ""
        command = ArgumentParser(description=doc.split("\n\nParameters")[0], allow_abbrev=False)
        command.add_argument("--config", action="config", help="YAML file with options; those given here win")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.add_function_arguments(function)
        _spell_with_dashes(command)
        commands.add_subcommand(name, command, help=doc.splitlines()[0])
    return parser


def _spell_with_dashes(parser: ArgumentParser) -> None:
    """Options are named after arguments, with underscores; on the command line dashes are usual."""
    for action in parser._actions:
        dashed = [option.replace("_", "-") for option in action.option_strings]
        parser._option_string_actions.update(dict.fromkeys(dashed, action))
        action.option_strings = dashed


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
    options = build_parser().parse_args(argv)
    command = options[options.subcommand].as_dict()
    command.pop("config")
    debug = command.pop("debug")
    if not debug:  # of the libraries underneath, which a user of the command cannot act on
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        COMMANDS[options.subcommand](**command)
    except KeyboardInterrupt:
        print("stomics: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            raise
        print(f"stomics: error: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    expected = isinstance(error, (KeyError, TypeError, ValueError, OSError))
    hint = "" if expected else f" ({type(error).__name__}; run again with --debug for the traceback)"
    return " ".join(message.split()) + hint
