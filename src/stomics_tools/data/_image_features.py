"""Image features of an AnnData, and whether they are those of setup."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stomics_tools._validate import check_key
from stomics_tools.data._matrix import dense_matrix, first_row

logger = logging.getLogger("stomics_tools")


def read_features(
    adata: AnnData, key: str, expression: bool, state: Mapping[str, Any] | None
) -> tuple[np.ndarray, tuple[str, ...] | None, str | None]:
    """Features float32 ``(n_obs, n_features)``, their names and encoder where known.

    With `state` they must be those of setup; for prediction (no `expression`) they may lie in ``X`` of a feature table.
    """
    in_table = key == "X"
    if key not in adata.obsm and not in_table:
        if expression or state is None:
            check_key(key, adata.obsm, argument="features_key", where="adata.obsm")
        else:
            _check_feature_table(adata, key, state)
        in_table = True
        logger.info("Features are read from `adata.X`, since `adata.obsm` has no %r.", key)
    where = "adata.X" if in_table else f"adata.obsm[{key!r}]"
    raw = adata.X if in_table else adata.obsm[key]
    names = _table_names(adata) if in_table else None
    if isinstance(raw, pd.DataFrame):
        names = tuple(raw.columns.astype(str))
    values = dense_matrix(raw, argument="features_key", where=where, own=False)
    encoder = _encoder(adata, key)
    if state is not None:
        _check_same_features(values.shape[1], names, encoder, state)
    bad = _not_finite(values)
    if bad.any():
        raise ValueError(
            f"`features_key`: {int(bad.sum())} rows of `{where}` hold NaN or infinite features "
            f"(first: {first_row(adata, bad)}). Drop these spots or compute their features again."
        )
    if state is None and (values == values[:1]).all():
        raise ValueError(f"`features_key`: `{where}` is constant (every spot has the same values). Name another array.")
    return values, names, encoder


def _not_finite(values: np.ndarray, block: int = 4096) -> np.ndarray:
    """Rows with NaN or infinite values, found block by block: a slide may hold more than fits in memory twice."""
    starts = range(0, len(values), block)
    return np.concatenate([~np.isfinite(values[start : start + block]).all(axis=1) for start in starts])


def _check_feature_table(adata: AnnData, key: str, state: Mapping[str, Any]) -> None:
    """Raise ``KeyError`` unless ``X`` can stand for ``obsm[key]``: as wide as at setup, and none of the genes."""
    if adata.X is None or adata.n_vars != state["n_features"] or adata.var_names.isin(state["gene_names"]).any():
        raise KeyError(
            f"`features_key`: key {key!r} not found in `adata.obsm`. Available keys: {list(adata.obsm)}. "
            f"Nor does `adata.X` of shape {adata.shape} hold the "
            f"{_describe(state['n_features'], state['encoder'])} that the model was set up with."
        )


def _table_names(adata: AnnData) -> tuple[str, ...] | None:
    """Names of the columns of ``X``, unless they are but numbered."""
    names = tuple(adata.var_names.astype(str))
    return None if names == tuple(map(str, range(len(names)))) else names


def _encoder(adata: AnnData, key: str) -> str | None:
    """What the features were computed with, where ``uns`` says so."""
    entry = adata.uns.get(key)
    params = entry.get("params") if isinstance(entry, Mapping) else None
    encoder = params.get("encoder") if isinstance(params, Mapping) else None
    return None if encoder is None else str(encoder)


def _check_same_features(
    n_features: int, names: tuple[str, ...] | None, encoder: str | None, state: Mapping[str, Any]
) -> None:
    other_encoder = None not in (encoder, state["encoder"]) and encoder != state["encoder"]
    if n_features != state["n_features"] or other_encoder:
        raise ValueError(
            f"`features_key`: the model was set up with {_describe(state['n_features'], state['encoder'])}, "
            f"found {_describe(n_features, encoder)}. Compute them with the encoder and the settings of training."
        )
    expected = state["feature_names"]
    if expected is not None and names is not None and list(names) != list(expected):
        missing = sorted(set(expected) - set(names))[:3]
        what = f"without {missing}" if missing else "in another order"
        raise ValueError(
            f"`features_key`: the features differ from those of setup ({what}). "
            "Subset or reorder them to the names of training."
        )


def _describe(n_features: int, encoder: str | None) -> str:
    return f"{n_features} features" + ("" if encoder is None else f" of encoder {encoder!r}")
