"""The record of a call that is kept in ``uns``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stomics_tools import __version__


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments and results as h5ad and h5mu files can hold them: nothing that is ``None``, and our version added."""
    kept = {name: list(v) if isinstance(v, tuple) else v for name, v in params.items() if v is not None}
    return {**kept, "stomics_tools_version": __version__}
