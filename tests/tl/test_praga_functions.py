from __future__ import annotations

import anndata
import numpy as np
import pytest
from anndata import AnnData

from stomics_tools import tl
from stomics_tools.model import PRAGA, PRAGASpike

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False}


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    obsm = {"X_pca": rng.normal(size=(80, 9)), "X_protein": rng.normal(size=(80, 5)), "xy": rng.uniform(size=(80, 2))}
    adata = AnnData(np.ones((80, 1), dtype=np.float32), obsm=obsm)
    adata.obs["slice"] = ["a"] * 40 + ["b"] * 40
    return adata


def test_praga_equals_the_model(adata):
    model_data = adata.copy()
    PRAGA.setup_anndata(model_data, MODALITIES, spatial_key="xy", batch_key="slice")
    model = PRAGA(model_data, data_type="stereo", n_latent=4, n_prototypes=3)
    model.train(6, seed=2, lr=0.02, **QUIET)
    returned = tl.praga(
        adata,
        MODALITIES,
        spatial_key="xy",
        batch_key="slice",
        data_type="stereo",
        n_latent=4,
        max_epochs=6,
        seed=2,
        train_kwargs={"lr": 0.02, **QUIET},
        key_added="mine",
        n_prototypes=3,
    )
    assert returned is None
    np.testing.assert_array_equal(adata.obsm["X_mine"], model_data.obsm["X_praga"])
    params = adata.uns["mine"]["params"]
    assert (params["seed"], params["max_epochs"], params["lr"], params["data_type"]) == (2, 6, 0.02, "stereo")


def test_praga_spike_equals_the_model(adata):
    model_data = adata.copy()
    PRAGASpike.setup_anndata(model_data, MODALITIES, spatial_key="xy", batch_key="slice")
    model = PRAGASpike(model_data, n_latent=8, n_hops=2)
    model.train(6, seed=2, lr=0.02, **QUIET)
    how = {"max_epochs": 6, "seed": 2, "train_kwargs": {"lr": 0.02, **QUIET}, "key_added": "mine"}
    tl.praga_spike(adata, MODALITIES, spatial_key="xy", batch_key="slice", n_latent=8, n_hops=2, **how)
    np.testing.assert_array_equal(adata.obsm["X_mine"], model_data.obsm["X_praga_spike"])
    params = adata.uns["mine"]["params"]
    assert (params["seed"], params["max_epochs"], params["lr"], params["n_hops"]) == (2, 6, 0.02, 2)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (tl.praga_spike, {"preset": "praga"}, r"PRAGASpike\(\) has no argument `preset`.*stomics_tools.model.PRAGA"),
        (tl.praga_spike, {"data_type": "stereo"}, r"PRAGASpike\(\) has no argument `data_type`.*model.PRAGA"),
        (tl.praga, {"encoder": "relu"}, r"PRAGA\(\) has no argument `encoder`"),
        (tl.praga, {"train_kwargs": {"distill_from": None}}, r"PRAGA.train\(\) has no argument `distill_from`"),
    ],
)
def test_arguments_that_the_model_has_not(adata, function, arguments, message):
    before = adata.copy()
    with pytest.raises(TypeError, match=message):
        function(adata, MODALITIES, spatial_key="xy", **arguments)
    assert not adata.uns
    assert set(adata.obsm) == set(before.obsm)


def test_copy_leaves_the_object_alone(adata, tmp_path):
    before = adata.copy()
    copied = tl.praga_spike(
        adata, MODALITIES, spatial_key="xy", max_epochs=2, n_latent=8, train_kwargs=QUIET, copy=True
    )
    assert set(adata.obsm) == set(before.obsm)
    assert not adata.uns
    assert not adata.obsp
    assert copied.obsm["X_praga_spike"].shape == (80, 8)
    copied.write_h5ad(tmp_path / "a.h5ad")
    params = anndata.read_h5ad(tmp_path / "a.h5ad").uns["praga_spike"]["params"]
    assert params["stomics_tools_version"]


def test_bad_input_changes_nothing(adata):
    before = adata.copy()
    with pytest.raises(KeyError, match="spatial_key.*'spatial'.*xy"):
        tl.praga_spike(adata, MODALITIES)
    assert set(adata.obsm) == set(before.obsm)
    assert not adata.uns
