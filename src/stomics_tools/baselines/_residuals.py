"""Normal errors around the prediction of any estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.base import clone

from stomics_tools._validate import check_integer, check_number
from stomics_tools.baselines._base import Baseline, inner_folds


class GaussianResiduals(Baseline):
    """A point prediction with normal errors of one standard deviation for each gene.

    The standard deviations are the root mean squared errors on left-out groups of the training spots, so that they
    count what the estimator misses in a group that it has not seen. It is fitted once more for each fold.

    Parameters
    ----------
    estimator
        One of the baselines.
    seed
        Of the estimator, if it has one, and of the folds, if there are no groups to make them of.

    Attributes
    ----------
    sd_
        Standard deviation of each gene ``(n_genes,)``.
    """

    def __init__(self, estimator: Baseline, seed: int = 0) -> None:
        self.estimator = estimator
        self.seed = seed

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        squares, n = np.zeros(y.shape[1]), np.zeros(y.shape[1])
        for train, test in inner_folds(len(x), groups, self.seed):
            known = ~np.isnan(y[train]).all(axis=0)
            inside, outside = (None, None) if groups is None else (groups[train], groups[test])
            fitted = self._fresh().fit(x[train], y[train][:, known], inside)
            error = y[test][:, known] - fitted.predict(x[test], outside)
            squares[known] += np.nansum(error**2, axis=0)
            n[known] += (~np.isnan(error)).sum(axis=0)
        # A gene that was never both left out and known has the spread of what was measured of it.
        self.sd_ = np.sqrt(np.where(n > 0, squares / np.maximum(n, 1), np.nanvar(y, axis=0)))
        self.estimator_ = self._fresh().fit(x, y, groups)

    def _fresh(self) -> Baseline:
        made = clone(self.estimator)
        return made.set_params(seed=self.seed) if "seed" in made.get_params() else made

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        return self.estimator_.predict(x, groups)

    def sample(self, X: Any, n: int = 1, *, groups: Any = None, seed: int = 0) -> np.ndarray:
        """Draw expression of spots, each gene by itself.

        Parameters
        ----------
        X
            Features ``(n_obs, n_features)``.
        n
            Number of samples.
        groups
            As in ``predict``.
        seed
            Of the draw.

        Returns
        -------
        ``(n, n_obs, n_genes)``.
        """
        check_integer(n, argument="n")
        mean = self.predict(X, groups)
        return mean + self.sd_ * np.random.default_rng(seed).standard_normal((n, *mean.shape))

    def interval(self, X: Any, level: float = 0.8, *, groups: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Central interval of each value.

        Parameters
        ----------
        X
            Features ``(n_obs, n_features)``.
        level
            Probability that it should hold, between 0 and 1.
        groups
            As in ``predict``.

        Returns
        -------
        Lower and upper ends ``(n_obs, n_genes)``.
        """
        check_number(level, argument="level", low=0, high=1)
        mean, half = self.predict(X, groups), norm.ppf((1 + level) / 2) * self.sd_
        return mean - half, mean + half
