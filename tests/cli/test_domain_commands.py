"""``stomics praga-spike``, ``stomics praga`` and ``stomics graphst``."""

from __future__ import annotations

import hashlib
import inspect
import re
from contextlib import nullcontext
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import yaml
from anndata import AnnData
from mudata import MuData

import stomics_tools as st
from stomics_tools.cli import _files, main
from stomics_tools.cli._files import write_output
from stomics_tools.cli._graphst import graphst
from stomics_tools.cli._praga import praga, praga_spike
from stomics_tools.model.graphst import _settings as graphst_settings
from stomics_tools.model.praga import _settings as praga_settings
from stomics_tools.model.praga_spike import _settings
from stomics_tools.train import History

QUICK = ("--max-epochs", 2, "--accelerator", "cpu")


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def digest(path: Path) -> str:
    """Of the bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(str(p).encode() + p.read_bytes() for p in files)).hexdigest()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A slice of RNA and protein as h5mu and zarr, its RNA as h5ad and zarr."""
    folder = tmp_path_factory.mktemp("slices")
    mdata = st.datasets.simulate_multiomics(n_obs=150, n_domains=3, n_batches=2, seed=1)
    for name, data in (
        ("both.h5mu", mdata),
        ("both.zarr", mdata),
        ("rna.h5ad", mdata["rna"]),
        ("rna.zarr", mdata["rna"]),
    ):
        write_output(data, folder / name)
    return folder


# --------------------------------------------------------------- files in and out


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("both.h5mu", "out.h5mu", MuData),
        ("both.h5mu", "out.zarr", MuData),
        ("both.zarr", "out.h5mu", MuData),
        ("rna.h5ad", "out.h5ad", AnnData),
        ("rna.h5ad", "out.h5mu", MuData),
        ("rna.h5ad", "out.zarr", AnnData),
        ("rna.zarr", "out.h5ad", AnnData),
    ],
)
def test_praga_spike_reads_and_writes_every_format(place, tmp_path, capsys, source, target, kind):
    before = digest(place / source)
    assert run("praga-spike", place / source, "--output", tmp_path / target, *QUICK) == 0
    assert digest(place / source) == before
    assert [path.name for path in tmp_path.iterdir()] == [target]
    result = st.datasets.read_slice(tmp_path / target)
    assert isinstance(result, kind)
    assert result.obsm["X_praga_spike"].shape == (150, 64)
    assert result.obs["praga_spike_domain"].nunique() == 3
    assert result.uns["praga_spike"]["params"]["batch_key"] == "slice"
    out = capsys.readouterr().out
    assert "150 spots in 2 slices by 'slice'" in out
    assert "3 in obs['praga_spike_domain'], as many as labels in 'domain'; 'domain': ARI" in out


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("both.h5mu", "out.h5mu"),
        ("both.zarr", "out.zarr"),
        ("both.h5mu", "out.h5ad"),
        ("rna.h5ad", "out.h5ad"),
        ("rna.h5ad", "out.h5mu"),
        ("rna.zarr", "out.zarr"),
    ],
)
def test_graphst_reads_and_writes_every_format(place, tmp_path, source, target):
    before = digest(place / source)
    assert run("graphst", place / source, "--modality", "rna", "--output", tmp_path / target, *QUICK) == 0
    assert digest(place / source) == before
    result = st.datasets.read_slice(tmp_path / target)
    both = target.endswith("h5mu") or source == "both.zarr"
    assert isinstance(result, MuData if both else AnnData)
    adata = result["rna"] if both else result
    assert adata.obsm["X_graphst"].shape == (150, 64)
    assert adata.obs["graphst_domain"].nunique() == 3
    if source == "both.h5mu" and both:
        assert "X_graphst" not in result["protein"].obsm


# ------------------------------------------------------- the same as in Python


