"""What differs between the versions of our dependencies."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import mudata


def columns_as_given() -> AbstractContextManager[Any]:
    """Within this context a MuData has the columns it is given: before mudata 0.4 it added those of its modalities."""
    set_options = getattr(mudata, "set_options", None)  # gone in 0.4, where nothing is pulled
    return nullcontext() if set_options is None else set_options(pull_on_update=False)
