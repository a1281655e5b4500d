"""Input that must work, and input that must not."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from stomics_tools.datasets import simulate_histology, simulate_sections
from stomics_tools.model import VARST, MaskedDiffusion
from stomics_tools.model.masked_diffusion import _places, _priors

QUIET = {"enable_progress_bar": False}
SMALL = {
    "width": 16,
    "n_heads": 2,
    "n_layers": 1,
    "n_hidden": 32,
    "n_latent": 8,
    "n_window": 24,
    "n_neighbors": 5,
    "n_members": 2,
    "n_regression_hidden": 16,
}
HIDDEN = np.arange(90) % 4 == 0
LANDMARKS = np.arange(90) % 3 == 0


@pytest.fixture(autouse=True, scope="module")
def _short_regression():
    """What comes before the diffusion takes as long for few cells as for many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_priors, "_VISITS", 450)
        patch.setattr(_places, "_N_STEPS", 20)
        yield


def _data(**kwargs) -> AnnData:
    adata = simulate_sections(3, 30, 12, **kwargs)
    del adata.uns["simulation"], adata.obsm["tissue"]
    return adata


def _model(adata, setup=None, **kwargs) -> MaskedDiffusion:
    MaskedDiffusion.setup_anndata(adata, **({"batch_key": "section"} if setup is None else setup))
    return MaskedDiffusion(adata, **{**SMALL, **kwargs})


def _trained(adata, setup=None, key_added=None, **kwargs) -> MaskedDiffusion:
    model = _model(adata, setup, **kwargs)
    model.train(1, key_added=key_added, **QUIET)
    return model


def _everything(model, adata=None) -> list[np.ndarray]:
    """All that is said of some of the 90 cells."""
    data = model.adata if adata is None else adata
    hidden, landmarks = HIDDEN[: data.n_obs], LANDMARKS[: data.n_obs]
    return [
        model.sample(adata, mode="expr_to_pos", n_steps=2),
        model.sample(adata, mode="expr_to_pos", n_steps=2, landmarks=landmarks),
        model.sample(adata, mode="pos_to_expr", n_steps=2, hidden=hidden),
        model.impute(adata, hidden=hidden),
        model.get_latent_representation(adata),
    ]


def _same(first, second) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def _finite(values) -> bool:
    return all(bool(np.isfinite(part).all()) for part in values)


@pytest.fixture
def adata() -> AnnData:
    return _data()


@pytest.fixture(scope="module")
def model(_short_regression) -> MaskedDiffusion:
    """Trained for all tests that do not change it."""
    return _trained(_data())


# ------------------------------------------------------------------ must work


def test_view(adata):
    parent = adata.copy()
    view = parent[:60]
    model = _trained(view, key_added="masked_diffusion")
    _same(_everything(model), _everything(_trained(parent[:60].copy())))
    assert not view.is_view
    assert "X_masked_diffusion" in view.obsm
    assert set(parent.obsm) == {"spatial"}
    assert not parent.uns


def test_view_as_unseen_data(model, adata):
    view = adata[10:70]
    expected = _everything(model, adata[10:70].copy())
    _same(_everything(model, view), expected)
    assert view.is_view
    model.write_results(view, key_added="part")
    np.testing.assert_array_equal(view.obsm["X_part"], expected[-1])
    assert "X_part" not in adata.obsm


@pytest.mark.parametrize(
    ("of", "dtype"), [(np.asarray, np.float64), (sparse.csr_matrix, np.int64), (sparse.csc_matrix, np.float32)]
)
def test_counts_of_any_type(model, adata, of, dtype):
    adata.X = of(adata.X.toarray().astype(dtype))
    other = _trained(adata)
    _same(_everything(other), _everything(model))
    _same(_everything(model, adata), _everything(model))


