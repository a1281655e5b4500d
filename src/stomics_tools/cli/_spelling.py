"""Options as they are usually spelled on a command line."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

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


_OTHER_NAMES = {
    "max_epochs": ("epochs", "n_epochs", "num_epochs"),
    "lr": ("learning_rate",),
    "n_domains": ("n_clusters", "num_clusters"),
    "n_top_genes": ("num_genes", "n_genes"),
    "num_genes": ("n_top_genes", "n_genes"),
    "checkpoint": ("load_model",),
    "input": ("raw_dir",),
    "data_dir": ("output_dir", "processed_dir"),
    "seed": ("random_seed", "random_state"),
    "width": ("d_model",),
    "n_heads": ("n_head", "nhead"),
    "n_hidden": ("d_ff", "dim_feedforward"),
    "clip_grad": ("gradient_clip_val",),
    "devices": ("gpus",),
    "batch_key": ("slice_key",),
    "label_key": ("labels_key",),
}
"""Other names of options, taken where the command has none of that name itself."""


def other_names(name: str) -> list[str]:
    """Names of the same option: those above, and ``num_`` for ``n_`` and the other way round."""
    names = [name, *_OTHER_NAMES.get(name, ())]
    swapped = [f"num_{own[2:]}" for own in names if own.startswith("n_")]
    swapped += [f"n_{own[4:]}" for own in names if own.startswith("num_")]
    return list(dict.fromkeys([*names, *swapped]))[1:]


def spell_as_usual(parser: ArgumentParser) -> None:
    """Options named after arguments are spelled with dashes, and taken with underscores too.

    Those of sections also do without the name of the section, several have other names, and the input can stand by
    itself or behind ``--input``. Options that are true or false need no value to be true, and lists take several values.
    What has no dashes may stand in a file of options instead.
    """
    for action in parser._actions:
        if action.dest == "input":
            _stand_alone(parser, action)
        elif not action.option_strings and action.dest != "subcommand":
            action.nargs, action.default, action.metavar = "?", argparse.SUPPRESS, action.dest.upper()
        typehint = getattr(action, "_typehint", None)
        if typehint is bool or bool in get_args(typehint):
            action.nargs, action.const = "?", True
        elif action.option_strings and action.option_strings[-1].endswith("+"):
            _take_several(action)
        dashed = [option.replace("_", "-") for option in action.option_strings]
        short = [f"--{option.rpartition('.')[2]}" for option in dashed if "." in option]
        spelled = [*dashed, *short, *(f"--{option[2:].replace('-', '_')}" for option in short)]
        parser._option_string_actions.update(dict.fromkeys(spelled, action))
        action.option_strings = short or dashed
    for action in list(parser._actions):
        own = action.dest.rpartition(".")[2]
        for name in other_names(own) if action.dest != "subcommand" else ():
            for option in (f"--{name}", f"--{name.replace('_', '-')}"):
                parser._option_string_actions.setdefault(option, action)
    sections = {action.dest.rpartition(".")[0] for action in parser._actions}
    for action in parser._actions:
        if action.dest in sections:  # takes a file of its own, which --config does for all
            action.help = argparse.SUPPRESS


def _stand_alone(parser: ArgumentParser, action: Any) -> None:
    """Make the input positional, and take it as ``--input`` as well."""
    parser._option_string_actions["--input"] = action
    if action.option_strings:
        action.required = False
    action.option_strings = []
    action.nargs, action.default, action.metavar = "?", argparse.SUPPRESS, "INPUT"


def without_no(argv: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Arguments with ``--counts=false`` in place of ``--no-counts``, for options that are true or false."""
    result = []
    for argument in argv:
        option = f"--{argument[5:]}"
        kind = getattr(options.get(option), "_typehint", None)
        negated = argument.startswith(("--no-", "--no_")) and argument not in options
        takes_false = kind is bool or bool in get_args(kind)
        result.append(f"{option}=false" if negated and takes_false else argument)
    return result


def split_lists(argv: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """Arguments with ``2 4`` in place of ``2,4``, for options that are lists of numbers; ``none`` is no number."""
    result: list[str] = []
    in_list = False
    for argument in argv:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            in_list = getattr(options.get(option), "nargs", None) == "+" and _is_of_numbers(options[option])
            if not (in_list and equals):
                result.append(argument)
                continue
            result.append(option)
            argument = value
        parts = argument.split(",") if in_list else [argument]
        result += ["null" if in_list and part.strip().lower() == "none" else part for part in parts]
    return result


def _is_of_numbers(action: Any) -> bool:
    return action._typehint is int or int in get_args(action._typehint)


_PRAGA = "The published PRAGA is `stomics praga --data-type ...`."
_REMOVED: dict[tuple[str, ...], dict[str, str]] = {
    ("praga-spike",): {
        "preset": f"{_PRAGA} What `--preset enhanced` was is `--max-epochs 1000 --lr 1e-4 "
        "--early-stopping-patience 50`, with `scheduler='plateau'` and `clip_grad=1.0` in Python.",
        "data_type": _PRAGA,
        "patience": "Training stops by the error of spots kept out of the loss: `--early-stopping-patience`.",
    }
}
"""Options that commands had in earlier versions, and what to write instead."""


def removed_options(words: Sequence[str]) -> Mapping[str, str]:
    """Options that a command had in earlier versions, and what to write instead."""
    return _REMOVED.get(tuple(words), {})


def unknown_option(
    argv: Sequence[str], options: Collection[str], removed: Mapping[str, str] | None = None
) -> str | None:
    """What is wrong with the first option that a command does not have, and the nearest one that it has.

    For options that were `removed`, what to write instead.
    """
    for argument in argv:
        option = argument.partition("=")[0]
        if not option.startswith("--") or option == "--":
            continue
        if option in options or option.partition(".")[0] in options:
            continue
        instead = (removed or {}).get(option[2:].replace("-", "_"))
        if instead is not None:
            return f"unrecognized option {option}. {instead}"
        spelled = option.replace("_", "-")
        close = get_close_matches(spelled, sorted({known.replace("_", "-") for known in options}), n=1, cutoff=0.6)
        hint = f" Did you mean {close[0]}?" if close else " `--help` lists the options."
        return f"unrecognized option {option}.{hint}"
    return None


def _take_several(action: Any) -> None:
    """Jsonargparse would have a list as one value, or one value an option."""
    words = str(action._typehint)
    kinds = {"list[int]": int, "list[int | None]": int | None}
    action.nargs, action._typehint = "+", next((kind for word, kind in kinds.items() if word in words), str)
    action.option_strings = [option for option in action.option_strings if not option.endswith("+")]


def words_of(argv: Sequence[str], commands: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the command at the beginning of the arguments."""
    here: Any = commands
    words: list[str] = []
    while isinstance(here, Mapping) and len(words) < len(argv) and argv[len(words)] in here:
        words.append(argv[len(words)])
        here = here[words[-1]]
    return tuple(words)


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
    first = len(words_of(others, commands))
    return others[:first] + files + others[first:]
