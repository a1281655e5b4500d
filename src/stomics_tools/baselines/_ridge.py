"""Principal components of the features and ridge regression, its penalty chosen by inner cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import linalg

from stomics_tools._validate import check_integer
from stomics_tools.baselines._base import Baseline, components, inner_folds


class PCARidge(Baseline):
    """Ridge regression with intercept on principal components of the standardised features.

    The penalty is one for all genes: that with the smallest squared error of left-out groups, for which
    standardisation and components are fitted anew without them. Genes that are missing in part of the spots are
    regressed over the rest.

    Parameters
    ----------
    n_components
        Principal components of the features, as far as there are so many.
    alphas
        Penalties to choose from. Default: 33 from 0.01 to 1e6, in equal steps of their logarithm.
    seed
        Of the folds, if there are no groups to make them of.

    Attributes
    ----------
    alpha_
        The penalty chosen.
    """

    def __init__(self, n_components: int = 64, alphas: Sequence[float] | None = None, seed: int = 0) -> None:
        self.n_components = n_components
        self.alphas = alphas
        self.seed = seed

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        check_integer(self.n_components, argument="n_components")
        alphas = np.logspace(-2, 6, 33) if self.alphas is None else np.asarray(self.alphas, dtype=np.float64)
        if alphas.ndim != 1 or not len(alphas) or not (np.isfinite(alphas) & (alphas > 0)).all():
            raise ValueError(f"`alphas` must be positive numbers, found {self.alphas!r}.")
        self.alpha_ = float(alphas[0] if len(alphas) == 1 else alphas[self._errors(x, y, groups, alphas).argmin()])
        self._components = components(x, self.n_components)
        ((self.intercept_, self.coef_),) = ridge_path(self._components.transform(x), y, np.array([self.alpha_]))

    def _errors(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None, alphas: np.ndarray) -> np.ndarray:
        """Squared errors of the left-out spots ``(n_alphas,)``."""
        errors = np.zeros(len(alphas))
        for train, test in inner_folds(len(x), groups, self.seed):
            pca = components(x[train], self.n_components)
            z = pca.transform(x[test])
            for i, (intercept, coef) in enumerate(ridge_path(pca.transform(x[train]), y[train], alphas)):
                errors[i] += np.nansum((y[test] - intercept - z @ coef) ** 2)
        return errors

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        return self.intercept_ + self._components.transform(x) @ self.coef_


def ridge_path(z: np.ndarray, y: np.ndarray, alphas: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Intercepts ``(n_genes,)`` and coefficients ``(n_features, n_genes)`` of ridge regression at each penalty.

    Genes that are NaN in the same rows share one decomposition; a gene that is NaN in all of them gets zeros and a NaN
    intercept.
    """
    path = [(np.full(y.shape[1], np.nan), np.zeros((z.shape[1], y.shape[1]))) for _ in alphas]
    patterns, which = np.unique(~np.isnan(y), axis=1, return_inverse=True)
    for i, measured in enumerate(patterns.T):
        if not measured.any():
            continue
        genes = np.flatnonzero(which.ravel() == i)
        z_mean, y_mean = z[measured].mean(axis=0), y[np.ix_(measured, genes)].mean(axis=0)
        u, s, vt = linalg.svd(z[measured] - z_mean, full_matrices=False)
        projected = u.T @ (y[np.ix_(measured, genes)] - y_mean)
        for alpha, (intercept, coef) in zip(alphas, path, strict=True):
            b = vt.T @ ((s / (s**2 + alpha))[:, None] * projected)
            intercept[genes], coef[:, genes] = y_mean - z_mean @ b, b
    return path