def test_layer_key_and_names(model, adata):
    adata.layers["raw"] = adata.X.copy()
    adata.X = np.full(adata.shape, np.inf)
    adata.obsm["pixels"] = adata.obsm.pop("spatial")
    adata.obs["slice"] = adata.obs.pop("section").astype(str)
    other = _trained(adata, {"layer": "raw", "spatial_key": "pixels", "batch_key": "slice"})
    _same(_everything(other), _everything(model))


def test_backed(model, adata, tmp_path):
    expected = _everything(model)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    _same(_everything(model, backed), expected)
    _same(_everything(model, backed[:60]), _everything(model, adata[:60].copy()))
    _same(_everything(_trained(backed, key_added="masked_diffusion")), expected)
    assert backed.isbacked
    np.testing.assert_array_equal(backed.obsm["X_masked_diffusion"], expected[-1])


def test_unused_categories(adata):
    part = adata[adata.obs["section"] != "section1"].copy()
    plain = _everything(_trained(part.copy()))
    part.obs["section"] = part.obs["section"].cat.set_categories(["section2", "gone", "section1", "section0"])
    model = _trained(part)
    _same(_everything(model), plain)
    assert list(part.obs["section"].cat.categories) == ["section2", "gone", "section1", "section0"]


def test_one_slice_without_a_batch_key(adata):
    model = _trained(adata[:30].copy(), {})
    assert _finite(_everything(model))
    assert _finite(_everything(model, adata[30:60].copy()))


def test_query_with_other_genes(model, adata):
    """Genes are found by name; those that are not there count as not measured, further ones are left out."""
    keep = [7, 2, 11, 5, 3, 0]
    unmeasured = adata.copy()
    unmeasured.X = unmeasured.X.toarray()
    unmeasured.X[:, [i for i in range(12) if i not in keep]] = np.nan
    expected = _everything(model, unmeasured)
    assert _finite(expected)
    some = adata[:, keep].copy()
    _same(_everything(model, some), expected)
    more = anndata.concat(
        [some, AnnData(np.full((90, 2), 1000.0), obs=some.obs[[]], var=pd.DataFrame(index=["new0", "new1"]))], axis=1
    )
    more.obs, more.obsm["spatial"] = some.obs, some.obsm["spatial"]
    _same(_everything(model, more), expected)
    shuffled = adata[:, np.random.default_rng(0).permutation(12)].copy()
    _same(_everything(model, shuffled), _everything(model))
    assert any((a != b).any() for a, b in zip(expected, _everything(model), strict=True))
    with pytest.raises(ValueError, match="has 1 of the 12 genes of training"):
        model.sample(adata[:, 4:5].copy(), mode="expr_to_pos")
    renamed = adata.copy()
    renamed.var_names = [f"ENSG{i}" for i in range(12)]
    with pytest.raises(
        ValueError, match=r"none of the 12 genes of training \(\['gene0'.*Are the names of the same kind"
    ):
        model.sample(renamed, mode="expr_to_pos")


@pytest.mark.parametrize("genes", [[0, 3], [5], list(range(11))])
def test_genes_that_differ_between_slices(adata, genes):
    """NaN spreads nowhere; what is filled in is what was missing."""
    adata.X = adata.X.toarray()
    one = (adata.obs["section"] == "section1").to_numpy()
    adata.X[np.ix_(one, genes)] = np.nan
    model = _trained(adata, key_added="masked_diffusion")
    assert _finite(_everything(model))
    for name, table in model.history.items():
        assert np.isfinite(table[name]).all(), name
    assert np.isnan(adata.X).sum() == 30 * len(genes)
    filled = model.impute()
    assert np.isfinite(filled).all()
    other = adata.copy()
    other.X[np.ix_(one, genes)] = 3.0
    mean = np.nanmean(adata.X, axis=0).sum()
    measured = ~np.isnan(adata.X)
    measured[one] = False  # a cell with fewer genes is scaled by those it has
    plain = np.log1p(other.X / other.X.sum(axis=1, keepdims=True) * mean)
    np.testing.assert_allclose(filled[measured], plain[measured], rtol=1e-4, atol=1e-5)


