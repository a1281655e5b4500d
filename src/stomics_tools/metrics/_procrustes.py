"""Positions brought into one pose: rotation, reflection and translation, by least squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from stomics_tools.metrics._positions import centred_pair, gyration_radius


def align(reference: Any, positions: Any, *, scale: bool = False, reflect: bool = True) -> np.ndarray:
    r"""Move positions onto a reference without changing their layout.

    Minimises :math:`\sum_i |x_i - (s\, y_i R + t)|^2` over orthogonal :math:`R` and translations :math:`t`: with
    :math:`U \Sigma V^T = \mathrm{svd}(\tilde Y^T \tilde X)` of the centred positions, :math:`R = U V^T` and
    :math:`s = \mathrm{tr}\,\Sigma / |\tilde Y|^2`. O(n_obs).

    Parameters
    ----------
    reference
        ``(n_obs, 2 or 3)``, any unit of length.
    positions
        ``(n_obs, 2 or 3)``, of the same cells in the same order.
    scale
        Fit one isotropic factor as well. Default: 1, as the size of a tissue is part of what is predicted.
    reflect
        Allow reflections. Neither side of a section is the right one; for volumes of known handedness say ``False``.

    Returns
    -------
    The positions in the pose of the reference, ``(n_obs, 2 or 3)`` float64.

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than 3 cells, or either is not finite or all on one point.

    Source: Kabsch, 1976; Schönemann, 1966.
    """
    x, y = centred_pair(reference, positions, names=("reference", "positions"))
    u, singular, vt = np.linalg.svd(y.T @ x)
    if not reflect and np.linalg.det(u @ vt) < 0:
        u[:, -1] *= -1
        singular[-1] *= -1
    factor = singular.sum() / (y**2).sum() if scale else 1.0
    return factor * (y @ (u @ vt)) + np.asarray(reference, dtype=np.float64).mean(axis=0)


def rmsd(truth: Any, prediction: Any, *, scale: bool = False) -> float:
    """Root mean squared distance of the cells from their true positions, after one :func:`align` of all of them.

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``, in the same unit.
    scale
        Fit the size as well.

    Returns
    -------
    In units of the coordinates, from 0. Invariant under rotation, reflection and translation of either (with `scale`
    also under scaling of the prediction).

    Raises
    ------
    ValueError
        As :func:`align`.
    """
    x, y = centred_pair(truth, prediction)
    return gyration_radius(x - align(x, y, scale=scale))


def normalized_rmsd(truth: Any, prediction: Any, *, scale: bool = False) -> float:
    """:func:`rmsd` as a share of the true radius of gyration, the root mean squared distance from the centre.

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``, in the same unit.
    scale
        Fit the size as well. The square of the result is then the Procrustes disparity.

    Returns
    -------
    0 is perfect, 1 is as bad as all cells in the centre. Cells thrown at random over a tissue of the true size are at
    about the square root of 2. Invariant as :func:`rmsd`, and under scaling of both.

    Raises
    ------
    ValueError
        As :func:`align`.
    """
    x, y = centred_pair(truth, prediction)
    return rmsd(x, y, scale=scale) / gyration_radius(x)
