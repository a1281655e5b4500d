"""Positions of cells from their expression, learnt from other sections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from stomics_tools._validate import check_coordinates
from stomics_tools.baselines._base import Baseline
from stomics_tools.baselines._knn import KNNRetrieval
from stomics_tools.baselines._mlp import MLP
from stomics_tools.baselines._ridge import PCARidge


class PositionBaseline(Baseline):
    """Centres every training section and scales it to a root-mean-square radius of 1, for one regression of them all.

    Nothing is rotated or reflected: sections that share no frame have to be brought into one before, or the
    regression averages them away. Predictions are centred at 0 and have the unit of the training positions.

    Attributes
    ----------
    scale_
        Mean root-mean-square radius of the training sections, in the unit of their positions.
    """

    @abstractmethod
    def _regression(self) -> Baseline:
        """The regression of the scaled positions on the features."""

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        check_coordinates(y, argument="Y", where="Y")
        unit, radii = unit_sections(y, np.zeros(len(y), dtype=int) if groups is None else groups)
        self.mean_ = np.zeros(y.shape[1])
        self.scale_ = float(radii.mean())
        self._fitted = self._regression().fit(x, unit, groups)

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        return self.scale_ * self._fitted.predict(x, groups)


def unit_sections(positions: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre each section and divide it by its root-mean-square radius.

    Parameters
    ----------
    positions
        ``(n_obs, n_dims)``.
    groups
        Section of each cell ``(n_obs,)``.

    Returns
    -------
    The positions ``(n_obs, n_dims)`` and the radii of the sections ``(n_sections,)``.

    Raises
    ------
    ValueError
        If all cells of a section lie on one point.
    """
    unit = np.empty_like(positions)
    names, codes = np.unique(groups, return_inverse=True)
    radii = np.empty(len(names))
    for code, name in enumerate(names):
        rows = codes == code
        if (positions[rows] == positions[rows][0]).all():
            raise ValueError(
                f"`Y`: the {int(rows.sum())} cells of section {name!s} lie on one point, which leaves no scale. "
                "Leave the section out."
            )
        centred = positions[rows] - positions[rows].mean(axis=0)
        radii[code] = np.sqrt((centred**2).sum(axis=1).mean())
        unit[rows] = centred / radii[code]
    return unit, radii


class PositionKNN(PositionBaseline):
    """Mean position of the cells of other sections whose expression is nearest.

    `X` holds normalised, log-transformed expression ``(n_cells, n_genes)``, `Y` positions ``(n_cells, 2 or 3)`` and
    `groups` the section of each cell: each is centred and scaled by itself. Neighbours are Euclidean, in principal
    components of the standardised genes. Averaging contracts the tissue, the more the more neighbours; one neighbour
    keeps its extent. Predictions are centred at 0 and in the unit of `Y`.

    Parameters
    ----------
    n_neighbors
        Training cells to average, as far as there are so many.
    n_components
        Principal components of the genes, as far as there are so many.

    Attributes
    ----------
    scale_
        Mean root-mean-square radius of the training sections, in the unit of `Y`.

    Notes
    -----
    On three STARmap sections of mouse cortex, each predicted from the others (counts of a cell scaled to the median
    sum, ``log1p``): Spearman correlation of distances .30 at a radius of .62 of the true one with 10 neighbours, .22 at
    .99 with one.
    """

    def __init__(self, n_neighbors: int = 10, n_components: int = 50) -> None:
        self.n_neighbors = n_neighbors
        self.n_components = n_components

    def _regression(self) -> Baseline:
        return KNNRetrieval(self.n_neighbors, "euclidean", self.n_components)


class PositionRidge(PositionBaseline):
    """Ridge regression of positions on principal components of the genes.

    Input and output as those of :class:`PositionKNN`. The penalty is that with the smallest squared error of left-out
    sections.

    Parameters
    ----------
    n_components
        Principal components of the genes, as far as there are so many.
    seed
        Of the folds, if there are no sections to make them of.

    Attributes
    ----------
    scale_
        Mean root-mean-square radius of the training sections, in the unit of `Y`.

    Notes
    -----
    On the STARmap sections as in :class:`PositionKNN`: Spearman correlation of distances .30 at a radius of .56.
    """

    def __init__(self, n_components: int = 50, seed: int = 0) -> None:
        self.n_components = n_components
        self.seed = seed

    def _regression(self) -> Baseline:
        return PCARidge(self.n_components, seed=self.seed)


class PositionMLP(PositionBaseline):
    """Multi-layer perceptron from the standardised genes to positions.

    Input and output as those of :class:`PositionKNN`; the network and its training are those of :class:`MLP`.

    Parameters
    ----------
    hidden
        Width of each hidden layer.
    epochs
        Passes over the training cells.
    seed
        Of weights, order and dropout.

    Attributes
    ----------
    scale_
        Mean root-mean-square radius of the training sections, in the unit of `Y`.

    Notes
    -----
    On the STARmap sections as in :class:`PositionKNN`: Spearman correlation of distances .41 at a radius of .68.
    """

    def __init__(self, hidden: Sequence[int] = (256, 256), epochs: int = 40, seed: int = 0) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.seed = seed

    def _regression(self) -> Baseline:
        return MLP(self.hidden, epochs=self.epochs, seed=self.seed)
