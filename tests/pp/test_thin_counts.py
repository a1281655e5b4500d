from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse, stats

from stomics_tools.pp import thin_counts


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_parts_sum_to_the_counts(form, dtype):
    x = np.random.default_rng(0).poisson(2, size=(30, 20)).astype(dtype)
    a = AnnData(form(x))
    assert thin_counts(a, 0.3, seed=4) is None
    train, test = a.layers["thinned_train"], a.layers["thinned_test"]
    assert train.dtype == test.dtype == dtype
    np.testing.assert_array_equal((train + test).toarray(), x)
    for part in (train, test):
        assert part.min() >= 0
        assert (part.data > 0).all()  # nothing stored that is zero
    np.testing.assert_array_equal(np.asarray(sparse.csr_matrix(a.X).toarray()), x)


def test_parts_are_binomial_and_independent():
    rng = np.random.default_rng(1)
    counts = rng.poisson(6, size=(400, 50))
    a = thin_counts(AnnData(sparse.csr_matrix(counts)), 0.3, copy=True)
    train, test = (a.layers[f"thinned_{part}"].toarray().ravel() for part in ("train", "test"))
    eights = train[counts.ravel() == 8]
    observed = np.bincount(eights, minlength=9)
    expected = stats.binom.pmf(np.arange(9), 8, 0.3) * len(eights)
    assert (
        stats.chisquare(np.r_[observed[:6], observed[6:].sum()], np.r_[expected[:6], expected[6:].sum()]).pvalue > 1e-3
    )
    assert abs(np.corrcoef(train, test)[0, 1]) < 0.03  # of Poisson counts; the standard error is .007


def test_seed_key_and_layer():
    x = np.random.default_rng(0).poisson(3, size=(30, 20))
    a = AnnData(np.zeros_like(x), layers={"counts": x})
    for key, seed in (("a", 0), ("b", 0), ("c", 1)):
        thin_counts(a, layer="counts", seed=seed, key_added=key)
    assert (a.layers["a_train"] != a.layers["b_train"]).nnz == 0
    assert (a.layers["a_train"] != a.layers["c_train"]).nnz > 0
    assert a.uns["c"]["params"]["seed"] == 1


@pytest.mark.parametrize(
    ("value", "fraction", "message"),
    [
        (0.5, 0.5, "fractional values"),
        (-1, 0.5, "negative"),
        (1, 1.2, "`fraction` must be in"),
        (1, -0.1, "`fraction`"),
    ],
)
def test_errors_leave_the_object_alone(value, fraction, message):
    a = AnnData(np.full((4, 3), float(value)))
    with pytest.raises(ValueError, match=message):
        thin_counts(a, fraction)
    assert not a.layers
    assert not a.uns
