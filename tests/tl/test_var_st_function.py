from __future__ import annotations

import anndata
import numpy as np
import pytest

from stomics_tools import pl, tl
from stomics_tools.datasets import simulate_histology
from stomics_tools.model import VARST

QUIET = {"enable_progress_bar": False}


@pytest.fixture
def adata():
    adata = simulate_histology(2, 2, 15, n_genes=10, n_features=5)
    del adata.layers["expected"]
    adata.obsm["uni"] = adata.obsm.pop("X_image")
    adata.obsm["pixels"] = adata.obsm.pop("spatial")
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    adata.obs["scanner"] = np.array(["a", "b"])[np.arange(60) % 2]
    return adata


ARGUMENTS = {
    "layer": "counts",
    "spatial_key": "pixels",
    "patient_key": "patient",
    "section_key": "section",
    "covariate_keys": ["scanner"],
}


def test_it_equals_the_model(adata):
    model_data = adata.copy()
    VARST.setup_anndata(model_data, "uni", **ARGUMENTS)
    model = VARST(model_data, size="tiny", n_layers=1, n_neighbors=2)
    model.train(max_epochs=2, seed=2, lr=0.002, **QUIET)
    returned = tl.var_st(
        adata,
        features_key="uni",
        **ARGUMENTS,
        size="tiny",
        max_epochs=2,
        seed=2,
        train_kwargs={"lr": 0.002, **QUIET},
        key_added="mine",
        n_layers=1,
        n_neighbors=2,
    )
    assert returned is None
    for suffix in ("", "_lower", "_upper"):
        np.testing.assert_array_equal(adata.layers[f"mine{suffix}"], model_data.layers[f"var_st{suffix}"])
    np.testing.assert_array_equal(adata.obsm["X_mine"], model_data.obsm["X_var_st"])
    np.testing.assert_array_equal(adata.obsm["mine_tokens_10"], model_data.obsm["var_st_tokens_10"])
    params = adata.uns["mine"]["params"]
    assert (params["seed"], params["stage1_epochs"], params["stage2_epochs"]) == (2, 2, 2)
    assert (params["n_layers"], params["layer"], params["spatial_key"]) == (1, "counts", "pixels")
    assert pl.codebook_usage(adata, key="mine", show=False).get_ylabel() == "share of the codes"


def test_copy_leaves_the_object_alone(adata, tmp_path):
    before = adata.copy()
    copied = tl.var_st(adata, features_key="uni", **ARGUMENTS, size="tiny", max_epochs=1, train_kwargs=QUIET, copy=True)
    assert set(adata.obsm) == set(before.obsm)
    assert set(adata.layers) == set(before.layers)
    assert set(adata.uns) == set(before.uns)
    copied.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert back.layers["var_st"].shape == (60, 10)
    assert back.uns["var_st"]["params"]["stomics_tools_version"]


def test_bad_input_changes_nothing(adata):
    before = adata.copy()
    with pytest.raises(KeyError, match="features_key.*'X_image'.*uni"):
        tl.var_st(adata, spatial_key="pixels")
    with pytest.raises(KeyError, match="spatial_key.*'spatial'.*pixels"):
        tl.var_st(adata, features_key="uni")
    assert set(adata.obsm) == set(before.obsm)
    assert set(adata.uns) == set(before.uns)
