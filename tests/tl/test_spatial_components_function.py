from __future__ import annotations

import subprocess
import sys
import warnings

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

import stomics_tools as st
from stomics_tools._spatial_components import fit_spatial_components
from stomics_tools.data import ring_distances, rings, spatial_knn

KEY = "X_spatial_components"
MODALITIES = {"rna": "X_pca", "protein": "X_protein"}


def slice_of(seed: int, n_obs: int = 300, n_batches: int = 1) -> MuData:
    """Raw counts; positions without ties."""
    return st.datasets.simulate_multiomics(n_obs=n_obs, n_domains=4, n_batches=n_batches, layout="cells", seed=seed)


def prepared(seed: int = 0, **arguments) -> MuData:
    return with_components(slice_of(seed, **arguments))


def with_components(mdata: MuData) -> MuData:
    st.pp.rna(mdata["rna"], n_comps=15)
    st.pp.protein(mdata["protein"])
    return mdata


def two_slices(n_obs: int = 800) -> tuple[MuData, MuData]:
    """One prepared, the other of the same tissue in raw counts."""
    both = slice_of(0, n_obs=n_obs, n_batches=2)
    first = (both.obs["slice"] == both.obs["slice"].iloc[0]).to_numpy()
    return with_components(both[first].copy()), both[~first].copy()


def as_adata(mdata: MuData) -> AnnData:
    """Both modalities in one object."""
    adata = mdata["rna"].copy()
    adata.obsm["spatial"] = mdata.obsm["spatial"]
    adata.obsm["X_protein"] = mdata["protein"].obsm["X_protein"]
    return adata


@pytest.fixture(scope="module")
def fitted() -> MuData:
    mdata = prepared()
    st.tl.spatial_components(mdata)
    return mdata


@pytest.fixture
def mdata() -> MuData:
    return prepared()


@pytest.fixture
def adata(mdata) -> AnnData:
    return as_adata(mdata)


# ------------------------------------------------------------------ what is written


def test_it_writes_what_the_arrays_give(adata):
    st.tl.spatial_components(adata, MODALITIES, n_hops=2, n_neighbors=8, signal_threshold=0.3, n_components=5)
    values = [np.asarray(adata.obsm[key], dtype=np.float32) for key in ("X_protein", "X_pca")]  # by name
    present, batch = [np.ones(adata.n_obs, bool)] * 2, np.zeros(adata.n_obs, dtype=int)
    found = rings(spatial_knn(adata.obsm["spatial"], 8), 2)
    distances = ring_distances(found, adata.obsm["spatial"], batch)
    fit = fit_spatial_components(values, present, found, distances, batch, signal_threshold=0.3, n_components=5)
    latent = adata.obsm[KEY]
    assert latent.dtype == np.float32
    assert latent.shape == (adata.n_obs, 5)
    np.testing.assert_allclose(latent, fit.transform(values, present, found, batch), atol=1e-3)
    entry = adata.uns["spatial_components"]
    np.testing.assert_allclose(entry["eigenvalues"], fit.eigenvalues, atol=1e-5)
    np.testing.assert_allclose(entry["hop_weights"], fit.hop_weights, atol=1e-3)
    np.testing.assert_allclose(entry["self_weights"], fit.self_weights, atol=1e-3)
    assert entry["modalities"]["rna"]["loadings"].shape == (15, 5)
    params = entry["params"]
    assert (params["n_hops"], params["n_neighbors"], params["signal_threshold"]) == (2, 8, 0.3)
    assert params["stomics_tools_version"]


def test_domains_are_found_by_default_in_it():
    mdata = prepared(1, n_obs=1200)
    st.tl.spatial_components(mdata)
    st.tl.spatial_domains(mdata, 4, n_starts=20)
    assert mdata.uns["spatial_domain"]["params"]["use_rep"] == KEY
    mdata.obsm["plain"] = np.hstack(
        [x / x.std() for x in (mdata["rna"].obsm["X_pca"], mdata["protein"].obsm["X_protein"])]
    )
    found = adjusted_rand_score(mdata.obs["domain"], mdata.obs["spatial_domain"])
    st.tl.spatial_domains(mdata, 4, use_rep="plain", n_starts=20)
    assert found > 0.85
    assert found > adjusted_rand_score(mdata.obs["domain"], mdata.obs["spatial_domain"]) + 0.05


