"""Where simulated spots lie and which domain they belong to: smooth random fields, tissue outlines, layers and islets."""

from __future__ import annotations

import numpy as np

SPACING = {"hex": 100.0, "square": 50.0, "cells": 10.0}
"""Distance of neighbouring spots in micrometres, by layout (hex: that of Visium)."""

_FEATURES = 64
_BLOCK = 1 << 16


def smooth_fields(u: np.ndarray, n_fields: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Independent smooth random functions of position, by random Fourier features.

    Parameters
    ----------
    u
        Positions ``(n, d)``.
    n_fields
        Number of functions.
    length
        Length scale of their squared-exponential covariance, in the unit of `u`.
    rng
        Source of randomness.

    Returns
    -------
    ``(n, n_fields)`` float32, of mean about 0 and variance about 1.
    """
    frequency = rng.normal(scale=1.0 / length, size=(u.shape[1], _FEATURES)).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, size=_FEATURES).astype(np.float32)
    weight = rng.normal(scale=(2.0 / _FEATURES) ** 0.5, size=(_FEATURES, n_fields)).astype(np.float32)
    out = np.empty((len(u), n_fields), dtype=np.float32)
    for start in range(0, len(u), _BLOCK):
        rows = slice(start, start + _BLOCK)
        out[rows] = np.cos(u[rows].astype(np.float32) @ frequency + phase) @ weight
    return out


def tissue(n_obs: int, layout: str, n_dims: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of exactly `n_obs` spots inside an irregular, roundish outline.

    Parameters
    ----------
    n_obs
        Number of spots.
    layout
        ``"hex"`` or ``"square"`` lattice, or ``"cells"``: a jittered hexagonal lattice with a fifth of its places empty.
    n_dims
        2, or 3 for a stack of such lattices, one spacing apart.
    rng
        Source of randomness.

    Returns
    -------
    ``(n_obs, n_dims)`` float64 in micrometres, the smallest coordinate of each axis 0, in lattice order.
    """
    aspect = np.ones(n_dims)
    aspect[0] = rng.uniform(1.0, 1.4)
    # The box holds the outline with room to spare: a ball fills 0.79 (2-D) or 0.52 (3-D) of its box.
    side = (n_obs * (2.5 if n_dims == 2 else 4.0) / aspect.prod()) ** (1 / n_dims)
    xyz = _lattice(np.ceil(side * aspect).astype(int) + 2, hexagonal=layout != "square")
    if layout == "cells":
        xyz = xyz[rng.random(len(xyz)) > 0.2]
        xyz += rng.uniform(-0.4, 0.4, size=xyz.shape)
    xyz -= (xyz.min(axis=0) + xyz.max(axis=0)) / 2
    scaled = xyz / aspect
    radius = np.linalg.norm(scaled, axis=1)
    direction = scaled / np.maximum(radius, 1e-9)[:, None]
    reach = 1.0 + 0.12 * np.clip(smooth_fields(direction, 1, 0.6, rng)[:, 0], -2, 2)
    inside = np.sort(np.argpartition(radius / reach, n_obs - 1)[:n_obs])
    kept = xyz[inside] * SPACING[layout]
    return kept - kept.min(axis=0)


def _lattice(shape: np.ndarray, *, hexagonal: bool) -> np.ndarray:
    """Points of a lattice of `shape` (columns, rows[, planes]), one apart, ``(n, 2 or 3)``."""
    axes = np.meshgrid(*[np.arange(k, dtype=np.float64) for k in shape[::-1]], indexing="ij")
    xyz = np.stack([a.ravel() for a in axes[::-1]], axis=1)
    if hexagonal:
        xyz[:, 0] += 0.5 * (xyz[:, 1] % 2)
        xyz[:, 1] *= 3**0.5 / 2
    return xyz


def unit_positions(coordinates: np.ndarray) -> np.ndarray:
    """Centre a slice and scale it to about [-1, 1], ``(n, d)``, so that length scales are shares of the tissue."""
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    return (2 * coordinates - low - high) / (high - low).max()


def domain_shares(n_domains: int, rng: np.random.Generator) -> np.ndarray:
    """Share of the spots in each domain ``(n_domains,)``: the largest has four times the smallest, islets are small."""
    shares = np.geomspace(4.0, 1.0, n_domains)
    n_layers = n_domains - n_domains // 3
    shares[:n_layers] = rng.permutation(shares[:n_layers])
    return shares / shares.sum()


def draw_domains(u: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Assign each spot to a domain: curved layers from one side of the tissue to the other, and islets within them.

    Boundaries are level lines of smooth functions of position, so that the cost is linear in the number of spots.

    Parameters
    ----------
    u
        Positions ``(n, d)`` within about [-1, 1].
    shares
        Share of the spots in each domain ``(n_domains,)``, of sum 1. The last third of the domains are islets, one to
        three patches each, the others layers in this order.
    rng
        Source of randomness.

    Returns
    -------
    Codes ``(n,)`` int64.
    """
    n_obs, n_dims = u.shape
    n_domains = len(shares)
    n_layers = n_domains - n_domains // 3
    sizes = np.diff(np.round(n_obs * np.append(0.0, np.cumsum(shares)))).astype(int)
    codes = np.full(n_obs, -1, dtype=np.int64)
    warped = u + 0.12 * smooth_fields(u, n_dims, 0.5, rng)

    for code in range(n_layers, n_domains):
        free = np.flatnonzero(codes < 0)
        centres = _spread_points(warped[free], int(rng.integers(1, 4)), rng)
        reach = rng.uniform(0.7, 1.0, size=len(centres))
        distance = np.min(
            [np.linalg.norm(warped[free] - c, axis=1) / r for c, r in zip(centres, reach, strict=True)], 0
        )
        codes[free[np.argpartition(distance, sizes[code] - 1)[: sizes[code]]]] = code

    free = np.flatnonzero(codes < 0)
    direction = rng.normal(size=n_dims)
    origin = direction * rng.uniform(1.2, 2.0) / np.linalg.norm(direction)
    depth = np.linalg.norm(warped[free] - origin, axis=1)
    codes[free[np.argsort(depth)]] = np.repeat(np.arange(n_layers), sizes[:n_layers])
    return codes


def _spread_points(candidates: np.ndarray, n_points: int, rng: np.random.Generator) -> np.ndarray:
    """Points ``(n_points, d)`` among the candidates, each the farthest of ten from those before it."""
    points = candidates[rng.integers(len(candidates), size=1)]
    while len(points) < n_points:
        tries = candidates[rng.integers(len(candidates), size=10)]
        nearest = np.linalg.norm(tries[:, None] - points[None], axis=2).min(axis=1)
        points = np.concatenate([points, tries[[nearest.argmax()]]])
    return points
