"""Reading and checking of spots with image features."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from scvi.data import AnnDataManager

from stomics_tools.data import ImageSpec, log_cp10k, read_image_spots
from stomics_tools.data._image_field import ImageSpotsField

SPEC = ImageSpec("X_image", spatial_key="spatial", patient_key="patient", section_key="section")
GENES = ["ACTB", "ERBB2", "GAPDH", "KRT8", "VIM"]


def make(n_obs=12, n_features=6):
    rng = np.random.default_rng(0)
    codes = np.arange(n_obs) * 3 // n_obs  # three sections, the first two of one patient
    adata = AnnData(
        rng.poisson(8, size=(n_obs, 5)).astype(np.float32),
        obs=pd.DataFrame(
            {
                "patient": pd.Categorical(np.array(["B", "B", "A"])[codes], categories=["A", "B", "unused"]),
                "section": np.array(["b1", "b2", "a1"])[codes],
                "stage": pd.Categorical(np.array(["II", "I", "II"])[codes]),
                "age": np.array([40, 60, 80])[codes],
            },
            index=[f"spot{i}" for i in range(n_obs)],
        ),
        var=pd.DataFrame(index=GENES),
        obsm={"X_image": rng.normal(size=(n_obs, n_features)), "spatial": rng.uniform(size=(n_obs, 2))},
        uns={"X_image": {"params": {"encoder": "uni"}}},
    )
    adata.layers["counts"] = sparse.csr_matrix(adata.X)
    return adata


def setup(adata, spec=SPEC):
    return read_image_spots(adata, spec, expression=True)


def table(n_obs=4, n_features=6, names=None):
    """A feature table: features in X and nothing else."""
    rng = np.random.default_rng(1)
    index = [str(i) for i in range(n_features)] if names is None else names
    return AnnData(
        rng.normal(size=(n_obs, n_features)).astype(np.float32),
        obs=pd.DataFrame(index=[f"tile{i}" for i in range(n_obs)]),
        var=pd.DataFrame(index=index),
        obsm={"spatial": rng.uniform(size=(n_obs, 2))},
    )


# ------------------------------------------------------------------ what is read


def test_arrays_are_those_of_the_object():
    adata = make()
    spots = setup(adata)
    np.testing.assert_array_equal(spots.features, adata.obsm["X_image"].astype(np.float32))
    np.testing.assert_array_equal(spots.expression, adata.X)
    np.testing.assert_array_equal(spots.coordinates, adata.obsm["spatial"])
    assert spots.features.dtype == spots.expression.dtype == spots.covariates.dtype == np.float32
    assert spots.coordinates.dtype == np.float64
    assert spots.patient.dtype == spots.section.dtype == np.int64
    assert [spots.patient_names[i] for i in spots.patient] == adata.obs["patient"].tolist()
    assert [spots.section_names[i] for i in spots.section] == adata.obs["section"].tolist()
    assert spots.patient_names == ("A", "B")  # none that is unused
    assert spots.gene_names == tuple(GENES)
    assert spots.encoder == "uni"
    assert spots.feature_names is None
    assert spots.covariates.shape == (12, 0)
    assert spots.n_obs == 12


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("layer", [None, "other"])
def test_expression_of_any_kind(kind, dtype, layer):
    adata = make()
    truth = adata.X.copy()
    adata.layers["other"] = adata.X = kind(truth.astype(dtype))
    if layer is not None:
        adata.X = kind(np.zeros_like(truth))
    np.testing.assert_array_equal(setup(adata, replace(SPEC, layer=layer)).expression, truth)


def test_features_of_a_frame_have_names():
    adata = make()
    columns = [f"f{i}" for i in range(6)]
    frame = pd.DataFrame(adata.obsm["X_image"], index=adata.obs_names, columns=columns)
    frame["f5"] = pd.array(np.arange(12), dtype="Int64")
    adata.obsm["X_image"] = frame
    spots = setup(adata)
    assert spots.feature_names == tuple(columns)
    np.testing.assert_array_equal(spots.features, frame.astype(np.float32).to_numpy(np.float32))


@pytest.mark.parametrize("patient_key", [None, "patient"])
def test_sections_are_patients_or_one_by_default(patient_key):
    spots = setup(make(), replace(SPEC, patient_key=patient_key, section_key=None))
    if patient_key is None:
        assert spots.patient is None
        assert (spots.patient_names, spots.section_names) == ((), ("0",))
        np.testing.assert_array_equal(spots.section, np.zeros(12))
    else:
        np.testing.assert_array_equal(spots.section, [1] * 8 + [0] * 4)
        assert spots.section_names == ("A", "B")


def test_coordinates_are_optional_and_may_have_three_columns():
    adata = make()
    adata.obsm["xyz"] = np.random.default_rng(0).uniform(size=(12, 3))
    assert setup(adata, replace(SPEC, spatial_key=None)).coordinates is None
    assert setup(adata, replace(SPEC, spatial_key="xyz")).coordinates.shape == (12, 3)


def test_views_and_arrays_are_left_alone():
    adata = make()
    before = adata.copy()
    view = adata[[3, 1, 9], ["VIM", "ACTB"]]
    spots = setup(view)
    assert view.is_view
    np.testing.assert_array_equal(spots.features, before.obsm["X_image"][[3, 1, 9]].astype(np.float32))
    np.testing.assert_array_equal(spots.expression, before.X[[3, 1, 9]][:, [4, 0]])
    spots = setup(adata)
    spots.features[:] = 0
    spots.expression[:] = 0
    np.testing.assert_array_equal(adata.X, before.X)
    np.testing.assert_array_equal(adata.obsm["X_image"], before.obsm["X_image"])
    pd.testing.assert_frame_equal(adata.obs, before.obs)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_backed(tmp_path, kind):
    adata = make()
    truth = setup(adata)
    adata.X = kind(adata.X)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert setup(backed).fingerprint() == truth.fingerprint()
    np.testing.assert_array_equal(setup(backed[2:10]).expression, truth.expression[2:10])
    assert backed.isbacked
    backed.file.close()


# ------------------------------------------------------------------ covariates


def test_covariates_are_one_hot_and_standardised():
    adata = make()
    adata.obs["site"] = "one"
    adata.obs["depth"] = 0.1
    adata.obs["treated"] = np.arange(12) % 2 == 0
    spots = setup(adata, replace(SPEC, covariate_keys=("stage", "age", "site", "depth", "treated")))
    first = (adata.obs["stage"] == "I").to_numpy()
    age = (np.repeat([40, 60, 80], 4) - 60) / np.std([40, 60, 80])
    treated = np.arange(12) % 2 == 0
    truth = np.column_stack([first, ~first, age, np.ones(12), np.zeros(12), ~treated, treated])
    np.testing.assert_allclose(spots.covariates, truth, rtol=1e-6)


def test_covariates_of_another_object_are_encoded_as_at_setup():
    spec = replace(SPEC, covariate_keys=("stage", "age"))
    adata = make()
    state = json.loads(json.dumps(setup(adata, spec).state()))
    other = adata[[0, 5]].copy()
    other.obs["stage"] = ["II", "II"]
    other.obs["age"] = [60.0, 100.0]
    spots = read_image_spots(other, spec, expression=False, state=state)
    truth = [[0, 1, 0], [0, 1, 40 / np.std([40, 60, 80])]]
    np.testing.assert_allclose(spots.covariates, truth, rtol=1e-6)
    assert spots.state()["covariates"] == state["covariates"]


def test_covariate_that_was_constant_stays_zero():
    spec = replace(SPEC, covariate_keys=("age",))
    adata = make()
    adata.obs["age"] = 50
    state = setup(adata, spec).state()
    adata.obs["age"] = 51
    np.testing.assert_array_equal(
        read_image_spots(adata, spec, expression=False, state=state).covariates, np.zeros((12, 1))
    )


def test_other_categories_and_kinds_are_refused():
    spec = replace(SPEC, covariate_keys=("stage", "age"))
    adata = make()
    state = setup(adata, spec).state()
    adata.obs["stage"] = ["I", "II", "IV"] * 4
    with pytest.raises(ValueError, match=r"'stage'.*\['IV'\].*\['I', 'II'\]"):
        read_image_spots(adata, spec, expression=False, state=state)
    adata.obs["stage"] = "I"
    adata.obs["age"] = "old"
    with pytest.raises(ValueError, match="'age'.*held numbers at setup"):
        read_image_spots(adata, spec, expression=False, state=state)
    del adata.obs["age"]
    with pytest.raises(KeyError, match="`covariate_keys`: key 'age'"):
        read_image_spots(adata, spec, expression=False, state=state)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_covariates(value):
    adata = make()
    adata.obs["age"] = [value, *range(11)]
    with pytest.raises(ValueError, match="'age'.*1 missing or infinite"):
        setup(adata, replace(SPEC, covariate_keys=("age",)))
    adata.obs["stage"] = pd.Categorical([None, None, *["I"] * 10])
    with pytest.raises(ValueError, match="'stage'.*2 missing"):
        setup(adata, replace(SPEC, covariate_keys=("stage",)))


def test_names_are_no_covariate():
    adata = make(n_obs=1001)
    adata.obs["barcode"] = adata.obs_names
    with pytest.raises(ValueError, match="'barcode'.*1001 categories, at most 1000"):
        setup(adata, replace(SPEC, covariate_keys=("barcode",)))


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("argument", "available"),
    [
        ("features_key", r"`adata.obsm`.*\['X_image', 'spatial'\]"),
        ("layer", r"`adata.layers`.*\['counts'\]"),
        ("spatial_key", r"`adata.obsm`.*\['X_image', 'spatial'\]"),
        ("patient_key", r"`adata.obs`.*\['patient', 'section', 'stage', 'age'\]"),
        ("section_key", r"`adata.obs`.*\['patient', 'section', 'stage', 'age'\]"),
        ("covariate_keys", r"`adata.obs`.*\['patient', 'section', 'stage', 'age'\]"),
    ],
)
def test_missing_keys_are_named(argument, available):
    value = ("none",) if argument == "covariate_keys" else "none"
    with pytest.raises(KeyError, match=f"`{argument}`: key 'none' not found in {available}"):
        setup(make(), replace(SPEC, **{argument: value}))


def test_only_anndata():
    with pytest.raises(TypeError, match="Expected AnnData, found ndarray"):
        setup(np.zeros((3, 2)))


def test_features_in_x_leave_no_place_for_the_expression():
    with pytest.raises(ValueError, match="no place for the expression"):
        setup(make(), replace(SPEC, features_key="X", layer="counts"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_features_must_be_finite(value):
    adata = make()
    adata.obsm["X_image"][[4, 7], 2] = value
    with pytest.raises(ValueError, match=r"2 rows of `adata.obsm\['X_image'\]`.*row 4, 'spot4'"):
        setup(adata)


def test_features_must_vary_at_setup_only():
    adata = make()
    state = setup(adata).state()
    adata.obsm["X_image"][:] = adata.obsm["X_image"][0]
    with pytest.raises(ValueError, match="constant"):
        setup(adata)
    assert read_image_spots(adata, SPEC, expression=False, state=state).n_features == 6
    assert read_image_spots(adata[:1], SPEC, expression=False, state=state).n_obs == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((12, 2, 2)), r"shape \(12, 2, 2\)"),
        (np.zeros((12, 0)), r"shape \(12, 0\)"),
        (np.full((12, 2), "a"), "dtype"),
    ],
)
def test_features_must_be_a_numeric_matrix(values, message):
    adata = make()
    adata.obsm["X_image"] = values
    with pytest.raises(ValueError, match=f"`features_key`.*{message}"):
        setup(adata)


def test_text_columns_of_features():
    adata = make()
    adata.obsm["X_image"] = pd.DataFrame({"a": np.arange(12.0), "b": ["x"] * 12}, index=adata.obs_names)
    with pytest.raises(ValueError, match=r"columns \['b'\].*hold no numbers"):
        setup(adata)


def test_repeated_names():
    adata = make()
    adata.obs_names = ["same", "same", *adata.obs_names[2:]]
    with pytest.raises(ValueError, match=r"`adata.obs_names` are not unique.*\['same'\]"):
        setup(adata)
    adata = make()
    adata.var_names = ["ACTB", "ACTB", *GENES[2:]]
    with pytest.raises(ValueError, match=r"`adata.var_names` are not unique.*\['ACTB'\]"):
        setup(adata)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_genes_not_measured_and_negative_values_are_allowed(kind):
    adata = make()
    x = adata.X - 5
    x[:4, 1] = np.nan
    adata.X = kind(x)
    np.testing.assert_array_equal(setup(adata).expression, x)


def test_unusable_expression():
    adata = make()
    x = adata.X.copy()
    adata.X[2, 3] = -np.inf
    with pytest.raises(ValueError, match="`layer`: `adata.X` holds 1 infinite"):
        setup(adata)
    adata.X = x.copy()
    adata.X[:, [1, 4]] = np.nan
    with pytest.raises(ValueError, match=r"2 genes.*no spot: \['ERBB2', 'VIM'\]"):
        setup(adata)
    adata.X = x.copy()
    adata.X[5:7] = np.nan
    with pytest.raises(ValueError, match="in 2 spots.*row 5, 'spot5'"):
        setup(adata)
    del adata.X
    with pytest.raises(ValueError, match="`layer`: `adata.X` is empty"):
        setup(adata)


def test_unusable_coordinates():
    adata = make()
    adata.obsm["spatial"][3, 0] = np.nan
    with pytest.raises(ValueError, match="`spatial_key`.*1 rows with NaN.*row 3"):
        setup(adata)


@pytest.mark.parametrize("key", ["patient", "section"])
def test_missing_groups(key):
    adata = make()
    adata.obs[key] = [None, None, *adata.obs[key].astype(str)[2:]]
    for expression in (True, False):
        with pytest.raises(ValueError, match=f"`{key}_key`.*2 missing"):
            read_image_spots(adata, SPEC, expression=expression)


def test_a_section_of_two_patients():
    adata = make()
    adata.obs["section"] = "b1"
    with pytest.raises(ValueError, match=r"sections \['b1'\].*several patients"):
        setup(adata)


# ------------------------------------------------------------------ another object


def test_state_is_plain():
    adata = make()
    spec = replace(SPEC, covariate_keys=("stage", "age"))
    state = setup(adata, spec).state()
    assert json.loads(json.dumps(state)) == {
        "n_features": 6,
        "feature_names": None,
        "encoder": "uni",
        "gene_names": GENES,
        "counts": True,
        "whole": True,  # none above 20
        "log_total": None,  # of counts
        "covariates": [
            {"key": "stage", "kind": "categorical", "categories": ["I", "II"]},
            {"key": "age", "kind": "continuous", "mean": 60.0, "sd": float(np.std([40, 60, 80]))},
        ],
        "n_dims": 2,
        "patients": ["A", "B"],
        "sections": ["a1", "b1", "b2"],
    }
    assert read_image_spots(adata, spec, expression=True, state=state).fingerprint() == setup(adata, spec).fingerprint()


@pytest.mark.parametrize("expression", [True, False])
def test_features_of_another_encoder(expression):
    state = setup(make()).state()
    other = make(n_features=9)
    other.uns["X_image"]["params"]["encoder"] = "conch"
    with pytest.raises(ValueError, match="6 features of encoder 'uni', found 9 features of encoder 'conch'"):
        read_image_spots(other, SPEC, expression=expression, state=state)
    other = make()
    other.uns["X_image"]["params"]["encoder"] = "conch"
    with pytest.raises(ValueError, match="6 features of encoder 'uni', found 6 features of encoder 'conch'"):
        read_image_spots(other, SPEC, expression=expression, state=state)
    del other.uns["X_image"]
    assert read_image_spots(other, SPEC, expression=expression, state=state).encoder is None


def test_features_of_other_names():
    adata = make()
    columns = list("abcdef")
    frame = pd.DataFrame(adata.obsm["X_image"], index=adata.obs_names, columns=columns)
    adata.obsm["X_image"] = frame
    state = setup(adata).state()
    adata.obsm["X_image"] = frame[columns[::-1]]
    with pytest.raises(ValueError, match="in another order"):
        read_image_spots(adata, SPEC, expression=False, state=state)
    adata.obsm["X_image"] = frame.rename(columns={"c": "z"})
    with pytest.raises(ValueError, match=r"without \['c'\]"):
        read_image_spots(adata, SPEC, expression=False, state=state)
    adata.obsm["X_image"] = frame.to_numpy()
    assert read_image_spots(adata, SPEC, expression=False, state=state).feature_names is None


def test_genes_must_be_those_of_setup():
    adata = make()
    state = setup(adata[:, GENES[:4]].copy()).state()
    for genes, message in (
        (GENES[1:3], r"2 of the 4 genes of setup are missing: \['ACTB', 'KRT8'\]"),
        (GENES, r"1 genes besides those of setup: \['VIM'\].*adata\[:, model.gene_names\]"),
        (GENES[3::-1], r"another order.*adata\[:, model.gene_names\]"),
    ):
        with pytest.raises(ValueError, match=message):
            read_image_spots(adata[:, genes], SPEC, expression=True, state=state)
        assert read_image_spots(adata[:, genes], SPEC, expression=False, state=state).gene_names == tuple(GENES[:4])
    fixed = read_image_spots(adata[:, state["gene_names"]], SPEC, expression=True, state=state)
    np.testing.assert_array_equal(fixed.expression, adata.X[:, :4])


def test_a_gene_may_be_unmeasured_in_another_object():
    adata = make()
    state = setup(adata).state()
    adata.X[:, 2] = np.nan
    assert np.isnan(read_image_spots(adata, SPEC, expression=True, state=state).expression[:, 2]).all()


def test_coordinates_of_other_dimension():
    adata = make()
    state = setup(adata).state()
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(12, 3))
    with pytest.raises(ValueError, match="set up with 2 coordinates a spot, found 3"):
        read_image_spots(adata, SPEC, expression=False, state=state)


def test_feature_tables_can_be_predicted_from(caplog):
    state = setup(make()).state()
    tiles = table()
    with caplog.at_level(logging.INFO, logger="stomics_tools"):
        spots = read_image_spots(tiles, SPEC, expression=False, state=state)
    np.testing.assert_array_equal(spots.features, tiles.X)
    assert spots.feature_names is None
    assert (spots.expression, spots.patient, spots.section_names) == (None, None, ("0",))
    assert spots.gene_names == tuple(GENES)
    assert "`adata.X`" in caplog.text
    assert "'section'" in caplog.text
    named = replace(SPEC, features_key="X")
    assert read_image_spots(tiles, named, expression=False, state=state).fingerprint() == spots.fingerprint()
    with pytest.raises(ValueError, match="6 features of encoder 'uni', found 5 features"):
        read_image_spots(tiles[:, :5], named, expression=False, state=state)


def test_names_of_feature_tables_are_checked():
    adata = make()
    adata.obsm["X_image"] = pd.DataFrame(adata.obsm["X_image"], index=adata.obs_names, columns=list("abcdef"))
    state = setup(adata).state()
    assert read_image_spots(table(names=list("abcdef")), SPEC, expression=False, state=state).feature_names is not None
    with pytest.raises(ValueError, match="in another order"):
        read_image_spots(table(names=list("fedcba")), SPEC, expression=False, state=state)


def test_x_is_not_taken_for_features():
    state = setup(make(n_features=5)).state()
    genes = make()
    del genes.obsm["X_image"]
    with pytest.raises(KeyError, match="'X_image' not found.*5 features of encoder 'uni'"):  # as many genes as features
        read_image_spots(genes, SPEC, expression=False, state=state)
    with pytest.raises(KeyError, match=r"'X_image' not found.*shape \(4, 6\)"):
        read_image_spots(table(), SPEC, expression=False, state=state)
    with pytest.raises(KeyError, match="'X_image' not found"):
        read_image_spots(table(n_features=5), SPEC, expression=True, state=state)


def test_fingerprint_tells_objects_apart():
    spec = replace(SPEC, covariate_keys=("age",))

    def changed(change):
        adata = make()
        change(adata)
        return setup(adata, spec).fingerprint()

    def set_to(values, where, value):
        values[where] = value

    prints = [
        changed(lambda a: None),
        changed(lambda a: set_to(a.X, (0, 0), 99)),
        changed(lambda a: set_to(a.X, (0, 0), np.nan)),
        changed(lambda a: set_to(a.obsm["X_image"], (0, 0), 99)),
        changed(lambda a: set_to(a.obsm["spatial"], (0, 0), 99)),
        changed(lambda a: set_to(a.obs, "age", [*[1] * 11, 2])),
        changed(lambda a: set_to(a.obs, "section", ["b2", *a.obs["section"][1:]])),
        changed(lambda a: setattr(a, "var_names", ["z", *GENES[1:]])),
        read_image_spots(make(), spec, expression=False, state=setup(make(), spec).state()).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert changed(lambda a: None) == prints[0]


# ------------------------------------------------------------------ counts


def test_log_cp10k_over_the_genes_measured():
    counts = np.array([[1, 3, np.nan], [0, 0, 0], [2, 2, 4]], dtype=np.float32)
    truth = [[np.log1p(2500), np.log1p(7500), np.nan], [0, 0, 0], [np.log1p(2500), np.log1p(2500), np.log1p(5000)]]
    normalized = log_cp10k(counts)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, truth, rtol=1e-6)


# ------------------------------------------------------------------ the field


def test_field_registers_and_transfers():
    adata = make()
    spec = replace(SPEC, layer="counts", covariate_keys=("stage", "age"))
    manager = AnnDataManager(fields=[ImageSpotsField(spec)])
    manager.register_fields(adata)
    assert dict(manager.summary_stats) == {"n_features": 6, "n_genes": 5, "n_patients": 2, "n_sections": 3}
    assert manager.registry["field_registries"]["image_spots"]["state_registry"] == setup(adata, spec).state()
    manager.validate()
    other = make()[:7].copy()
    assert manager.transfer_fields(other).summary_stats["n_patients"] == 1
    with pytest.raises(ValueError, match="genes of setup are missing"):
        manager.transfer_fields(make()[:, 1:].copy())


def test_field_shows_what_was_registered():
    spec = replace(SPEC, layer="counts", covariate_keys=("stage", "age"))
    field = ImageSpotsField(spec)
    shown = field.view_state_registry(field.register_field(make()))
    rows = list(zip(*(list(column.cells) for column in shown.columns), strict=True))
    assert rows == [
        ("features", "X_image", "6"),
        ("genes", "counts", "5"),
        ("patients", "patient", "2"),
        ("sections", "section", "3"),
        ("categorical covariate", "stage", "2"),
        ("continuous covariate", "age", "1"),
    ]
    with pytest.raises(ValueError, match="constant"):
        field.validate_field(make()[[0]].copy())
