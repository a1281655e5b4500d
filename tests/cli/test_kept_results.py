"""What a command does before, and leaves behind when, something fails; and saved models applied to other files."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import stomics_tools as st
from stomics_tools._compat import columns_as_given
from stomics_tools.cli import main

QUICK = ("--max-epochs", 1, "--accelerator", "cpu")


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def rna() -> AnnData:
    return st.datasets.simulate_multiomics(n_obs=120, n_domains=3, n_batches=2, modalities=["rna"], seed=1)["rna"]


def slash_in_obsm(adata: AnnData) -> None:
    adata.obsm["RNA/GEX"] = np.ones((adata.n_obs, 2))


def large_table(adata: AnnData) -> None:
    columns = [f"g{i}" for i in range(4500)]
    adata.obsm["table"] = pd.DataFrame(np.ones((adata.n_obs, 4500), np.float32), adata.obs_names, columns)


@pytest.mark.parametrize(
    ("change", "suffix", "message"),
    [
        (slash_in_obsm, ".zarr", "A slash stands for a folder there: rename the keys ['RNA/GEX']"),
        (large_table, ".h5ad", "A table of more than about 4,000 columns does not fit: store it as an array."),
    ],
)
def test_what_cannot_be_written_is_said_before_training(rna, tmp_path, capsys, monkeypatch, change, suffix, message):
    adata = rna.copy()
    change(adata)
    source = tmp_path / "in.h5ad"
    rna.write_h5ad(source)
    monkeypatch.setattr("stomics_tools.cli._files.read_file", lambda path: adata)
    output = tmp_path / f"out{suffix}"
    assert run("graphst", source, "--output", output, "--save-model", tmp_path / "model", *QUICK) == 1
    captured = capsys.readouterr()
    assert f"`output`: the data cannot be written as a {suffix} file and read again" in captured.err
    assert message in captured.err
    assert "train" not in captured.out
    assert list(tmp_path.iterdir()) == [source]


def test_names_of_modalities_with_a_slash(rna, tmp_path, capsys):
    rna.write_h5ad(tmp_path / "in.h5ad")
    for options in (
        ("praga-spike", tmp_path / "in.h5ad", "--modalities", "RNA/GEX=X_pca"),
        ("graphst", tmp_path / "in.h5ad", "--modality", "RNA/GEX"),
    ):
        assert run(*options, "--output", tmp_path / "o.h5mu", *QUICK) == 1
        assert "'RNA/GEX' holds a slash" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".h5ad", ".h5mu", ".zarr"])
def test_files_of_newer_versions_are_trained_on_and_written(rna, tmp_path, suffix):
    adata = rna.copy()
    adata.obs_names, adata.var_names = adata.obs_names.astype("string"), adata.var_names.astype("string")
    source, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    with columns_as_given(), anndata.settings.override(allow_write_nullable_strings=True):
        if suffix == ".h5mu":
            from mudata import MuData

            MuData({"rna": adata}).write_h5mu(source)
        else:
            adata.write_h5ad(source) if suffix == ".h5ad" else adata.write_zarr(source)
    assert run("graphst", source, "--output", output, *QUICK) == 0
    found = st.datasets.read_slice(output)
    own = found["rna"] if suffix == ".h5mu" else found
    assert own.obs_names.tolist() == rna.obs_names.tolist()
    assert "X_graphst" in own.obsm


def test_without_domains_the_rest_is_written(rna, tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise ValueError("no clusters")

    rna.write_h5ad(tmp_path / "in.h5ad")
    monkeypatch.setattr(st.tl, "spatial_domains", fail)
    output = tmp_path / "out.h5ad"
    assert run("graphst", tmp_path / "in.h5ad", "--output", output, "--save-model", tmp_path / "m", *QUICK) == 1
    err = capsys.readouterr().err
    assert f"no clusters Everything but the domains is in '{output}'." in err
    assert f"The trained model is in '{tmp_path / 'm'}'" in err
    assert "X_graphst" in st.datasets.read_slice(output).obsm


def test_demo_writes_data_before_the_picture(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no picture")

    monkeypatch.setattr("stomics_tools.cli._picture.picture", fail)
    assert run("demo", "--output-dir", tmp_path, "--n-obs", 120, "--n-domains", 3, "--max-epochs", 1) == 1
    assert "praga_spike_domain" in st.datasets.read_slice(tmp_path / "demo.h5mu").obs


# ------------------------------------------------------------- saved models


def test_a_saved_graphst_is_applied(rna, tmp_path, capsys):
    parts = {name: rna[rna.obs["slice"] == name].copy() for name in rna.obs["slice"].unique()}
    (one, train), (two, new) = parts.items()
    for name, part in parts.items():
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    model = tmp_path / "model"
    command = ("graphst", tmp_path / f"{one}.h5ad", "--output", tmp_path / "a.h5ad", "--save-model", model, *QUICK)
    assert run(*command) == 0
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    apply = ("graphst", tmp_path / f"{two}.h5ad", "--load-model", model, "--output", tmp_path / "b.h5ad")
    assert run(*apply, "--n-domains", 2) == 0
    assert "\ntrain" not in capsys.readouterr().out.split("\nimport")[-1]
    found = st.datasets.read_slice(tmp_path / "b.h5ad")
    trained = st.model.GraphST.load(model, st.datasets.read_slice(tmp_path / f"{one}.h5ad"))
    np.testing.assert_allclose(found.obsm["X_graphst"], trained.get_latent_representation(new), rtol=1e-5, atol=1e-6)
    assert found.obs["graphst_domain"].nunique() == 2
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert run(*apply, "--overwrite", "--max-epochs", 3) == 1
    assert "`max_epochs` is of training, but `load_model` names a trained model" in capsys.readouterr().err


def test_a_saved_praga_spike_prepares_raw_counts_by_its_recipe(rna, tmp_path):
    rna.write_h5ad(tmp_path / "both.h5ad")
    new = rna[rna.obs["slice"] == rna.obs["slice"].unique()[1]].copy()
    new.obs.drop(columns="slice").pipe(lambda obs: setattr(new, "obs", obs))
    new.write_h5ad(tmp_path / "new.h5ad")
    model = tmp_path / "model"
    command = ("praga-spike", tmp_path / "both.h5ad", "--output", tmp_path / "a.h5ad", "--save-model", model)
    assert run(*command, *QUICK) == 0
    apply = ("praga-spike", tmp_path / "new.h5ad", "--load-model", model, "--output", tmp_path / "b.h5ad")
    assert run(*apply, "--n-domains", 2) == 0
    whole, found = (st.datasets.read_slice(tmp_path / f"{name}.h5ad") for name in "ab")
    expected = whole[new.obs_names].obsm["X_praga_spike"]
    np.testing.assert_allclose(found.obsm["X_praga_spike"], expected, atol=1e-4)


# ---------------------------------------------------- columns that are guessed


def test_columns_found_by_name_are_said_and_can_be_turned_off(rna, tmp_path, capsys):
    rna.write_h5ad(tmp_path / "in.h5ad")
    command = ("graphst", tmp_path / "in.h5ad", "--output", tmp_path / "o.h5ad", "--overwrite", *QUICK)
    assert run(*command) == 0
    out = capsys.readouterr().out
    assert "2 slices in obs['slice'], found by its name; `--batch-key` names another column, or 'none'" in out
    assert "3 labels in obs['domain'], found by its name; `--label-key` names another column, or 'none'" in out
    assert run(*command, "--batch-key", "none", "--label-key", "none") == 0
    out = capsys.readouterr().out
    assert "\ncolumns" not in out
    assert "none: neither `--n-domains` nor labels" in out
    found = st.datasets.read_slice(tmp_path / "o.h5ad")
    assert found.uns["graphst"]["params"].get("batch_key") is None


def test_names_of_spots_are_no_slices(rna, tmp_path, capsys):
    adata = rna.copy()
    adata.obs["sample"] = adata.obs_names.to_numpy()
    del adata.obs["slice"]
    adata.write_h5ad(tmp_path / "in.h5ad")
    command = ("graphst", tmp_path / "in.h5ad", "--output", tmp_path / "o.h5ad", *QUICK)
    assert run(*command, "--batch-key", "sample") == 1
    assert "`batch_key`: column 'sample' holds 120 different values in 120 spots" in capsys.readouterr().err
    assert run(*command) == 0
    assert "obs['sample'] holds 120 values in 120 spots and is not taken for slices" in capsys.readouterr().out


def test_an_error_on_slices_names_their_column(rna, tmp_path, capsys):
    adata = rna.copy()
    adata.obs["slice"] = pd.Categorical(np.where(np.arange(120) < 3, "small", "large"))
    adata.write_h5ad(tmp_path / "in.h5ad")
    for command in ("graphst", "praga-spike"):
        assert run(command, tmp_path / "in.h5ad", "--output", tmp_path / "o.h5ad", *QUICK) == 1
        err = capsys.readouterr().err
        assert "Slices are told apart by obs['slice']" in err
        assert "'none' if there is one slice" in err


def test_the_folder_of_the_user(rna, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rna.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "o.yaml").write_text("n_domains: 2\n")
    command = ("graphst", "~/in.h5ad", "--output", "~/o.h5ad", "--save-model", "~/m", "--config", "~/o.yaml", *QUICK)
    assert run(*command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in.h5ad", "o.h5ad", "m", "o.yaml"}
    assert not Path("~").exists()
