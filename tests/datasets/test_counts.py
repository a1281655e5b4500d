from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import cKDTree

from stomics_tools.datasets import Modality
from stomics_tools.datasets._counts import simulate_counts, views


@pytest.mark.parametrize("n_groups", [3, 4, 5, 6, 11])
@pytest.mark.parametrize("n_modalities", [2, 3, 5])
def test_no_modality_tells_all_groups_apart_but_all_together_do(n_groups: int, n_modalities: int) -> None:
    seen = views(n_groups, n_modalities, np.random.default_rng(0))
    assert seen.shape == (n_modalities, n_groups)
    assert all(len(np.unique(row)) == (n_groups + 1) // 2 for row in seen)
    assert len(np.unique(seen[:2], axis=1).T) == n_groups


def test_one_modality_alone_sees_everything() -> None:
    np.testing.assert_array_equal(views(5, 1, np.random.default_rng(0)), [[0, 1, 2, 3, 4]])


def _counts(spec: Modality, n: int = 4000, **kwargs: float) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    group = np.arange(n) % 3
    u = np.random.default_rng(1).uniform(-1, 1, size=(n, 2))
    arguments = {"noise": 0.0, "batch_effect": 0.0} | kwargs
    x, marks = simulate_counts(spec, group, [u], rng=np.random.default_rng(0), **arguments)
    return x, marks, group


@pytest.mark.parametrize("kind", ["rna", "protein", "atac"])
def test_counts_are_sparse_integers_of_the_depth_asked_for(kind: str) -> None:
    x, marks, _ = _counts(Modality(kind, n_features=200, depth=20.0))
    assert isinstance(x, sparse.csr_matrix)
    assert x.dtype == np.float32
    assert x.shape == (4000, 200)
    assert marks.shape == (200,)
    np.testing.assert_array_equal(x.data, np.round(x.data))
    assert x.data.min() == 1
    assert x.sum(axis=1).mean() == pytest.approx(20.0 if kind == "protein" else 18.0, rel=0.1)  # a tenth is dropout
    if kind == "atac":
        assert x.data.max() <= 2


def test_markers_rise_in_their_group_and_nothing_else_does() -> None:
    x, marks, group = _counts(Modality("rna", n_features=60, depth=3000.0))
    means = np.stack([np.asarray(x[group == g].mean(axis=0)).ravel() for g in range(3)])
    relative = means / np.median(means / means[0], axis=1, keepdims=True)
    others = np.stack([np.delete(relative, g, axis=0).mean(axis=0) for g in range(3)])
    rise = relative / others
    for g in range(3):
        assert (marks == g).sum() > 2
        assert (rise[g, marks == g] > 1.1).all()
    unmarked = rise[:, marks == -1]
    assert (np.abs(np.log(unmarked)) < 0.3).all()


def test_contrast_zero_makes_a_modality_blind() -> None:
    x, _, group = _counts(Modality("protein", contrast=0.0))
    means = np.stack([np.asarray(x[group == g].mean(axis=0)).ravel() for g in range(3)])
    np.testing.assert_allclose(means / means.mean(axis=0), 1.0, atol=0.06)


def test_variance_is_that_of_the_negative_binomial() -> None:
    # Protein, no noise: a gamma law of shape 8 under Poisson counts, hence var = mean + mean^2 / 8.
    x, _, _ = _counts(Modality("protein", n_features=10, depth=500.0, contrast=0.0), n=20000)
    dense = x.toarray()
    mean = dense.mean(axis=0)
    np.testing.assert_allclose(dense.var(axis=0), mean + mean**2 / 8, rtol=0.1)


def test_noise_spreads_depth_and_is_smooth_in_space() -> None:
    quiet, loud = (np.log(_counts(Modality("rna"), noise=noise)[0].sum(axis=1).A1) for noise in (0.0, 1.0))
    assert quiet.std() < 0.15
    assert 0.3 < loud.std() < 0.6
    u = np.random.default_rng(1).uniform(-1, 1, size=(4000, 2))  # as in _counts
    around = cKDTree(u).query(u, k=21)[1][:, 1:]
    alike = [np.corrcoef(depth, depth[around].mean(axis=1))[0, 1] for depth in (quiet, loud)]
    assert alike[0] < 0.1
    assert alike[1] > 0.3


def test_slices_shift_features_by_the_batch_effect() -> None:
    u = [np.random.default_rng(i).uniform(-1, 1, size=(4000, 2)) for i in range(2)]
    group = np.zeros(8000, dtype=int)
    ratios = {}
    for effect in (0.0, 0.5):
        x, _ = simulate_counts(
            Modality("rna", 100, 3000.0), group, u, noise=0.0, batch_effect=effect, rng=np.random.default_rng(0)
        )
        ratios[effect] = np.log(np.asarray(x[:4000].mean(axis=0) / x[4000:].mean(axis=0)).ravel())
    assert ratios[0.0].std() < 0.15
    assert ratios[0.5].std() == pytest.approx(0.5 * 2**0.5, rel=0.25)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"kind": "rma"}, ValueError, r"`kind`: unknown option 'rma'.*Did you mean 'rna'"),
        ({"n_features": 1}, ValueError, "`n_features` must be at least 2"),
        ({"depth": 0.0}, ValueError, "`depth` must be in"),
        ({"contrast": -1.0}, ValueError, "`contrast` must be in"),
    ],
)
def test_modality_checks_its_arguments(kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Modality(**kwargs)
