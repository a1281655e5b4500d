"""Input that must work, and input that must not."""

from __future__ import annotations

import re

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from stomics_tools.data import log_cp10k
from stomics_tools.datasets import simulate_histology
from stomics_tools.model import VARST, PRAGASpike

KEYS = {"patient_key": "patient", "section_key": "section"}
QUIET = {"enable_progress_bar": False}


@pytest.fixture
def adata() -> AnnData:
    adata = simulate_histology(3, 2, 15, n_genes=10, n_features=6)
    del adata.layers["expected"]
    adata.uns = {"X_image": {"params": {"encoder": "uni"}}}
    adata.obs["age"] = np.random.default_rng(0).uniform(40, 80, size=90)
    adata.obs["stage"] = pd.Categorical(np.array(["I", "II", "III"])[np.arange(90) % 3], ["I", "II", "III", "unused"])
    return adata


def _model(adata, setup=None, **kwargs) -> VARST:
    VARST.setup_anndata(adata, **(KEYS if setup is None else setup))
    return VARST(adata, size="tiny", **kwargs)


def _trained(adata, setup=None, key_added=None, **kwargs) -> VARST:
    model = _model(adata, setup, **kwargs)
    model.train(max_epochs=2, key_added=key_added, **QUIET)
    return model


def _everything(model, adata=None) -> list[np.ndarray]:
    return [
        model.predict(adata),
        model.sample(adata)[0],
        *model.interval(adata),
        model.reconstruct(adata),
        model.get_latent_representation(adata),
        model.get_latent_representation(adata, source="expression"),
    ]


def _same(first, second) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------ must work


def test_view(adata):
    parent = adata.copy()
    view = parent[:60]
    model = _trained(view, key_added="var_st")
    _same(_everything(model), _everything(_trained(parent[:60].copy())))
    assert not view.is_view
    assert "var_st" in view.layers
    assert "var_st" not in parent.layers
    assert set(parent.uns) == {"X_image"}


def test_view_as_unseen_data(adata):
    model = _trained(adata)
    view = adata[10:40]
    expected = _everything(model, adata[10:40].copy())
    _same(_everything(model, view), expected)
    assert view.is_view
    model.write_results(view, key_added="part")
    np.testing.assert_array_equal(view.layers["part"], expected[0])
    assert "part" not in adata.layers


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("dense", [True, False])
def test_counts_of_any_type(adata, dtype, dense):
    plain = _everything(_trained(adata.copy()))
    other = adata.copy()
    other.X = other.X.toarray().astype(dtype) if dense else other.X.astype(dtype)
    other.obsm["X_image"] = other.obsm["X_image"].astype(np.float64 if dense else np.float32)
    _same(_everything(_trained(other)), plain)


def test_features_of_any_type(adata):
    adata.obsm["X_image"] = np.round(3 * adata.obsm["X_image"])
    plain = _trained(adata.copy()).predict()
    for features in (
        adata.obsm["X_image"].astype(np.int64),
        sparse.csr_matrix(adata.obsm["X_image"]),
        pd.DataFrame(adata.obsm["X_image"], index=adata.obs_names).add_prefix("f"),
    ):
        other = adata.copy()
        other.obsm["X_image"] = features
        np.testing.assert_array_equal(_trained(other).predict(), plain)


def test_backed(adata, tmp_path):
    model = _trained(adata)
    expected = _everything(model)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    _same(_everything(model, backed), expected)
    _same(_everything(model, backed[:30]), _everything(model, adata[:30].copy()))
    _same(_everything(_trained(backed, key_added="var_st")), expected)
    assert backed.isbacked
    np.testing.assert_array_equal(backed.layers["var_st"], expected[0])


