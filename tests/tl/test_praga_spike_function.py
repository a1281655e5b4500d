from __future__ import annotations

import anndata
import numpy as np
import pytest
from anndata import AnnData

from stomics_tools import tl
from stomics_tools.model import PRAGASpike

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False}


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    obsm = {"X_pca": rng.normal(size=(80, 9)), "X_protein": rng.normal(size=(80, 5)), "xy": rng.uniform(size=(80, 2))}
    adata = AnnData(np.ones((80, 1), dtype=np.float32), obsm=obsm)
    adata.obs["slice"] = ["a"] * 40 + ["b"] * 40
    return adata


def test_it_equals_the_model(adata):
    model_data = adata.copy()
    PRAGASpike.setup_anndata(model_data, MODALITIES, spatial_key="xy", batch_key="slice")
    model = PRAGASpike(model_data, preset="praga", data_type="stereo", n_latent=4, n_prototypes=3)
    model.train(6, seed=2, lr=0.02, **QUIET)
    returned = tl.praga_spike(
        adata,
        MODALITIES,
        spatial_key="xy",
        batch_key="slice",
        preset="praga",
        data_type="stereo",
        n_latent=4,
        max_epochs=6,
        seed=2,
        train_kwargs={"lr": 0.02, **QUIET},
        key_added="mine",
        n_prototypes=3,
    )
    assert returned is None
    np.testing.assert_array_equal(adata.obsm["X_mine"], model_data.obsm["X_praga_spike"])
    params = adata.uns["mine"]["params"]
    assert (params["seed"], params["max_epochs"], params["lr"], params["data_type"]) == (2, 6, 0.02, "stereo")


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