def test_columns_without_signal_are_not_there(fitted):
    assert fitted.obsm[KEY].shape[1] == len(fitted.uns["spatial_components"]["eigenvalues"]) < 50
    assert (fitted.uns["spatial_components"]["eigenvalues"] > 0.1).all()
    assert (fitted.obsm[KEY].std(axis=0) > 0).all()


@pytest.mark.parametrize("place", ["X", "log"])
def test_loadings_lie_with_the_variables(adata, place):
    adata.X = sparse.csr_matrix(adata.X)
    adata.layers["log"] = adata.X.log1p()
    st.tl.spatial_components(adata, {"rna": place}, key_added="mine")
    assert adata.varm["mine"].shape == (adata.n_vars, adata.obsm["X_mine"].shape[1])
    np.testing.assert_array_equal(adata.varm["mine"], adata.uns["mine"]["modalities"]["rna"]["loadings"])
    dense = adata.copy()
    dense.X, dense.layers["log"] = dense.X.toarray(), dense.layers["log"].toarray()
    st.tl.spatial_components(dense, {"rna": place}, key_added="mine")
    np.testing.assert_array_equal(dense.obsm["X_mine"], adata.obsm["X_mine"])


def test_several_layers_have_loadings_by_their_names(adata):
    adata.layers["log"] = adata.X.log1p()
    adata.layers["root"] = adata.X.sqrt()
    st.tl.spatial_components(adata, {"a": "log", "b": "root"})
    assert {"spatial_components_a", "spatial_components_b"} <= set(adata.varm)


def test_copy_leaves_the_object_alone(adata):
    before = adata.copy()
    copied = st.tl.spatial_components(adata, MODALITIES, copy=True)
    assert set(adata.obsm) == set(before.obsm)
    assert set(adata.uns) == set(before.uns)
    assert KEY in copied.obsm
    assert st.tl.spatial_components(adata, MODALITIES) is None
    np.testing.assert_array_equal(adata.obsm[KEY], copied.obsm[KEY])


def test_of_a_view_the_parent_stays_as_it_is(adata):
    view = adata[:200]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        st.tl.spatial_components(view, MODALITIES)
    assert KEY in view.obsm
    assert KEY not in adata.obsm


def test_order_of_rows_does_not_matter(adata):
    order = np.random.default_rng(0).permutation(adata.n_obs)
    shuffled = adata[order].copy()
    for data in (adata, shuffled):
        st.tl.spatial_components(data, MODALITIES, n_components=3)
    np.testing.assert_allclose(shuffled.obsm[KEY], adata.obsm[KEY][order], atol=2e-3)


