from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stomics_tools.datasets._geometry import (
    SPACING,
    domain_shares,
    draw_domains,
    smooth_fields,
    tissue,
    unit_positions,
)


def test_smooth_fields_have_the_covariance_asked_for() -> None:
    rng = np.random.default_rng(0)
    u = np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.5], [1.5, 1.5]])
    draws = np.stack([smooth_fields(u, 1, 0.4, rng)[:, 0] for _ in range(4000)])
    squared = ((u[:, None] - u[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(np.cov(draws.T), np.exp(-squared / (2 * 0.4**2)), atol=0.08)


def test_smooth_fields_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    u = np.random.default_rng(0).normal(size=(50, 2))
    whole = smooth_fields(u, 3, 0.5, np.random.default_rng(1))
    monkeypatch.setattr("stomics_tools.datasets._geometry._BLOCK", 7)
    np.testing.assert_allclose(smooth_fields(u, 3, 0.5, np.random.default_rng(1)), whole, atol=1e-5)


@pytest.mark.parametrize(("layout", "n_dims", "touching"), [("hex", 2, 6), ("square", 2, 4), ("square", 3, 6)])
def test_lattice_neighbours_are_one_spacing_apart(layout: str, n_dims: int, touching: int) -> None:
    xyz = tissue(3000, layout, n_dims, np.random.default_rng(0))
    assert xyz.shape == (3000, n_dims)
    np.testing.assert_array_equal(xyz.min(axis=0), 0)
    nearest = cKDTree(xyz).query(xyz, k=touching + 2)[0][:, 1:]
    assert nearest.min() == pytest.approx(SPACING[layout])
    inner = np.isclose(nearest[:, touching - 1], SPACING[layout])
    assert inner.mean() > 0.6
    assert (nearest[inner, touching] > 1.2 * SPACING[layout]).all()


def test_scattered_cells_do_not_coincide() -> None:
    xyz = tissue(3000, "cells", 2, np.random.default_rng(0))
    nearest = cKDTree(xyz).query(xyz, k=2)[0][:, 1]
    assert nearest.min() > 0
    assert 0.1 < nearest.std() / nearest.mean() < 1
    assert 0.5 < nearest.mean() / SPACING["cells"] < 1.2


@pytest.mark.parametrize("n_dims", [2, 3])
def test_domains_are_uneven_compact_and_all_there(n_dims: int) -> None:
    rng = np.random.default_rng(3)
    xyz = tissue(4000, "hex", n_dims, rng)
    shares = domain_shares(7, rng)
    assert shares.sum() == pytest.approx(1)
    assert shares.max() / shares.min() == pytest.approx(4)
    codes = draw_domains(unit_positions(xyz), shares, rng)
    np.testing.assert_allclose(np.bincount(codes, minlength=7), 4000 * shares, atol=1)
    neighbours = cKDTree(xyz).query(xyz, k=7)[1][:, 1:]
    assert (codes[neighbours] == codes[:, None]).mean() > (0.85 if n_dims == 2 else 0.6)
