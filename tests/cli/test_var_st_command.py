"""``stomics var-st``."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

import stomics_tools as st
from stomics_tools.cli import main
from stomics_tools.cli._files import write_output
from stomics_tools.cli._var_st import var_st
from stomics_tools.model.var_st import _settings

TRAINED = ("--size", "tiny", "--max-epochs", 2, "--accelerator", "cpu", "--patient-key", "patient", "--seed", 3)


def run(*arguments) -> int:
    return main(["var-st", *map(str, arguments)])


def spots(seed: int) -> AnnData:
    return st.datasets.simulate_histology(2, 1, 40, n_genes=12, n_features=8, seed=seed)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Training and other spots, the latter without expression; predictions of both stages in one call, and the model."""
    folder = tmp_path_factory.mktemp("histology")
    write_output(spots(0), folder / "spots.h5ad")
    other = spots(1)
    write_output(AnnData(obs=other.obs, obsm=dict(other.obsm)), folder / "other.zarr")
    assert run(folder / "spots.h5ad", "--output", folder / "out.h5ad", "--save-model", folder / "model", *TRAINED) == 0
    return folder


@pytest.fixture(scope="module")
def model() -> st.model.VARST:
    """The same by hand."""
    adata = spots(0)
    st.model.VARST.setup_anndata(adata, patient_key="patient")
    model = st.model.VARST(adata, size="tiny")
    model.train(max_epochs=2, seed=3, accelerator="cpu", enable_progress_bar=False)
    return model


def assert_same(found: AnnData, expected: AnnData) -> None:
    for layer in ("var_st", "var_st_lower", "var_st_upper"):
        np.testing.assert_array_equal(found.layers[layer], expected.layers[layer])
    np.testing.assert_array_equal(found.obsm["X_var_st"], expected.obsm["X_var_st"])


def test_as_in_python(place, model):
    found = st.datasets.read_slice(place / "out.h5ad")
    assert_same(found, model.adata)
    assert found.uns["var_st"]["params"]["folds"] == "patient"
    assert found.uns["var_st"]["params"]["seed"] == 3
    np.testing.assert_array_equal(st.model.VARST.load(place / "model").predict(model.adata), found.layers["var_st"])


@pytest.mark.parametrize("suffix", ["h5mu", "zarr"])
def test_stage_by_stage_is_the_same_as_both(place, tmp_path, capsys, suffix):
    stage1, output = tmp_path / "stage1", tmp_path / f"out.{suffix}"
    assert run(place / "spots.h5ad", "--training-stage", 1, "--stage1", stage1, *TRAINED) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["stage1"]
    assert "VARST stage1, 2 epochs" in capsys.readouterr().out
    assert run(place / "spots.h5ad", "--training-stage", 2, "--stage1", stage1, "--output", output, *TRAINED) == 0
    assert "VARST stage2, 2 epochs" in capsys.readouterr().out
    result = st.datasets.read_slice(output)
    assert isinstance(result, MuData if suffix == "h5mu" else AnnData)
    adata = result["rna"] if suffix == "h5mu" else result
    assert_same(adata, st.datasets.read_slice(place / "out.h5ad"))


def test_both_stages_write_stage_1_if_told(place, tmp_path):
    stage1 = tmp_path / "stage1"
    command = (place / "spots.h5ad", "--stage1", stage1, "--output", tmp_path / "out.h5ad", *TRAINED)
    assert run(*command) == 0
    adata = spots(0)
    st.model.VARST.setup_anndata(adata, patient_key="patient")
    model = st.model.VARST(adata, size="tiny")
    model.load_stage1(stage1)
    assert run(*command[:-1], 4, "--overwrite") == 0
    other = st.model.VARST(adata, size="tiny")
    other.load_stage1(stage1)
    assert not np.array_equal(model.reconstruct(), other.reconstruct())


def test_prediction_of_another_file(place, model, tmp_path):
    before = hashlib.sha256((place / "spots.h5ad").read_bytes()).digest()
    target = ("--predict", place / "other.zarr", "--output", tmp_path / "trained.h5ad", "--level", 0.5)
    assert run(place / "spots.h5ad", *target, *TRAINED) == 0
    loaded = ("--load-model", place / "model", "--output", tmp_path / "loaded.zarr", "--level", 0.5)
    assert run(place / "other.zarr", *loaded) == 0
    assert hashlib.sha256((place / "spots.h5ad").read_bytes()).digest() == before
    other = spots(1)
    expected = model.predict(other)
    lower, upper = model.interval(other, 0.5)
    for path in tmp_path.iterdir():
        found = st.datasets.read_slice(path)
        np.testing.assert_array_equal(found.obsm["var_st"], expected)
        assert list(found.uns["var_st"]["gene_names"]) == model.gene_names
        np.testing.assert_array_equal(found.obsm["var_st_lower"], lower)
        np.testing.assert_array_equal(found.obsm["var_st_upper"], upper)


