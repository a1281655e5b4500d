"""The record of a call: arguments and results as plain values."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import Any

from stomics_tools import __version__


def plain(value: Any) -> Any:
    """`value` as JSON and h5ad files can hold it.

    Numbers and arrays of numpy, torch and pandas become Python's, tuples and sets lists, paths text; also within lists and
    mappings. Anything else stays as it is.
    """
    if isinstance(value, Mapping):
        return {str(name): plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(v) for v in value]
    if isinstance(value, PathLike):
        return fspath(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value


def plain_arguments(local: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a constructor as plain values, out of its ``locals()``, but for the data."""
    return {name: plain(v) for name, v in local.items() if name not in ("self", "adata", "registry", "__class__")}


def given_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the plain `arguments` of a function that differ from its defaults: what a user gave."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if value != plain(parameters[name].default)}


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments and results as h5ad and h5mu files can hold them: nothing that is ``None``, and our version added.

    Lists that are no array, such as those of numbers and None, become their JSON.
    """
    return {**_storable(plain(params)), "stomics_tools_version": __version__}


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _storable(v) for name, v in value.items() if v is not None}
    if isinstance(value, list) and not all(isinstance(v, str) for v in value):
        is_array = all(isinstance(v, bool) for v in value) or all(type(v) in (int, float) for v in value)
        return value if is_array else json.dumps(value, default=str)
    return value
