"""Checks of true and predicted expression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from stomics_tools._by_name import align_columns, align_rows
from stomics_tools._validate import check_finite


def check_truth(truth: Any, *, argument: str = "truth") -> np.ndarray:
    """Return expression as float64 ``(n_obs, n_genes)``; NaN is a gene that was not measured in a spot."""
    values = _numbers(truth, argument)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"`{argument}` must be a matrix (n_obs, n_genes) that is not empty, found shape {values.shape}."
        )
    if np.isinf(values).any():
        raise ValueError(f"`{argument}` holds {int(np.isinf(values).sum())} infinite values.")
    return values


def check_pair(truth: Any, prediction: Any, *, argument: str = "prediction") -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 ``(n_obs, n_genes)``, rows and columns of DataFrames joined by name.

    ``ValueError`` for other shapes or names, and predictions that are not finite.
    """
    truth, prediction = align_columns(
        dict(zip(("truth", argument), align_rows({"truth": truth, argument: prediction}), strict=True))
    )
    true = check_truth(truth)
    predicted = _numbers(prediction, argument)
    if predicted.shape != true.shape:
        raise ValueError(
            f"`{argument}` has shape {predicted.shape}, `truth` has {true.shape}: "
            "both must be (n_obs, n_genes), of the same spots and genes in the same order."
        )
    check_finite(predicted, argument=argument, where=argument)
    return true, predicted


def check_samples(truth: Any, samples: Any, *, minimum: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(n_obs, n_genes)`` and ``(n_samples, n_obs, n_genes)``; ``ValueError`` unless they fit each other."""
    true = check_truth(truth)
    if isinstance(samples, list | tuple):
        samples = [check_pair(truth, sample, argument=f"samples[{i}]")[1] for i, sample in enumerate(samples)]
    drawn = np.asarray(samples)
    if drawn.ndim != 3 or drawn.shape[1:] != true.shape:
        raise ValueError(
            f"`samples` has shape {drawn.shape}, `truth` has {true.shape}: "
            "samples must be (n_samples, n_obs, n_genes) of the same spots and genes."
        )
    if len(drawn) < minimum:
        raise ValueError(f"`samples` needs at least {minimum} samples, found {len(drawn)}.")
    check_finite(drawn, argument="samples", where="samples")
    return true, drawn


def _numbers(values: Any, argument: str) -> np.ndarray:
    """Any matrix as a dense float64 array; missing values are NaN."""
    if hasattr(values, "obs_names"):
        raise TypeError(
            f"`{argument}` must be a matrix, found {type(values).__name__}. Give `adata.X`, a layer, or `adata.to_df()`."
        )
    if sparse.issparse(values):
        values = values.toarray()  # each gene is compared in every spot
    if isinstance(values, pd.DataFrame | pd.Series):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(values, dtype=np.float64)


def check_per_spot(values: Any, n_obs: int, *, argument: str, what: str = "spots") -> np.ndarray:
    """Return one value a spot ``(n_obs,)``; ``ValueError`` for another length or missing values."""
    column = np.asarray(values)
    column = column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
    if column.shape != (n_obs,):
        raise ValueError(f"`{argument}` has shape {column.shape}, expected one value for each of {n_obs} {what}.")
    if pd.isna(column).any():
        raise ValueError(f"`{argument}` has missing values.")
    return column


def check_per_gene(values: Any, n_genes: int, *, argument: str) -> np.ndarray:
    """Return one finite number a gene ``(n_genes,)``."""
    row = _numbers(values, argument)
    if row.shape != (n_genes,):
        raise ValueError(f"`{argument}` has shape {row.shape}, expected one value for each of {n_genes} genes.")
    check_finite(row, argument=argument, where=argument)
    return row


def mean_of_defined(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean without NaN; NaN where there is nothing else, without a warning."""
    defined = ~np.isnan(values)
    n = defined.sum(axis=axis)
    return np.where(n > 0, np.where(defined, values, 0.0).sum(axis=axis) / np.maximum(n, 1), np.nan)
