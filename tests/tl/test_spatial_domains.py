from __future__ import annotations

import subprocess
import sys
import warnings

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from sklearn.metrics import adjusted_rand_score

from stomics_tools.data._graphs import spatial_knn
from stomics_tools.tl import _domains, spatial_domains
from stomics_tools.tl._refine import majority_labels


@pytest.fixture
def adata() -> AnnData:
    """Three stripes of 100, 140 and 160 spots; their representation has 30 columns, three of which tell."""
    rng = np.random.default_rng(0)
    stripe = np.repeat([0, 1, 2], [100, 140, 160])
    a = AnnData(rng.poisson(1, size=(400, 5)).astype(np.float32))
    a.obsm["spatial"] = np.column_stack([stripe + rng.uniform(size=400), rng.uniform(size=400)])
    a.obsm["X"] = rng.normal(size=(400, 30))
    a.obsm["X"][:, :3] += 4 * np.eye(3)[stripe]
    a.obs["stripe"] = pd.Categorical(stripe)
    a.obs["slice"] = pd.Categorical(rng.choice(["p", "q"], 400), categories=["unused", "p", "q"])
    return a


@pytest.mark.parametrize("method", ["gmm", "leiden"])
def test_finds_the_stripes_and_names_them_by_size(adata, method):
    assert spatial_domains(adata, 3, use_rep="X", method=method) is None
    domain = adata.obs["spatial_domain"]
    assert adjusted_rand_score(adata.obs["stripe"], domain) > 0.9
    assert domain.dtype == pd.CategoricalDtype(["0", "1", "2"])
    assert domain.value_counts().loc[["0", "1", "2"]].is_monotonic_decreasing
    assert adata.uns["spatial_domain"]["params"]["n_found"] == 3
    assert "bic" not in adata.uns["spatial_domain"]


def test_number_of_domains_by_the_criterion(adata):
    adata.obsm["X"] = adata.obsm["X"][:, :4]
    spatial_domains(adata, use_rep="X", max_domains=6)
    assert adata.uns["spatial_domain"]["params"]["n_found"] == 3
    assert adata.uns["spatial_domain"]["bic"].shape == (5,)
    assert np.argmin(adata.uns["spatial_domain"]["bic"]) == 1
    assert "n_domains" not in adata.uns["spatial_domain"]["params"]


@pytest.mark.parametrize(("n_obs", "expected"), [(120, 5), (400, 8), (1049, 20), (3000, 20)])
def test_one_component_for_fifty_spots(n_obs, expected):
    a = AnnData(
        obsm={"X": np.random.default_rng(0).normal(size=(n_obs, 30))}, obs=pd.DataFrame(index=map(str, range(n_obs)))
    )
    spatial_domains(a, 2, use_rep="X", n_starts=4)
    assert a.uns["spatial_domain"]["params"]["n_pcs"] == expected


def test_few_spots_with_outliers_are_clustered_by_few_components():
    """Twenty components of 250 spots are noise, and the mixture would spend its components on the outliers."""
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [60, 80, 110])
    x = 0.7 * rng.standard_t(3, size=(250, 40))
    x[:, :3] += 3 * np.eye(3)[truth]
    a = AnnData(obsm={"X": x}, obs=pd.DataFrame(index=map(str, range(250))))
    for seed in range(3):
        scores = []
        for n_pcs in (None, 20):
            spatial_domains(a, 3, use_rep="X", n_pcs=n_pcs, seed=seed)
            scores.append(adjusted_rand_score(truth, a.obs["spatial_domain"]))
        assert scores[0] > scores[1] + 0.2


@pytest.mark.parametrize(("refine", "n_neighbors"), [(True, 50), (7, 7)])
def test_refinement_is_the_majority_within_a_slice(adata, refine, n_neighbors):
    spatial_domains(adata, 3, use_rep="X")
    spatial_domains(adata, 3, use_rep="X", refine=refine, batch_key="slice", key_added="refined")
    codes = (adata.obs["slice"] == "q").to_numpy().astype(int)
    graph = spatial_knn(adata.obsm["spatial"], n_neighbors, codes)
    expected = majority_labels(adata.obs["spatial_domain"].cat.codes.to_numpy().astype(int), graph)
    assert (expected != adata.obs["spatial_domain"].cat.codes).any()
    assert adjusted_rand_score(expected, adata.obs["refined"]) == 1
    assert adata.obs["slice"].cat.categories.tolist() == ["unused", "p", "q"]