def test_cells_and_slices_without_expression(model, adata):
    adata.X = adata.X.toarray()
    adata.X[30:60] = np.nan
    adata.X[3] = np.nan
    filled = model.impute(adata)
    assert np.isfinite(filled).all()
    drawn = model.sample(adata, mode="pos_to_expr", n_steps=2)
    assert np.isfinite(drawn).all()
    known = np.ones(90, dtype=bool)
    known[30:60] = known[3] = False
    np.testing.assert_array_equal(filled[known], drawn[known])
    assert (filled[~known] != drawn[~known]).any()
    assert np.isfinite(model.get_latent_representation(adata)).all()
    with pytest.raises(
        ValueError, match=r"`layer`: (1|30) cells have no expression \(all NaN\), by which they are placed"
    ):
        model.sample(adata, mode="expr_to_pos")


def test_cells_that_coincide(adata):
    adata.obsm["spatial"][::3] = adata.obsm["spatial"][1::3]
    adata.obsm["spatial"][2:25] = adata.obsm["spatial"][2]
    assert _finite(_everything(_trained(adata)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_any_unit_and_place(adata, scale):
    """Only the unit of what is said changes with that of the coordinates."""
    adata.obsm["spatial"] -= adata.obsm["spatial"].mean(axis=0)
    plain = _everything(_trained(adata.copy()))
    other = adata.copy()
    other.obsm["spatial"] *= scale
    for number, (a, b) in enumerate(zip(_everything(_trained(other)), plain, strict=True)):
        np.testing.assert_allclose(a / (scale if number < 2 else 1), b, rtol=1e-2, atol=5.0 if number < 2 else 1e-2)


def test_odd_cells_and_genes(adata):
    """A cell without counts, genes without variance, and a slice of one cell among those to be placed."""
    adata.X = adata.X.toarray()
    adata.X[0] = 0
    adata.X[:, 3] = 0
    model = _trained(adata)
    assert _finite(_everything(model))
    adata.obs["section"] = np.where(np.arange(90) == 4, "lonely", adata.obs["section"].astype(str))
    assert np.isfinite(model.sample(adata, mode="expr_to_pos", n_steps=2)).all()
    assert np.isfinite(model.impute(adata, hidden=np.arange(90) == 4)).all()
    assert np.isfinite(model.get_latent_representation(adata)).all()


@pytest.mark.parametrize("n_dims", [2, 3])
def test_few_cells(n_dims):
    few = _data(n_dims=n_dims)[:10].copy()
    model = _trained(few, {})
    assert _finite([*_everything(model), *model.consensus(n_samples=1, n_steps=2)])


def test_two_cells_are_asked_for(adata):
    two = adata[[0, 1]].copy()
    model = _trained(adata)
    assert _finite(model.consensus(two, n_samples=1, n_steps=2))
    assert np.isfinite(model.sample(two, mode="expr_to_pos", n_steps=2)).all()
    assert np.isfinite(model.impute(two, hidden=np.array([True, False]))).all()


def test_values_that_are_no_counts(adata):
    """They are taken as they are, negative ones as well."""
    adata.X = np.random.default_rng(0).normal(size=adata.shape)
    model = _trained(adata)
    values = model.impute(hidden=HIDDEN)
    np.testing.assert_allclose(values[~HIDDEN], adata.X[~HIDDEN], rtol=1e-6)
    assert np.isfinite(values).all()


def test_small_counts_are_counts_where_training_had_them(model, adata):
    shallow = adata.copy()
    shallow.X = np.minimum(shallow.X.toarray(), 3)
    total = model.adata.X.toarray().mean(axis=0).sum()
    expected = np.log1p(shallow.X / shallow.X.sum(axis=1, keepdims=True) * total)
    np.testing.assert_allclose(model.impute(shallow, hidden=HIDDEN)[~HIDDEN], expected[~HIDDEN], rtol=1e-4)


# -------------------------------------------------------------- must be refused


def _unchanged(adata: AnnData, before: AnnData) -> None:
    for what in ("obs", "obsm", "layers", "uns"):
        assert set(getattr(adata, what)) == set(getattr(before, what))
    assert adata.is_view == before.is_view


BAD = {
    "one cell": (lambda a: a[:1].copy(), {}, ValueError, "holds 1 cells; positions are relative, so at least 2"),
    "few cells": (lambda a: a[:9].copy(), {}, ValueError, "9 cells, training needs 10"),
    "few cells in a slice": (
        lambda a: a[:35].copy(),
        {"batch_key": "section"},
        ValueError,
        "slice 'section1' has 5 cells, training needs 10",
    ),
    "no AnnData": (lambda a: a.to_df(), {}, TypeError, "Expected AnnData, found DataFrame"),
    "positions": (lambda a: a, {"spatial_key": "spatail"}, KeyError, "`spatial_key`.*Did you mean 'spatial'"),
    "layer": (lambda a: a, {"layer": "counts"}, KeyError, r"`layer`: key 'counts' not found in `adata\.layers`"),
    "slices": (lambda a: a, {"batch_key": "sections"}, KeyError, "`batch_key`.*Did you mean 'section'"),
    "view": (lambda a: a[:5], {}, ValueError, "5 cells, training needs 10"),
}


@pytest.mark.parametrize(("make", "setup", "error", "message"), BAD.values(), ids=list(BAD))
def test_bad_setup(adata, make, setup, error, message):
    data = make(adata)
    before = data.copy() if isinstance(data, AnnData) and not data.is_view else data
    with pytest.raises(error, match=message):
        MaskedDiffusion.setup_anndata(data, **setup)
    if isinstance(data, AnnData):
        _unchanged(data, before)


def _set(adata: AnnData, rows, value: float) -> AnnData:
    adata.obsm["spatial"][rows] = value
    return adata


def _expression(adata: AnnData, rows, genes, value: float) -> AnnData:
    adata.X = adata.X.toarray()
    adata.X[rows, genes] = value
    return adata


DATA = {
    "not finite": (lambda a: _set(a, 7, np.nan), r"1 rows with NaN or infinite coordinates \(first: row 7\)"),
    "infinite": (lambda a: _set(a, 7, np.inf), r"1 rows with NaN or infinite coordinates"),
    "all equal": (lambda a: _set(a, slice(None), 3.0), "all 90 spots.*have the same coordinates"),
    "equal in a slice": (
        lambda a: _set(a, slice(30, 60), 3.0),
        "all 30 cells of slice 'section1'.*the same coordinates",
    ),
    "infinite expression": (lambda a: _expression(a, 4, 2, np.inf), r"`adata\.X` holds 1 infinite values"),
    "NaN in some cells": (
        lambda a: _expression(a, 40, 2, np.nan),
        r"1 genes of slice 'section1' are NaN in some of its cells only \(first: 'gene2'\)",
    ),
}
TRAINED = {
    "no expression": (
        lambda a: _expression(a, 40, slice(None), np.nan),
        r"1 cells have no expression.*row 40\)\. Drop",
    ),
    "gene": (lambda a: _expression(a, slice(None), 2, np.nan), "gene 'gene2' was measured in no cell"),
}


@pytest.mark.parametrize(("change", "message"), (DATA | TRAINED).values(), ids=list(DATA | TRAINED))
def test_data_that_cannot_be_trained_on(adata, change, message):
    good = adata.copy()
    adata = change(adata)
    with pytest.raises(ValueError, match=message):
        _model(adata)
    _unchanged(adata, good)
    # the same after setup
    model = _model(good)
    change(good)
    with pytest.raises(ValueError, match=message):
        model.train(1, **QUIET)
    assert not model.is_trained


@pytest.mark.parametrize(("change", "message"), DATA.values(), ids=list(DATA))
def test_data_that_nothing_can_be_said_of(model, adata, change, message):
    adata = change(adata)
    before = adata.copy()
    for call in (
        lambda: model.impute(adata, hidden=HIDDEN),
        lambda: model.sample(adata, mode="pos_to_expr", hidden=HIDDEN),
        lambda: model.get_latent_representation(adata),
        lambda: model.write_results(adata),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    _unchanged(adata, before)


def test_queries_without_what_is_needed(model, adata):
    without = adata.copy()
    del without.obsm["spatial"]
    for call in (
        lambda: model.impute(without, hidden=HIDDEN),
        lambda: model.sample(without, mode="pos_to_expr", hidden=HIDDEN),
        lambda: model.sample(without, mode="expr_to_pos", landmarks=LANDMARKS),
        lambda: model.get_latent_representation(without),
    ):
        with pytest.raises(KeyError, match=r"`spatial_key`: key 'spatial' not found in `adata\.obsm`"):
            call()
    solid = _data(n_dims=3)
    for call in (
        lambda: model.impute(solid, hidden=HIDDEN),
        lambda: model.sample(solid, mode="expr_to_pos", landmarks=LANDMARKS),
        lambda: model.get_latent_representation(solid),
    ):
        with pytest.raises(ValueError, match=r"`spatial_key`: the model was trained in 2 dimensions.*has 3"):
            call()
    assert model.sample(solid, mode="expr_to_pos", n_steps=2).shape == (90, 2)
    with pytest.raises(ValueError, match="holds 1 cells"):
        model.sample(adata[:1].copy(), mode="expr_to_pos")
    with pytest.raises(TypeError, match="Expected AnnData, found ndarray"):
        model.impute(adata.X.toarray())
    del adata.obs["section"]
    with pytest.raises(KeyError, match="`batch_key`: key 'section' not found"):
        model.sample(adata, mode="expr_to_pos")


@pytest.mark.parametrize("logarithms", [False, True])
def test_few_genes_of_training(adata, logarithms):
    if logarithms:
        adata.X = np.log1p(adata.X.toarray())
    model = _trained(adata)
    counts = np.asarray(adata.X.mean(axis=0)).ravel()
    calls = {
        "consensus": lambda query: model.consensus(query, n_samples=2, n_steps=2).position,
        "impute": lambda query: model.impute(query, hidden=HIDDEN),
        "latent": model.get_latent_representation,
    }
    for call in calls.values():
        for n in (1, 5):
            with pytest.raises(ValueError, match=rf"section0' has {n} of the 12 genes of training.*At least 6"):
                call(adata[:, :n].copy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _finite([call(adata[:, np.argsort(-counts)[:9]].copy()) for call in calls.values()])
    if not logarithms:  # half of the genes by number, and few counts
        few = np.argsort(counts)[:6]
        share = f"{counts[few].sum() / counts.sum():.0%}"
        with pytest.warns(UserWarning, match=f"has 6 of the 12 genes of training, which carried {share} of its counts"):
            assert _finite([calls["consensus"](adata[:, few].copy())])


def test_counts_for_a_model_of_logarithms(adata):
    logarithms, shallow = adata.copy(), adata.copy()
    logarithms.X = np.log1p(adata.X.toarray())
    shallow.X = np.minimum(adata.X.toarray(), 5)
    model = _trained(logarithms)
    for other in (adata, shallow):
        for call in (
            lambda: model.sample(other, mode="expr_to_pos"),  # noqa: B023
            lambda: model.consensus(other),  # noqa: B023
            lambda: model.impute(other, hidden=HIDDEN),  # noqa: B023
            lambda: model.get_latent_representation(other),  # noqa: B023
        ):
            with pytest.raises(ValueError, match=r"no counts \(logarithms, say\), `adata\.X` holds counts"):
                call()


def test_what_is_said_of_counts_beats_the_rule(adata, caplog):
    corrected, whole = adata.copy(), adata.copy()
    corrected.X = 0.9 * adata.X.toarray()
    whole.X = np.minimum(adata.X.toarray(), 5)
    caplog.set_level("INFO", "stomics_tools")
    MaskedDiffusion.setup_anndata(corrected, batch_key="section", counts=True)
    MaskedDiffusion.setup_anndata(whole, batch_key="section", counts=False)
    assert "holds" not in caplog.text
    MaskedDiffusion.setup_anndata(adata, batch_key="section")
    assert "`adata.X` holds whole, non-negative values: taken as counts" in caplog.text
    for data, scaled in ((corrected, True), (whole, False), (adata, True)):
        state = MaskedDiffusion(data, **SMALL)._state
        assert (state["mean_counts"] is not None) == scaled
    with pytest.raises(TypeError, match="`counts` must be True, False or None"):
        MaskedDiffusion.setup_anndata(adata, counts="yes")


def test_no_counts_for_a_model_of_counts(model, adata):
    for values in (np.log1p(adata.X.toarray()), adata.X.toarray() - 5):
        adata.X = values
        for call in (
            lambda: model.sample(adata, mode="expr_to_pos"),
            lambda: model.impute(adata, hidden=HIDDEN),
            lambda: model.get_latent_representation(adata),
        ):
            with pytest.raises(
                ValueError, match=r"`layer`: the model was set up with counts, `adata\.X` holds negative or"
            ):
                call()


@pytest.mark.parametrize(
    ("landmarks", "error", "message"),
    [
        (np.zeros(90, dtype=bool), ValueError, "`landmarks`: slice 'section0' has 0, at least 3 are needed"),
        (np.arange(90) < 60, ValueError, "`landmarks`: slice 'section2' has 0, at least 3 are needed"),
        (np.arange(90) % 15 == 0, ValueError, "`landmarks`: slice 'section0' has 2, at least 3 are needed"),
        (
            np.ones(89, dtype=bool),
            ValueError,
            r"`landmarks` must be boolean of shape \(90,\), found bool of shape \(89,\)",
        ),
        (np.arange(90), ValueError, r"`landmarks` must be boolean of shape \(90,\), found int64"),
        ("known", KeyError, r"`landmarks`: key 'known' not found in `adata\.obs`"),
        ("section", ValueError, "`landmarks` must be boolean.*found object"),
    ],
)
def test_bad_landmarks(model, landmarks, error, message):
    with pytest.raises(error, match=message):
        model.sample(mode="expr_to_pos", landmarks=landmarks)


def test_masks_are_joined_by_name(model, adata):
    """A Series whose rows stand in another order says the same; one of other cells is refused."""
    shuffled = pd.Series(LANDMARKS, index=adata.obs_names).sample(frac=1, random_state=0)
    assert (shuffled.to_numpy() != LANDMARKS).any()
    expected = model.sample(adata, mode="expr_to_pos", n_steps=2, landmarks=LANDMARKS)
    np.testing.assert_array_equal(model.sample(adata, mode="expr_to_pos", n_steps=2, landmarks=shuffled), expected)
    hidden = pd.Series(HIDDEN, index=adata.obs_names).sample(frac=1, random_state=1)
    np.testing.assert_array_equal(model.impute(adata, hidden=hidden), model.impute(adata, hidden=HIDDEN))
    with pytest.raises(ValueError, match="different names of rows"):
        model.impute(adata, hidden=hidden.rename(index="x{}".format))


def test_a_second_training_keeps_the_folds_of_the_first(adata, monkeypatch):
    from stomics_tools.model.masked_diffusion import _training

    seeds, real = [], _training.training_slices
    monkeypatch.setattr(_training, "training_slices", lambda *args: seeds.append(args[-1]) or real(*args))
    model = _trained(adata)
    model.train(1, seed=7, **QUIET)
    assert seeds == [0, 0]
    assert model._train_args["seed"] == 7


def test_landmarks_without_positions(model, adata):
    adata.obsm["spatial"][12] = np.nan
    with pytest.raises(ValueError, match=r"1 rows with NaN or infinite coordinates \(first: row 12\)"):
        model.sample(adata, mode="expr_to_pos", landmarks=LANDMARKS)
    adata.obsm["spatial"][LANDMARKS] = 5.0
    with pytest.raises(ValueError, match=r"all 10 cells of slice 'section0'.*the same coordinates \[5\.0, 5\.0\]"):
        model.sample(adata, mode="expr_to_pos", landmarks=LANDMARKS)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"mode": "expr_to_position"}, ValueError, "`mode`: unknown option.*Did you mean 'expr_to_pos'"),
        ({"mode": "joint"}, ValueError, "`mode='joint'` draws new cells: name `n_cells`"),
        ({"mode": "joint", "n_cells": 1}, ValueError, "`n_cells` must be at least 2"),
        ({"mode": "expr_to_pos", "n_cells": 5}, ValueError, "`n_cells` is of `mode='joint'`, found 'expr_to_pos'"),
        ({"mode": "expr_to_pos", "hidden": HIDDEN}, ValueError, "`hidden` is of `mode='pos_to_expr'`"),
        ({"mode": "pos_to_expr", "landmarks": LANDMARKS}, ValueError, "`landmarks` is of `mode='expr_to_pos'`"),
        ({"mode": "expr_to_pos", "n_samples": 0}, ValueError, "`n_samples` must be at least 1"),
        ({"mode": "expr_to_pos", "n_steps": 2.5}, TypeError, "`n_steps` must be an integer"),
        (
            {"mode": "expr_to_pos", "sampler": "dimm"},
            ValueError,
            "`sampler`: unknown option 'dimm'.*Did you mean 'ddim'",
        ),
        ({"mode": "expr_to_pos", "seed": -1}, ValueError, "`seed` must be at least 0"),
        ({"mode": "pos_to_expr", "hidden": "asked"}, KeyError, "`hidden`: key 'asked' not found"),
        ({"mode": "pos_to_expr", "hidden": np.ones(3)}, ValueError, "`hidden` must be boolean of shape"),
    ],
)
def test_bad_ways_of_drawing(model, how, error, message):
    with pytest.raises(error, match=message):
        model.sample(**how)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"max_epochs": 0}, ValueError, "`max_epochs` must be at least 1"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        ({"lr": 0.0}, ValueError, "`lr` must be in"),
        ({"lr": "fast"}, TypeError, "`lr` must be a number"),
        ({"weight_decay": -1.0}, ValueError, "`weight_decay` must be in"),
        ({"ema_decay": 1.0}, ValueError, "`decay` must be at least 0 and below 1"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0"),
        ({"patience": 0}, ValueError, "`patience` must be at least 1"),
        ({"clip_grad": 0.0}, ValueError, "`clip_grad` must be in"),
    ],
)
def test_bad_ways_of_training(adata, how, error, message):
    model = _model(adata)
    with pytest.raises(error, match=message):
        model.train(**{"max_epochs": 1, **how}, **QUIET)
    assert not model.is_trained
    assert set(adata.obsm) == {"spatial"}


def test_a_model_that_is_not_trained(adata):
    model = _model(adata)
    for call in (
        lambda: model.sample(mode="expr_to_pos"),
        model.consensus,
        model.impute,
        model.get_latent_representation,
        model.write_results,
        lambda: model.save("nowhere"),
    ):
        with pytest.raises(RuntimeError, match=r"not trained. Call `model\.train\(\)` first"):
            call()


def test_objects_that_were_not_set_up(adata):
    with pytest.raises(ValueError, match="setup_anndata"):
        MaskedDiffusion(adata)
    with pytest.raises(TypeError, match="Expected AnnData"):
        MaskedDiffusion(adata.to_df())
    with pytest.raises(ValueError, match="`width` .17. must be a multiple of `n_heads`"):
        _model(adata, width=17)
    other = simulate_histology(2, 1, 12, n_genes=10, n_features=4)
    VARST.setup_anndata(other, patient_key="patient")
    with pytest.raises(ValueError, match="setup_anndata"):
        MaskedDiffusion(other)
