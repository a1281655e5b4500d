"""Totals of spots mean the same in data with more, fewer or other genes, or the data are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from stomics_tools.model import GraphST

QUIET = {"enable_progress_bar": False, "key_added": None, "accelerator": "cpu"}
PANEL = [f"gene{i}" for i in range(0, 200, 10)]


@pytest.fixture
def whole(make_adata: Callable[..., AnnData]) -> AnnData:
    """Spots with 200 genes, the panel among them, and the totals of quality control."""
    adata = make_adata(n_genes=200)
    sc.pp.calculate_qc_metrics(adata, inplace=True, percent_top=None)
    return adata


def _trained(adata: AnnData, **setup: object) -> GraphST:
    GraphST.setup_anndata(adata, **setup)  # type: ignore[arg-type]
    model = GraphST(adata, n_latent=8)
    model.train(10, **QUIET)
    return model


def test_the_genes_of_the_model_alone_are_refused(whole: AnnData, tmp_path: Path) -> None:
    model = _trained(whole, genes=PANEL)
    with pytest.raises(ValueError, match="over 200 genes, of which 180 with 9.*% of all counts are not in `adata.X`"):
        model.get_latent_representation(whole[:, PANEL].copy())
    model.save(tmp_path / "model")
    loaded = GraphST.load(tmp_path / "model", whole)
    with pytest.raises(ValueError, match="with all genes.*`total_key`"):
        loaded.get_latent_representation(whole[:, PANEL].copy())
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())


@pytest.mark.parametrize("n_genes", [20, 120, 200])
def test_totals_of_a_column_serve_any_genes(whole: AnnData, n_genes: int, tmp_path: Path) -> None:
    model = _trained(whole, genes=PANEL, total_key="total_counts")
    others = [gene for gene in whole.var_names if gene not in PANEL]
    part = whole[:, [*others[: n_genes - len(PANEL)], *PANEL]].copy()
    expected = model.get_latent_representation()
    np.testing.assert_allclose(model.get_latent_representation(part), expected, atol=1e-5)
    model.save(tmp_path / "model")
    np.testing.assert_allclose(GraphST.load(tmp_path / "model", part).get_latent_representation(), expected, atol=1e-5)
    trained_on_part = _trained(part, genes=PANEL, total_key="total_counts")
    np.testing.assert_allclose(
        trained_on_part.get_expression(), model.get_expression()[trained_on_part.genes], rtol=1e-5
    )


def test_more_genes_than_in_training_do_not_count(whole: AnnData) -> None:
    """A model of a panel, applied to the whole transcriptome of the same spots."""
    panel = whole[:, PANEL].copy()
    del panel.obs["total_counts"]
    model = _trained(panel)
    latent = model.get_latent_representation(whole[:, whole.var_names[::-1]].copy())
    np.testing.assert_allclose(latent, model.get_latent_representation(), atol=1e-5)


def test_other_genes_beside_those_of_the_model(whole: AnnData) -> None:
    """As many genes, another panel: what was counted there is no total."""
    model = _trained(whole, genes=PANEL)
    other = whole[:, [*PANEL, *[f"gene{i}" for i in range(1, 180, 10)]]].copy()
    strange = anndata.AnnData(sparse.csr_matrix(np.full((whole.n_obs, 160), 5.0)), obs=other.obs[[]])
    strange.var_names = [f"strange{i}" for i in range(160)]
    joined = anndata.concat([other, strange], axis=1)
    joined.obsm["spatial"] = whole.obsm["spatial"]
    with pytest.raises(ValueError, match="of which 162 with .*% of all counts are not in"):
        model.get_latent_representation(joined)


def test_a_few_rare_genes_less(whole: AnnData) -> None:
    rare = [gene for gene in whole.var_names if gene not in PANEL][:100]
    counts = whole.to_df()
    counts[rare] = 0.0
    counts.iloc[range(3), counts.columns.get_indexer(rare[:3])] = 1.0
    few = AnnData(counts.to_numpy(), obs=whole.obs[[]], var=whole.var[[]], obsm={"spatial": whole.obsm["spatial"]})
    model = _trained(few, genes=PANEL)
    without = few[:, ~few.var_names.isin(rare)].copy()
    np.testing.assert_allclose(model.get_latent_representation(without), model.get_latent_representation(), atol=0.01)
    model = _trained(whole, genes=PANEL)
    with pytest.warns(UserWarning, match="of which 2 with [1-5]% .*scaled up by that share"):
        model.get_latent_representation(whole[:, ~whole.var_names.isin(["gene101", "gene103"])].copy())


def test_setup_tells_totals_of_a_part(whole: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "stomics_tools"):
        GraphST.setup_anndata(whole)
        assert "totals of spots" not in caplog.text
        GraphST.setup_anndata(whole[:, PANEL].copy(), total_key="total_counts")
        assert "totals of spots" not in caplog.text
        GraphST.setup_anndata(whole[:, PANEL].copy())
    assert "holds 10% of the counts of `adata.obs['total_counts']`: totals of spots are over the genes" in caplog.text


def test_columns_of_totals_that_cannot_be_used(whole: AnnData) -> None:
    with pytest.raises(KeyError, match="`total_key`.*'totals'.*adata.obs"):
        GraphST.setup_anndata(whole, total_key="totals")
    with pytest.raises(ValueError, match="`total_key`.*holds no numbers"):
        GraphST.setup_anndata(whole, total_key="domain")
    whole.obs["small"] = np.where(np.arange(whole.n_obs) == 7, 1.0, whole.obs["total_counts"])
    with pytest.raises(ValueError, match="`total_key`.*in 1 spots it is missing or less.*first: row 7, 1 and"):
        GraphST.setup_anndata(whole, total_key="small")
    logs = whole.copy()
    logs.X = np.log1p(logs.X.toarray())
    with pytest.raises(ValueError, match="`total_key='total_counts'` has no effect unless `adata.X` holds counts"):
        GraphST.setup_anndata(logs, total_key="total_counts")
    model = _trained(whole, genes=PANEL, total_key="total_counts")
    new = whole.copy()
    new.obs = pd.DataFrame(index=new.obs_names)
    with pytest.raises(KeyError, match="`total_key`.*'total_counts'"):
        model.get_latent_representation(new)
