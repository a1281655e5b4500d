"""Genes and counts of setup, and input that must not work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from stomics_tools.data import expression_matrix
from stomics_tools.model import GraphST
from stomics_tools.model.graphst._genes import choose

QUIET = {"enable_progress_bar": False}


def _trained(adata: AnnData, **setup: Any) -> GraphST:
    GraphST.setup_anndata(adata, **setup)
    model = GraphST(adata, n_latent=4)
    model.train(2, **QUIET)
    return model


# --------------------------------------------------------------------- counts


@pytest.mark.parametrize("largest", [1, 4, 20])
def test_small_counts_are_counts(adata: AnnData, largest: int) -> None:
    """Depth is taken out and the logarithm taken, whatever the largest count."""
    adata.X.data = np.minimum(adata.X.data, largest)
    values = _trained(adata).get_expression(adata)
    sums = np.asarray(adata.X.sum(1))
    expected = np.log1p(adata.X.toarray() / sums * 4 * np.median(sums))
    np.testing.assert_allclose(np.asarray(values), expected, rtol=1e-5)


def test_counts_where_the_user_says_that_they_are_none(adata: AnnData) -> None:
    np.testing.assert_array_equal(np.asarray(_trained(adata, counts=False).get_expression(adata)), adata.X.toarray())


def test_counts_for_a_model_of_logarithms_are_refused(adata: AnnData) -> None:
    counts = adata.copy()
    adata.X = np.log1p(adata.X.toarray())
    model = _trained(adata)
    model.get_latent_representation(adata[:80].copy())
    with pytest.raises(ValueError, match="no counts .logarithms, say.*holds counts"):
        model.get_latent_representation(counts)


def test_float16_counts_beyond_what_it_can_add_up(adata: AnnData) -> None:
    adata.X = (adata.X.toarray() * 500).astype(np.float32)
    plain = _trained(adata.copy()).get_latent_representation(adata)
    half = adata.copy()
    half.X = half.X.astype(np.float16)
    assert np.isinf(half.X.sum(axis=1)).any()
    np.testing.assert_allclose(_trained(half).get_latent_representation(half), plain, atol=1e-4)


# --------------------------------------------------------------------- genes


@pytest.mark.parametrize("kind", ["objects", "integers", "nullable", "text"])
def test_flags_of_genes_of_any_type(adata: AnnData, kind: str) -> None:
    flags = np.arange(30) % 3 == 0
    adata.var["highly_variable"] = {
        "objects": [bool(flag) if i else None for i, flag in enumerate(flags)],  # as an outer join leaves it
        "integers": flags.astype(int),
        "nullable": pd.array([bool(flag) if i else None for i, flag in enumerate(flags)], dtype="boolean"),
        "text": np.where(flags, "TRUE", "FALSE"),
    }[kind]
    first = 3 if kind in ("objects", "nullable") else 0
    assert choose(adata, *expression_matrix(adata, None), None, 3000)[0] == [f"gene{i}" for i in range(first, 30, 3)]


@pytest.mark.parametrize("column", [["yes"] * 30, [False] * 30])
def test_flags_that_cannot_be_used_are_passed_over(
    adata: AnnData, column: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    adata.var["highly_variable"] = column
    assert len(choose(adata, *expression_matrix(adata, None), None, 3000)[0]) == 30
    assert "highly_variable" in caplog.text
    with pytest.raises(ValueError, match="`genes`"):
        choose(adata, *expression_matrix(adata, None), "highly_variable", 3000)


def test_highly_variable_genes_where_there_are_some(adata: AnnData) -> None:
    adata.var["highly_variable"] = np.arange(30) % 3 == 0
    assert choose(adata, *expression_matrix(adata, None), None, 3000)[0] == [f"gene{i}" for i in range(0, 30, 3)]
    assert _trained(adata).genes == [f"gene{i}" for i in range(0, 30, 3)]


def test_genes_by_column_and_by_name(adata: AnnData) -> None:
    adata.var["mine"] = np.arange(30) < 4
    assert _trained(adata, genes="mine").genes == ["gene0", "gene1", "gene2", "gene3"]
    assert _trained(adata, genes=["gene7", "gene2"]).genes == ["gene2", "gene7"]


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_the_most_variable_genes(adata: AnnData, counts: bool, dense: bool) -> None:
    """By the variance of the logarithm of counts per 10,000, or of the values as they are."""
    x = adata.X.toarray().astype(np.float64)
    x[:, 5] = 7  # constant
    values = np.log1p(x / x.sum(1, keepdims=True) * 1e4)
    adata.X = (x if counts else values) if dense else sparse.csr_matrix(x if counts else values)
    found, total, _ = choose(adata, *expression_matrix(adata, None), None, 6)
    best = np.argsort(-values.var(axis=0))[:6]
    assert sorted(found) == sorted(f"gene{i}" for i in best)
    assert (total == pytest.approx(4 * np.median(x.sum(1)))) if counts else (total is None)


def test_totals_are_of_all_genes(adata: AnnData) -> None:
    """The expression of a gene does not change with the choice of the others."""
    few, all_of_them = _trained(adata.copy(), genes=["gene3"]), _trained(adata.copy())
    values = [m._read(None).modalities["expression"].values for m in (few, all_of_them)]
    np.testing.assert_allclose(values[0][:, 0], values[1][:, 3], rtol=1e-6)
    sums = np.asarray(adata.X.sum(1)).ravel()
    expected = np.log1p(adata.X.toarray() * (4 * np.median(sums) / sums)[:, None])
    np.testing.assert_allclose(values[1], expected, rtol=1e-5)


@pytest.mark.parametrize("zero_center", [True, False])
def test_scaled_values_are_told(adata: AnnData, zero_center: bool, caplog: pytest.LogCaptureFixture) -> None:
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    with caplog.at_level("WARNING", "stomics_tools"):
        GraphST.setup_anndata(adata)
        assert "scaled gene by gene" not in caplog.text
        sc.pp.scale(adata, zero_center=zero_center, max_value=10)
        GraphST.setup_anndata(adata, counts=False)
        assert "scaled gene by gene" not in caplog.text
        GraphST.setup_anndata(adata)
    assert "`adata.X` seems to be scaled gene by gene" in caplog.text


def test_values_that_are_no_counts_stay_as_they_are(adata: AnnData) -> None:
    adata.X = np.log1p(adata.X.toarray())
    np.testing.assert_array_equal(_trained(adata)._read(None).modalities["expression"].values, adata.X)


def test_a_spot_without_counts(adata: AnnData) -> None:
    adata.X[5] = 0
    assert np.isfinite(_trained(adata).get_latent_representation()).all()


# ------------------------------------------------------------- must not work


def _set(place: str, key: str, value: Any) -> Callable[[AnnData], None]:
    return lambda adata: getattr(adata, place).__setitem__(key, value)


def _negative(adata: AnnData) -> None:
    adata.X = adata.X - 100.0 * (adata.X > 3)


def _nan(adata: AnnData) -> None:
    adata.X = adata.X.toarray()
    adata.X[3, 4] = np.nan


def _names(adata: AnnData) -> None:
    adata.var_names = ["gene0", *adata.var_names[:-1]]


def _spots(adata: AnnData) -> None:
    adata.obs_names = ["spot0", *adata.obs_names[:-1]]


def _constant(adata: AnnData) -> None:
    adata.X = np.ones(adata.shape, dtype=np.float32)


def _empty(adata: AnnData) -> None:
    adata.X = None


@pytest.mark.parametrize(
    ("change", "setup", "error", "message"),
    [
        (_nan, {}, ValueError, "`layer`: `adata.X` holds 1 NaN"),
        (_names, {}, ValueError, "var_names_make_unique"),
        (_spots, {}, ValueError, "obs_names_make_unique"),
        (_constant, {}, ValueError, "constant"),
        (_empty, {}, ValueError, "`adata.X` is empty"),
        (_set("var", "mine", 3.0), {"genes": "mine"}, ValueError, "True and False"),
        (_set("var", "mine", False), {"genes": "mine"}, ValueError, "none is left"),
        (None, {"genes": "mine"}, KeyError, "'mine' not found in `adata.var`"),
        (None, {"genes": ["gene1", "gene99"]}, ValueError, r"1 are not in .*gene99"),
        (None, {"layer": "counts"}, KeyError, "`adata.layers`"),
        (None, {"spatial_key": "xy"}, KeyError, "'xy' not found in `adata.obsm`"),
        (None, {"batch_key": "donor"}, KeyError, "'donor' not found in `adata.obs`"),
        (None, {"spatial_graph_key": "graph"}, KeyError, "'graph' not found in `adata.obsp`"),
        (None, {"n_top_genes": 0}, ValueError, "n_top_genes"),
    ],
)
def test_setup_names_what_is_wrong(
    adata: AnnData, change: Callable | None, setup: dict[str, Any], error: type[Exception], message: str
) -> None:
    if change is not None:
        change(adata)
    before = set(adata.uns), set(adata.obsm), set(adata.obsp)
    with pytest.raises(error, match=message):
        GraphST.setup_anndata(adata, **setup)
    assert before == (set(adata.uns), set(adata.obsm), set(adata.obsp))


def test_other_objects_than_anndata() -> None:
    with pytest.raises(TypeError, match="must be an AnnData"):
        GraphST.setup_anndata(np.ones((3, 3)))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("preset", "visium"),
        ("n_latent", 0),
        ("n_spatial_neighbors", 0),
        ("n_hops", 0),
        ("orient", 2),
        ("self_loop", "never"),
        ("contrast", "triplet"),
        ("corruption", "shuffle"),
        ("corruption_rate", 0.0),
        ("dropout", 1.0),
        ("temperature", 0.0),
        ("n_negatives", -1),
        ("reconstruction_weight", -1.0),
        ("contrast_weight", float("nan")),
        ("tie_weights", "yes"),
    ],
)
def test_constructor_names_what_is_wrong(adata: AnnData, argument: str, value: Any) -> None:
    GraphST.setup_anndata(adata)
    with pytest.raises((ValueError, TypeError), match=argument):
        GraphST(adata, **{argument: value})


def test_no_loss_at_all(adata: AnnData) -> None:
    GraphST.setup_anndata(adata)
    with pytest.raises(ValueError, match="nothing would be learned"):
        GraphST(adata, reconstruction_weight=0, contrast_weight=0)


def test_too_small_a_slice(adata: AnnData) -> None:
    small = adata[:5].copy()
    GraphST.setup_anndata(small)
    with pytest.raises(ValueError, match=r"`n_spatial_neighbors=6` needs at least 7 spots"):
        GraphST(small)


def test_spots_without_expression(adata: AnnData) -> None:
    model = _trained(adata)
    other = adata.copy()
    other.X = np.log1p(other.X.toarray())
    with pytest.raises(
        ValueError, match=r"`layer`: the model was set up with counts, `adata\.X` holds negative or fract"
    ):
        model.get_latent_representation(other)
    logged = adata.copy()
    logged.X = np.log1p(logged.X.toarray())
    model = _trained(logged)
    with pytest.raises(
        ValueError, match=r"`layer`: the model was set up with values that are no counts.*`adata\.X` holds"
    ):
        model.get_latent_representation(adata.copy())
    other.X[4] = np.nan
    with pytest.raises(ValueError, match=r"1 spots have no expression .*row 4"):
        model.get_latent_representation(other)


def test_genes_that_are_not_there(adata: AnnData) -> None:
    model = _trained(adata)
    with pytest.raises(ValueError, match=r"10 of 30 features of setup are not in `adata.X`: \['gene20'"):
        model.get_latent_representation(adata[:, :20].copy())


@pytest.mark.parametrize(
    ("argument", "value"), [("lr", 0), ("weight_decay", -1), ("max_epochs", 0), ("seed", -1), ("clip_grad", 0)]
)
def test_training_names_what_is_wrong(adata: AnnData, argument: str, value: Any) -> None:
    GraphST.setup_anndata(adata)
    model = GraphST(adata)
    with pytest.raises(ValueError, match=argument):
        model.train(**{"max_epochs": 1, **QUIET, argument: value})
    assert "X_graphst" not in adata.obsm


def test_not_trained(adata: AnnData) -> None:
    GraphST.setup_anndata(adata)
    for method in ("get_latent_representation", "get_reconstruction", "write_results"):
        with pytest.raises(RuntimeError, match="not trained"):
            getattr(GraphST(adata), method)()


def test_divergence_is_named(adata: AnnData) -> None:
    GraphST.setup_anndata(adata)
    with pytest.raises(FloatingPointError, match="Lower `lr`"):
        GraphST(adata).train(20, lr=1e30, **QUIET)
    assert "X_graphst" not in adata.obsm


def test_a_ready_graph(adata: AnnData) -> None:
    n = adata.n_obs
    adata.obsp["chain"] = sparse.diags_array([np.ones(n - 1), np.ones(n - 1)], offsets=[-1, 1], format="csr")
    _trained(adata, spatial_graph_key="chain")
    assert adata.obsp["graphst_spatial_connectivities"].nnz == 3 * n - 2