def test_it_draws_no_random_numbers_and_needs_no_torch():
    code = """
import sys
import numpy as np
import stomics_tools as st
from anndata import AnnData
rng = np.random.default_rng(0)
xy = rng.uniform(size=(200, 2))
adata = AnnData(obsm={"a": np.sin(4 * xy) + rng.normal(size=(200, 2)), "spatial": xy})
np.random.seed(3)
st.tl.spatial_components(adata, "a")
print(np.random.random(), "torch" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [str(np.random.RandomState(3).random()), "False"]


# ------------------------------------------------------------------ kinds of objects


def test_a_backed_object_gives_the_same(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    for data in (adata, backed):
        st.tl.spatial_components(data, {"rna": "X"})
    np.testing.assert_allclose(backed.obsm[KEY], adata.obsm[KEY], atol=1e-5)


def test_a_mudata_gives_the_same_as_an_anndata(mdata, adata):
    st.tl.spatial_components(mdata)
    st.tl.spatial_components(adata, MODALITIES)
    np.testing.assert_array_equal(mdata.obsm[KEY], adata.obsm[KEY])


def test_rows_of_nan_and_spots_that_are_not_there_are_the_same(mdata, adata):
    lacking = np.random.default_rng(0).choice(adata.n_obs, 60, replace=False)
    adata.obsm["X_protein"] = adata.obsm["X_protein"].copy()
    adata.obsm["X_protein"][lacking] = np.nan
    st.tl.spatial_components(adata, MODALITIES)
    part = mdata["protein"][np.setdiff1d(np.arange(adata.n_obs), lacking)].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        mosaic = MuData({"rna": mdata["rna"], "protein": part})
    mosaic = mosaic[mdata.obs_names].copy()
    mosaic.obsm["spatial"] = mdata.obsm["spatial"]
    st.tl.spatial_components(mosaic, MODALITIES)
    np.testing.assert_array_equal(mosaic.obsm[KEY], adata.obsm[KEY])
    assert np.isfinite(adata.obsm[KEY]).all()


def test_a_ready_graph_of_the_same_edges_gives_the_same(adata):
    adata.obsp["mine"] = (spatial_knn(adata.obsm["spatial"], 6) > 0).astype(float)
    st.tl.spatial_components(adata, MODALITIES)
    expected = adata.obsm[KEY]
    st.tl.spatial_components(adata, MODALITIES, spatial_graph_key="mine")
    np.testing.assert_allclose(adata.obsm[KEY], expected, atol=1e-5)


def test_slices_have_centers_of_their_own():
    mdata = prepared(n_obs=400, n_batches=2)
    st.tl.spatial_components(mdata, batch_key="slice")
    shifted = mdata.copy()
    second = (shifted.obs["slice"] == shifted.obs["slice"].iloc[-1]).to_numpy()
    shifted["rna"].obsm["X_pca"][second] += 7
    shifted.obsm["spatial"][second] *= 4
    st.tl.spatial_components(shifted, MODALITIES, batch_key="slice")
    np.testing.assert_allclose(shifted.obsm[KEY], mdata.obsm[KEY], atol=1e-3)


# ------------------------------------------------------------------ other data


@pytest.mark.parametrize("suffix", ["h5mu", "zarr", None])
def test_the_fit_survives_a_file(fitted, tmp_path, suffix):
    reference = fitted
    if suffix == "h5mu":
        fitted.write_h5mu(tmp_path / "a.h5mu")
        reference = md.read_h5mu(tmp_path / "a.h5mu")
    elif suffix == "zarr":
        fitted.write_zarr(tmp_path / "a.zarr")
        reference = md.read_zarr(tmp_path / "a.zarr")
    again = slice_of(0)  # raw counts, prepared by the recipes of the fit
    st.tl.spatial_components(again, reference=reference)
    np.testing.assert_array_equal(again.obsm[KEY], fitted.obsm[KEY])
    third = slice_of(0)
    st.tl.spatial_components(third, reference=again.uns["spatial_components"])
    np.testing.assert_array_equal(third.obsm[KEY], fitted.obsm[KEY])
    again.write_h5mu(tmp_path / "again.h5mu")


def test_the_entry_of_uns_survives_an_h5ad_file(adata, tmp_path):
    st.tl.spatial_components(adata, MODALITIES, n_neighbors=8)
    adata.write_h5ad(tmp_path / "a.h5ad")
    entry = ad.read_h5ad(tmp_path / "a.h5ad").uns["spatial_components"]
    expected = adata.obsm.pop(KEY)
    st.tl.spatial_components(adata, reference=entry)
    np.testing.assert_array_equal(adata.obsm[KEY], expected)
    assert adata.uns["spatial_components"]["params"]["n_neighbors"] == 8


def test_new_slices_keep_the_meaning_of_components():
    old, new = two_slices(2000)
    st.tl.spatial_components(old)
    st.tl.spatial_components(new, reference=old)
    means = [
        pd.DataFrame(m.obsm[KEY][:, :3]).groupby(m.obs["domain"].astype(str).to_numpy()).mean() for m in (old, new)
    ]
    centered = [(table - table.mean()).to_numpy().ravel() for table in means]  # slices differ in all counts
    assert np.corrcoef(*centered)[0, 1] > 0.9


@pytest.mark.parametrize("n_batches", [1, 2])
def test_a_new_slice_has_the_same_rows_alone_and_in_company(n_batches):
    training = prepared(0, n_obs=400, n_batches=n_batches)
    st.tl.spatial_components(training, batch_key="slice" if n_batches > 1 else None)
    two = slice_of(3, n_obs=400, n_batches=2)
    one = two[two.obs["slice"] == two.obs["slice"].iloc[0]].copy()
    for data in (one, two):
        st.tl.spatial_components(data, reference=training, batch_key="slice")
    np.testing.assert_allclose(two[one.obs_names].obsm[KEY], one.obsm[KEY], atol=1e-4)


@pytest.mark.parametrize("lacks", ["rna", "protein"])
def test_a_new_slice_may_lack_a_modality(lacks):
    old, new = two_slices()
    st.tl.spatial_components(old)
    st.tl.spatial_components(new, reference=old)
    complete = new.obsm[KEY]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        part = MuData({name: mod if name != lacks else mod[:0].copy() for name, mod in new.mod.items()})
    part.obsm["spatial"] = new[part.obs_names].obsm["spatial"]
    st.tl.spatial_components(part, reference=old)
    assert np.isfinite(part.obsm[KEY]).all()
    assert np.corrcoef(complete[:, 0], part[new.obs_names].obsm[KEY][:, 0])[0, 1] > 0.5


def test_other_fits_and_features_are_refused(fitted):
    before = fitted.obsm[KEY].copy()
    fresh = prepared(5)
    with pytest.raises(ValueError, match=r"'rna'.*made by another fit.*`st.pp.rna\(new, reference=training\)`"):
        st.tl.spatial_components(fresh, reference=fitted)
    assert KEY not in fresh.obsm
    few = slice_of(5)
    few["rna"].obsm["X_pca"] = np.zeros((few.n_obs, 4))
    few["rna"].obsm["X_pca"][0] = 1
    with pytest.raises(ValueError, match=r"'rna'.*15 features, found 4"):
        st.tl.spatial_components(few, reference=fitted)
    with pytest.raises(
        ValueError, match=r"`modalities`: those of the reference are \['protein', 'rna'\], found \['rna'\]"
    ):
        st.tl.spatial_components(slice_of(5), {"rna": "X_pca"}, reference=fitted)
    np.testing.assert_array_equal(before, fitted.obsm[KEY])


def test_genes_in_another_order_are_refused(adata):
    st.tl.spatial_components(adata, {"rna": "X"})
    new = adata[:, ::-1].copy()
    with pytest.raises(ValueError, match="'rna'.*features differ.*another order"):
        st.tl.spatial_components(new, reference=adata)
    logarithms = adata.copy()
    logarithms.X = logarithms.X.log1p()
    with pytest.raises(ValueError, match="`modalities"):
        st.tl.spatial_components(logarithms, reference=adata)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"n_components": 10}, "n_components=10"),
        ({"n_hops": 2, "n_neighbors": 5}, "`n_neighbors=5`, `n_hops=2`"),
        ({"signal_threshold": 0.2}, "signal_threshold=0.2"),
        ({"spatial_graph_key": "g"}, "spatial_graph_key='g'"),
    ],
)
def test_settings_beside_a_reference_have_no_effect(fitted, arguments, named):
    with pytest.raises(ValueError, match=f"{named}.*without effect"):
        st.tl.spatial_components(slice_of(5), reference=fitted, **arguments)


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("old.h5mu", TypeError, "AnnData or MuData with spatial components, or its entry of `uns`, found str"),
        ({"params": {"model": "PRAGASpike"}}, ValueError, "no entry of `uns` that `tl.spatial_components` wrote"),
        (AnnData(np.ones((3, 2))), KeyError, "Run it on the reference first"),
    ],
)
def test_what_is_no_reference(reference, error, message):
    with pytest.raises(error, match=message):
        st.tl.spatial_components(slice_of(5), reference=reference)


def test_a_damaged_reference_is_named(fitted):
    entry = fitted.copy().uns["spatial_components"]
    with pytest.raises(ValueError, match=r"the entry of `uns` holds no spatial components that can be read.*noise"):
        st.tl.spatial_components(slice_of(5), reference={k: v for k, v in entry.items() if k != "noise"})
    with pytest.raises(ValueError, match="arrays of different size"):
        st.tl.spatial_components(slice_of(5), reference={**entry, "gram": entry["gram"][:, :, :1]})


def test_one_of_several_fits_has_to_be_named(adata):
    st.tl.spatial_components(adata, {"rna": "X_pca"}, key_added="a")
    st.tl.spatial_components(adata, {"rna": "X_pca"}, key_added="b", n_hops=1)
    with pytest.raises(ValueError, match=r"several fits, \['a', 'b'\]"):
        st.tl.spatial_components(adata, reference=adata)
    st.tl.spatial_components(adata, reference=adata, key_added="b")
    st.tl.spatial_components(adata, reference=adata.uns["b"])
    np.testing.assert_array_equal(adata.obsm[KEY], adata.obsm["X_b"])


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_components": 0}, ValueError, "`n_components` must be at least 1"),
        ({"n_hops": 0}, ValueError, "`n_hops` must be at least 1"),
        ({"n_neighbors": 2.5}, TypeError, "`n_neighbors` must be an integer"),
        ({"signal_threshold": 2}, ValueError, r"`signal_threshold` must be in \[0, 1\]"),
        ({"n_neighbors": 300}, ValueError, "`n_neighbors=300` needs at least 301 spots"),
        ({"spatial_key": "xy"}, KeyError, "`spatial_key`: key 'xy' not found"),
        ({"batch_key": "slices"}, KeyError, "`batch_key`"),
        ({"spatial_graph_key": "g", "n_neighbors": 8}, ValueError, "no effect beside `spatial_graph_key`"),
        ({"spatial_graph_key": "g"}, KeyError, "`spatial_graph_key`: key 'g' not found"),
        ({"key_added": "a/b"}, ValueError, "`key_added`"),
        ({"modalities": {"rna": "X_pcaa"}}, KeyError, "Did you mean 'X_pca'"),
    ],
)
def test_mistakes_are_named_before_anything_is_changed(adata, arguments, error, message):
    before = set(adata.obsm), set(adata.uns)
    with pytest.raises(error, match=message):
        st.tl.spatial_components(adata, **{"modalities": MODALITIES, **arguments})
    assert (set(adata.obsm), set(adata.uns)) == before


def test_a_graph_without_edges_is_refused(adata):
    adata.obsp["g"] = sparse.csr_matrix((adata.n_obs, adata.n_obs))
    with pytest.raises(ValueError, match=r"`spatial_graph_key`: `adata.obsp\['g'\]` has no edges"):
        st.tl.spatial_components(adata, MODALITIES, spatial_graph_key="g")


@pytest.mark.parametrize("n_features", [1, 3, 400])
def test_one_signal_in_any_number_of_features(n_features):
    rng = np.random.default_rng(0)
    xy = rng.uniform(size=(200, 2))
    signal = np.sin(5 * xy[:, :1])
    adata = AnnData(obsm={"a": 1e6 + signal + 0.5 * rng.normal(size=(200, n_features)), "spatial": xy})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        st.tl.spatial_components(adata, "a")
    assert abs(np.corrcoef(adata.obsm[KEY][:, 0], signal[:, 0])[0, 1]) > 0.9


def test_names_that_repeat_are_refused(adata):
    adata.obs_names = ["a"] * adata.n_obs
    with pytest.raises(ValueError, match="`adata.obs_names` are not unique"):
        st.tl.spatial_components(adata, MODALITIES)


def test_missing_values_are_refused(adata):
    adata.obsm["X_pca"][3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN in part"):
        st.tl.spatial_components(adata, MODALITIES)


def test_noise_is_said_to_be_noise():
    rng = np.random.default_rng(0)
    noise = AnnData(obsm={"a": rng.normal(size=(2000, 5)), "spatial": rng.uniform(size=(2000, 2))})
    with pytest.warns(UserWarning, match=r"`signal_threshold=0.1`: no component reaches it; kept are 2"):
        st.tl.spatial_components(noise, "a")
    assert noise.obsm[KEY].shape == (2000, 2)
    assert noise.obsm[KEY].std() < 0.3  # of a variance of 1