def test_layer(adata):
    plain = _everything(_trained(adata.copy()))
    adata.layers["raw"] = adata.X.copy()
    adata.X = np.zeros(adata.shape)
    model = _trained(adata, {**KEYS, "layer": "raw"})
    _same(_everything(model), plain)
    without = adata.copy()
    del without.layers["raw"]
    np.testing.assert_array_equal(model.predict(without), plain[0])
    model.write_results(without)
    assert not any("tokens" in key for key in without.obsm)
    with pytest.raises(KeyError, match="layer.*'raw' not found"):
        model.reconstruct(without)


def test_counts_or_their_logarithms(adata):
    logarithms = adata.copy()
    logarithms.X = log_cp10k(adata.X.toarray())
    of_counts, of_logarithms = _trained(adata), _trained(logarithms)
    _same(_everything(of_logarithms), _everything(of_counts))
    for model, other, message in (
        (of_counts, logarithms, "set up with counts, `adata.X` holds negative or fractional"),
        (of_logarithms, adata, "no counts.*`adata.X` holds counts"),
    ):
        with pytest.raises(ValueError, match=message):
            model.reconstruct(other)
        model.predict(other)  # which reads no expression


def test_what_is_said_of_counts_beats_the_rule(adata, caplog):
    ranks = adata.copy()
    ranks.X = np.minimum(adata.X.toarray(), 5)  # whole, but no counts
    caplog.set_level("INFO", "stomics_tools")
    model = _trained(ranks, {"patient_key": "patient", "counts": False})
    assert "taken as counts" not in caplog.text
    np.testing.assert_array_equal(model._expression(model._read(expression=True))[0], ranks.X)
    assert model.predict().max() > 2  # in units of the ranks
    corrected = adata.copy()
    corrected.X = adata.X.toarray() * 0.9  # for background, say
    model = _trained(corrected, {"patient_key": "patient", "counts": True})
    np.testing.assert_allclose(model._expression(model._read(expression=True))[0], log_cp10k(corrected.X), rtol=1e-5)
    VARST.setup_anndata(adata, patient_key="patient")
    assert "`adata.X` holds whole, non-negative values: taken as counts" in caplog.text
    corrected.X[0, 0] = -1
    for counts, error in ((True, ValueError), ("yes", TypeError)):
        with pytest.raises(error, match="counts"):
            VARST.setup_anndata(corrected, patient_key="patient", counts=counts)


@pytest.mark.parametrize("of_counts", [True, False])
def test_codes_and_latents_refuse_another_unit(adata, of_counts):
    shallow = adata.copy()
    shallow.X = np.minimum(adata.X.toarray(), 5)
    logarithms = adata.copy()
    logarithms.X = log_cp10k(adata.X.toarray())
    model = _trained(shallow if of_counts else logarithms)
    other = logarithms if of_counts else shallow
    for call in (
        lambda: model.reconstruct(other),
        lambda: model.get_latent_representation(other, source="expression"),
        lambda: model.codebook_report(other),
        lambda: model.write_results(other),
    ):
        with pytest.raises(ValueError, match="`layer`: the model was set up with"):
            call()
    assert "var_st" not in other.layers


def test_few_small_counts_are_counts(adata):
    model = _trained(adata)
    shallow = adata[:5].copy()
    shallow.X = np.minimum(shallow.X.toarray(), 3)
    values, counts = model._expression(model._read(shallow, expression=True))
    np.testing.assert_array_equal(values, log_cp10k(shallow.X))
    np.testing.assert_array_equal(counts, shallow.X)


def test_genes_that_were_not_measured_stay_in_their_patient(adata):
    """NaN spreads nowhere, and what is hidden under it does not matter."""
    adata.X = adata.X.toarray()
    one = (adata.obs["patient"] == "patient1").to_numpy()
    for genes in ([0, 3], [5], list(range(9))):
        part = adata.copy()
        part.X[np.ix_(one, genes)] = np.nan
        model = _trained(part, key_added="var_st")
        for values in _everything(model):
            assert np.isfinite(values).all()
        for name in ("var_st", "var_st_lower", "var_st_upper"):
            assert np.isfinite(part.layers[name]).all()
        assert np.isnan(part.X).sum() == one.sum() * len(genes)
        for name, table in model.history.items():
            assert np.isfinite(table[name]).all(), name
    some = adata.copy()
    some.X[np.random.default_rng(0).uniform(size=some.shape) < 0.3] = np.nan
    some.X[:, 0] = adata.X[:, 0]
    for likelihood in ("normal", "nb"):
        for values in _everything(_trained(some.copy(), likelihood=likelihood)):
            assert np.isfinite(values).all()


