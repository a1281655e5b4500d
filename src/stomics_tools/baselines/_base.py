"""What all baselines share: checks, the folds of the inner cross-validation, and standardised components."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from stomics_tools._by_name import align_columns, align_rows
from stomics_tools._validate import check_finite

_MAX_FOLDS = 10
_FOLDS_WITHOUT_GROUPS = 5


class Baseline(RegressorMixin, BaseEstimator, ABC):
    """Checks around :meth:`_fit` and :meth:`_predict`; after ``fit`` there are ``n_features_in_`` and ``mean_``."""

    n_features_in_: int
    mean_: np.ndarray
    _columns: pd.Index | None

    def fit(self, X: Any, Y: Any, groups: Any = None) -> Self:
        """Fit to training spots.

        Parameters
        ----------
        X
            Features ``(n_obs, n_features)``, finite.
        Y
            What to predict: expression ``(n_obs, n_genes)`` or positions ``(n_obs, 2 or 3)``. NaN: the gene was not
            measured in that spot; each gene needs one spot at least in which it was. Spots of Series and DataFrames are
            joined by name; arrays go by position.
        groups
            Patient or section of each spot ``(n_obs,)``: what the inner cross-validation keeps together.

        Returns
        -------
        The estimator itself.

        Raises
        ------
        ValueError
            If lengths or names differ, features are not finite or a gene was measured nowhere.
        """
        X, Y, groups = align_rows({"X": X, "Y": Y, "groups": groups})
        self._columns = X.columns if isinstance(X, pd.DataFrame) else None
        features, expression = self._features(X), np.asarray(Y, dtype=np.float64)
        if expression.ndim != 2 or len(expression) != len(features):
            raise ValueError(
                f"`Y` has shape {expression.shape}, `X` has {features.shape}: "
                "both need a row for each spot, and `Y` a column for each gene."
            )
        if np.isinf(expression).any():
            raise ValueError(f"`Y` holds {int(np.isinf(expression).sum())} infinite values.")
        nowhere = np.isnan(expression).all(axis=0)
        if nowhere.any():
            raise ValueError(
                f"`Y`: {int(nowhere.sum())} genes were measured in no training spot "
                f"(first: column {int(np.flatnonzero(nowhere)[0])}). Leave them out."
            )
        self.n_features_in_ = features.shape[1]
        self.mean_ = np.nanmean(expression, axis=0)
        self._fit(features, expression, _check_groups(groups, len(features)))
        return self

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """Predict the expression or the positions of spots.

        Parameters
        ----------
        X
            Features ``(n_obs, n_features)``, finite, as in training; columns of DataFrames are joined by name.
        groups
            Patient or section of each spot ``(n_obs,)``, for methods that look at all spots of one.

        Returns
        -------
        ``(n_obs, n_genes)``, or positions ``(n_obs, 2 or 3)``, in the units of `Y`, finite.

        Raises
        ------
        ValueError
            If features are not finite, or not those of training.
        """
        if not hasattr(self, "n_features_in_"):
            raise NotFittedError(f"{type(self).__name__} is not fitted. Call `fit` first.")
        X, groups = align_rows({"X": X, "groups": groups})
        if self._columns is not None:
            _, X = align_columns({"X in training": pd.Series(0, index=self._columns), "X": X})
        features = self._features(X)
        if features.shape[1] != self.n_features_in_:
            raise ValueError(f"`X` has {features.shape[1]} features, the training spots had {self.n_features_in_}.")
        return self._predict(features, _check_groups(groups, len(features)))

    def _features(self, X: Any) -> np.ndarray:
        """Check the features and return them as float64 ``(n_obs, n_features)``."""
        features = np.asarray(X, dtype=np.float64)
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(
                f"`X` must be a matrix (n_obs, n_features) that is not empty, found shape {features.shape}."
            )
        check_finite(features, argument="X", where="X")
        return features

    @abstractmethod
    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None: ...

    @abstractmethod
    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray: ...


def components(x: np.ndarray, n_components: int, seed: int = 0) -> Pipeline:
    """Standardisation and principal components fitted to ``(n_obs, n_features)``, as many of them as there can be."""
    n = min(n_components, x.shape[1], len(x) - 1)
    return make_pipeline(StandardScaler(), PCA(max(n, 1), random_state=seed)).fit(x)


def inner_folds(n_obs: int, groups: np.ndarray | None, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds ``(train, test)`` that keep groups together, one group in each up to ten of them.

    Without groups, or with a single one, five folds of spots in random order.
    """
    n_groups = 0 if groups is None else len(np.unique(groups))
    if n_groups >= 2:
        return list(GroupKFold(min(n_groups, _MAX_FOLDS)).split(np.empty(n_obs), groups=groups))
    n_folds = min(_FOLDS_WITHOUT_GROUPS, n_obs)
    return list(KFold(n_folds, shuffle=True, random_state=seed).split(np.empty(n_obs)))


def _check_groups(groups: Any, n_obs: int) -> np.ndarray | None:
    if groups is None:
        return None
    found = np.asarray(groups)
    if found.shape != (n_obs,):
        raise ValueError(f"`groups` has shape {found.shape}, expected one group for each of {n_obs} spots.")
    return found.astype(str)
