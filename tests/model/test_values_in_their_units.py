"""Denoised and imputed values come back slice by slice in the units of the data, and by the names of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import stomics_tools as st
from stomics_tools.model import PRAGA, GraphST, PRAGASpike

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SIDE = 12
PROTEINS = ["CD3", "CD19", "CD45", "HLA-DR", "PCNA"]


def _slice(name: str, shift: float, seed: int) -> AnnData:
    """Domains in quadrants; the slice differs from others by `shift` throughout."""
    rng, basis = np.random.default_rng(seed), np.random.default_rng(99)
    xy = np.stack(np.unravel_index(np.arange(SIDE**2), (SIDE, SIDE)), axis=1) + rng.uniform(0, 0.1, (SIDE**2, 2))
    domain = ((xy > SIDE / 2) @ [1, 2]).astype(int)
    adata = AnnData(rng.poisson(np.exp(0.8 * basis.normal(size=(4, 25)))[domain] * 3).astype(np.float32))
    adata.var_names = [f"gene{i}" for i in range(25)]
    adata.obs_names = [f"{name}{i}" for i in range(adata.n_obs)]
    adata.obs["slice"] = name
    adata.obsm["spatial"] = xy
    signal = 2 * basis.normal(size=(4, 8))[domain]
    adata.obsm["X_pca"] = signal + rng.normal(size=signal.shape) + shift
    protein = 5.0 * (2 * basis.normal(size=(4, 5))[domain] + rng.normal(size=(adata.n_obs, 5))) - shift
    adata.obsm["X_protein"] = pd.DataFrame(protein, index=adata.obs_names, columns=PROTEINS)
    return adata


def _trained(adata: AnnData, cls: type = PRAGASpike, **arguments: object) -> Any:
    modalities = {"rna": "X_pca", "protein": "X_protein"}
    cls.setup_anndata(adata, modalities, batch_key="slice")
    model = cls(adata, n_latent=16, **arguments)
    model.train(20, key_added=None, **QUIET)
    return model


@pytest.fixture
def two() -> AnnData:
    return anndata.concat([_slice("a", -0.2, 0), _slice("b", 20.0, 1)])


@pytest.mark.parametrize(("cls", "arguments"), [(PRAGASpike, {}), (PRAGA, {"standardize": True})])
def test_denoised_slices_keep_their_means(two: AnnData, cls: type, arguments: dict[str, object]) -> None:
    model = _trained(two, cls, **arguments)
    for name, values in model.get_denoised().items():
        data = np.asarray(two.obsm[{"rna": "X_pca", "protein": "X_protein"}[name]])
        within = np.mean([data[two.obs["slice"] == s].var(axis=0).mean() for s in "ab"])
        for s in "ab":
            own = two.obs["slice"] == s
            np.testing.assert_allclose(values[own].mean(axis=0), data[own].mean(axis=0), atol=0.5 * within**0.5)
            if cls is PRAGASpike:  # which learns at once
                assert np.square(values[own] - data[own]).mean() < 0.7 * within


def test_new_slices_come_back_about_their_own_means(two: AnnData) -> None:
    model = _trained(two)
    new = _slice("c", 50.0, 2)
    values = model.get_denoised(new)
    np.testing.assert_allclose(values["rna"].mean(0), new.obsm["X_pca"].mean(0), atol=0.3)
    # A slice that lacks the modality: its own means are not known, those of training stand in.
    new.obsm["X_protein"].iloc[:] = np.nan
    imputed = model.get_expression("protein", new)
    np.testing.assert_allclose(imputed.mean(), two.obsm["X_protein"].mean(), atol=2.0)
    # Spots that lack it are imputed about the mean of their slice.
    part, truth = _slice("c", 50.0, 2), _slice("c", 50.0, 2).obsm["X_protein"]
    hidden = np.random.default_rng(0).permutation(part.n_obs)[:40]
    part.obsm["X_protein"].iloc[hidden] = np.nan
    error = (model.get_expression("protein", part) - truth).iloc[hidden]
    about_mean = (truth - truth.mean()).iloc[hidden]
    assert np.square(error).mean(axis=None) < 0.7 * np.square(about_mean).mean(axis=None)


def test_expression_by_feature(two: AnnData, tmp_path: Path) -> None:
    model = _trained(two)
    table = model.get_expression("protein")
    assert table.index.equals(two.obs_names)
    assert table.columns.tolist() == PROTEINS
    np.testing.assert_array_equal(table.to_numpy(), model.get_denoised()["protein"])
    some = model.get_expression("protein", _slice("c", 1.0, 2), features=["PCNA", "CD3"])
    assert some.columns.tolist() == ["PCNA", "CD3"]
    assert some.index[0] == "c0"
    rna = model.get_expression("rna", features=["X_pca_3"])  # components of unknown origin have no other name
    np.testing.assert_array_equal(rna["X_pca_3"], model.get_denoised()["rna"][:, 3])
    with pytest.raises(KeyError, match="`features`: .*'PCNB'.*5 of modality 'protein'.*Did you mean 'PCNA'"):
        model.get_expression("protein", features=["PCNB"])
    with pytest.raises(ValueError, match="`modality`.*'proteins'.*Did you mean 'protein'"):
        model.get_expression("proteins")
    model.save(tmp_path / "model")
    loaded = PRAGASpike.load(tmp_path / "model", two)
    pd.testing.assert_frame_equal(loaded.get_expression("protein"), table)


def test_components_of_a_recipe_are_brought_back_to_genes(tmp_path: Path) -> None:
    adata = anndata.concat([_slice("a", 0, 0), _slice("b", 0, 1)])
    st.pp.rna(adata, n_comps=8)
    PRAGASpike.setup_anndata(adata, {"rna": "X_pca"}, batch_key="slice")
    model = PRAGASpike(adata, n_latent=16)
    model.train(20, key_added=None, **QUIET)
    table = model.get_expression("rna")
    used = adata.var_names[adata.var["highly_variable"]] if "highly_variable" in adata.var else adata.var_names
    assert sorted(table.columns) == sorted(used)
    counts = adata.to_df()
    target = adata.uns["X_pca"]["recipe"]["target_sum"]
    expression = np.log1p(counts.div(counts.sum(axis=1), axis=0) * target)[table.columns]
    np.testing.assert_allclose(table.mean(), expression.mean(), atol=0.1)
    correlation = table.corrwith(expression)
    assert correlation.mean() > 0.3
    model.save(tmp_path / "model")
    loaded = PRAGASpike.load(tmp_path / "model", adata)
    new = _slice("c", 0, 2)
    st.pp.rna(new, reference=adata)
    some = loaded.get_expression("rna", new, features=["gene7", "gene2"])
    assert some.columns.tolist() == ["gene7", "gene2"]
    pd.testing.assert_frame_equal(some, model.get_expression("rna", new)[["gene7", "gene2"]])


def test_graphst(two: AnnData) -> None:
    two.X = np.log1p(two.X) + 10.0 * (two.obs["slice"] == "b").to_numpy()[:, None]
    GraphST.setup_anndata(two, batch_key="slice")
    model = GraphST(two, n_latent=8)
    model.train(60, key_added=None, **QUIET)
    truth, found = model.get_expression(), model.get_reconstruction()
    pd.testing.assert_frame_equal(truth, two.to_df().astype(np.float32), check_names=False)
    for s in "ab":
        own = (two.obs["slice"] == s).to_numpy()
        within = truth[own].var().mean()
        assert np.square(truth[own] - found[own]).mean(axis=None) < within
    some = model.get_expression(two[:5], features=["gene4", "gene0"])
    assert some.columns.tolist() == ["gene4", "gene0"]
    assert some.index.tolist() == [f"a{i}" for i in range(5)]
    with pytest.raises(KeyError, match="'gene99'.*25 of `model.genes`"):
        model.get_expression(features=["gene99"])