def test_negative_binomial(adata):
    model = _trained(adata, likelihood="nb")
    for values in _everything(model):
        assert np.isfinite(values).all()
    total = np.expm1(model.reconstruct()).sum(axis=1)
    np.testing.assert_allclose(total, 1e4, rtol=1e-3)  # shares of 10,000 counts
    assert np.abs(model.reconstruct() - _trained(adata.copy()).reconstruct()).max() > 1e-3
    shallow = adata.copy()
    shallow.X = np.minimum(shallow.X.toarray(), 3)
    assert np.isfinite(_trained(shallow, likelihood="nb").predict()).all()
    fractions = adata.copy()
    fractions.X = log_cp10k(adata.X.toarray())
    fractions.layers["norm"] = fractions.X
    for setup, where in ((KEYS, r"adata\.X"), ({**KEYS, "layer": "norm"}, r"adata\.layers\['norm'\]")):
        with pytest.raises(ValueError, match=f"likelihood='nb'` needs counts.*`{where}`.*raw counts"):
            _model(fractions, setup, likelihood="nb")
    with pytest.raises(ValueError, match="set up with counts"):
        model.reconstruct(fractions)


@pytest.mark.parametrize("quantizer", ["ema", "vq"])
def test_codebooks_that_are_learnt(adata, quantizer):
    model = _trained(adata, quantizer=quantizer)
    assert model._settings.head == "joint"
    for values in _everything(model):
        assert np.isfinite(values).all()
    assert model.codebook_report().loc["all", "usage"] > 0.1


def test_covariates(adata):
    plain = _trained(adata.copy())
    model = _trained(adata, {**KEYS, "covariate_keys": ["stage", "age"]})
    assert (model.predict() != plain.predict()).any()
    base = model.predict(adata)
    for key, values in (("stage", "II"), ("age", 90.0)):
        other = adata.copy()
        other.obs[key] = values
        assert np.abs(model.predict(other) - base).max() > 1e-4
        condition = model.get_latent_representation(adata)
        assert np.abs(model.get_latent_representation(other) - condition).max() > 1e-4
    for key, values, message in (
        ("stage", "IV", r"obs\['stage'\].*\['IV'\] that the model has not seen.*\['I', 'II', 'III'\]"),
        ("age", "old", r"obs\['age'\].*held numbers at setup"),
        ("age", np.nan, "1 missing|90 missing"),
    ):
        other = adata.copy()
        other.obs[key] = values
        with pytest.raises(ValueError, match=message):
            model.predict(other)
    del other.obs["stage"]
    with pytest.raises(KeyError, match="covariate_keys.*'stage'"):
        model.predict(other)
    one = _trained(adata.copy(), {**KEYS, "covariate_keys": "stage"})
    assert one.predict().shape == (90, 10)