def test_praga_spike_as_in_python(place, tmp_path):
    options = ("--n-latent", 8, "--n-domains", 4, "--seed", 3, "--modalities", "rna", "protein")
    saved = tmp_path / "model"
    assert (
        run(
            "praga-spike",
            place / "both.h5mu",
            "--output",
            tmp_path / "out.h5mu",
            "--save-model",
            saved,
            *options,
            *QUICK,
        )
        == 0
    )
    found = st.datasets.read_slice(tmp_path / "out.h5mu")

    mdata = st.datasets.read_slice(place / "both.h5mu")
    st.pp.rna(mdata["rna"], seed=3)
    st.pp.protein(mdata["protein"], seed=3)
    keys = {"rna": "X_pca", "protein": "X_protein"}
    st.model.PRAGASpike.setup_mudata(mdata, keys, batch_key="slice")
    model = st.model.PRAGASpike(mdata, n_latent=8)
    model.train(2, seed=3, accelerator="cpu", enable_progress_bar=False)
    st.tl.spatial_domains(mdata, 4, use_rep="X_praga_spike", seed=3)
    np.testing.assert_array_equal(found.obsm["X_praga_spike"], mdata.obsm["X_praga_spike"])
    assert found.obs["praga_spike_domain"].tolist() == mdata.obs["spatial_domain"].tolist()
    loaded = st.model.PRAGASpike.load(saved, mdata)
    np.testing.assert_array_equal(loaded.get_latent_representation(), mdata.obsm["X_praga_spike"])


@pytest.mark.parametrize(
    "windows", [("2,4",), ("2", "4"), ("none,4",)], ids=["by a comma", "by a space", "with the slice"]
)
def test_options_of_the_spikes(place, tmp_path, windows):
    """Every option reaches the model, in the spelling of other programs too."""
    out = tmp_path / "out.h5ad"
    options = (
        "--num-heads",
        4,
        "--n-layers",
        2,
        "--n_levels",
        3,
        "--num-copies",
        2,
        "--weight-bits",
        "learned",
        "--bit-budget",
        3.5,
    )
    options += ("--residual", "sew", "--graph-fusion", "conv", "--attention-windows", *windows, "--n-latent", 16)
    options += ("--early-stopping-patience", 1, "--validation-size", 0.2)
    assert run("praga-spike", place / "rna.h5ad", "--output", out, *options, *QUICK) == 0
    params = st.datasets.read_slice(out).uns["praga_spike"]["params"]
    given = {
        "n_heads": 4,
        "n_layers": 2,
        "n_levels": 3,
        "n_copies": 2,
        "weight_bits": "learned",
        "bit_budget": 3.5,
        "residual": "sew",
    }
    given |= {"graph_fusion": "conv", "n_latent": 16, "early_stopping_patience": 1, "validation_size": 0.2}
    assert {name: params[name] for name in given} == given
    found = params["attention_windows"]  # as text where one of them is no number
    assert found == "[null, 4]" if windows == ("none,4",) else list(found) == [2, 4]


