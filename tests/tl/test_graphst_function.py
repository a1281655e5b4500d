from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from stomics_tools import tl
from stomics_tools.metrics import linear_probe
from stomics_tools.model import GraphST

QUIET = {"enable_progress_bar": False}


@pytest.fixture
def adata() -> AnnData:
    """Counts of 12 genes on a lattice, of which each half of the tissue has six."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.unravel_index(np.arange(400), (20, 20)), 1).astype(float)
    side = (xy[:, 0] >= 10).astype(int)
    rate = np.where(np.arange(12) % 2 == side[:, None], 9.0, 4.0)
    adata = AnnData(rng.poisson(rate).astype(np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(400)]))
    adata.X[0, 0] = 30
    adata.obsm["xy"] = xy
    adata.obs["side"] = pd.Categorical(side.astype(str))
    adata.obs["slice"] = np.where(xy[:, 1] < 10, "a", "b")
    adata.layers["counts"] = adata.X.copy()
    return adata


def test_it_equals_the_model(adata: AnnData) -> None:
    model_data = adata.copy()
    GraphST.setup_anndata(model_data, "counts", spatial_key="xy", batch_key="slice", n_top_genes=8)
    model = GraphST(model_data, n_latent=4, contrast="pairwise")
    model.train(6, seed=2, lr=0.02, **QUIET)
    returned = tl.graphst(
        adata,
        "counts",
        spatial_key="xy",
        batch_key="slice",
        n_top_genes=8,
        n_latent=4,
        max_epochs=6,
        seed=2,
        train_kwargs={"lr": 0.02, **QUIET},
        key_added="mine",
        contrast="pairwise",
    )
    assert returned is None
    np.testing.assert_array_equal(adata.obsm["X_mine"], model_data.obsm["X_graphst"])
    params = adata.uns["mine"]["params"]
    assert (params["seed"], params["max_epochs"], params["lr"], params["contrast"]) == (2, 6, 0.02, "pairwise")


def test_copy_leaves_the_object_alone(adata: AnnData, tmp_path) -> None:
    copied = tl.graphst(adata, spatial_key="xy", max_epochs=2, train_kwargs=QUIET, copy=True)
    assert set(adata.obsm) == {"xy"}
    assert not adata.uns
    copied.write_h5ad(tmp_path / "a.h5ad")
    assert anndata.read_h5ad(tmp_path / "a.h5ad").obsm["X_graphst"].shape == (400, 64)


def test_representations_are_probed(adata: AnnData) -> None:
    adata.obsm["X_good"] = adata.X
    adata.obsm["X_bad"] = np.random.default_rng(0).normal(size=(400, 3))
    table = tl.evaluate_representation(
        adata, "side", use_rep=["X_good", "X_bad"], spatial_key="xy", batch_key="slice", seeds=[1, 3]
    )
    assert list(table["use_rep"]) == ["X_good", "X_good", "X_bad", "X_bad"]
    assert list(table["seed"]) == [1, 3, 1, 3]
    expected = linear_probe(adata.X, adata.obs["side"], adata.obsm["xy"], batch=adata.obs["slice"], seed=3)
    assert table.loc[1, list(expected)].to_dict() == expected
    means = table.groupby("use_rep")["macro_f1"].mean()
    assert means["X_good"] > 0.9 > means["X_bad"] + 0.2
    for missing in ({"label_key": "region"}, {"use_rep": "X_none"}, {"spatial_key": "spatial"}, {"batch_key": "donor"}):
        with pytest.raises(KeyError, match=next(iter(missing))):
            tl.evaluate_representation(
                adata, **{"label_key": "side", "use_rep": "X_good", "spatial_key": "xy", **missing}
            )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_labels_and_places_of_a_modality_are_found_by_name(adata: AnnData) -> None:
    adata.obsm["X_good"] = adata.X
    mdata = MuData({"rna": adata.copy()})
    mdata.obsm["X_good"] = adata.X
    mdata.mod["rna"] = mdata["rna"][np.random.default_rng(0).permutation(400)].copy()  # and no mdata.update()
    arguments = {"use_rep": "X_good", "spatial_key": "xy", "batch_key": "slice"}
    table = tl.evaluate_representation(mdata, "side", **arguments)
    expected = tl.evaluate_representation(adata, "side", **arguments)
    assert table.drop(columns="use_rep").equals(expected.drop(columns="use_rep"))


def test_reconstructions_of_blocks_held_out(adata: AnnData) -> None:
    before = adata.copy()
    arguments = {"n_latent": 2, "n_spatial_neighbors": 4}
    models = {
        "trained": {**arguments, "train": {"max_epochs": 200, "lr": 0.01}},
        "not": {**arguments, "train": {"max_epochs": 1, "lr": 1e-9}},
    }
    table = tl.evaluate_reconstruction(adata, models, spatial_key="xy", n_folds=2, n_blocks=8, seeds=2)
    assert len(table) == 8
    assert table.groupby(["model", "seed"])["n_obs"].sum().eq(400).all()
    means = table.groupby("model")[["mse", "variance", "pcc"]].mean()
    assert means.loc["trained", "mse"] < means.loc["trained", "variance"]
    assert means.loc["trained", "pcc"] > 0.3 > means.loc["not", "pcc"]
    assert (means["variance"] == means["variance"].iloc[0]).all()
    plain = {"plain": {**models["not"], "standardize": False}}  # which knows no means
    found = tl.evaluate_reconstruction(adata, plain, spatial_key="xy", n_folds=2, n_blocks=8)
    assert (
        found["variance"].tolist() == table.loc[(table["model"] == "not") & (table["seed"] == 0), "variance"].tolist()
    )
    assert set(adata.obsm) == set(before.obsm)
    assert not adata.uns
    with pytest.raises(ValueError, match="1 blocks for 5 folds"):
        tl.evaluate_reconstruction(adata, models, spatial_key="xy", n_blocks=1)
