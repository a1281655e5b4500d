"""A trained model and new data whose representation was made like that of training, otherwise, or not at all."""

from __future__ import annotations

import warnings

import anndata as ad
import mudata as md
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from mudata import MuData

import stomics_tools as st

FEW = {"n_latent": 8, "n_layers": 0}


def new_tissue(seed: int) -> MuData:
    """A slice of the tissue of `seed`; features mean the same in all of them."""
    mdata = st.datasets.simulate_multiomics(n_obs=160, n_domains=3, seed=seed)
    mdata["rna"].obsm["spatial"] = mdata.obsm["spatial"]
    return mdata


def trained(data, modalities):
    """A model of a few epochs."""
    setup = st.model.PRAGASpike.setup_mudata if isinstance(data, MuData) else st.model.PRAGASpike.setup_anndata
    setup(data, modalities)
    model = st.model.PRAGASpike(data, **FEW)
    model.train(2, seed=0)
    return model


@pytest.fixture(scope="module")
def training() -> AnnData:
    adata = new_tissue(0)["rna"].copy()
    st.pp.rna(adata, n_top_genes=150, n_comps=10)
    return adata


@pytest.fixture(scope="module")
def model(training):
    return trained(training, {"rna": "X_pca"})


@pytest.fixture
def new() -> AnnData:
    return new_tissue(1)["rna"].copy()


def prepared(model, training, new) -> np.ndarray:
    return model.get_latent_representation(st.pp.rna(new, reference=training, copy=True))


def test_a_fit_of_its_own_is_refused_and_the_recipe_of_training_taken(model, training, new):
    expected = prepared(model, training, new)
    fresh = st.pp.rna(new, n_top_genes=150, n_comps=10, copy=True)
    for use in (model.get_latent_representation, model.get_denoised, model.write_results):
        with pytest.raises(ValueError, match=r"'rna'.*made by another fit.*`st.pp.rna\(new, reference=training\)`"):
            use(fresh)
    assert list(fresh.obsm) == ["spatial", "X_pca"]
    few = st.pp.rna(new, n_top_genes=150, n_comps=7, copy=True)  # the cause, not the number of columns
    with pytest.raises(ValueError, match="made by another fit"):
        model.get_latent_representation(few)
    del fresh.obsm["X_pca"]  # as the message says
    np.testing.assert_array_equal(model.get_latent_representation(fresh), expected)


def test_raw_counts_are_prepared_and_the_object_left_alone(model, training, new):
    expected = prepared(model, training, new)
    before = new.copy()
    np.testing.assert_array_equal(model.get_latent_representation(new), expected)
    denoised = model.get_denoised(new)["rna"]
    assert denoised.shape == (160, 10)
    assert set(new.obsm) == set(before.obsm)
    assert set(new.uns) == set(before.uns)
    model.write_results(new)
    np.testing.assert_array_equal(new.obsm["X_praga_spike"], expected)
    assert "X_pca" not in new.obsm
    logs = before.copy()
    sc.pp.normalize_total(logs)
    sc.pp.log1p(logs)
    with pytest.raises(ValueError, match=r"`modalities\['rna'\]`: the recipe prepares raw counts.*adata.X.*logarithms"):
        model.get_latent_representation(logs)
    logs.layers["counts"] = before.X
    np.testing.assert_array_equal(model.get_latent_representation(logs), expected)
    with pytest.raises(ValueError, match="totals of the recipe|features of the recipe"):
        model.get_latent_representation(before[:, :200].copy())


def test_the_rows_of_training_are_known_again(model, training):
    raw = AnnData(training.X, obs=training.obs, var=training.var[[]], obsm={"spatial": training.obsm["spatial"]})
    np.testing.assert_array_equal(model.get_latent_representation(raw), model.get_latent_representation())


