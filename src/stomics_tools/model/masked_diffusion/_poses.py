"""Poses of slices: what is expected of positions from expression tells how slices lie to one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import Ridge

_ROUNDS = 5
_PENALTY = 300.0


def pose_of(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotation, reflections allowed, ``(d, d)``, by which rows of `source` come nearest those of `target`.

    Both are centred ``(n, d)``; the solution of the orthogonal Procrustes problem (Schoenemann 1966).
    """
    left, _, right = np.linalg.svd(source.T @ target)
    return left @ right


def common_frame(latent: Sequence[np.ndarray], position: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Rotation of each slice, ``(d, d)``, into a frame in which expression tells most of position.

    In turns, a ridge regression predicts positions from expression, and every slice is turned to what the others say of
    it, from the largest slice on. The axes are then those along which it errs independently.

    Parameters
    ----------
    latent
        Expression of each slice, ``(n, L)``.
    position
        Centred positions of each slice, ``(n, d)``.
    """
    n_dims = position[0].shape[1]
    poses = [np.eye(n_dims) for _ in position]
    order = sorted(range(len(position)), key=lambda number: -len(position[number]))
    placed = order[:1]
    for turn in range(_ROUNDS if len(position) > 1 else 0):
        for number in order:
            others = [other for other in placed if other != number]
            if not others:
                continue
            model = _regression([latent[k] for k in others], [position[k] @ poses[k] for k in others])
            poses[number] = pose_of(position[number], model.predict(latent[number]))
            if turn == 0:
                placed.append(number)
    turned = [own @ pose for own, pose in zip(position, poses, strict=True)]
    model = _regression(latent, turned)
    left = np.concatenate([own - model.predict(x) for x, own in zip(latent, turned, strict=True)])
    axes = np.linalg.eigh(left.T @ left)[1]
    return [pose @ axes for pose in poses]


def _regression(latent: Sequence[np.ndarray], position: Sequence[np.ndarray]) -> Ridge:
    return Ridge(_PENALTY).fit(np.concatenate(list(latent)), np.concatenate(list(position)))