def test_the_most_variable_genes_alone(place, tmp_path):
    output = tmp_path / "out.h5ad"
    assert run(place / "spots.h5ad", "--output", output, "--n-top-genes", 5, *TRAINED) == 0
    found, adata = st.datasets.read_slice(output), spots(0)
    assert found.n_vars == 12
    genes = found.uns["var_st"]["gene_names"].tolist()
    counts = adata.X.toarray()
    variance = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).var(axis=0)
    assert len(genes) == 5
    part = adata[:, genes].copy()
    st.model.VARST.setup_anndata(part, patient_key="patient")
    model = st.model.VARST(part, size="tiny")
    model.train(max_epochs=2, seed=3, accelerator="cpu", enable_progress_bar=False)
    np.testing.assert_array_equal(found.obsm["var_st"], part.layers["var_st"])
    kept = adata.var_names.isin(genes)
    assert variance[kept].mean() > variance[~kept].mean()


def test_options_from_a_file(place, tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text(f"training_stage: 1\nstage1: {tmp_path / 'wrong'}\nsize: tiny\nmax_epochs: 1\naccelerator: cpu\n")
    assert run(place / "spots.h5ad", "--config", config, "--stage1", tmp_path / "right") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["options.yaml", "right"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "`output`: name the file of the predictions"),
        (["--training-stage", 1], "`stage1`: name the folder that stage 1 is written to"),
        (["--training-stage", 2, "--output", "{tmp}/o.h5ad"], "`stage1`: name the folder that stage 1 was written to"),
        (
            ["--training-stage", 1, "--stage1", "{tmp}/s", "--output", "{tmp}/o.h5ad"],
            "`output`: stage 1 alone predicts",
        ),
        (["--training-stage", 1, "--stage1", "{place}/model"], "`stage1`: '{place}/model' exists"),
        (
            ["--training-stage", 2, "--stage1", "{place}/model", "--output", "{tmp}/o.h5ad"],
            "`stage1`: '{place}/model' holds a VARST, not a stage 1",
        ),
        (["--load-model", "{place}/model", "--predict", "x.h5ad"], "`predict` is of training, but `load_model`"),
        (["--load-model", "{tmp}/none", "--output", "{tmp}/o.h5ad"], "`load_model`: no model.json"),
        (["--predict", "{tmp}/none.h5ad", "--output", "{tmp}/o.h5ad"], "`predict`: no such file"),
        (["--output", "{place}/out.h5ad"], "`output`: '{place}/out.h5ad' exists"),
        (
            ["--output", "{place}/other.zarr", "--predict", "{place}/other.zarr"],
            "`output`: '{place}/other.zarr' is the input",
        ),
        (["--output", "{tmp}/o.h5ad", "--features-key", "X_img"], "`features_key`: key 'X_img' not found"),
        (["--output", "{tmp}/o.h5ad", "--patient-key", "donor"], "`patient_key`: key 'donor' not found"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(place, tmp_path, capsys, options, message):
    names = {"tmp": tmp_path, "place": place}
    assert run(place / "spots.h5ad", *(str(option).format(**names) for option in options)) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"stomics: error: {message.format(**names)}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_options_are_those_of_the_model():
    hints = get_type_hints(var_st)
    assert set(get_args(hints["size"])) == set(_settings._SIZES)
    for name, literal in (("gene_tree", _settings.Tree), ("quantizer", _settings.Quantization)):
        assert set(get_args(get_args(hints[name])[0])) == set(get_args(literal))
    known = {
        *inspect.signature(st.model.VARST.__init__).parameters,
        *inspect.signature(st.model.VARST.train).parameters,
    }
    known |= {*inspect.signature(st.model.VARST.setup_anndata).parameters}
    known |= {*inspect.signature(st.model.VARST.train_stage1).parameters, "level", "accelerator", "devices"}
    own = {
        "input",
        "output",
        "predict",
        "load_model",
        "save_model",
        "overwrite",
        "training_stage",
        "modality",
        "keep_controls",
        "n_top_genes",
    }
    assert set(inspect.signature(var_st).parameters) - own <= known