def test_a_loaded_model_prepares_counts_without_the_data_of_training(model, training, new, tmp_path):
    expected = prepared(model, training, new)
    model.save(tmp_path / "m")
    loaded = st.model.PRAGASpike.load(tmp_path / "m", new.copy())  # set up with raw counts
    np.testing.assert_array_equal(loaded.get_latent_representation(), expected)
    np.testing.assert_array_equal(loaded.get_latent_representation(new), expected)
    alone = st.model.PRAGASpike.load(tmp_path / "m", False)  # no data at all
    np.testing.assert_array_equal(alone.get_latent_representation(new), expected)
    fresh = st.pp.rna(new, n_top_genes=150, n_comps=10, copy=True)
    with pytest.raises(ValueError, match="made by another fit"):
        alone.get_latent_representation(fresh)
    with pytest.raises(ValueError, match="made by another fit"):
        loaded.get_latent_representation(fresh)
    with pytest.raises(ValueError, match="made by another fit"):
        st.model.PRAGASpike.load(tmp_path / "m", fresh)
    loaded.save(tmp_path / "again")
    again = st.model.PRAGASpike.load(tmp_path / "again", training)
    np.testing.assert_array_equal(again.get_latent_representation(new), expected)


def test_the_same_fit_made_again_elsewhere(model, training):
    """Other threads and libraries change the last digits; another fit changes the first ones."""
    again = training.copy()
    rng = np.random.default_rng(0)
    for name in ("loadings", "center"):
        values = again.uns["X_pca"]["recipe"][name]
        again.uns["X_pca"]["recipe"][name] = values * (1 + 1e-6 * rng.normal(size=values.shape)).astype(values.dtype)
    del again.varm["X_pca"], again.uns["X_pca"]["variance"]
    model.get_latent_representation(again)
    fewer = training[1:].copy()
    st.pp.rna(fewer, n_top_genes=150, n_comps=10)
    with pytest.raises(ValueError, match="made by another fit"):
        model.get_latent_representation(fewer)


def test_arrays_that_tell_nothing(model, training, new):
    """A warning where training knew; none where it did not."""
    expected = prepared(model, training, new)
    st.pp.rna(new, reference=training)
    joined = ad.concat([new, training[:90]], index_unique="-")
    assert "X_pca" not in joined.uns
    with pytest.warns(UserWarning, match="nothing says whether `obsm\\['X_pca'\\]` was made like the data of training"):
        model.get_latent_representation(joined)
    del new.uns["X_pca"], new.varm["X_pca"]
    with pytest.warns(UserWarning, match="nothing says"):
        np.testing.assert_array_equal(model.get_latent_representation(new), expected)
    same = ad.concat(
        [st.pp.rna(new, reference=training, copy=True), training[:90]], index_unique="-", uns_merge="first"
    )
    plain = new.copy()
    plain.obsm["mine"] = plain.obsm["X_pca"]
    other = trained(plain, {"rna": "mine"})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.get_latent_representation(same)
        same.obsm["mine"] = same.obsm["X_pca"]
        other.get_latent_representation(same)


def test_an_array_that_was_changed_is_not_that_of_its_recipe(model, training, new, caplog):
    st.pp.rna(new, reference=training)
    new.obsm["X_pca"] = new.obsm["X_pca"] - new.obsm["X_pca"].mean(axis=0)  # a correction of the user's
    with pytest.warns(UserWarning, match="nothing says"):
        model.get_latent_representation(new)
    assert "is not what the recipe in `uns['X_pca']` makes of the counts" in caplog.text


def logarithms(adata: AnnData) -> AnnData:
    adata = adata.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    return adata


@pytest.mark.parametrize("key", [None, "X_mine"])
def test_components_of_scanpy(new, key):
    old = logarithms(new_tissue(0)["rna"])
    sc.pp.pca(old, n_comps=10, key_added=key)
    place, loadings = ("X_pca", "PCs") if key is None else (key, key)
    model = trained(old, {"rna": place})
    model.get_latent_representation(old[:120].copy())
    model.get_latent_representation(old[:, :50].copy())  # other loadings, and the same variances
    new = logarithms(new)
    fresh = new.copy()
    sc.pp.pca(fresh, n_comps=10, key_added=key)
    with pytest.raises(ValueError, match=rf"`obsm\['{place}'\]` was made by another fit"):
        model.get_latent_representation(fresh)
    new.obsm[place] = np.asarray((new.X - old.X.mean(axis=0)) @ old.varm[loadings])
    with pytest.warns(UserWarning, match="nothing says"):
        model.get_latent_representation(new)
    new.varm[loadings] = old.varm[loadings]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.get_latent_representation(new)
    st.pp.rna(fresh := new_tissue(1)["rna"].copy(), n_comps=10, key_added=place)
    with pytest.raises(ValueError, match="made by another fit"):
        model.get_latent_representation(fresh)


