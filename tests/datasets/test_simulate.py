from __future__ import annotations

import warnings
from pathlib import Path

import mudata as md
import numpy as np
import pytest
from mudata import MuData
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from stomics_tools._compat import columns_as_given
from stomics_tools.data._graphs import spatial_knn
from stomics_tools.datasets import Modality, simulate_multiomics


def _assert_same(a: MuData, b: MuData) -> None:
    for name in a.mod:
        assert (a.mod[name].X != b.mod[name].X).nnz == 0
    np.testing.assert_array_equal(a.obsm["spatial"], b.obsm["spatial"])
    assert a.obs.equals(b.obs)


def test_default_slice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        mdata = simulate_multiomics(800)
    assert mdata.shape == (800, 440)
    assert list(mdata.obs) == ["domain", "slice"]
    assert mdata.obs["domain"].dtype == "category"
    assert list(mdata.obs["domain"].cat.categories) == [f"domain{i}" for i in range(6)]
    assert mdata.var_names.is_unique
    for adata in mdata.mod.values():
        assert isinstance(adata.X, sparse.csr_matrix)
        assert adata.X.dtype == np.float32
        assert adata.obs.equals(mdata.obs)
        np.testing.assert_array_equal(adata.obsm["spatial"], mdata.obsm["spatial"])


def test_same_seed_same_data_and_no_global_state() -> None:
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = simulate_multiomics(400, 4, n_batches=2, mode="mixture", layout="cells", seed=5)
    np.random.seed(1)  # noqa: NPY002
    _assert_same(first, simulate_multiomics(400, 4, n_batches=2, mode="mixture", layout="cells", seed=5))
    np.random.seed(0)  # noqa: NPY002
    simulate_multiomics(400, 4)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    other = simulate_multiomics(400, 4, n_batches=2, mode="mixture", layout="cells", seed=6)
    assert (first["rna"].X != other["rna"].X).nnz > 0


def test_file_round_trip(tmp_path: Path) -> None:
    mdata = simulate_multiomics(300, 3, missing={"protein": 0.3}, mode="mixture")
    with columns_as_given():
        mdata.write(tmp_path / "slice.h5mu")
        back = md.read_h5mu(tmp_path / "slice.h5mu")
    assert back.uns["simulate_multiomics"]["missing"] == {"rna": 0.0, "protein": 0.3}
    assert back.uns["simulate_multiomics"]["mode"] == "mixture"
    _assert_same(mdata, back)