@pytest.mark.parametrize(
    "how", [{"n_neighbors": 4}, {"use_coordinates": True}, {"n_neighbors": 2, "use_coordinates": True}]
)
def test_places(adata, how):
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(0, 1000, size=(90, 2))
    model = _trained(adata.copy(), **how)
    base = model.predict(adata)
    moved, shuffled = adata.copy(), adata.copy()
    moved.obsm["spatial"] = 7.0 * moved.obsm["spatial"] - 300.0
    shuffled.obsm["spatial"] = np.random.default_rng(1).permutation(shuffled.obsm["spatial"])
    np.testing.assert_allclose(model.predict(moved), base, atol=1e-4)
    assert np.abs(model.predict(shuffled) - base).max() > 1e-3
    one = adata[:1].copy()
    assert np.isfinite(model.predict(one)).all()
    order = np.random.default_rng(2).permutation(90)
    np.testing.assert_allclose(model.predict(adata[order].copy()), base[order], atol=1e-4)
    np.testing.assert_allclose(model.predict(adata, batch_size=7), base, atol=1e-4)
    flat = adata.copy()
    flat.obsm["spatial"] = np.repeat(flat.obsm["spatial"][::9], 9, axis=0)
    assert np.isfinite(model.predict(flat)).all()
    del flat.obsm["spatial"]
    with pytest.raises(KeyError, match="spatial_key.*'spatial' not found"):
        model.predict(flat)
    with pytest.raises(ValueError, match=r"need coordinates.*setup_anndata\(spatial_key"):
        _model(adata, {**KEYS, "spatial_key": None}, **how)


def test_coordinates_are_optional(adata):
    model = _trained(adata.copy())
    bare = adata.copy()
    del bare.obsm["spatial"]
    np.testing.assert_array_equal(model.predict(bare), model.predict())
    np.testing.assert_array_equal(model.reconstruct(bare), model.reconstruct())
    without = _trained(bare, {**KEYS, "spatial_key": None})
    np.testing.assert_array_equal(without.predict(), model.predict())


def test_three_dimensions(adata):
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(90, 3))
    model = _trained(adata, use_coordinates=True)
    assert np.isfinite(model.predict()).all()
    other = adata.copy()
    other.obsm["spatial"] = other.obsm["spatial"][:, :2]
    with pytest.raises(ValueError, match="3 coordinates a spot, found 2"):
        model.predict(other)


@pytest.mark.parametrize(("n_genes", "scales"), [(1, [1]), (7, [1, 7]), (8, [1, 8]), (300, [1, 8, 32, 200])])
def test_panels_of_any_size(n_genes, scales):
    adata = simulate_histology(2, 1, 15, n_genes=max(n_genes, 10), n_features=5)[:, :n_genes].copy()
    for gene_tree in ("correlation", "order"):
        model = _trained(adata.copy(), gene_tree=gene_tree, key_added="var_st")
        assert list(model.codebook_report().index) == [*map(str, scales), "all"]
        for values in _everything(model):
            assert np.isfinite(values).all()
        assert model.predict().shape == (30, n_genes)
        assert [model.adata.obsm[f"var_st_tokens_{scale}"].shape[1] for scale in scales] == scales


def test_genes_that_are_constant_or_the_same(adata):
    adata.X = adata.X.toarray()
    adata.X[:, 2] = 0
    adata.X[:, 3] = adata.X[:, 4]
    model = _trained(adata)
    for values in _everything(model):
        assert np.isfinite(values).all()
    assert (model.predict()[:, 2] == 0).all()
    wide = AnnData(adata.X[:, np.arange(300) % 10], adata.obs, obsm=dict(adata.obsm))
    model = _trained(wide, key_added="var_st")
    sizes = model.module.stage1.scales.sizes
    assert list(sizes) == sorted(set(sizes))
    for size in sizes:
        assert wide.obsm[f"var_st_tokens_{size}"].shape == (90, size)


def test_hardly_any_spots(adata):
    for setup in ({}, {"spatial_key": None}):
        for values in _everything(_trained(adata[:10].copy(), setup)):
            assert np.isfinite(values).all()
    uneven = adata[[0, 30, *range(60, 70)]].copy()  # patients of one spot
    assert np.isfinite(_trained(uneven).interval()).all()
    with pytest.raises(ValueError, match="at least 10 spots are needed to train on, found 9"):
        _trained(adata[:9].copy())


def test_spots_without_counts(adata):
    adata.X = adata.X.toarray()
    adata.X[5] = 0
    for likelihood in ("normal", "nb"):
        for values in _everything(_trained(adata.copy(), likelihood=likelihood)):
            assert np.isfinite(values).all()


