"""What differs between the versions of our dependencies."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import anndata
import mudata
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

_STRINGS = "allow_write_nullable_strings"
"""Setting of anndata, False by default before 0.13: names and columns of pandas' strings are not written."""


def columns_as_given() -> AbstractContextManager[Any]:
    """Within this context a MuData has the columns it is given: before mudata 0.4 it added those of its modalities."""
    set_options = getattr(mudata, "set_options", None)  # gone in 0.4, where nothing is pulled
    return nullcontext() if set_options is None else set_options(pull_on_update=False)


@contextmanager
def writing() -> Iterator[None]:
    """Within this context every object can be written that can be read, also one with pandas' strings."""
    # Older versions of anndata have no such setting, and newer ones may lose it once it has no use.
    strings = {_STRINGS: True} if hasattr(anndata.settings, _STRINGS) else {}
    with columns_as_given(), anndata.settings.override(**strings):
        yield


def plain_strings(data: AnnData | MuData) -> None:
    """Give an object that was read from a file names and columns that this version of anndata can write again.

    Files of anndata 0.13 hold pandas' own strings, which anndata 0.12 reads and by default refuses to write. Where it
    would, they become Python's.
    """
    if getattr(anndata.settings, _STRINGS, True):
        return
    if isinstance(data, MuData):
        for adata in data.mod.values():
            plain_strings(adata)
    elif data.raw is not None:
        _plain_table(data.raw.var)
    # Tables first, all at once: anndata compares their names with its own whenever one is taken.
    for mapping in (data.obsm, data.varm, data.uns):
        _plain_mapping(mapping)
    for table in (data.obs, data.var):
        _plain_table(table)


def _plain_mapping(mapping: Any) -> None:
    for key, value in list(mapping.items()):
        if isinstance(value, pd.DataFrame):
            _plain_table(value)
        elif isinstance(value, MutableMapping):
            _plain_mapping(value)
        elif isinstance(value, pd.api.extensions.ExtensionArray) and isinstance(value.dtype, pd.StringDtype):
            mapping[key] = np.asarray(value, dtype=object)


def _plain_table(table: pd.DataFrame) -> None:
    if isinstance(table.index.dtype, pd.StringDtype):
        table.index = table.index.astype(object)
    for name, column in table.items():
        if isinstance(column.dtype, pd.StringDtype):
            table[name] = column.astype(object)
        elif isinstance(column.dtype, pd.CategoricalDtype) and isinstance(column.cat.categories.dtype, pd.StringDtype):
            table[name] = column.cat.rename_categories(list(column.cat.categories.astype(object)))
