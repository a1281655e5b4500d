"""New data prepared like other data: the recipe of a fit, in memory, in files, and what it refuses."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings

import anndata as ad
import mudata as md
import numpy as np
import pytest
import scanpy as sc
import torch
from anndata import AnnData
from scipy import sparse

from stomics_tools.pp import atac, load_recipe, protein, rna, save_recipe

RECIPES = [
    (rna, "X_pca", {"n_top_genes": 90, "n_comps": 8}),
    (protein, "X_protein", {}),
    (atac, "X_lsi", {"n_comps": 8}),
]
each_recipe = pytest.mark.parametrize(("recipe", "key", "arguments"), RECIPES, ids=["rna", "protein", "atac"])


def tissue(n_obs: int, seed: int, *, depth: float = 1.0) -> AnnData:
    """Counts of 150 features in four programs; the rates are the same for every seed, one spot is empty."""
    rates = np.random.default_rng(99).gamma(0.6, 3.0, size=(4, 150))
    rng = np.random.default_rng(seed)
    x = rng.poisson(depth * rates[rng.integers(4, size=n_obs)] * rng.uniform(0.5, 2, size=(n_obs, 1)))
    x[3] = 0
    adata = AnnData(sparse.csr_matrix(x, dtype=np.float32))
    adata.var_names = [f"g{i}" for i in range(150)]
    return adata


@pytest.fixture
def train() -> AnnData:
    return tissue(120, 0)


@each_recipe
def test_same_rows_have_the_coordinates_of_the_fit(train, recipe, key, arguments):
    """In any company, order of features and storage, also beside features that the fit did not know."""
    recipe(train, **arguments)
    expected = train.obsm[key]
    raw = AnnData(train.X, obs=train.obs, var=train.var[[]])
    alone = recipe(raw[[7]].copy(), reference=train, copy=True)
    np.testing.assert_array_equal(alone.obsm[key], expected[[7]])
    order = np.random.default_rng(0).permutation(150)
    shuffled = AnnData(raw.X.toarray()[:, order].astype(np.int64), var=raw.var.iloc[order])
    strange = AnnData(np.full((120, 2), 9), var={"x": [0, 0]}).copy()
    strange.var_names = ["s/1", "s/2"]
    joined = ad.concat([shuffled, strange], axis=1)
    recipe(joined, reference=train)
    np.testing.assert_array_equal(joined.obsm[key], expected)
    assert joined.obsm[key].dtype == np.float32


@pytest.mark.parametrize("scale", [False, True])
def test_new_rna_by_the_formula(train, scale):
    rna(train, n_top_genes=90, n_comps=8, scale=scale, target_sum=1e4)
    new = tissue(40, 1, depth=3.0)
    rna(new, reference=train)
    used = train.var["highly_variable"].to_numpy()
    seen = train.X.toarray().sum(axis=0) > 0

    def logs(adata):
        x = adata.X.toarray().astype(np.float64)
        totals = x[:, seen].sum(axis=1, keepdims=True)
        return np.log1p(1e4 * x / np.where(totals > 0, totals, 1))[:, used]

    old, x = logs(train), logs(new)
    deviation = old.std(axis=0, ddof=1) if scale else 1.0
    expected = (x - old.mean(axis=0)) / deviation @ train.varm["X_pca"][used]
    np.testing.assert_allclose(new.obsm["X_pca"], expected, atol=1e-4)
    np.testing.assert_array_equal(new.var["highly_variable"], used)
    np.testing.assert_array_equal(new.varm["X_pca"], train.varm["X_pca"])
    by_itself = rna(tissue(40, 1, depth=3.0), n_top_genes=90, n_comps=8, copy=True)
    assert np.abs(by_itself.obsm["X_pca"] - expected).max() > 0.5


def test_new_chromatin_by_the_formula(train):
    atac(train, n_comps=3)  # as many as there are programs, less the first: those beyond are noise
    new = tissue(40, 1)
    atac(new, reference=train)
    old = train.X.toarray().astype(np.float64)
    idf = len(old) / old.sum(axis=0)

    def weighted(x):
        w = x * idf
        return np.log1p(1e4 * w / np.maximum(w.sum(axis=1, keepdims=True), 1e-300))

    _, s, vt = np.linalg.svd(weighted(old), full_matrices=False)
    loadings = train.uns["X_lsi"]["recipe"]["loadings"]
    signs = np.sign((vt[:4] * loadings.T).sum(axis=1))
    u = weighted(new.X.toarray().astype(np.float64)) @ vt[:4].T / s[:4] * signs
    present = np.arange(40) != 3
    u = u[present]
    u = (u - u.mean(axis=1, keepdims=True)) / u.std(axis=1, ddof=1, keepdims=True)
    np.testing.assert_allclose(new.obsm["X_lsi"][present], u[:, 1:], atol=5e-3)
    assert not new.obsm["X_lsi"][3].any()


@each_recipe
def test_recipes_outlive_files_and_subsets_of_genes(train, recipe, key, arguments, tmp_path):
    train.var_names = [f"HLA-DRB1/{i}" if i % 7 == 0 else f"g{i}" for i in range(150)]
    recipe(train, **arguments)
    expected = train.obsm[key].copy()
    raw = AnnData(train.X, obs=train.obs, var=train.var[[]])
    few = train[:, :20].copy()  # the loadings of varm are cut, the recipe is not
    few.write_h5ad(tmp_path / "a.h5ad")
    few.write_zarr(tmp_path / "a.zarr")
    md.MuData({"one": few}).write_h5mu(tmp_path / "a.h5mu")
    save_recipe(few, tmp_path / "deep" / "a.safetensors", key)
    references = [
        few,
        few[:9],
        ad.read_h5ad(tmp_path / "a.h5ad"),
        ad.read_zarr(tmp_path / "a.zarr"),
        md.read_h5mu(tmp_path / "a.h5mu")["one"],
        tmp_path / "deep" / "a.safetensors",
        str(tmp_path / "deep" / "a.safetensors"),
        load_recipe(tmp_path / "deep" / "a.safetensors"),
        recipe(raw, reference=few, copy=True),  # what was prepared by a recipe passes it on
        ad.concat([few, few[:5]], uns_merge="same", index_unique="-"),
    ]
    for reference in references:
        np.testing.assert_array_equal(recipe(raw, reference=reference, copy=True).obsm[key], expected)


@each_recipe
def test_what_a_reference_overrides_is_refused(train, recipe, key, arguments):
    recipe(train, **arguments)
    new = tissue(30, 1)
    for given in ({"n_comps": 3}, {"seed": 4}):
        with pytest.raises(
            ValueError, match=f"`{next(iter(given))}=.*without effect: with `reference` nothing is fitted"
        ):
            recipe(new, reference=train, **given)
    assert not new.obsm
    assert not new.uns


@pytest.mark.parametrize(
    "given", [{"n_top_genes": None}, {"min_cells": 2}, {"target_sum": 1e4}, {"scale": True}, {"batch_key": "slice"}]
)
def test_what_a_reference_of_rna_overrides_is_refused(train, given):
    rna(train, n_comps=5)
    with pytest.raises(ValueError, match=f"`{next(iter(given))}=.*without effect"):
        rna(tissue(30, 1), reference=train, **given)


def test_references_that_are_none(train, tmp_path):
    new = tissue(30, 1)
    with pytest.raises(KeyError, match=r"no recipe in `reference.uns\['X_pca'\]`. Prepare it"):
        rna(new, reference=train)
    rna(train, n_comps=5, key_added="X_mine")
    with pytest.raises(KeyError, match=r"Recipes are there under \['X_mine'\]: name one as `key_added`"):
        rna(new, reference=train)
    with pytest.raises(KeyError, match=r"Recipes are there under \['X_mine'\]: name one as `key`"):
        save_recipe(train, tmp_path / "a")
    with pytest.raises(ValueError, match=r"one of `st.pp.rna`, not of `st.pp.protein`"):
        protein(new, reference=train, key_added="X_mine")
    with pytest.raises(TypeError, match=r"found MuData. Name a modality of it, such as `reference=mdata\['rna'\]`"):
        rna(new, reference=md.MuData({"rna": train}))
    with pytest.raises(ValueError, match="is a folder. Name a file"):
        save_recipe(train, tmp_path, "X_mine")
    with pytest.raises(FileNotFoundError, match="no file '.*nothing'"):
        rna(new, reference=tmp_path / "nothing")
    save_recipe(train, tmp_path / "a", "X_mine")
    content = bytearray((tmp_path / "a").read_bytes())
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    content[-3] ^= 255
    (tmp_path / "bad").write_bytes(content)
    for name in ("cut", "bad"):
        with pytest.raises(ValueError, match="holds no recipe|is damaged"):
            rna(new, reference=tmp_path / name)
    train.uns["X_mine"]["recipe"].pop("center")
    with pytest.raises(ValueError, match=r"uns\['X_mine'\]\['recipe'\]` holds no recipe that can be read.*center"):
        rna(new, reference=train, key_added="X_mine")
    assert not new.obsm


def test_repeated_names_keep_no_recipe_and_slashes_no_key(train):
    train.var_names = ["g1", *train.var_names[1:]]
    rna(train, n_comps=5)
    assert "recipe" not in train.uns["X_pca"]
    for recipe in (rna, protein, atac):
        with pytest.raises(ValueError, match="`key_added`: 'X/pca' holds a slash"):
            recipe(tissue(30, 1), key_added="X/pca")


# ------------------------------------------------------ features and totals


@each_recipe
def test_missing_features_are_never_silent(train, recipe, key, arguments):
    recipe(train, **arguments)
    names = train.uns[key]["recipe"]["features"]
    new = tissue(60, 1)
    whole = recipe(new, reference=train, copy=True)
    rare = names[np.argsort(new[:, list(names)].X.toarray().sum(axis=0))]
    one = new[:, new.var_names != rare[0]].copy()
    with pytest.warns(UserWarning, match=f"1 of the {len(names)} features of the recipe are not in .*{rare[0]}"):
        recipe(one, reference=train)
    correlation = np.corrcoef(one.obsm[key][:, 0], whole.obsm[key][:, 0])[0, 1]
    assert correlation > 0.99
    many = new[:, ~new.var_names.isin(rare[:20])].copy()
    with pytest.raises(ValueError, match=f"20 of the {len(names)} features of the recipe are not in"):
        recipe(many, reference=train)
    many.var_names = [f"ENSG{i}" for i in range(many.n_vars)]
    with pytest.raises(ValueError, match="ENSG0.*named alike"):
        recipe(many, reference=train)
    assert not many.obsm


def test_a_gene_that_is_missing_lies_at_its_mean(train):
    """Not at zero, which would move every spot alike."""
    rna(train, n_top_genes=90, n_comps=8)
    names = train.uns["X_pca"]["recipe"]["features"]
    dense = names[np.argmax(train[:, list(names)].X.toarray().mean(axis=0))]
    raw = AnnData(train.X, var=train.var[[]])
    with pytest.warns(UserWarning, match="1 of the 90 features"):
        less = rna(raw[:, raw.var_names != dense].copy(), reference=train, copy=True)
    shift = (less.obsm["X_pca"] - train.obsm["X_pca"])[train.X.toarray().any(axis=1)].mean(axis=0)
    assert np.abs(shift).max() < 0.05


def test_totals_of_a_subset_are_refused(train):
    rna(train, n_top_genes=90, n_comps=8)
    new = tissue(60, 1)
    panel = new[:, train.var["highly_variable"].to_numpy()].copy()
    with pytest.raises(
        ValueError, match=r"totals of the recipe are over 150 genes, of which 60 with \d+% of all counts"
    ):
        rna(panel, reference=train)
    unused = train.var_names[~train.var["highly_variable"]]
    mean = np.asarray(train[:, unused].X.sum(axis=0)).ravel() / train.X.sum()
    few = unused[np.argsort(np.abs(mean - 0.02))[:1]]  # genes with about 2 % of the counts
    less = new[:, ~new.var_names.isin(few)].copy()
    with pytest.warns(UserWarning, match="Totals are scaled up by that share"):
        rna(less, reference=train)
    whole = rna(new, reference=train, copy=True)
    np.testing.assert_allclose(less.obsm["X_pca"], whole.obsm["X_pca"], atol=0.2)


def test_a_reference_of_a_panel_takes_the_totals_of_its_panel(train):
    """Beside the whole transcriptome too: totals are over the genes that the panel has."""
    panel = train[:, :70].copy()
    rna(panel, n_comps=8)
    raw = AnnData(train.X, var=train.var[[]])
    rna(raw, reference=panel)
    np.testing.assert_array_equal(raw.obsm["X_pca"], panel.obsm["X_pca"])


def test_genes_that_were_taken_out_before(train):
    sc.pp.calculate_qc_metrics(train, percent_top=None, inplace=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rna(train, n_comps=5, copy=True)
        train.layers["thinned"] = sparse.csr_matrix(np.floor(train.X.toarray() / 2))
        rna(train, layer="thinned", n_comps=5, copy=True)
    cut = train[:, 30:90].copy()
    with pytest.warns(UserWarning, match=r"`adata.X` holds \d+% of the counts of `adata.obs\['total_counts'\]`"):
        rna(cut, n_comps=5)
    selected = tissue(120, 0)
    sc.pp.highly_variable_genes(selected, flavor="seurat_v3", n_top_genes=40, subset=True)
    with pytest.warns(UserWarning, match="`adata` was cut to its variable genes"):
        rna(selected, n_comps=5)


# ------------------------------------------------------- counts and their place


@each_recipe
def test_logarithms_are_refused_where_counts_were_fitted(train, recipe, key, arguments):
    recipe(train, **arguments)
    logs = tissue(40, 1)
    counts = logs.X.copy()
    sc.pp.normalize_total(logs)
    sc.pp.log1p(logs)
    with pytest.raises(ValueError, match=r"prepares raw counts, but `adata.X` holds fractions, such as logarithms"):
        recipe(logs, reference=train)
    assert not logs.obsm
    logs.layers["raw_counts"] = counts
    with pytest.raises(ValueError, match=r"`adata.layers\['raw_counts'\]` holds whole counts: name it as `layer`"):
        recipe(logs, reference=train)
    recipe(logs, layer="raw_counts", reference=train)
    expected = recipe(tissue(40, 1), reference=train, copy=True).obsm[key]
    np.testing.assert_array_equal(logs.obsm[key], expected)
    logs.layers["counts"] = counts  # the usual name is found
    np.testing.assert_array_equal(recipe(logs, reference=train, copy=True).obsm[key], expected)


@each_recipe
def test_corrected_counts_are_counts_if_the_user_says_so(train, recipe, key, arguments):
    recipe(train, **arguments)
    new = tissue(40, 1)
    new.X = new.X * 1.01  # corrected for background, say
    with pytest.raises(ValueError, match="corrected ones, say: `st.pp.*counts=True"):
        recipe(new, reference=train)
    recipe(new, reference=train, counts=True)
    whole = recipe(tissue(40, 1), reference=train, copy=True)
    assert np.corrcoef(new.obsm[key][:, 0], whole.obsm[key][:, 0])[0, 1] > 0.99
    with pytest.warns(UserWarning, match="fractional values"):
        recipe(new, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        recipe(new, counts=True, **arguments)
    with pytest.raises(ValueError, match="values that are not whole, as the data of its fit were, but .*whole counts"):
        recipe(train, reference=new)
    recipe(train, reference=new, counts=True)
    with pytest.raises(ValueError, match="`counts=False`: the recipes take counts"):
        recipe(train, counts=False)
    for value, message in ((-1.0, "negative values"), (np.nan, "NaN or infinite values")):
        new.X[0, 0] = value
        with pytest.raises(ValueError, match=f"`adata.X` holds {message}"):
            recipe(new, reference=train, counts=True)


def test_counts_in_raw_are_named(train):
    raw = train.copy()
    raw.raw = raw.copy()
    sc.pp.normalize_total(raw)
    sc.pp.log1p(raw)
    with pytest.warns(UserWarning, match=r"`adata.raw` holds whole counts of 150 genes"):
        rna(raw, n_comps=5, copy=True)
    sc.pp.scale(raw)
    with pytest.raises(ValueError, match=r"negative values .* `adata.raw` holds whole counts of 150 genes"):
        rna(raw)
    rna(train, n_comps=5)
    with pytest.raises(ValueError, match=r"`adata.raw` holds whole counts of 150 genes"):
        rna(raw, reference=train)


# ------------------------------------------------------------ variable genes


def test_genes_variable_across_slices_are_those_of_scanpy():
    slices = [tissue(90, 0), tissue(110, 1, depth=0.2), tissue(60, 2, depth=4.0)]
    slices[2].X = sparse.csr_matrix(slices[2].X.toarray()[:, np.random.default_rng(0).permutation(150)])
    joined = ad.concat(slices, label="slice", keys=["b", "c", "a"], index_unique="-")
    expected = sc.pp.highly_variable_genes(
        joined, flavor="seurat_v3", n_top_genes=40, batch_key="slice", inplace=False
    )["highly_variable"]
    rna(joined, n_top_genes=40, n_comps=5, batch_key="slice")
    np.testing.assert_array_equal(joined.var["highly_variable"], expected)
    without = rna(joined, n_top_genes=40, n_comps=5, copy=True).var["highly_variable"]
    assert (without != expected).any()
    assert joined.uns["X_pca"]["params"]["batch_key"] == "slice"


def test_slices_that_are_none(train):
    with pytest.raises(KeyError, match="`batch_key`: key 'slice' not found"):
        rna(train, batch_key="slice")
    train.obs["slice"] = ["a"] * 119 + [None]
    with pytest.raises(ValueError, match="1 missing values"):
        rna(train, batch_key="slice")
    with pytest.raises(ValueError, match="`batch_key` has no effect with `n_top_genes=None`"):
        rna(train, batch_key="slice", n_top_genes=None)


# ------------------------------------------------------------- side effects


@pytest.mark.parametrize("first", ["import torch; torch.set_num_threads(1)", ""], ids=["torch first", "torch later"])
def test_threads_stay_as_they_are(first):
    """In a process of its own, whose threads nobody has touched; numba raises those of the OpenMP that torch uses."""
    code = f"""
{first}
import anndata as ad, numpy as np, stomics_tools as st
from threadpoolctl import threadpool_info
def threads():
    return {{lib["filepath"]: lib["num_threads"] for lib in threadpool_info()}}
st.pp.rna
before = threads()
x = np.random.default_rng(0).poisson(1.0, (80, 300)).astype(np.float32)
st.pp.rna(ad.AnnData(x), n_top_genes=100, n_comps=5)
after = threads()
assert {{path: after[path] for path in before}} == before, (before, after)
import torch
assert torch.get_num_threads() == 1, (torch.get_num_threads(), threads())
"""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


@each_recipe
def test_random_numbers_of_others_stay_as_they_are(train, recipe, key, arguments):
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    recipe(train, **arguments)
    recipe(tissue(30, 1), reference=train)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