@pytest.mark.parametrize("encoder", ["ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa", "relu"])
def test_every_encoder(place, tmp_path, encoder):
    out = tmp_path / "out.h5ad"
    bits = ("--weight-bits", "float") if encoder == "relu" else ("--weight-bits", 3)
    options = ("--encoder", encoder, "--n-latent", 16, "--no-early-stopping", *bits)
    assert run("praga-spike", place / "rna.h5ad", "--output", out, *options, *QUICK) == 0
    result = st.datasets.read_slice(out)
    params = result.uns["praga_spike"]["params"]
    assert (params["encoder"], params["weight_bits"]) == (encoder, "float" if encoder == "relu" else 3)
    assert not params["early_stopping"]
    assert np.isfinite(result.obsm["X_praga_spike"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--encoder", "spikformer"), "encoder"),
        (("--weight-bits", 9), "`weight_bits`"),
        (("--weight-bits", "many"), "weight_bits"),
        (("--bit-budget", 3), "`bit_budget=3.0` has no effect unless `weight_bits='learned'`"),
        (("--attention-windows", "2,x"), "attention_windows"),
        (("--num-heads", 7), "must be a multiple of `n_heads=7`"),
        (("--no-early-stopping", "--validation-size", 0.2), "`validation_size=0.2` has no effect"),
        (("--patience", 3), "unrecognized option --patience."),
        (("--residual", "sum"), "residual"),
    ],
)
def test_wrong_options_of_the_spikes(place, tmp_path, capsys, options, message):
    out = tmp_path / "out.h5ad"
    by_command_line = {"--patience", "--encoder", "--residual", "--attention-windows"}
    refused = pytest.raises(SystemExit) if options[0] in by_command_line or options[-1] == "many" else nullcontext()
    with refused:
        assert run("praga-spike", place / "rna.h5ad", "--output", out, *options, *QUICK) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_graphst_as_in_python(place, tmp_path):
    options = ("--n-latent", 8, "--n-top-genes", 100, "--seed", 3, "--batch-key", "slice", "--n-domains", 3)
    saved = tmp_path / "model"
    assert (
        run("graphst", place / "rna.h5ad", "--output", tmp_path / "out.h5ad", "--save-model", saved, *options, *QUICK)
        == 0
    )
    found = st.datasets.read_slice(tmp_path / "out.h5ad")
    adata = st.datasets.read_slice(place / "rna.h5ad")
    st.model.GraphST.setup_anndata(adata, batch_key="slice", n_top_genes=100)
    model = st.model.GraphST(adata, n_latent=8)
    model.train(2, seed=3, accelerator="cpu", enable_progress_bar=False)
    np.testing.assert_array_equal(found.obsm["X_graphst"], adata.obsm["X_graphst"])
    st.tl.spatial_domains(adata, 3, use_rep="X_graphst", seed=3)
    assert found.obs["graphst_domain"].tolist() == adata.obs["spatial_domain"].tolist()
    loaded = st.model.GraphST.load(saved, adata)
    np.testing.assert_array_equal(loaded.get_latent_representation(), adata.obsm["X_graphst"])


def test_modalities_of_one_anndata_by_key(place, tmp_path):
    adata = st.datasets.read_slice(place / "rna.h5ad")
    rng = np.random.default_rng(0)
    adata.obsm["first"], adata.obsm["second"] = rng.normal(size=(150, 5)), rng.normal(size=(150, 4))
    write_output(adata, tmp_path / "in.h5ad")
    named = ("--modalities", "a=first", "b=second")
    assert run("praga-spike", tmp_path / "in.h5ad", "--output", tmp_path / "out.h5ad", *named, *QUICK) == 0
    result = st.datasets.read_slice(tmp_path / "out.h5ad")
    assert dict(result.uns["praga_spike"]["params"]["modalities"]) == {"a": "first", "b": "second"}
    assert "X_pca" not in result.obsm


def test_no_domains_without_a_number(place, tmp_path, capsys):
    adata = st.datasets.read_slice(place / "rna.h5ad")
    del adata.obs["domain"]
    write_output(adata, tmp_path / "in.h5ad")
    assert run("graphst", tmp_path / "in.h5ad", "--output", tmp_path / "out.h5ad", *QUICK) == 0
    assert "none: neither `--n-domains` nor labels" in capsys.readouterr().out
    assert "graphst_domain" not in st.datasets.read_slice(tmp_path / "out.h5ad").obs


def test_coordinates_and_slices_that_only_the_mudata_has(place, tmp_path, capsys):
    mdata = st.datasets.read_slice(place / "both.h5mu")
    for adata in mdata.mod.values():
        del adata.obsm["spatial"], adata.obs["slice"]
    write_output(mdata, tmp_path / "in.h5mu")
    named = ("--modality", "rna", "--output", tmp_path / "out.h5ad")
    assert run("graphst", tmp_path / "in.h5mu", *named, *QUICK) == 0
    assert "2 slices by 'slice'" in capsys.readouterr().out