def test_prediction_from_tables_and_other_panels(adata):
    model = _trained(adata)
    base, features = model.predict(), adata.obsm["X_image"]
    table = AnnData(features)
    np.testing.assert_array_equal(model.predict(table), base)
    np.testing.assert_array_equal(model.sample(table), model.sample())
    np.testing.assert_array_equal(model.interval(table), model.interval())
    np.testing.assert_array_equal(model.get_latent_representation(table), model.get_latent_representation())
    np.testing.assert_array_equal(model.predict(AnnData(sparse.csr_matrix(features))), base)
    np.testing.assert_allclose(model.predict(AnnData(features[:1])), base[:1], atol=1e-5)
    more = AnnData(np.ones((90, 25)), obsm={"X_image": features})
    np.testing.assert_array_equal(model.predict(more), base)
    empty = AnnData(obs=pd.DataFrame(index=adata.obs_names), obsm={"X_image": features})
    np.testing.assert_array_equal(model.predict(empty), base)
    with pytest.raises(ValueError, match="are missing"):
        model.reconstruct(more)
    with pytest.raises(ValueError, match=r"Take `adata\[:, model.gene_names\]`"):
        model.reconstruct(adata[:, ::-1].copy())


def test_user_arrays_are_not_changed(adata):
    before = adata.copy()
    _trained(adata, use_coordinates=True, key_added="var_st")
    for key in before.obsm:
        np.testing.assert_array_equal(adata.obsm[key], before.obsm[key])
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)


# -------------------------------------------------------------- must not work


def _frozen(data: AnnData):
    arrays = {f"obsm {k}": np.array(v, copy=True) for k, v in data.obsm.items()}
    layers = {key for key in data.layers if key is not None}
    return set(data.obsm), layers, set(data.uns), list(data.obs.columns), data.is_view, arrays


def _assert_untouched(data, before):
    after = _frozen(data)
    assert after[:-1] == before[:-1]
    for key, value in before[-1].items():
        np.testing.assert_array_equal(after[-1][key], value)


def _spoil(key, row, value):
    def change(adata):
        adata.obsm[key][row] = value

    return change


def _set(key, value):
    def change(adata):
        adata.obsm[key] = value

    return change


def _expression(rows, columns, value):
    def change(adata):
        adata.X = adata.X.toarray()
        adata.X[rows, columns] = value

    return change


def _obs(key, row, value):
    def change(adata):
        column = adata.obs[key].astype(object)
        column.iloc[row] = value
        adata.obs[key] = column

    return change


def _names(axis, names):
    def change(adata):
        kept = getattr(adata, f"{axis}_names")[len(names) :]
        setattr(adata, f"{axis}_names", [*names, *kept])

    return change


