"""Expression of hidden cells from where they lie among the measured cells of their own section."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from sklearn.neighbors import NearestNeighbors

from stomics_tools._validate import check_coordinates, check_integer
from stomics_tools.baselines._base import Baseline, inner_folds
from stomics_tools.baselines._knn import mean_of_neighbors
from stomics_tools.baselines._ridge import ridge_path

_LENGTHS = np.geomspace(0.05, 1.6, 6)  # in root-mean-square radii of the section
_ALPHAS = np.logspace(-2, 3, 11)


class SpatialBaseline(Baseline):
    """One regression on coordinates for each section, since sections need not share a frame."""

    @abstractmethod
    def _fit_section(self, xy: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Fit to the cells of one section; returns expression ``(n, n_genes)`` as a function of coordinates."""

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        check_coordinates(x, argument="X", where="X")
        self._has_groups = groups is not None
        self._by_section = {}
        for name, rows in _sections(x, groups):
            if (x[rows] == x[rows][0]).all():
                raise ValueError(f"`X`: section {name!r} has its training cells on one point. Leave the section out.")
            self._by_section[name] = self._fit_section(x[rows], y[rows])

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        if self._has_groups and groups is None:
            raise ValueError("`groups` are missing: it was fitted to sections. Give the section of each cell.")
        predicted = np.empty((len(x), len(self.mean_)))
        for name, rows in _sections(x, groups if self._has_groups else None):
            if name not in self._by_section:
                raise ValueError(
                    f"`groups`: there were no training cells of section {name!r}, only of {list(self._by_section)}. "
                    "Fit to some cells of each section."
                )
            predicted[rows] = self._by_section[name](x[rows])
        return predicted


def _sections(x: np.ndarray, groups: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    """Name of each section and which cells ``(n_obs,)`` are its own."""
    names = np.full(len(x), "") if groups is None else groups
    for name in np.unique(names):
        yield str(name), names == name


class SpatialKNN(SpatialBaseline):
    """Mean expression of the training cells that lie nearest in the same section.

    `X` holds coordinates ``(n_cells, 2 or 3)``, `groups` the section of each cell; all lie in one section if there are
    none. A gene that is missing in some of the neighbours is averaged over the others, and has the mean of all training
    cells where it is missing in all of them.

    Parameters
    ----------
    n_neighbors
        Training cells to average, as far as the section has so many.

    Notes
    -----
    With 30 % of the cells hidden at random, the correlation of a gene over the hidden cells of a section, on average
    over genes, is .12 to .14 on three STARmap sections of mouse cortex (counts of a cell scaled to the median sum,
    ``log1p``) and .23 to .25 on two MERFISH sections of mouse hypothalamus (as published). The mean of a cell's type
    reaches .22 to .23 and .39 to .41.
    """

    def __init__(self, n_neighbors: int = 30) -> None:
        self.n_neighbors = n_neighbors

    def _fit_section(self, xy: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        n_neighbors = check_integer(self.n_neighbors, argument="n_neighbors")
        search = NearestNeighbors(n_neighbors=min(n_neighbors, len(xy))).fit(xy)
        return partial(_mean_nearby, search, y, self.mean_)


def _mean_nearby(search: NearestNeighbors, y: np.ndarray, otherwise: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return mean_of_neighbors(y, search.kneighbors(xy, return_distance=False), otherwise)


class RandomFourierRidge(SpatialBaseline):
    """Ridge regression on random Fourier features of the coordinates, which comes near a Gaussian process.

    Input as that of :class:`SpatialKNN`. The covariance is squared exponential. In each section, length scale and
    penalty are those, common to all genes, with the smallest squared error in five folds of its training cells; length
    scales from .05 to 1.6 root-mean-square radii of the section compete.

    Parameters
    ----------
    n_features
        Number of random features. Time grows with its square, short length scales need many.
    seed
        Of the features and the folds.

    Notes
    -----
    On the sections as in :class:`SpatialKNN`: .12 to .14 and .23 to .25.

    References
    ----------
    Rahimi and Recht, Random features for large-scale kernel machines, NeurIPS 2007.
    """

    def __init__(self, n_features: int = 512, seed: int = 0) -> None:
        self.n_features = n_features
        self.seed = seed

    def _fit_section(self, xy: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        n_features = check_integer(self.n_features, argument="n_features")
        rng = np.random.default_rng(self.seed)
        frequency, phase = rng.normal(size=(xy.shape[1], n_features)), rng.uniform(0, 2 * np.pi, size=n_features)
        centre = xy.mean(axis=0)
        radius = np.sqrt(((xy - centre) ** 2).sum(axis=1).mean())
        waves = [partial(_waves, centre, frequency / (length * radius), phase) for length in _LENGTHS]
        errors = np.zeros((len(waves), len(_ALPHAS)))
        for train, test in inner_folds(len(xy), None, self.seed):
            for i, wave in enumerate(waves):
                z = wave(xy[test])
                for j, (intercept, coef) in enumerate(ridge_path(wave(xy[train]), y[train], _ALPHAS)):
                    errors[i, j] += np.nansum((y[test] - intercept - z @ coef) ** 2)
        best, penalty = np.unravel_index(errors.argmin(), errors.shape)
        ((intercept, coef),) = ridge_path(waves[best](xy), y, _ALPHAS[[penalty]])
        return partial(_sum_of_waves, waves[best], np.where(np.isnan(intercept), self.mean_, intercept), coef)


def _waves(centre: np.ndarray, frequency: np.ndarray, phase: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Random Fourier features ``(n, n_features)`` of coordinates ``(n, n_dims)``."""
    return np.sqrt(2 / len(phase)) * np.cos((xy - centre) @ frequency + phase)


def _sum_of_waves(
    wave: Callable[[np.ndarray], np.ndarray], intercept: np.ndarray, coef: np.ndarray, xy: np.ndarray
) -> np.ndarray:
    return intercept + wave(xy) @ coef
