"""Files of options: what is wrong in one is named before anything runs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from stomics_tools import __version__
from stomics_tools.cli._spelling import other_names, removed_options

VERSION = "stomics_tools_version"
"""Key of the version that wrote a file."""


class ConfigFile(ActionConfigFile):
    """``--config``; a file of a newer version, or with unknown options, ends the process with one line and 2."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Check the file, then take up its values."""
        try:
            content = read_config(values)
            renamed = renamed_options(content, parser)
            check_names(renamed, parser, values)
        except (OSError, ValueError) as error:
            parser.exit(2, f"stomics: error: {error}\n")
        if renamed != content:
            values = yaml.safe_dump(renamed)
        super().__call__(parser, cfg, values, option_string)


def read_config(path: str | Path) -> dict[str, Any]:
    """Content of a file of options.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is no YAML mapping, or was written by a newer version.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"`config`: no such file '{path}'.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"`config`: '{path}' is no YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"`config`: '{path}' must map options to values, found {type(content).__name__}.")
    written_by = str(content.get(VERSION, __version__))
    if _series(written_by) > _series(__version__):
        raise ValueError(
            f"`config`: '{path}' was written by stomics-tools {written_by}, this is {__version__}, which may not know "
            f"all of its options. Install {written_by}, or write the options for this version."
        )
    return content


_SECTIONS = {"TransformerLayer_setting": "network", "model": "network", "transformer": "network"}
_KEYS = {
    "masking.enable": "masking.enable_masking",
    "masking.enabled": "masking.enable_masking",
    "network.dim_ff_expression": "network.n_hidden",
    "network.load_balance_weight": "network.balance_weight",
    "network.moe_balance_weight": "network.balance_weight",
    "diffusion.num_timesteps": "diffusion.diffusion_steps",
    "diffusion.timesteps": "diffusion.diffusion_steps",
    "logging.logger": "logger",
    "logging.save_dir": "output_dir",
    "data.processed_data_dir": "data_dir",
    "data.data_dir": "data_dir",
    "data.raw_data_dir": "input",
}
"""Options of other programs' files of options to ours."""

_NO_COUNTERPART = {
    "loss": "positions and expression are weighed by the model itself",
    "distributed": "devices are given to the model in Python, by `train(devices=, strategy=)`",
    "sampling": "options of draws belong to `stomics diffusion sample`",
    "evaluation": "options of scores belong to `stomics diffusion test`",
    "data": "data are prepared by `stomics diffusion preprocess`",
    "logging": "`logger`, `output_dir` and `exp_name` say where results go",
    "scheduler": "the learning rate rises and falls along a cosine",
    "mask_strategy": "genes are hidden at random",
    "precision": "training is in float32",
}


def renamed_options(content: Mapping[str, Any], parser: ArgumentParser) -> dict[str, Any]:
    """Content of a file with the names of `parser`: other names of options and sections are translated.

    Raises ``ValueError`` if an option is given twice, under two names.
    """
    options = {*parser.get_defaults().keys(), *(action.dest for action in parser._actions if not action.option_strings)}
    sections = {name.rpartition(".")[0] for name in options} - {""}
    foreign = {
        key for key, value in content.items() if isinstance(value, dict) and (key in _SECTIONS or key not in options)
    }
    result: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in flat(content, sections | foreign):
        own = _own_name(name, options)
        if own in origin:
            raise ValueError(f"`config`: {origin[own]!r} and {name!r} are the same option. Leave one out.")
        origin[own] = name
        section, _, last = own.rpartition(".")
        if own != name and isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
            value = float(value)  # YAML takes 1e-4 for text
        if section in sections:
            result.setdefault(section, {})[last] = value
        elif section:
            result.setdefault(section, {})[last] = value
        else:
            result[own] = value
    return result


def _own_name(name: str, options: Collection[str]) -> str:
    section, _, last = name.rpartition(".")
    section = _SECTIONS.get(section, section)
    here = f"{section}.{last}" if section else last
    if here in options:
        return here
    if _KEYS.get(here) in options:
        return _KEYS[here]
    for option in sorted(options):
        own_section, _, own = option.rpartition(".")
        if own_section == section and last in other_names(own):
            return option
    return here


def check_names(content: Mapping[str, Any], parser: ArgumentParser, path: str | Path) -> None:
    """Raise ``ValueError`` at the first option in `content` that `parser` does not have, with the nearest it has."""
    options = {*parser.get_defaults().keys(), *(action.dest for action in parser._actions if not action.option_strings)}
    sections = {name.rpartition(".")[0] for name in options} - {""}
    for name, value in flat(content, sections):
        if name in sections:
            raise ValueError(f"`config`: section '{name}' of '{path}' must hold options, found {value!r}.")
        if name not in options:
            instead = removed_options(str(parser.usage).split()[1:2]).get(name)
            if instead is not None:
                raise ValueError(f"`config`: option '{name}' in '{path}' is no longer there. {instead}")
            parts = name.split(".")
            why = next((_NO_COUNTERPART[part] for part in parts if part in _NO_COUNTERPART), None)
            if why is not None:
                raise ValueError(f"`config`: option '{name}' in '{path}' has no counterpart here: {why}. Leave it out.")
            version = content.get(VERSION, __version__)
            origin = f" (of stomics-tools {version}; this is {__version__})" if version != __version__ else ""
            raise ValueError(
                f"`config`: unknown option '{name}' in '{path}'{origin}. "
                f"Did you mean '{_nearest(name, options | sections)}'?"
            )


def flat(content: Mapping[Any, Any], sections: Collection[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Options and their values, those of sections by dotted names."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name in sections and isinstance(value, dict):
            yield from flat(value, sections, f"{name}.")
        else:
            yield name, value


def _nearest(name: str, names: set[str]) -> str:
    """The most similar last part of a name, in the same section if it is there."""
    section, _, last = name.rpartition(".")
    by_last: dict[str, list[str]] = {}
    for known in sorted(names, key=lambda known: known.rpartition(".")[0] != section):
        by_last.setdefault(known.rpartition(".")[2], []).append(known)
    return by_last[get_close_matches(last, by_last, n=1, cutoff=0)[0]][0]


def _series(version: str) -> tuple[int, ...]:
    """Major and minor version: within one series, files stay readable."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