# ------------------------------------------------------------ nothing is lost


def test_an_output_that_exists_is_replaced_only_if_told(place, tmp_path, capsys):
    output = tmp_path / "out.h5ad"
    output.write_bytes(b"mine")
    command = ("graphst", place / "rna.h5ad", "--output", output, *QUICK)
    assert run(*command) == 1
    err = capsys.readouterr().err
    assert err == f"stomics: error: `output`: '{output}' exists. Choose another name, or replace it by `--overwrite`.\n"
    assert output.read_bytes() == b"mine"
    assert run(*command, "--overwrite") == 0
    assert "X_graphst" in st.datasets.read_slice(output).obsm


@pytest.mark.parametrize("name", ["rna.h5ad", "rna.zarr"])
def test_the_input_is_replaced_only_if_told(place, tmp_path, capsys, name):
    own = tmp_path / name
    write_output(st.datasets.read_slice(place / "rna.h5ad"), own)
    before = digest(own)
    assert run("graphst", own, "--output", own, *QUICK) == 1
    assert "is the input" in capsys.readouterr().err
    assert digest(own) == before
    assert run("graphst", own, "--output", own, "--overwrite", *QUICK) == 0
    assert "X_graphst" in st.datasets.read_slice(own).obsm
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folders_that_are_no_zarr_or_hold_the_input_are_not_replaced(place, tmp_path, capsys):
    folder = tmp_path / "mine.zarr"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    inside = folder / "in.h5ad"
    write_output(st.datasets.read_slice(place / "rna.h5ad"), inside)
    for source, output, message in (
        (place / "rna.h5ad", folder, "is no zarr folder"),
        (inside, folder, "lie within each other"),
        (place / "rna.zarr", place / "rna.zarr" / "out.h5ad", "lie within each other"),
    ):
        assert run("graphst", source, "--output", output, "--overwrite", *QUICK) == 1
        assert message in capsys.readouterr().err
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".h5ad", ".h5mu", ".zarr"])
def test_a_writer_that_fails_leaves_what_was_there(place, tmp_path, monkeypatch, suffix):
    output = tmp_path / f"out{suffix}"
    data = st.datasets.read_slice(place / ("both.h5mu" if suffix == ".h5mu" else "rna.h5ad"))
    method = f"write_{suffix[1:]}"
    write = getattr(type(data), method)

    def fail(self, path, *args, **kwargs):
        write(self, path, *args, **kwargs)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(type(data), method, fail)
        with pytest.raises(OSError, match="disk full"):
            write_output(data, output)
        assert not list(tmp_path.iterdir())
        patch.undo()
        write_output(data, output)
        before = digest(output)
        patch.setattr(type(data), method, fail)
        with pytest.raises(OSError, match="disk full"):
            write_output(data, output)
    assert digest(output) == before
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("save", [True, False])
def test_a_failing_writer_leaves_the_model(place, tmp_path, monkeypatch, capsys, save):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(_files, "write_output", fail)
    saved = tmp_path / ("model" if save else "out_model")
    asked = ("--save-model", saved) if save else ()
    assert run("graphst", place / "rna.h5ad", "--output", tmp_path / "out.h5ad", *asked, *QUICK) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"stomics: error: No space left on device The trained model is in '{saved}'")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [saved]
    model = st.model.GraphST.load(saved, st.datasets.read_slice(place / "rna.h5ad"))
    assert len(model.history["train_loss"]) == 2


def test_saved_models_are_replaced_only_if_told(place, tmp_path, capsys):
    saved = tmp_path / "model"
    command = ("graphst", place / "rna.h5ad", "--output", tmp_path / "out.h5ad", "--save-model", saved, *QUICK)
    saved.mkdir()
    (saved / "notes.txt").write_text("mine")
    assert run(*command) == 1
    assert f"`save_model`: '{saved}' exists" in capsys.readouterr().err
    assert run(*command, "--overwrite") == 1
    assert "is not the folder of a saved model" in capsys.readouterr().err
    (saved / "notes.txt").unlink()
    assert run(*command, "--overwrite") == 0
    assert run(*command, "--overwrite") == 0
    assert {path.name for path in saved.iterdir()} == {"model.json", "model.safetensors"}


