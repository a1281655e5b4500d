"""Expression of genes other than those of an object, written and read again."""

from __future__ import annotations

import time

import anndata
import numpy as np
import pytest
from anndata import AnnData

from stomics_tools.model._objects import write_expression


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("n_genes", [3, 4097, 4500, 5000])
def test_any_number_of_genes_of_any_name_survives_a_file(tmp_path, suffix, n_genes):
    genes = ["HLA-DRB1/3", "a/b/c", ".hidden", *(f"gene{i}" for i in range(n_genes - 3))]
    values = np.random.default_rng(0).normal(size=(5, n_genes))
    adata = AnnData(np.ones((5, 2)))
    adata.uns["var_st"] = write_expression(adata, {"var_st": values, "var_st_lower": values - 1}, genes)
    start = time.perf_counter()
    getattr(adata, f"write_{suffix}")(tmp_path / f"a.{suffix}")
    found = getattr(anndata, f"read_{suffix}")(tmp_path / f"a.{suffix}")
    assert time.perf_counter() - start < 10
    np.testing.assert_array_equal(found.obsm["var_st"], values.astype(np.float32))
    np.testing.assert_array_equal(found.obsm["var_st_lower"], (values - 1).astype(np.float32))
    assert found.obsm["var_st"].dtype == np.float32
    assert list(found.uns["var_st"]["gene_names"]) == genes


def test_genes_of_the_object_are_layers():
    adata = AnnData(np.ones((5, 2)))
    adata.var_names = ["HLA-DRB1/3", "b"]
    values = np.random.default_rng(0).normal(size=(5, 2))
    assert set(write_expression(adata, {"found": values}, ["b", "HLA-DRB1/3"])) == {"gene_names"}
    assert "found" in adata.obsm
    assert write_expression(adata, {"found": values}, ["HLA-DRB1/3", "b"]) == {}
    np.testing.assert_array_equal(adata.layers["found"], values.astype(np.float32))
    assert "found" not in adata.obsm  # nothing of the earlier call is left
