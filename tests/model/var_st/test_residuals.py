from __future__ import annotations

import numpy as np
import pytest
import torch

from stomics_tools._intervals import bounds, group_residuals
from stomics_tools.model.var_st._residuals import Residuals


@pytest.fixture
def fitted() -> Residuals:
    residuals = np.random.default_rng(0).normal(size=(90, 3)) + (np.arange(90) % 3)[:, None]
    residuals[np.arange(90) % 3 > 0, 2] = np.nan  # measured in one patient
    made = Residuals(3)
    made.fit(residuals, np.arange(90) % 3)
    return made


def test_bounds_are_those_of_the_array_function(fitted: Residuals) -> None:
    residuals = np.random.default_rng(1).normal(size=(90, 2)) + (np.arange(90) % 3)[:, None]
    made = Residuals(2)
    made.fit(residuals, np.arange(90) % 3)
    for own, expected in zip(made.bounds(0.8), bounds(group_residuals(residuals, np.arange(90) % 3), 0.8), strict=True):
        assert own.dtype == torch.float32
        np.testing.assert_allclose(own, expected, rtol=1e-5)


def test_they_survive_saving(fitted: Residuals) -> None:
    other = Residuals(3)
    other.load_state_dict(fitted.state_dict())
    for a, b in zip(fitted.bounds(0.8), other.bounds(0.8), strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()
    assert other.largest_level == fitted.largest_level == pytest.approx(0.971, abs=1e-3)


def test_genes_of_too_few_patients_are_known(fitted: Residuals) -> None:
    np.testing.assert_array_equal(fitted.unsupported(0.8), [False, False, True])
    np.testing.assert_array_equal(fitted.unsupported(0.975), [True, True, True])


def test_unfitted_ones_support_no_level() -> None:
    with pytest.raises(ValueError, match="0 left-out groups"):
        Residuals(2).bounds(0.8)
