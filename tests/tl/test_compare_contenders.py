"""The contenders of one modality, and those that are not trained, against numpy and scikit-learn."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import stomics_tools as st
from stomics_tools.model import GraphST
from stomics_tools.tl._compare_input import label_codes

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False}
N = 120


@pytest.fixture(autouse=True)
def few_starts(monkeypatch):
    """Clustering is what takes time here."""
    monkeypatch.setattr("stomics_tools.tl._compare.spatial_domains", partial(st.tl.spatial_domains, n_starts=3))


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    domain = np.arange(N) // 40
    signal = rng.normal(size=(3, 6))[domain]
    rna = 3.0 * (signal + rng.normal(0, 0.8, (N, 6))) + 5.0
    protein = signal[:, :4] @ rng.normal(size=(4, 4)) + rng.normal(0, 0.8, (N, 4))
    protein[[2, 50]] = np.nan  # not measured
    xy = np.column_stack([domain * 2 + rng.uniform(size=N), rng.uniform(size=N)])
    adata = AnnData(obsm={"X_pca": rna, "X_protein": protein, "spatial": xy})
    adata.obs["domain"] = domain.astype(str)
    return adata


def side_by_side(adata) -> tuple[np.ndarray, list[np.ndarray]]:
    """All values as a contender takes them, and of each modality which spots were measured."""
    parts, measured = [], []
    for key in MODALITIES.values():
        x = adata.obsm[key]
        x = (x - np.nanmean(x, axis=0)) / np.sqrt(np.nanmean(np.nanvar(x, axis=0)))
        measured.append(~np.isnan(x[:, 0]))
        parts.append(np.nan_to_num(x, nan=0.0))
    return np.hstack(parts), measured


def error(adata, values, reconstruction, batch=None) -> float:
    """Mean of the modalities: squared error over variance within slices, both over the spots that were measured."""
    batch = np.zeros(len(values)) if batch is None else batch
    _, (_, there) = side_by_side(adata)
    shares = []
    for columns, rows in ((slice(0, 6), slice(None)), (slice(6, 10), there)):
        x, r, b = values[rows, columns], reconstruction[rows, columns], batch[rows]
        within = np.concatenate([x[b == code] - x[b == code].mean(axis=0) for code in np.unique(b)])
        shares.append(np.mean((x - r) ** 2) / np.mean(within**2))
    return float(np.mean(shares))


def averaged(values, xy, n_hops) -> np.ndarray:
    nearest = NearestNeighbors(n_neighbors=7).fit(xy).kneighbors(xy)[1]  # the spot itself is the first
    for _ in range(n_hops):
        values = values[nearest].mean(axis=1)
    return values


def domains(latent, seed) -> np.ndarray:
    found = AnnData(obsm={"z": latent})
    st.tl.spatial_domains(found, 3, use_rep="z", n_starts=3, seed=seed)
    return found.obs["spatial_domain"].to_numpy()


def compare(adata, models, seeds=2, **kwargs):
    kwargs = {"modalities": MODALITIES, "labels_key": "domain", "train_kwargs": QUIET, **kwargs}
    return st.tl.compare_models(adata, models, seeds, **kwargs)


@pytest.mark.parametrize("n_hops", [0, 1, 2])
def test_smoothed_components_are_those_of_numpy(adata, n_hops):
    models = {"x": {"model": "smooth", "n_hops": n_hops, "n_components": 3}}
    table = compare(adata, models, 3)
    values, _ = side_by_side(adata)
    smooth = averaged(values, adata.obsm["spatial"], n_hops)
    mean = smooth.mean(axis=0)
    u, s, vt = np.linalg.svd(smooth - mean, full_matrices=False)
    latent = u[:, :3] * s[:3]
    np.testing.assert_allclose(table["reconstruction_mse"], error(adata, values, latent @ vt[:3] + mean), rtol=1e-4)
    found = [domains(latent.astype(np.float32), seed) for seed in range(3)]
    np.testing.assert_allclose(table["ari"], [adjusted_rand_score(adata.obs["domain"], f) for f in found])
    pairs = [adjusted_rand_score(a, b) for a, b in combinations(found, 2)]
    np.testing.assert_allclose(table["stability"], np.mean(pairs))


def test_spatial_components_are_those_of_the_function(adata):
    adata.obs["slice"] = np.where(np.arange(N) % 2 == 0, "a", "b")
    adata.obsm["X_pca"][::2] += 3
    models = {"spatial_components": {"model": "spatial_components", "n_hops": 2, "signal_threshold": 0}}
    table = compare(adata, models, 2, batch_key="slice")
    other = st.tl.spatial_components(adata, MODALITIES, batch_key="slice", n_hops=2, signal_threshold=0, copy=True)
    latent = other.obsm["X_spatial_components"]
    found = [domains(latent, seed) for seed in range(2)]
    np.testing.assert_allclose(table["ari"], [adjusted_rand_score(adata.obs["domain"], f) for f in found])
    modalities = other.uns["spatial_components"]["modalities"]
    denoised = []
    for name, key in MODALITIES.items():
        part = modalities[name]
        x = pd.DataFrame(adata.obsm[key]).groupby(adata.obs["slice"].to_numpy()).transform("mean").to_numpy()
        denoised.append(x + latent @ part["loadings"].T * part["scale"])
    values = np.hstack([adata.obsm[key] for key in MODALITIES.values()])
    mse = [
        np.nanmean((values[:, at] - np.hstack(denoised)[:, at]) ** 2) / _within(values[:, at], adata.obs["slice"])
        for at in (slice(0, 6), slice(6, 10))
    ]
    np.testing.assert_allclose(table["reconstruction_mse"], np.mean(mse), rtol=1e-3)
    assert compare(adata, ["spatial_components"], 1)["ari"].notna().all()
    with pytest.raises(ValueError, match="there is nothing to train"):
        compare(adata, {"x": {"model": "spatial_components", "train": {"max_epochs": 2}}})


def _within(values, batch) -> float:
    table = pd.DataFrame(values)
    return float(np.nanmean((table - table.groupby(batch.to_numpy()).transform("mean")) ** 2))


def test_ready_names_are_what_they_say(adata):
    spelled = {"pca": {"model": "smooth", "n_hops": 0}, "smooth3": {"model": "smooth", "n_hops": 3}}
    scores = ["model", "seed", "ari", "nmi", "silhouette", "reconstruction_mse", "stability"]
    ready = compare(adata, ["pca", "smooth3"])[scores]
    assert ready.equals(compare(adata, spelled)[scores])
    assert (
        ready["reconstruction_mse"][0] < 1e-6 < ready["reconstruction_mse"][2]
    )  # 20 components hold all of 10 columns


def test_averages_end_at_slices(adata):
    adata.obs["slice"] = np.where(np.arange(N) % 2 == 0, "a", "b")
    table = compare(adata, ["smooth1"], 1, batch_key="slice")
    values, _ = side_by_side(adata)
    smooth = np.empty_like(values)
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        smooth[rows] = averaged(values[rows], adata.obsm["spatial"][rows], 1)
    np.testing.assert_allclose(table["reconstruction_mse"], error(adata, values, smooth, adata.obs["slice"]), rtol=1e-4)


def test_error_is_that_within_slices(adata):
    """What slices differ by throughout is no achievement, and no fault, of any model."""
    adata.obs["slice"] = np.where(np.arange(N) % 2 == 0, "a", "b")
    models = {
        "spikes": {"model": "PRAGASpike", "n_latent": 8},
        "graph": {"model": "GraphST", "n_latent": 4},
        "pca": {"model": "smooth", "n_hops": 0, "n_components": 5},
        "more": {"model": "smooth", "n_hops": 0, "n_components": 6},
    }
    together = compare(adata, models, 1, batch_key="slice", max_epochs=30).set_index("model")["reconstruction_mse"]
    adata.obsm["X_pca"] += np.where(adata.obs["slice"] == "a", 10.0, 0.0)[:, None]
    adata.obsm["X_protein"] -= np.where(adata.obs["slice"] == "a", 10.0, 0.0)[:, None]
    apart = compare(adata, models, 1, batch_key="slice", max_epochs=30).set_index("model")["reconstruction_mse"]
    assert together.between(0.05, 0.95).all()
    np.testing.assert_allclose(apart[["spikes", "graph"]], together[["spikes", "graph"]], rtol=0.05)
    np.testing.assert_allclose(
        apart["more"], together["pca"], rtol=0.2
    )  # a component goes into the difference of slices


def test_graphst_sees_the_modalities_side_by_side(adata):
    models = {"graph": {"model": "GraphST", "n_latent": 5, "train": {"lr": 0.02}}}
    table = compare(adata, models, 3, max_epochs=20)
    values, _ = side_by_side(adata)
    found, errors = [], []
    for seed in range(3):
        alone = AnnData(values.astype(np.float32), obsm={"spatial": adata.obsm["spatial"]})
        GraphST.setup_anndata(alone)
        model = GraphST(alone, n_latent=5)
        model.train(20, lr=0.02, seed=seed, **QUIET)
        found.append(domains(model.get_latent_representation(), seed))
        errors.append(error(adata, values, model.get_reconstruction()))
    np.testing.assert_allclose(table["reconstruction_mse"], errors, rtol=1e-4)
    assert table["reconstruction_mse"].between(0.01, 1).all()
    np.testing.assert_allclose(table["ari"], [adjusted_rand_score(adata.obs["domain"], f) for f in found])
    pairs = [adjusted_rand_score(a, b) for a, b in combinations(found, 2)]
    np.testing.assert_allclose(table["stability"], np.mean(pairs))


def test_a_reconstruction_of_length_one_has_no_error(adata):
    models = {preset: {"model": GraphST, "preset": preset, "n_latent": 4} for preset in ("dense", "sparse")}
    table = compare(adata, models, 1, max_epochs=2)
    assert table["reconstruction_mse"].isna().tolist() == [False, True]
    assert table["ari"].notna().all()


def test_names_of_earlier_versions(adata):
    table = compare(adata, ["original", "praga"], 1, max_epochs=2)
    assert table["model"].tolist() == ["original", "praga"]
    first, second = table.drop(columns=["model", "seconds", "peak_mib"]).to_dict("records")
    assert str(first) == str(second)


def test_the_default_sets_simple_methods_beside_the_models(adata, tmp_path):
    out = tmp_path / "runs.csv"
    table = compare(adata, None, 1, max_epochs=2, out=out)
    names = ["praga", "praga_spike", "spatial_components", "pca", "smooth2"]
    assert table["model"].drop_duplicates().tolist() == names
    scores = ["ari", "nmi", "silhouette", "reconstruction_mse"]
    assert table.set_index("model").loc[names[1:], scores].notna().all(axis=None)
    # A bar more or less does not make other runs.
    again = compare(adata, None, 1, max_epochs=2, out=out, train_kwargs={})
    assert again.equals(table)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_labels_of_a_modality_are_found_by_name(adata):
    mdata = MuData({"rna": adata.copy()})
    for name in list(mdata.obs):
        del mdata.obs[name]
    expected = label_codes(adata, "domain")
    mdata.mod["rna"] = mdata["rna"][np.random.default_rng(0).permutation(adata.n_obs)].copy()  # and no mdata.update()
    found = label_codes(mdata, "domain")
    assert adjusted_rand_score(expected, found) == 1
    with pytest.raises(KeyError, match=r"`labels_key`: key 'layers' not found in `mdata.obs and its modalities`"):
        label_codes(mdata, "layers")