BAD = {
    "no features": (lambda a: a.obsm.pop("X_image"), {}, KeyError, "features_key.*'X_image' not found.*spatial"),
    "misspelled features": (None, {"features_key": "X_imag"}, KeyError, "Did you mean 'X_image'"),
    "features in X": (None, {"features_key": "X"}, ValueError, "leave no place for the expression"),
    "nan feature": (_spoil("X_image", (7, 2), np.nan), {}, ValueError, "1 rows of.*NaN or infinite.*row 7"),
    "infinite feature": (_spoil("X_image", (7, 2), np.inf), {}, ValueError, "NaN or infinite features"),
    "constant features": (_spoil("X_image", slice(None), 1.0), {}, ValueError, "is constant"),
    "no feature columns": (_set("X_image", np.zeros((90, 0))), {}, ValueError, r"shape \(90, 0\)"),
    "no layer": (None, {"layer": "counts"}, KeyError, "layer.*'counts' not found"),
    "infinite expression": (_expression(4, 2, np.inf), {}, ValueError, "1 infinite values"),
    "gene never measured": (_expression(slice(None), 2, np.nan), {}, ValueError, r"measured in no spot.*gene2"),
    "spot never measured": (_expression(4, slice(None), np.nan), {}, ValueError, "no gene was measured.*row 4"),
    "same spots": (_names("obs", ["a", "a"]), {}, ValueError, "obs_names.*not unique.*'a'.*obs_names_make_unique"),
    "same genes": (_names("var", ["a", "a"]), {}, ValueError, "var_names.*not unique.*'a'.*var_names_make_unique"),
    "no coordinates": (lambda a: a.obsm.pop("spatial"), {}, KeyError, "spatial_key.*'spatial' not found"),
    "nan coordinate": (_spoil("spatial", (7, 0), np.nan), {}, ValueError, "NaN or infinite coordinates.*row 7"),
    "no patient column": (None, {"patient_key": "donor"}, KeyError, "patient_key.*'donor'.*patient"),
    "no section column": (None, {"section_key": "slice"}, KeyError, "section_key.*'slice'.*section"),
    "missing patient": (_obs("patient", 3, None), {}, ValueError, r"patient_key.*obs\['patient'\].*1 missing"),
    "section of two patients": (_obs("section", 80, "patient0_section0"), {}, ValueError, "patient0_section0"),
    "no covariate": (None, {"covariate_keys": ["sex"]}, KeyError, "covariate_keys.*'sex'"),
    "missing covariate": (_obs("stage", 3, None), {"covariate_keys": ["stage"]}, ValueError, "'stage'.*1 missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_changes(adata, case):
    change, arguments, error, message = BAD[case]
    if change is not None:
        change(adata)
    for data in (adata, adata[:]):
        before = _frozen(data)
        with pytest.raises(error, match=message):
            VARST.setup_anndata(data, **{**KEYS, **arguments})
        _assert_untouched(data, before)


def test_wrong_objects(adata):
    for wrong in (adata.to_df(), None, "a.h5ad"):
        with pytest.raises((TypeError, ValueError), match="AnnData"):
            VARST.setup_anndata(wrong)
        with pytest.raises(TypeError, match="Expected AnnData"):
            VARST(wrong)
    with pytest.raises(ValueError, match="setup_anndata"):
        VARST(adata)
    model = _trained(adata)
    with pytest.raises(TypeError, match="Expected AnnData, found ndarray"):
        model.predict(adata.obsm["X_image"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "large"}, "`size`: unknown option 'large'.*'tiny', 'small', 'paper'"),
        ({"scales": ()}, "`scales` must be positive and ascending"),
        ({"scales": (8, 1)}, r"`scales`.*found \(8, 1\)"),
        ({"scales": (0, 4)}, "`scales`"),
        ({"gene_tree": "order "}, "`gene_tree`.*Did you mean 'order'"),
        ({"quantizer": "lfq"}, "`quantizer`.*'fsq', 'ema', 'vq'"),
        ({"n_codes": 1}, "`n_codes` must be at least 2"),
        ({"n_codes": 100}, "`n_codes` must be a power of two.*Take 64 or 128"),
        ({"n_codes": 64.0}, "`n_codes` must be an integer"),
        ({"n_field": 0}, "`n_field`"),
        ({"n_condition": 15}, r"`n_condition` \(15\) must be a multiple of `n_heads` \(2\)"),
        ({"n_layers": 0}, "`n_layers`"),
        ({"likelihood": "poisson"}, "`likelihood`.*'nb'"),
        ({"hide_genes": 1.0}, "`hide_genes`"),
        ({"dropout": -0.1}, "`dropout`"),
        ({"head": "both"}, "`head`"),
        ({"head": "factorized", "quantizer": "ema"}, "`head='factorized'` needs `quantizer='fsq'`"),
        ({"label_softness": -1.0}, "`label_softness`"),
        ({"condition_dropout": 1.0}, "`condition_dropout`"),
        ({"n_members": 0}, "`n_members`"),
        ({"mixup": -1}, "`mixup`"),
        ({"n_neighbors": -1}, "`n_neighbors`"),
        ({"use_coordinates": "yes"}, "`use_coordinates`"),
    ],
)
def test_bad_arguments_of_the_model(adata, arguments, message):
    VARST.setup_anndata(adata, **KEYS)
    before = _frozen(adata)
    with pytest.raises((ValueError, TypeError), match=message):
        VARST(adata, **{"size": "tiny", **arguments})
    _assert_untouched(adata, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_epochs": 0}, "`max_epochs`"),
        ({"max_epochs": 1.5}, "`max_epochs`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"lr": 0.0}, "`lr`"),
        ({"weight_decay": -1.0}, "`weight_decay`"),
        ({"patience": 0}, "`patience`"),
        ({"clip_grad": 0.0}, "`clip_grad`"),
        ({"seed": -1}, "`seed`"),
        ({"seed": "a"}, "`seed`"),
    ],
)
def test_bad_arguments_of_training(adata, arguments, message):
    model = _model(adata)
    before = _frozen(adata)
    for method in (model.train, model.train_stage1, model.train_stage2):
        with pytest.raises((ValueError, TypeError), match=message):
            method(**arguments)
    assert not model.is_trained
    _assert_untouched(adata, before)