def test_an_interrupted_training_ends_with_130_and_leaves_no_file(place, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(History, "on_train_epoch_end", interrupt)
    assert run("graphst", place / "rna.h5ad", "--output", tmp_path / "out.h5ad", *QUICK) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stomics: interrupted"
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------- errors


@pytest.mark.parametrize("command", ["praga-spike", "graphst"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-domains", 1], "`n_domains` must be at least 2, found 1"),
        (["--max-epochs", 0], "`max_epochs` must be at least 1, found 0"),
        (["--label-key", "domian"], "`label_key`: key 'domian' not found"),
        (["--batch-key", "slise"], "`batch_key`: key 'slise' not found"),
        (["--spatial-key", "xy"], "`spatial_key`: key 'xy' not found"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(place, tmp_path, capsys, command, options, message):
    assert run(command, place / "rna.h5ad", "--output", tmp_path / "out.h5ad", *options) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"stomics: error: {message}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("nowhere.h5ad", "out.h5ad", "`input`: no such file"),
        ("table.csv", "out.h5ad", "`input` must be an h5ad or h5mu file or a zarr folder"),
        ("damaged.h5ad", "out.h5ad", "`input`: '.*' cannot be read as a .h5ad file"),
        ("damaged.zarr", "out.zarr", "`input`: '.*' cannot be read as a .zarr file"),
        ("rna.h5ad", "out.csv", "`output` must end in .h5ad, .h5mu or .zarr"),
        ("rna.h5ad", "nowhere/out.h5ad", "`output`: no such folder"),
    ],
)
def test_files_that_are_no_slices(place, tmp_path, capsys, source, target, message):
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "damaged.h5ad").write_bytes(b"no slice")
    (tmp_path / "damaged.zarr").mkdir()
    folder = place if source == "rna.h5ad" else tmp_path
    assert run("graphst", folder / source, "--output", tmp_path / target) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err)


def test_several_modalities(place, tmp_path, capsys):
    assert run("praga-spike", place / "both.h5mu", "--output", tmp_path / "out.h5ad") == 1
    assert "an h5ad file holds one modality, the data have ['rna', 'protein']" in capsys.readouterr().err
    assert run("graphst", place / "both.h5mu", "--output", tmp_path / "out.h5mu") == 1
    assert "`modality`: the data have ['rna', 'protein'], this model takes one" in capsys.readouterr().err
    assert run("graphst", place / "both.h5mu", "--modality", "rnb", "--output", tmp_path / "out.h5mu") == 1
    assert "Did you mean 'rna'?" in capsys.readouterr().err
    assert run("praga-spike", place / "both.h5mu", "--output", tmp_path / "out.h5mu", "--modalities", "atac") == 1
    assert "`modalities`: key 'atac' not found" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------ files of options


def test_options_from_a_file(place, tmp_path, capsys):
    config, output = tmp_path / "options.yaml", tmp_path / "out.h5ad"
    content = {
        "input": str(place / "nowhere.h5ad"),
        "output": str(output),
        "n_latent": 5,
        "max_epochs": 2,
        "n_domains": 3,
    }
    config.write_text(yaml.safe_dump(content))
    assert run("graphst", "--config", config) == 1
    assert "nowhere.h5ad" in capsys.readouterr().err
    assert run("graphst", place / "rna.h5ad", "--config", config, "--n-latent", 6) == 0
    assert st.datasets.read_slice(output).obsm["X_graphst"].shape == (150, 6)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run("graphst", place / "rna.h5ad", "--config", config, "--n-latent", 6, "--print-config")
    assert end.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["n_latent"] == 6
    assert printed["n_domains"] == 3
    assert printed["input"] == str(place / "rna.h5ad")


