"""Normal errors around the prediction of any estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

from stomics_tools._intervals import GroupResiduals, bounds, group_residuals
from stomics_tools._validate import check_integer
from stomics_tools.baselines._base import Baseline, inner_folds


class GaussianResiduals(Baseline):
    """A point prediction with normal errors of one standard deviation for each gene.

    The standard deviations are the root mean squared errors on left-out groups of the training spots, so that they
    count what the estimator misses in a group that it has not seen. It is fitted once more for each fold. Intervals are
    wider where groups are few, which tell little of how far groups lie apart.

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
    residuals_
        What intervals are made of: the spread of each gene between and within groups.
    """

    def __init__(self, estimator: Baseline, seed: int = 0) -> None:
        self.estimator = estimator
        self.seed = seed

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        errors = np.full(y.shape, np.nan)
        for train, test in inner_folds(len(x), groups, self.seed):
            known = ~np.isnan(y[train]).all(axis=0)
            inside, outside = (None, None) if groups is None else (groups[train], groups[test])
            fitted = self._fresh().fit(x[train], y[train][:, known], inside)
            errors[np.ix_(test, known)] = y[test][:, known] - fitted.predict(x[test], outside)
        # A gene that was never both left out and known has the spread of what was measured of it.
        never = np.isnan(errors).all(axis=0)
        errors[:, never] = y[:, never] - np.nanmean(y[:, never], axis=0)
        self.sd_ = np.sqrt(np.nanmean(errors**2, axis=0))
        self.residuals_ = _of_groups(errors, groups, self.sd_)
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
            Share of the values of a new group that lie inside, above 0. With few groups the largest level is below 1:
            0.85 for 2, 0.97 for 3, 0.99 for 4, 0.995 for more.
        groups
            As in ``predict``.

        Returns
        -------
        Lower and upper ends ``(n_obs, n_genes)``.

        Raises
        ------
        ValueError
            If the groups of training are too few for `level`.
        """
        lower, upper = bounds(self.residuals_, level)
        mean = self.predict(X, groups)
        return mean + lower, mean + upper


def _of_groups(errors: np.ndarray, groups: np.ndarray | None, sd: np.ndarray) -> GroupResiduals:
    """Errors ``(n_obs, n_genes)`` of left-out groups; where there are none, every spot is one."""
    codes = np.zeros(0) if groups is None else np.unique(groups, return_inverse=True)[1]
    if not codes.any():
        n = (~np.isnan(errors)).sum(axis=0)
        return GroupResiduals(np.zeros((1, len(sd))), sd, n, n)
    return group_residuals(errors, codes, normal=True)