@pytest.mark.parametrize("layout", ["hex", "square", "cells"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_layouts(layout: str, n_dims: int) -> None:
    mdata = simulate_multiomics(301, 5, layout=layout, n_dims=n_dims, modalities=["protein"])
    assert mdata.obsm["spatial"].shape == (301, n_dims)
    assert len(np.unique(mdata.obsm["spatial"], axis=0)) == 301
    assert (mdata.obs["domain"].value_counts() > 0).all()


def test_slices_share_domains_but_not_layouts() -> None:
    mdata = simulate_multiomics(1001, 5, n_batches=3)
    assert mdata.obs["slice"].value_counts().tolist() == [334, 334, 333]
    sizes = mdata.obs.groupby(["slice", "domain"], observed=False).size().unstack().to_numpy()
    assert (np.ptp(sizes, axis=0) <= 2).all()
    first, second = (mdata.obsm["spatial"][mdata.obs["slice"] == f"slice{i}"] for i in (0, 1))
    assert not np.array_equal(first, second)


def test_names_and_specifications_of_modalities() -> None:
    mdata = simulate_multiomics(200, 3, modalities={"early": Modality("atac", 50), "late": "atac", "adt": "protein"})
    assert {name: adata.n_vars for name, adata in mdata.mod.items()} == {"early": 50, "late": 1000, "adt": 40}
    assert mdata["early"].var_names[0] == "early_peak0"
    assert mdata["early"].X.max() <= 2
    assert mdata.uns["simulate_multiomics"]["modalities"] == {"early": "atac", "late": "atac", "adt": "protein"}


def test_marks_name_the_domains_a_modality_confuses() -> None:
    mdata = simulate_multiomics(400, 6)
    pairs = [set(adata.var["marks"].cat.categories) for adata in mdata.mod.values()]
    assert all(len(p) == 3 and all(len(c.split("|")) == 2 for c in p) for p in pairs)
    assert not pairs[0] & pairs[1]
    alone = simulate_multiomics(400, 6, modalities=["rna"])
    assert list(alone["rna"].var["marks"].cat.categories) == [f"domain{i}" for i in range(6)]


def test_mixture_of_cell_types() -> None:
    mdata = simulate_multiomics(6000, 5, mode="mixture", modalities=["protein"])
    share = mdata.obs.groupby("domain", observed=False)["cell_type"].value_counts(normalize=True).unstack().to_numpy()
    assert share.shape == (5, 7)
    assert (share > 0).all()
    np.testing.assert_array_equal(share.argmax(axis=1), np.arange(5))
    assert (share.max(axis=1) < 0.9).all()
    # Apart from the leading types the mixture is the same everywhere.
    np.testing.assert_allclose(share[:, 5:], np.broadcast_to(share[:, 5:].mean(axis=0), (5, 2)), atol=0.04)


@pytest.mark.parametrize("missing", [0.4, {"protein": 0.25}, {"rna": 0.5, "protein": 0.5}])
def test_missing_spots(missing: float | dict[str, float]) -> None:
    full = simulate_multiomics(500, 4)
    mdata = simulate_multiomics(500, 4, missing=missing)
    assert mdata.n_obs == 500
    shares = missing if isinstance(missing, dict) else dict.fromkeys(mdata.mod, missing)
    for name, adata in mdata.mod.items():
        assert adata.n_obs == 500 - int(500 * shares.get(name, 0.0))
        assert (adata.X != full[name][adata.obs_names].X).nnz == 0
    rows = full.obs_names.get_indexer(mdata.obs_names)
    np.testing.assert_array_equal(mdata.obsm["spatial"], full.obsm["spatial"][rows])
    assert mdata.obs.equals(full.obs.iloc[rows])


def test_three_modalities_may_each_lack_two_thirds() -> None:
    mdata = simulate_multiomics(300, 3, modalities=["rna", "protein", "atac"], missing=2 / 3)
    assert mdata.n_obs == 300
    assert [adata.n_obs for adata in mdata.mod.values()] == [100, 100, 100]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"layout": "hexagon"}, ValueError, r"`layout`: unknown option 'hexagon'.*'hex', 'square', 'cells'"),
        ({"mode": "mix"}, ValueError, r"`mode`: unknown option 'mix'.*'domains', 'mixture'"),
        ({"n_dims": 4}, ValueError, r"`n_dims`: unknown option 4"),
        ({"n_domains": 2}, ValueError, "`n_domains` must be at least 3, found 2"),
        ({"n_obs": 100}, ValueError, r"`n_obs` must be at least 120 .*`n_batches=2`.*found 100"),
        ({"n_obs": 100.0}, TypeError, "`n_obs` must be an integer"),
        ({"n_batches": 0}, ValueError, "`n_batches` must be at least 1"),
        ({"noise": -0.1}, ValueError, "`noise` must be in"),
        ({"noise": float("nan")}, ValueError, "`noise` must be in"),
        ({"noise": "high"}, TypeError, "`noise` must be a number"),
        ({"batch_effect": -1}, ValueError, "`batch_effect` must be in"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0"),
        ({"modalities": "rna"}, TypeError, "`modalities` must be a sequence"),
        ({"modalities": []}, ValueError, "`modalities` must hold at least one"),
        ({"modalities": ["rna", "rna"]}, ValueError, "none twice"),
        ({"modalities": ["rna", "metabolites"]}, ValueError, r"`modalities\['metabolites'\]`: unknown option"),
        ({"missing": {"atac": 0.1}}, ValueError, "`missing`: unknown option 'atac'"),
        ({"missing": 0.6}, ValueError, "sum of at most 1"),
        ({"missing": {"rna": 1.0}}, ValueError, "`missing` must leave every modality some spots"),
        ({"missing": -0.1}, ValueError, "`missing` must be in"),
        ({"missing": 0.1, "modalities": ["rna"]}, ValueError, "sum of at most 0"),
    ],
)
def test_arguments_are_checked(kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        simulate_multiomics(**({"n_obs": 500, "n_batches": 2} | kwargs))


def _smoothed_pca(mdata: MuData, name: str) -> np.ndarray:
    adata = mdata[name]
    x = adata.X.toarray()
    x = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
    z = PCA(10, random_state=0).fit_transform((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9))
    graph = spatial_knn(adata.obsm["spatial"], 6)
    graph.data[:] = 1
    mean = (graph + sparse.eye(len(z))) / 7
    return mean @ (mean @ z) / z[:, 0].std()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_modality_suffices_alone_but_together_they_do(seed: int) -> None:
    mdata = simulate_multiomics(1500, seed=seed, noise=0.5)
    truth = mdata.obs["domain"].astype(str)
    features = [_smoothed_pca(mdata, name) for name in mdata.mod]
    features.append(np.concatenate(features, axis=1))
    scores = []
    for z in features:
        mixture = GaussianMixture(6, covariance_type="tied", n_init=5, random_state=0).fit(z)
        scores.append(adjusted_rand_score(truth, mixture.predict(z)))
    assert scores[2] > 0.8
    assert max(scores[:2]) < scores[2] - 0.2