def test_averages_of_components(training, new):
    old = training.copy()
    st.pp.smooth(old, use_rep="X_pca", key_added="X_smooth")
    model = trained(old, {"rna": "X_smooth"})
    fresh = st.pp.rna(new, n_top_genes=150, n_comps=10, copy=True)
    st.pp.smooth(fresh, use_rep="X_pca", key_added="X_smooth")
    with pytest.raises(ValueError, match=r"`obsm\['X_smooth'\]` was made by another fit.*Prepare `obsm\['X_pca'\]`"):
        model.get_latent_representation(fresh)
    st.pp.rna(new, reference=training)
    with pytest.raises(KeyError, match="X_smooth"):  # counts alone cannot stand for averages
        model.get_latent_representation(new)
    st.pp.smooth(new, use_rep="X_pca", key_added="X_smooth")
    model.get_latent_representation(new)


def test_scanpy_after_the_recipe_wrote_the_array_last(training):
    later = logarithms(training)
    sc.pp.pca(later, n_comps=10)
    model = trained(later, {"rna": "X_pca"})
    with pytest.raises(ValueError, match="made by another fit"):
        model.get_latent_representation(training)


def test_modalities_of_a_mudata(tmp_path):
    old, new = new_tissue(0), new_tissue(1)
    st.pp.rna(old["rna"], n_top_genes=150, n_comps=10)
    st.pp.protein(old["protein"], key_added="X_adt")
    keys = {"rna": "X_pca", "protein": "X_adt"}
    old.write_h5mu(tmp_path / "old.h5mu")
    model = trained(md.read_h5mu(tmp_path / "old.h5mu"), keys)
    alike = new.copy()
    st.pp.rna(alike["rna"], reference=old["rna"])
    st.pp.protein(alike["protein"], reference=old["protein"], key_added="X_adt")
    expected = model.get_latent_representation(alike)
    np.testing.assert_array_equal(model.get_latent_representation(new), expected)
    half = alike.copy()
    del half["rna"].obsm["X_pca"]
    np.testing.assert_array_equal(model.get_latent_representation(half), expected)
    st.pp.protein(half["protein"], key_added="X_adt")
    with pytest.raises(ValueError, match=r"'protein'.*`st.pp.protein\(new, reference=training, key_added='X_adt'\)`"):
        model.get_latent_representation(half)
    model.save(tmp_path / "m")
    loaded = st.model.PRAGASpike.load(tmp_path / "m", new)
    np.testing.assert_array_equal(loaded.get_latent_representation(), expected)
    assert not new["rna"].uns


def test_chromatin_is_prepared_too(tmp_path):
    modalities = {"atac": st.datasets.Modality("atac", 200)} if hasattr(st.datasets, "Modality") else {"atac": "atac"}
    old, new = (
        st.datasets.simulate_multiomics(160, 3, modalities=modalities, seed=seed)["atac"].copy() for seed in (0, 1)
    )
    for adata in (old, new):
        adata.obsm.setdefault("spatial", np.random.default_rng(0).uniform(size=(160, 2)))
    st.pp.atac(old, n_comps=8)
    model = trained(old, {"atac": "X_lsi"})
    expected = model.get_latent_representation(st.pp.atac(new, reference=old, copy=True))
    model.save(tmp_path / "m")
    loaded = st.model.PRAGASpike.load(tmp_path / "m", old)
    np.testing.assert_array_equal(loaded.get_latent_representation(new), expected)