def test_results_before_training(adata, tmp_path):
    model = _model(adata)
    before = _frozen(adata)
    calls = (
        model.predict,
        model.sample,
        model.interval,
        model.get_latent_representation,
        model.write_results,
        model.parameter_table,
        lambda: model.save(tmp_path / "m"),
    )
    for call in calls:
        with pytest.raises(RuntimeError, match="not trained"):
            call()
    for call in (
        model.train_stage2,
        model.reconstruct,
        model.codebook_report,
        lambda: model.save_stage1(tmp_path / "m"),
        lambda: model.get_latent_representation(source="expression"),
    ):
        with pytest.raises(RuntimeError, match="Stage 1 is not trained"):
            call()
    model.train_stage1(max_epochs=1, **QUIET)
    for call in calls:
        with pytest.raises(RuntimeError, match="not trained"):
            call()
    assert model.reconstruct().shape == (90, 10)
    assert not (tmp_path / "m").exists()
    _assert_untouched(adata, before)


@pytest.fixture
def saved(adata, tmp_path):
    model = _model(adata)
    model.train(max_epochs=2, key_added=None, checkpoint_dir=tmp_path / "run", **QUIET)
    model.save(tmp_path / "model")
    return model, tmp_path


def test_other_features(adata, saved):
    model, folder = saved
    narrow, other_encoder = adata.copy(), adata.copy()
    narrow.obsm["X_image"] = narrow.obsm["X_image"][:, :4]
    other_encoder.uns["X_image"] = {"params": {"encoder": "conch"}}
    broken = adata.copy()
    broken.obsm["X_image"][3, 1] = np.nan
    for other, message in (
        (narrow, "6 features of encoder 'uni', found 4 features of encoder 'uni'"),
        (other_encoder, "encoder 'uni', found 6 features of encoder 'conch'"),
        (broken, "1 rows.*NaN or infinite.*row 3"),
    ):
        before = _frozen(other)
        for call in (model.predict, model.sample, model.interval, model.write_results):
            with pytest.raises(ValueError, match=message):
                call(other)
        with pytest.raises(ValueError, match=message):
            VARST.load(folder / "model", other)
        _assert_untouched(other, before)
    for table in (AnnData(np.ones((5, 4))), AnnData(np.ones((5, 6)), var=pd.DataFrame(index=adata.var_names[:6]))):
        with pytest.raises(KeyError, match="'X_image' not found.*6 features of encoder 'uni'"):
            model.predict(table)
    same = adata.copy()
    same.obs_names = ["a", "a", *same.obs_names[2:]]
    with pytest.raises(ValueError, match="not unique"):
        model.predict(same)