def test_result_does_not_depend_on_order_or_storage(adata):
    """Another order of the spots, other types, a data frame: the same partition."""
    spatial_domains(adata, 3, use_rep="X")
    order = np.random.default_rng(1).permutation(400)
    other = adata[order].copy()
    spatial_domains(other, 3, use_rep="X")
    assert adjusted_rand_score(other.obs["spatial_domain"], adata.obs["spatial_domain"].iloc[order]) == 1

    for form in (lambda x: x.astype(np.float32), lambda x: pd.DataFrame(x, index=adata.obs_names).add_prefix("c")):
        other = adata.copy()
        other.obsm["X"] = form(adata.obsm["X"])
        spatial_domains(other, 3, use_rep="X")
        assert other.obs["spatial_domain"].equals(adata.obs["spatial_domain"])


@pytest.mark.parametrize("method", ["gmm", "leiden"])
def test_same_seed_same_result_without_global_state(adata, method):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        first, second = (
            spatial_domains(adata, 7, use_rep="X", method=method, seed=5, copy=True).obs["spatial_domain"]
            for _ in range(2)
        )
    assert first.equals(second)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert "spatial_domain" not in adata.obs


@pytest.mark.parametrize("n_domains", [3, None])
def test_results_survive_a_file(adata, tmp_path, n_domains):
    adata.write_h5ad(tmp_path / "plain.h5ad")
    backed = ad.read_h5ad(tmp_path / "plain.h5ad", backed="r")
    for a in (adata, backed):
        most = {"max_domains": np.int64(5)} if n_domains is None else {}
        spatial_domains(a, n_domains, use_rep="X", refine=np.int64(6), seed=np.int64(2), **most)
    assert backed.obs["spatial_domain"].equals(adata.obs["spatial_domain"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert back.obs["spatial_domain"].equals(adata.obs["spatial_domain"])
    assert back.uns["spatial_domain"]["params"]["use_rep"] == "X"
    assert back.uns["spatial_domain"]["params"]["refine"] == 6


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mudata(adata, tmp_path):
    mdata = MuData({"rna": AnnData(adata.X), "protein": AnnData(adata.X)})
    mdata.obsm["X"], mdata.obsm["spatial"] = adata.obsm["X"], adata.obsm["spatial"]
    spatial_domains(mdata, 3, use_rep="X", refine=6)
    spatial_domains(adata, 3, use_rep="X", refine=6)
    np.testing.assert_array_equal(mdata.obs["spatial_domain"], adata.obs["spatial_domain"])
    mdata.write_h5mu(tmp_path / "a.h5mu")
    back = mudata.read_h5mu(tmp_path / "a.h5mu")
    assert back.uns["spatial_domain"]["params"]["n_found"] == 3


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_a_view_becomes_its_own_object(adata):
    view = adata[adata.obs["stripe"] != 0]
    spatial_domains(view, 2, use_rep="X")
    assert adjusted_rand_score(view.obs["stripe"], view.obs["spatial_domain"]) > 0.9
    assert "spatial_domain" not in adata.obs


def test_warns_of_another_number_than_asked_for(adata):
    adata.obsm["X"] = np.repeat(np.eye(3), [100, 140, 160], axis=0)
    with pytest.warns(UserWarning, match="`n_domains=6`: [345] domains were found"):
        spatial_domains(adata, 6, use_rep="X")
    assert adata.uns["spatial_domain"]["params"]["n_domains"] == 6
    assert adata.uns["spatial_domain"]["params"]["n_found"] == adata.obs["spatial_domain"].nunique()


def test_narrow_and_degenerate_representations(adata):
    """One column; columns that repeat others or never vary; fewer spots than columns."""
    x = adata.obsm["X"][:, :3]
    adata.obsm["one"] = 100 * x[:, :1]
    spatial_domains(adata, 2, use_rep="one")
    assert adjusted_rand_score(adata.obs["stripe"] == 0, adata.obs["spatial_domain"]) > 0.8
    adata.obsm["plain"], adata.obsm["rank"] = x, np.column_stack([x, x @ [1, 2, 3], np.ones(400), x])
    spatial_domains(adata, 3, use_rep="plain", key_added="plain")
    spatial_domains(adata, 3, use_rep="rank", key_added="rank")
    assert adjusted_rand_score(adata.obs["plain"], adata.obs["rank"]) > 0.95
    few = adata[[0, 1, 2, 200, 201, 202, 203]].copy()
    spatial_domains(few, 2, use_rep="X")
    assert few.obs["spatial_domain"].nunique() == 2


def test_the_truth_is_never_replaced_unasked(adata):
    adata.obs["spatial_domain"] = adata.obs["stripe"].astype(str)  # of a pathologist
    adata.uns["spatial_domain_colors"] = ["red", "green", "blue"]
    before = adata.obs.copy()
    with pytest.raises(ValueError, match=r"`adata.obs\['spatial_domain'\]` is there and was not written by"):
        spatial_domains(adata, 3, use_rep="X")
    pd.testing.assert_frame_equal(adata.obs, before)
    assert set(adata.uns) == {"spatial_domain_colors"}
    spatial_domains(adata, 3, use_rep="X", key_added="spatial_domain", n_starts=3)  # by name it is
    assert adata.obs["spatial_domain"].dtype == "category"
    spatial_domains(adata, 2, use_rep="X", n_starts=3)  # our own column is written anew
    assert adata.obs["spatial_domain"].nunique() == 2
    assert adata.uns["spatial_domain_colors"] == ["red", "green", "blue"]


def test_own_domains_of_a_file_are_written_anew_and_foreign_records_kept(adata, tmp_path):
    spatial_domains(adata, 3, use_rep="X", n_starts=3)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    spatial_domains(back, 2, use_rep="X", n_starts=3)
    assert back.obs["spatial_domain"].nunique() == 2
    for foreign in ({"params": {"resolution": 1.0}}, "text", {"n_found": 3}):
        del back.obs["spatial_domain"]
        back.uns["spatial_domain"] = foreign
        with pytest.raises(ValueError, match=r"`adata.uns\['spatial_domain'\]` is there.*`key_added='spatial_domain'`"):
            spatial_domains(back, 2, use_rep="X")
        back.obs["spatial_domain"] = "x"


def test_the_latent_of_the_one_model_is_the_default(adata):
    with pytest.raises(ValueError, match=r"`use_rep`: no model has written its results.*\['spatial', 'X'\]"):
        spatial_domains(adata, 3)
    adata.obsm["X_graphst"] = adata.obsm["X"]
    adata.uns["graphst"] = {"params": {"model": "GraphST"}}
    adata.obsm["X_smooth"] = adata.obsm["X"]
    adata.uns["smooth"] = {"params": {"n_steps": 1}}  # no model
    spatial_domains(adata, 3, n_starts=3)
    assert adata.uns["spatial_domain"]["params"]["use_rep"] == "X_graphst"
    adata.obsm["X_mine"], adata.uns["mine"] = adata.obsm["X"], adata.uns["graphst"]
    with pytest.raises(ValueError, match=r"the latent representations \['X_graphst', 'X_mine'\] are there"):
        spatial_domains(adata, 3)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_places_and_slices_that_only_modalities_hold(adata):
    adata.obs_names = [f"spot{i}" for i in range(400)]
    rna, protein = (
        AnnData(adata.X, obs=adata.obs[["slice"]], obsm={"spatial": adata.obsm["spatial"]}) for _ in range(2)
    )
    mdata = MuData({"rna": rna[:300].copy(), "protein": protein[100:].copy()})
    for name in list(mdata.obs):
        del mdata.obs[name]
    mdata.mod["rna"] = mdata["rna"][np.random.default_rng(0).permutation(300)].copy()  # rows are found by name
    mdata.obsm["X"] = adata[mdata.obs_names].obsm["X"]
    spatial_domains(mdata, 3, use_rep="X", refine=6, batch_key="slice", n_starts=3)
    same = adata[mdata.obs_names].copy()
    spatial_domains(same, 3, use_rep="X", refine=6, batch_key="slice", n_starts=3)
    assert mdata.obs["spatial_domain"].tolist() == same.obs["spatial_domain"].tolist()
    with pytest.raises(KeyError, match=r"`spatial_key`: key 'places' not found in `mdata.obsm and its modalities`"):
        spatial_domains(mdata, 3, use_rep="X", refine=6, spatial_key="places")


def spoil_rep(a):
    a.obsm["X"][3, 1] = np.nan


def flatten_rep(a):
    a.obsm["X"][:] = 2.5


def spoil_slices(a):
    a.obs.loc[a.obs_names[2], "slice"] = np.nan


def small_slice(a):
    a.obs["slice"] = ["small"] * 12 + ["large"] * 388


@pytest.mark.parametrize(
    ("spoil", "arguments", "error", "message"),
    [
        (None, {"use_rep": "X_praga"}, KeyError, "`use_rep`: key 'X_praga' not found in `adata.obsm`.*'spatial'"),
        (spoil_rep, {}, ValueError, "`use_rep`: `adata.obsm\\['X'\\]` holds 1 NaN"),
        (flatten_rep, {}, ValueError, "`use_rep`: all rows .* are the same"),
        (None, {"n_domains": 401}, ValueError, "`n_domains=401` domains cannot be made of 400 spots"),
        (None, {"n_domains": 1}, ValueError, "`n_domains` must be at least 2, found 1"),
        (None, {"n_domains": 3.0}, TypeError, "`n_domains` must be an integer"),
        (None, {"max_domains": 1}, ValueError, "`max_domains` must be at least 2"),
        (None, {"n_starts": 0}, ValueError, "`n_starts` must be at least 1"),
        (None, {"method": "leiden", "n_starts": 3}, ValueError, "`n_starts=3` has no effect with `method='leiden'`"),
        (None, {"max_domains": 5}, ValueError, "`max_domains=5` has no effect beside `n_domains`"),
        (None, {"n_pcs": 0}, ValueError, "`n_pcs` must be at least 1"),
        (None, {"method": "mclust"}, ValueError, "`method`: unknown option 'mclust'.*'gmm', 'leiden'"),
        (None, {"refine": True, "spatial_key": "xy"}, KeyError, "`spatial_key`: key 'xy' not found"),
        (None, {"refine": 0}, ValueError, "`refine` must be at least 1"),
        (None, {"refine": True, "batch_key": "slide"}, KeyError, "`batch_key`: key 'slide'.*Did you mean 'slice'"),
        (spoil_slices, {"refine": True, "batch_key": "slice"}, ValueError, "`batch_key`.*1 missing values"),
        (small_slice, {"refine": 12, "batch_key": "slice"}, ValueError, "`refine=12` needs at least 13.*with 12"),
    ],
)
def test_errors_leave_the_object_alone(adata, spoil, arguments, error, message):
    if spoil:
        spoil(adata)
    with pytest.raises(error, match=message):
        spatial_domains(adata, **{"n_domains": 3, "use_rep": "X", **arguments})
    assert "spatial_domain" not in adata.obs
    assert not adata.uns


def test_leiden_names_its_extra(adata, monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(ImportError, match="stomics-tools\\[leiden\\]"):
        spatial_domains(adata, 3, use_rep="X", method="leiden")


def test_by_size():
    assert _domains.by_size(np.array([7, 2, 2, 9, 7, 4])).tolist() == [0, 1, 1, 2, 0, 3]


def test_import_needs_neither_torch_nor_squidpy():
    code = "import sys, stomics_tools.tl, stomics_tools.pp, stomics_tools.metrics; print({'torch', 'squidpy', 'scvi'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    code = "import sys, stomics_tools.metrics; print({'torch', 'scanpy', 'anndata'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
