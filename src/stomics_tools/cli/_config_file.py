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

VERSION = "stomics_tools_version"
"""Key of the version that wrote a file."""


class ConfigFile(ActionConfigFile):
    """``--config``; a file of a newer version, or with unknown options, ends the process with one line and 2."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Check the file, then take up its values."""
        try:
            content = read_config(values)
            check_names(content, parser, values)
        except (OSError, ValueError) as error:
            parser.exit(2, f"stomics: error: {error}\n")
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
    if not Path(path).is_file():
        raise FileNotFoundError(f"`config`: no such file '{path}'.")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
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


def check_names(content: Mapping[str, Any], parser: ArgumentParser, path: str | Path) -> None:
    """Raise ``ValueError`` at the first option in `content` that `parser` does not have, with the nearest it has."""
    options = {*parser.get_defaults().keys(), *(action.dest for action in parser._actions if not action.option_strings)}
    sections = {name.rpartition(".")[0] for name in options} - {""}
    for name, value in flat(content, sections):
        if name in sections:
            raise ValueError(f"`config`: section '{name}' of '{path}' must hold options, found {value!r}.")
        if name not in options:
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