def test_load_for_other_genes(adata, saved):
    _, folder = saved
    for other, message in (
        (adata[:, :9].copy(), r"1 of the 10 genes of setup are missing: \['gene9'\]"),
        (adata[:, ::-1].copy(), "in another order"),
        (adata[:, ::-1], "in another order"),
    ):
        before = _frozen(other)
        with pytest.raises(ValueError, match=message):
            VARST.load(folder / "model", other)
        _assert_untouched(other, before)


@pytest.mark.parametrize("damage", ["truncate tensors", "flip a bit", "truncate json", "no tensors", "format", "class"])
def test_damaged_model(adata, saved, damage):
    _, folder = saved
    tensors, meta = folder / "model" / "model.safetensors", folder / "model" / "model.json"
    error, message = ValueError, "truncated or was changed"
    if damage == "truncate tensors":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif damage == "flip a bit":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif damage == "truncate json":
        meta.write_text(meta.read_text()[:-40])
        message = "is damaged"
    elif damage == "no tensors":
        tensors.unlink()
        error, message = FileNotFoundError, "no model.safetensors"
    elif damage == "format":
        meta.write_text(re.sub(r'"format": \d+', '"format": 99', meta.read_text()))
        message = "format 99"
    else:
        meta.write_text(meta.read_text().replace('"model": "VARST"', '"model": "PRAGASpike"'))
        message = "holds a PRAGASpike, not a VARST"
    before = _frozen(adata)
    with pytest.raises(error, match=message):
        VARST.load(folder / "model", adata)
    with pytest.raises(error, match=message):
        VARST.load(folder / "model")
    _assert_untouched(adata, before)


def test_checkpoints_that_cannot_be_resumed(adata, saved):
    _, folder = saved
    run = folder / "run"
    fresh = _model(adata)
    with pytest.raises(FileNotFoundError, match="no stage1/last.ckpt or stage2/last.ckpt"):
        fresh.train(max_epochs=2, ckpt_path=folder / "nowhere", **QUIET)
    with pytest.raises(ValueError, match="other seed: 0 there, 1 here"):
        fresh.train(max_epochs=2, seed=1, ckpt_path=run, **QUIET)
    with pytest.raises(ValueError, match="other arguments.*'n_layers': 2.*'n_layers': 1"):
        _model(adata, n_layers=1).train(max_epochs=2, ckpt_path=run, **QUIET)
    for how in ({"max_epochs": 3}, {"max_epochs": 2, "lr": 0.01}, {"max_epochs": 2, "batch_size": 10}):
        with pytest.raises(ValueError, match="other arguments"):
            fresh.train(**how, ckpt_path=run, **QUIET)
    with pytest.raises(ValueError, match="other arguments"):
        fresh.train_stage1(max_epochs=2, ckpt_path=run / "stage2", **QUIET)
    with pytest.raises(ValueError, match="with other data"):
        _model(adata[:60].copy()).train(max_epochs=2, ckpt_path=run, **QUIET)
    (run / "stage2" / "last.ckpt").write_bytes((run / "stage2" / "last.ckpt").read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        _model(adata).train(max_epochs=2, ckpt_path=run, **QUIET)
    assert not fresh.is_trained


def test_model_of_another_class(adata, saved, tmp_path):
    PRAGASpike.setup_anndata(adata, {"image": "X_image"})
    other = PRAGASpike(adata, n_latent=8)
    other.train(2, key_added=None, **QUIET)
    other.save(tmp_path / "other")
    with pytest.raises(ValueError, match="holds a PRAGASpike, not a VARST"):
        VARST.load(tmp_path / "other", adata)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", -1.0), ("batch_size", 0), ("weight_decay", -1.0), ("max_epochs", 0)]
)
def test_arguments_of_stage_2_are_checked_before_stage_1_is_trained(adata, name, value) -> None:
    model = _model(adata)
    with pytest.raises(ValueError, match=name):
        model.train(stage2={name: value}, **QUIET)
    assert not model.history_
