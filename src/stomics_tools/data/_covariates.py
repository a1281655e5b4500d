"""Columns of a table of observations as numbers, in the encoding of the object of setup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from stomics_tools._validate import check_categories, check_key

_MAX_CATEGORIES = 1000  # a column of names would be n x n when encoded


@dataclass(frozen=True)
class Covariate:
    """How one column is encoded: one-hot in ``categories``, or standardised by ``mean`` and ``sd`` if these are None.

    A continuous column that was constant has ``sd`` 0, and is encoded as zeros.
    """

    key: str
    categories: tuple[str, ...] | None = None
    mean: float = 0.0
    sd: float = 0.0

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return 1 if self.categories is None else len(self.categories)

    def encode(self, obs: pd.DataFrame) -> np.ndarray:
        """Return the column as float32 ``(n_obs, width)``.

        Raises ``KeyError`` if there is none, ``ValueError`` for missing values, categories that were not there at
        setup, and text in place of numbers.
        """
        if self.categories is None:
            values = _numbers(obs, self.key)
            return ((values - self.mean) / self.sd if self.sd else np.zeros_like(values)).astype(np.float32)[:, None]
        codes, names = _categories(obs, self.key)
        unseen = sorted(set(names) - set(self.categories))
        if unseen:
            raise ValueError(
                f"`covariate_keys`: `adata.obs[{self.key!r}]` has categories {unseen[:5]} that the model has not seen. "
                f"Those of setup are {list(self.categories[:20])}."
            )
        columns = np.array([self.categories.index(name) for name in names])
        return np.eye(self.width, dtype=np.float32)[columns[codes]]

    def state(self) -> dict[str, Any]:
        """The encoding in plain values."""
        if self.categories is None:
            return {"key": self.key, "kind": "continuous", "mean": self.mean, "sd": self.sd}
        return {"key": self.key, "kind": "categorical", "categories": list(self.categories)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Covariate:
        """The reverse of :meth:`state`."""
        if state["kind"] == "continuous":
            return cls(state["key"], mean=state["mean"], sd=state["sd"])
        return cls(state["key"], tuple(state["categories"]))


def fit_covariate(obs: pd.DataFrame, key: str) -> Covariate:
    """Encoding of a column: numbers are continuous; categories, text and booleans are categorical.

    Raises ``KeyError`` if there is none, ``ValueError`` for missing or infinite values and for too many categories.
    """
    check_key(key, obs.columns, argument="covariate_keys", where="adata.obs")
    if is_numeric_dtype(obs[key]) and not is_bool_dtype(obs[key]):
        values = _numbers(obs, key)
        return Covariate(key, mean=float(values.mean()), sd=float(values.std()) if np.ptp(values) else 0.0)
    _, names = _categories(obs, key)
    if len(names) > _MAX_CATEGORIES:
        raise ValueError(
            f"`covariate_keys`: `adata.obs[{key!r}]` has {len(names)} categories, at most {_MAX_CATEGORIES} can be "
            "used. Convert a continuous covariate to numbers; leave names of spots out."
        )
    return Covariate(key, tuple(names))


def _categories(obs: pd.DataFrame, key: str) -> tuple[np.ndarray, list[str]]:
    check_key(key, obs.columns, argument="covariate_keys", where="adata.obs")
    return check_categories(obs[key], argument="covariate_keys", where=f"adata.obs[{key!r}]")


def _numbers(obs: pd.DataFrame, key: str) -> np.ndarray:
    check_key(key, obs.columns, argument="covariate_keys", where="adata.obs")
    column, where = obs[key], f"adata.obs[{key!r}]"
    if not is_numeric_dtype(column):
        raise ValueError(f"`covariate_keys`: `{where}` held numbers at setup, found dtype {column.dtype}.")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    n_bad = int((~np.isfinite(values)).sum())
    if n_bad:
        raise ValueError(
            f"`covariate_keys`: `{where}` has {n_bad} missing or infinite values. "
            "Fill them or drop these observations first."
        )
    return values
