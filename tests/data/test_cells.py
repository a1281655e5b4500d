"""Cells with expression and positions: what is read, and what is refused."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from stomics_tools.data import Cells, CellsSpec, read_cells
from stomics_tools.data._cells_field import CellsField

SPEC = CellsSpec(batch_key="section")


@pytest.fixture
def adata() -> AnnData:
    """Three sections of 10, 14 and 12 cells, mixed, with counts of 6 genes."""
    rng = np.random.default_rng(0)
    section = rng.permutation(np.repeat(["a", "b", "c"], [10, 14, 12]))
    return AnnData(
        sparse.csr_matrix(rng.poisson(15, size=(36, 6)).astype(np.float32)),
        obs=pd.DataFrame(
            {"section": pd.Categorical(section, ["c", "unused", "b", "a"])}, index=[f"c{i}" for i in range(36)]
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(6)]),
        obsm={"spatial": rng.uniform(0, 1000, size=(36, 2))},
    )


def _same(first: Cells, second: Cells) -> None:
    assert first.fingerprint() == second.fingerprint()
    np.testing.assert_array_equal(first.expression, second.expression)
    assert (first.gene_names, first.batch_names) == (second.gene_names, second.batch_names)


# ------------------------------------------------------------------ must work


def test_arrays(adata):
    cells = read_cells(adata, SPEC)
    np.testing.assert_array_equal(cells.expression, adata.X.toarray())
    assert cells.expression.dtype == np.float32
    np.testing.assert_array_equal(cells.coordinates, adata.obsm["spatial"])
    assert cells.coordinates.dtype == np.float64
    assert cells.batch_names == ["a", "b", "c"]
    assert cells.n_obs == 36
    for name, rows in zip("abc", cells.rows(), strict=True):
        np.testing.assert_array_equal(rows, np.flatnonzero(adata.obs["section"] == name))


def test_what_is_read_is_not_the_users(adata):
    adata.X = adata.X.toarray()
    before = adata.copy()
    cells = read_cells(adata, SPEC)
    cells.expression[:] = -1
    cells.coordinates[:] = -1
    np.testing.assert_array_equal(adata.X, before.X)
    np.testing.assert_array_equal(adata.obsm["spatial"], before.obsm["spatial"])


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("of", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_any_type_and_place(adata, tmp_path, dtype, of):
    plain = read_cells(adata, SPEC)
    adata.layers["raw"] = of(adata.X.toarray().astype(dtype))
    spec = CellsSpec("raw", "spatial", "section")
    _same(read_cells(adata, spec), plain)
    adata.X = adata.layers["raw"].copy()
    adata.obsm["spatial"] = pd.DataFrame(adata.obsm["spatial"], index=adata.obs_names, columns=["x", "y"])
    view = adata[:]
    assert view.is_view
    _same(read_cells(view, SPEC), plain)
    assert view.is_view
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    _same(read_cells(backed, SPEC), plain)
    part = read_cells(backed[:30], SPEC, training=False)
    _same(part, read_cells(adata[:30].copy(), SPEC, training=False))


def test_one_slice_without_a_batch_key(adata):
    cells = read_cells(adata, CellsSpec())
    assert cells.batch_names == ["0"]
    np.testing.assert_array_equal(cells.rows()[0], np.arange(36))


def test_genes_of_training(adata):
    other = adata[:, [4, 1, 0]].copy()
    other = anndata.concat(
        [other, AnnData(np.ones((36, 1)), obs=other.obs[[]], var=pd.DataFrame(index=["new"]))], axis=1
    )
    other.obs, other.obsm["spatial"] = adata.obs, adata.obsm["spatial"]
    cells = read_cells(other, SPEC, training=False, genes=list(adata.var_names))
    expected = adata.X.toarray()
    expected[:, [2, 3, 5]] = np.nan
    np.testing.assert_array_equal(cells.expression, expected)
    assert cells.gene_names == list(adata.var_names)


def test_coordinates_of_some_cells(adata):
    """What lies under the others is not looked at."""
    known = np.arange(36) % 3 == 0
    expected = adata.obsm["spatial"] * known[:, None]
    adata.obsm["spatial"][~known] = np.nan
    np.testing.assert_array_equal(read_cells(adata, SPEC, coordinates=known).coordinates, expected)
    assert np.isnan(adata.obsm["spatial"][~known]).all()
    adata.obsm["spatial"][3] = np.inf
    with pytest.raises(ValueError, match=r"1 rows with NaN or infinite coordinates \(first: row 3\)"):
        read_cells(adata, SPEC, coordinates=known)
    assert read_cells(adata, SPEC, coordinates=False).coordinates is None
    del adata.obsm["spatial"]
    assert read_cells(adata, SPEC, coordinates=False).coordinates is None


def test_state(adata):
    state = read_cells(adata, SPEC).state()
    assert (state["gene_names"], state["n_dims"], state["batches"]) == (list(adata.var_names), 2, ["a", "b", "c"])
    np.testing.assert_allclose(state["mean_counts"], adata.X.toarray().mean(axis=0))
    adata.X = np.log1p(adata.X.toarray())
    assert read_cells(adata, SPEC).state()["mean_counts"] is None


def test_fingerprint_sees_everything(adata):
    plain = read_cells(adata, SPEC).fingerprint()
    assert read_cells(adata.copy(), SPEC).fingerprint() == plain
    changed = [adata.copy() for _ in range(4)]
    changed[0].X[3, 2] += 1
    changed[1].obsm["spatial"][5, 1] += 1e-6
    changed[2].obs["section"] = adata.obs["section"].to_numpy()[::-1]
    changed[3].var_names = [*adata.var_names[:-1], "other"]
    found = {read_cells(other, SPEC).fingerprint() for other in changed}
    assert len(found | {plain}) == 5


def test_genes_and_cells_without_expression(adata):
    """A gene may be missing from slices, and of data that are not trained on, cells may be as well."""
    adata.X = adata.X.toarray()
    adata.X[np.ix_(adata.obs["section"] == "a", [1, 2])] = np.nan
    cells = read_cells(adata, SPEC)
    np.testing.assert_array_equal(cells.expression, adata.X)
    np.testing.assert_allclose(cells.state()["mean_counts"], np.nanmean(adata.X, axis=0))
    adata.X[4] = np.nan
    adata.X[adata.obs["section"] == "b"] = np.nan
    np.testing.assert_array_equal(read_cells(adata, SPEC, training=False).expression, adata.X)
    with pytest.raises(ValueError, match=r"1[4-5] cells have no expression \(all NaN; first: row \d+\)\. Drop them"):
        read_cells(adata, SPEC)


# -------------------------------------------------------------- must be refused


def _counts(adata: AnnData, value: float) -> None:
    adata.X = adata.X.toarray()
    adata.X[2, 3] = value


def _of_a(adata: AnnData) -> np.ndarray:
    return (adata.obs["section"] == "a").to_numpy()


BAD = {
    "key of slices": (
        lambda a: a.obs.pop("section"),
        KeyError,
        r"`batch_key`: key 'section' not found in `adata\.obs`",
    ),
    "no positions": (
        lambda a: a.obsm.pop("spatial"),
        KeyError,
        r"`spatial_key`: key 'spatial' not found.*Available keys",
    ),
    "NaN in slices": (lambda a: a.obs["section"].where(np.arange(36) > 1), ValueError, "2 missing values"),
    "repeated names": (lambda a: setattr(a, "obs_names", ["x"] * 36), ValueError, r"obs_names` are not unique"),
    "repeated genes": (
        lambda a: setattr(a, "var_names", ["x"] * 6),
        ValueError,
        r"var_names` are not unique.*make_unique",
    ),
    "infinite": (lambda a: _counts(a, np.inf), ValueError, r"`layer`: `adata\.X` holds 1 infinite values"),
    "too large": (lambda a: setattr(a, "X", np.full((36, 6), 1e300)), ValueError, "216 infinite values"),
    "NaN here and there": (
        lambda a: _counts(a, np.nan),
        ValueError,
        r"1 genes of slice '.' are NaN in some of its cells only \(first: 'g3'\)",
    ),
    "gene never measured": (
        lambda a: setattr(a, "X", np.where(np.arange(6) == 2, np.nan, a.X.toarray())),
        ValueError,
        "gene 'g2' was measured in no cell. Leave it out",
    ),
    "no matrix": (lambda a: setattr(a, "X", None), ValueError, r"`adata\.X` is empty"),
    "not finite": (
        lambda a: a.obsm["spatial"].__setitem__((7, 0), np.nan),
        ValueError,
        r"1 rows with NaN or infinite coordinates \(first: row 7\)",
    ),
    "four dimensions": (
        lambda a: a.obsm.update(spatial=np.ones((36, 4))),
        ValueError,
        r"\(n_obs, 3\), found shape \(36, 4\)",
    ),
    "text": (lambda a: a.obsm.update(spatial=np.full((36, 2), "1")), ValueError, "numeric array"),
    "all equal": (lambda a: a.obsm.update(spatial=np.full((36, 2), 7.0)), ValueError, r"all 36 spots.*\[7\.0, 7\.0\]"),
    "one slice equal": (
        lambda a: a.obsm["spatial"].__setitem__(_of_a(a), 7.0),
        ValueError,
        r"all 10 cells of slice 'a'.*same coordinates \[7\.0, 7\.0\]",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_data(adata, change, error, message):
    column = change(adata)
    if isinstance(column, pd.Series) and len(column) == 36 and column.isna().any():
        adata.obs["section"] = column
    with pytest.raises(error, match=message):
        read_cells(adata, SPEC)


def test_too_few_cells(adata):
    with pytest.raises(ValueError, match=r"`adata` holds 1 cells.*at least 2"):
        read_cells(adata[:1].copy(), SPEC, training=False)
    few = adata[(adata.obs["section"] != "a") | (np.cumsum(_of_a(adata)) <= 4)].copy()
    with pytest.raises(ValueError, match="slice 'a' has 4 cells, training needs 10"):
        read_cells(few, SPEC)
    assert read_cells(few, SPEC, training=False).n_obs == 30


def test_other_mistakes(adata):
    with pytest.raises(TypeError, match="Expected AnnData, found DataFrame"):
        read_cells(adata.obs, SPEC)
    with pytest.raises(KeyError, match=r"`layer`: key 'counts' not found in `adata\.layers`"):
        read_cells(adata, CellsSpec("counts"))
    with pytest.raises(
        ValueError, match=r"none of the 2 genes of training \(\['x', 'y'\], \.\.\.\).*\['g0', 'g1', 'g2'\]"
    ):
        read_cells(adata, SPEC, genes=["x", "y"])


# ------------------------------------------------------------ the scvi-tools field


def test_field(adata):
    field = CellsField(SPEC)
    before = adata.copy()
    field.validate_field(adata)
    state = field.register_field(adata)
    assert state == read_cells(adata, SPEC).state()
    assert field.get_summary_stats(state) == {"n_genes": 6, "n_dims": 2, "n_slices": 3}
    assert field.get_data_registry() == {}
    assert "genes" in field.view_state_registry(state).columns[0]._cells
    other = adata[adata.obs["section"] != "a"].copy()[:, 4::-1].copy()
    assert field.transfer_field(state, other) == {**state, "batches": ["b", "c"]}
    solid = adata.copy()
    solid.obsm["spatial"] = np.random.default_rng(0).uniform(size=(36, 3))
    with pytest.raises(ValueError, match=r"trained in 2 dimensions, `adata\.obsm\['spatial'\]` has 3"):
        field.transfer_field(state, solid)
    assert set(adata.obsm) == set(before.obsm)
    assert set(adata.uns) == set(before.uns)


@pytest.mark.parametrize("kind", ["objects", "nullable", "sparse"])
def test_coordinates_of_any_kind(adata, kind):
    """Also where some are missing, in cells whose position is not read."""
    plain = read_cells(adata, SPEC)
    xy = pd.DataFrame(adata.obsm["spatial"], index=adata.obs_names)
    unknown = np.arange(36) == 5
    if kind == "objects":
        adata.obsm["spatial"] = xy.astype(object).to_numpy()
    elif kind == "nullable":
        adata.obsm["spatial"] = xy.astype("Float64")
    else:
        adata.obsm["spatial"] = sparse.csr_matrix(xy)
    np.testing.assert_array_equal(read_cells(adata, SPEC).coordinates, plain.coordinates)
    if kind == "nullable":
        adata.obsm["spatial"].iloc[5] = pd.NA
        cells = read_cells(adata, SPEC, training=False, coordinates=~unknown)
        np.testing.assert_array_equal(cells.coordinates[~unknown], plain.coordinates[~unknown])
        with pytest.raises(ValueError, match="1 rows with NaN"):
            read_cells(adata, SPEC)
