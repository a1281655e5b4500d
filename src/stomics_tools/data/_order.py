"""A space-filling order of spots, so that neighbours in space are neighbours in memory."""

from __future__ import annotations

import numpy as np


def hilbert_order(coordinates: np.ndarray, batch: np.ndarray | None = None, n_bits: int = 16) -> np.ndarray:
    """Permutation that lists spots along a Hilbert curve, one batch after the other.

    Parameters
    ----------
    coordinates
        ``(n_obs, n_dims)``, finite.
    batch
        Integer codes ``(n_obs,)``.
    n_bits
        Resolution of the curve: ``2 ** n_bits`` cells along the longest side of each batch.

    Returns
    -------
    int64 ``(n_obs,)``: the row that stands at each place of the curve. Ties keep the given order.

    Source: Skilling, Programming the Hilbert curve, AIP Conf. Proc. 707 (2004) 381.
    """
    n_obs = len(coordinates)
    codes = np.zeros(n_obs, dtype=np.int64) if batch is None else np.asarray(batch)
    index = np.empty(n_obs, dtype=np.uint64)
    for code in np.unique(codes):
        rows = codes == code
        part = coordinates[rows]
        varied = (
            np.ptp(part, axis=0) > 0
        )  # a flat slice is flat however it is written, and beside others at other heights
        part = part[:, varied] if varied.any() else part
        index[rows] = _hilbert_index(_to_grid(part, n_bits), n_bits)
    return np.lexsort((index, codes)).astype(np.int64)


def _to_grid(coordinates: np.ndarray, n_bits: int) -> np.ndarray:
    low = coordinates.min(axis=0)
    extent = float((coordinates.max(axis=0) - low).max())
    scaled = (coordinates - low) / (extent or 1.0)
    return (scaled * (2**n_bits - 1)).astype(np.uint64)


def _hilbert_index(grid: np.ndarray, n_bits: int) -> np.ndarray:
    """Index along the curve of integer cells ``(n, n_dims)``."""
    x = grid.T.copy()
    n_dims = len(x)
    bit = np.uint64(1 << (n_bits - 1))
    one = np.uint64(1)
    while bit > one:  # undo the excess rotations, from the coarsest level down
        low = bit - one
        for i in range(n_dims):
            flip = (x[i] & bit) != 0
            swap = np.where(flip, np.uint64(0), (x[0] ^ x[i]) & low)
            x[0] ^= np.where(flip, low, swap)
            x[i] ^= swap
        bit >>= one
    for i in range(1, n_dims):  # Gray code
        x[i] ^= x[i - 1]
    mask = np.zeros_like(x[0])
    bit = np.uint64(1 << (n_bits - 1))
    while bit > one:
        mask ^= np.where((x[-1] & bit) != 0, bit - one, np.uint64(0))
        bit >>= one
    x ^= mask
    index = np.zeros_like(x[0])
    for level in range(n_bits - 1, -1, -1):
        for i in range(n_dims):
            index = (index << one) | ((x[i] >> np.uint64(level)) & one)
    return index