def test_wrong_usage_ends_with_2(capsys):
    for arguments in (
        ["graphst", "--output", "o.h5ad"],
        ["praga-spike", "in.h5ad"],
        ["graphst", "in.h5ad", "--n-latent"],
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        assert capsys.readouterr().err


def test_options_are_those_of_the_models():
    def choices(function, name: str) -> set:
        """Values of a Literal, of a union with None."""
        hint = get_type_hints(function)[name]
        parts = get_args(hint)
        return set(parts) if type(None) not in parts else {v for part in parts for v in get_args(part)}

    assert choices(praga, "data_type") == set(praga_settings.PUBLISHED)
    assert choices(praga_spike, "encoder") == set(get_args(_settings.Encoder))
    assert choices(graphst, "preset") | {None} == set(graphst_settings.PRESETS)
    assert choices(graphst, "contrast") == set(get_args(graphst_settings.Contrast))
    models = ((praga, st.model.PRAGA), (praga_spike, st.model.PRAGASpike), (graphst, st.model.GraphST))
    for function, model in models:
        known = {*inspect.signature(model.__init__).parameters, *inspect.signature(model.train).parameters}
        known |= {*inspect.signature(model.setup_anndata).parameters}
        own = {"input", "output", "save_model", "load_model", "overwrite", "modality", "label_key", "n_domains"}
        own |= {"keep_controls", "counts"}
        assert set(inspect.signature(function).parameters) - own <= known


def test_praga_equals_the_model(place, tmp_path):
    """The command prepares, trains and writes what the class does with the same values."""
    out, saved = tmp_path / "out.h5mu", tmp_path / "model"
    options = ("--data-type", "stereo", "--n-latent", 8, "--n-feature-neighbors", 5, "--save-model", saved)
    assert run("praga", place / "both.h5mu", "--output", out, *options, *QUICK) == 0
    mdata = st.datasets.read_slice(out)
    params = mdata.uns["praga"]["params"]
    assert (params["model"], params["data_type"], params["max_epochs"]) == ("PRAGA", "stereo", 2)
    assert (params["lr"], params["weight_decay"], params["optimizer"]) == (0.01, 0.05, "sgd")
    st.model.PRAGA.setup_mudata(mdata, dict(params["modalities"]), batch_key=params.get("batch_key"))
    model = st.model.PRAGA(mdata, data_type="stereo", n_latent=8, n_feature_neighbors=5)
    model.train(2, seed=0, key_added=None, accelerator="cpu", enable_progress_bar=False)
    np.testing.assert_array_equal(mdata.obsm["X_praga"], model.get_latent_representation())
    assert "praga_domain" in mdata.obs
    again = tmp_path / "again.h5mu"
    assert run("praga", place / "both.h5mu", "--load-model", saved, "--output", again) == 0
    np.testing.assert_allclose(st.datasets.read_slice(again).obsm["X_praga"], mdata.obsm["X_praga"], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preset", "praga"), "unrecognized option --preset. The published PRAGA is `stomics praga --data-type"),
        (("--data_type=10x",), "unrecognized option --data_type. The published PRAGA is `stomics praga"),
        (("--patience", 5), "unrecognized option --patience. Training stops by the error of spots kept out"),
    ],
)
def test_options_of_earlier_versions(place, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        run("praga-spike", place / "both.h5mu", "--output", tmp_path / "o.h5mu", *options)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    config = tmp_path / "options.yaml"
    config.write_text("preset: enhanced\n")
    with pytest.raises(SystemExit):
        run("praga-spike", place / "both.h5mu", "--output", tmp_path / "o.h5mu", "--config", config)
    assert "`config`: option 'preset' in" in (error := capsys.readouterr().err)
    assert "no longer there. The published PRAGA is `stomics praga" in error
