"""Which tiles of a slide a spot takes its features from."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree


def tile_pitch(centres: np.ndarray) -> float:
    """Median distance of a tile from the nearest other, of centres ``(n_tiles, 2)``; infinite for a single tile."""
    if len(centres) < 2:
        return float("inf")
    return float(np.median(cKDTree(centres).query(centres, k=2)[0][:, 1]))


def tile_weights(
    xy: np.ndarray, centres: np.ndarray, *, radius: float, pitch: float, how: str, argument: str
) -> sparse.csr_matrix:
    """Weights of the tiles of each spot.

    Parameters
    ----------
    xy
        Spots ``(n_obs, 2)``.
    centres
        Tiles ``(n_tiles, 2)``, in the same unit.
    radius
        Farthest distance of a tile from a spot.
    pitch
        Distance of neighbouring tiles, for the message.
    how
        ``"nearest"`` or ``"mean"``.
    argument
        What the caller named the tiles, for the message.

    Returns
    -------
    ``(n_obs, n_tiles)``, every row of sum 1.

    Raises
    ------
    ValueError
        If a spot has no tile within the radius.
    """
    tree = cKDTree(centres)
    distance, nearest = tree.query(xy)
    far = distance > radius
    if far.any():
        raise ValueError(_message(xy, centres, distance[far], radius, pitch, argument))
    if how == "nearest":
        row, column = np.arange(len(xy)), nearest
    else:
        pairs = cKDTree(xy).sparse_distance_matrix(tree, radius, output_type="ndarray")
        row, column = pairs["i"], pairs["j"]
    share = 1 / np.bincount(row, minlength=len(xy))
    return sparse.csr_matrix((share[row], (row, column)), shape=(len(xy), len(centres)))


def _message(
    xy: np.ndarray, centres: np.ndarray, distance: np.ndarray, radius: float, pitch: float, argument: str
) -> str:
    def extent(points: np.ndarray) -> str:
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return f"x from {x0:.4g} to {x1:.4g}, y from {y0:.4g} to {y1:.4g}"

    return (
        f"`{argument}`: {len(distance)} of {len(xy)} spots have no tile within the radius {radius:.4g}: the nearest is "
        f"{distance.min():.4g} to {distance.max():.4g} away, at a pitch of the tiles of {pitch:.4g}. Spots have "
        f"{extent(xy)}; tiles {extent(centres)}. If one is a multiple of the other, coordinates are of another "
        "resolution: bring them to the same. Else leave these spots out, tile the slide under them, or give a larger "
        "`radius`."
    )
