"""Spots as circles on the tissue."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from mpl_toolkits.mplot3d import Axes3D
from sklearn.neighbors import NearestNeighbors


def is_solid(xyz: np.ndarray) -> bool:
    """Whether spots fill three dimensions; a slice has one z."""
    return xyz.shape[1] == 3 and np.ptp(xyz[:, 2]) > 0


def panel_grid(
    solid: Sequence[bool], ncols: int, margin: float, *, panel: tuple[float, float] = (4.2, 4.0)
) -> list[Axes]:
    """A panel for each slice, with axes for three dimensions where they are `solid`; `margin` and `panel` in inches."""
    columns = min(ncols, len(solid))
    rows = -(-len(solid) // columns)
    figure = plt.figure(figsize=(panel[0] * columns + margin, panel[1] * rows), layout="constrained")
    return [
        figure.add_subplot(rows, columns, i + 1, projection="3d" if is_solid else None)
        for i, is_solid in enumerate(solid)
    ]


def pitch(xyz: np.ndarray) -> float:
    """Typical distance between neighbours: on a lattice its spacing, of spots on one point none."""
    points = np.unique(xyz, axis=0)
    n_neighbors = min(4, len(points) - 1)
    if n_neighbors < 1:
        return 1.0
    distances, _ = NearestNeighbors(n_neighbors=n_neighbors, algorithm="kd_tree").fit(points).kneighbors()
    return float(np.median(distances))


def draw_spots(ax: Axes, xyz: np.ndarray, rgba: np.ndarray, size: float, *, unit: float | None = None) -> None:
    """Draw circles of colours `rgba` ``(n_obs, 4)``, as wide as `size` times the distance between neighbours.

    `unit` is the distance to be used in place of that.
    """
    if unit is None:
        unit = pitch(xyz if isinstance(ax, Axes3D) else xyz[:, :2])
    if isinstance(ax, Axes3D):
        # Points of a 3-D plot have a size on paper only.
        area = 0.5 * (size * 200 * unit / np.ptp(xyz, axis=0).max()) ** 2
        ax.scatter(*xyz.T, c=rgba, s=area, depthshade=False, linewidths=0)
        ax.set_box_aspect(np.ptp(xyz, axis=0))
        ax.set(xticklabels=[], yticklabels=[], zticklabels=[])
        return
    xy = xyz[:, :2]
    width = np.full(len(xy), size * unit)
    spots = EllipseCollection(
        width, width, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData, facecolors=rgba
    )
    spots.set_linewidth(0)
    ax.add_collection(spots, autolim=False)
    low, high = xy.min(axis=0) - width[0], xy.max(axis=0) + width[0]
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), xticks=[], yticks=[], aspect="equal")
