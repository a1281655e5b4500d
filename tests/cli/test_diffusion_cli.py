from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

import stomics_tools as st
from stomics_tools.cli import main
from stomics_tools.cli._main import COMMANDS, build_parser
from stomics_tools.cli._spelling import config_first
from stomics_tools.cli.diffusion import _train
from stomics_tools.cli.diffusion._config import Config, Diffusion, Masking, Network, Training
from stomics_tools.data import log_cp10k
from stomics_tools.train import fit
from stomics_tools.train._checkpoint import EpochCheckpoint

PAGE = Path(__file__).parents[2] / "docs" / "user_guide" / "diffusion_command.md"
KINDS = ("basic", "gated", "moe", "combined", "full")
TINY = """
network: {width: 16, n_heads: 2, n_layers: 1, n_hidden: 16, n_latent: 8, n_members: 1, n_regression_hidden: 8}
diffusion: {n_window: 64}
training: {max_epochs: 4, checkpoint_every: 2, accelerator: cpu}
"""
QUICK = ("--num-steps", 2, "--seed", 3)


def run(command: str, *arguments) -> int:
    return main(["diffusion", command, *map(str, arguments)])


def sections() -> ad.AnnData:
    adata = st.datasets.simulate_sections(3, 60, 24, seed=1)
    adata.layers["raw"] = adata.X
    adata.X = None
    adata.obsm["xy"] = adata.obsm.pop("spatial")
    adata.obs["known"] = np.arange(adata.n_obs) % 3 == 0
    return adata


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Data, and outputs/whole: a training that was not interrupted."""
    folder = tmp_path_factory.mktemp("diffusion")
    adata = sections()
    adata.write_h5ad(folder / "all.h5ad")
    adata[adata.obs["section"] == "section1"].copy().write_h5ad(folder / "query.h5ad")
    (folder / "tiny.yaml").write_text(TINY)
    keys = ("--layer", "raw", "--spatial-key", "xy", "--batch-key", "section", "--num-genes", 16)
    data = ("--input", folder / "all.h5ad", "--data-dir", folder / "data")
    assert run("preprocess", *data, *keys, "--test-batches", "section1") == 0
    assert run("train", *train_options(folder, "whole")) == 0
    return folder


def train_options(place: Path, name: str) -> list:
    return [
        *("--data-dir", place / "data", "--exp-name", name, "--output-dir", place / "outputs"),
        *("--config", place / "tiny.yaml", "--enable-masking", "false"),
    ]


def model_at(place: Path, name: str) -> st.model.MaskedDiffusion:
    return st.model.MaskedDiffusion.load(place / "outputs" / name / "model")


# --------------------------------------------------------------------- options


def test_options_are_the_arguments_of_the_model():
    """Names, types and defaults of all sections against the signatures that they are handed to."""
    names = [f.name for section in (Network, Diffusion, Training, Masking) for f in fields(section)]
    assert len(names) == len(set(names))
    model, training = Config().model_arguments(), Config().training_arguments()
    constructor = inspect.signature(st.model.MaskedDiffusion.__init__).parameters
    assert set(model) == set(constructor) - {"self", "adata", "registry"}
    own = inspect.signature(st.model.MaskedDiffusion.train).parameters
    given_here = {"self", "checkpoint_dir", "ckpt_path", "key_added", "fit_kwargs"}
    given_here |= {"early_stopping", "early_stopping_patience"}  # other names of `patience`, for users of scvi-tools
    assert set(training) - set(inspect.signature(fit).parameters) <= set(own)
    assert set(own) - given_here <= set(training)
    taken = {**inspect.signature(fit).parameters, **own, **constructor}
    types = {
        **get_type_hints(fit),
        **get_type_hints(st.model.MaskedDiffusion.train),
        **get_type_hints(st.model.MaskedDiffusion.__init__),
    }
    assert training.pop("seed") == 0  # of the command itself, so that its record of the options names one
    for section in (Config, Network, Diffusion, Training, Masking):
        for name, kind in get_type_hints(section).items():
            if kind not in (Network, Diffusion, Training, Masking) and name != "seed":
                assert kind == types[name], name
    for name, value in {**model, **training}.items():
        assert value == taken[name].default, name


def parsed(*arguments) -> dict:
    parser = build_parser()
    given = ["diffusion", "train", "--data-dir", "d", "--exp-name", "e", *map(str, arguments)]
    return parser.parse_args(config_first(given, COMMANDS)).diffusion.train.as_dict()


def test_options_given_win_over_the_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("training_mode: expr_to_pos\nnetwork: {width: 32, n_layers: 3, use_moe: true}\n")
    for options in (("--config", path, "--width", 64), ("--network.width=64", f"--config={path}")):
        found = parsed(*options)
        assert found["training_mode"] == "expr_to_pos"
        assert (found["network"]["width"], found["network"]["n_layers"], found["network"]["use_moe"]) == (64, 3, True)
        assert found["network"]["n_heads"] == Network().n_heads
    assert parsed("--config", path, "--use-moe", "false")["network"]["use_moe"] is False
    assert parsed("--use-moe", "--clip-grad", "null")["training"]["clip_grad"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_example_configurations(kind, tmp_path, capsys):
    assert run("config", "--kind", kind) == 0
    path = tmp_path / f"{kind}.yaml"
    path.write_text(capsys.readouterr().out)
    found = parsed("--config", path)
    switches = {
        "use_gated_attention": kind in ("gated", "combined", "full"),
        "use_moe": kind in ("moe", "combined", "full"),
    }
    expected = Config(network=Network(**switches), masking=Masking(enable_masking=kind == "full")).plain()
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: {widht: 3}", "unknown option 'network.widht' in '{path}'. Did you mean 'network.width'?"),
        ("netwrok: {width: 3}", "unknown option 'netwrok' in '{path}'. Did you mean 'network'?"),
        ("network: {max_epochs: 3}", "unknown option 'network.max_epochs' in '{path}'. Did you mean 'training.max_epochs'?"),
        ("enable_masking: true", "Did you mean 'masking.enable_masking'?"),
        ("training:", "section 'training' of '{path}' must hold options, found None"),
        ("- 1", "'{path}' must map options to values, found list"),
        ("a: [", "'{path}' is no YAML"),
        ("stomics_tools_version: 7.1.0\nnew: 3", f"was written by stomics-tools 7.1.0, this is {st.__version__}"),
        (
            "stomics_tools_version: 0.0.1\nold: 3",
            f"unknown option 'old' in '{{path}}' (of stomics-tools 0.0.1; this is {st.__version__})",
        ),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(text, message, tmp_path, capsys):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit) as end:
        run("train", "--data-dir", "d", "--exp-name", "e", "--config", path)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("stomics: error: `config`: ")
    assert message.format(path=path) in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there(capsys):
    with pytest.raises(SystemExit):
        run("train", "--data-dir", "d", "--exp-name", "e", "--config", "nowhere.yaml")
    assert capsys.readouterr().err == "stomics: error: `config`: no such file 'nowhere.yaml'.\n"


def test_a_value_of_the_wrong_type(tmp_path, capsys):
    path = tmp_path / "a.yaml"
    path.write_text("network: {width: wide}")
    with pytest.raises(SystemExit):
        run("train", "--data-dir", "d", "--exp-name", "e", "--config", path)
    assert "network.width" in capsys.readouterr().err


def test_the_guide_can_be_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "config.yaml").write_text(block)
        values = parsed("--config", "config.yaml")
        for section, given in yaml.safe_load(block).items():
            shown = {name: values[section][name] for name in given} if isinstance(given, dict) else values[section]
            assert shown == given
    shell = "".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ").replace("$kind", "moe")
    lines = [line.split(" > ")[0].strip() for line in shell.splitlines() if "stomics" in line]
    for name in ("moe.yaml", "outputs/brain/config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("data_dir: data\nexp_name: brain\n")
    commands = {shlex.split(line)[2] for line in lines}
    assert commands == {"preprocess", "config", "train", "test", "sample"}
    for line in lines:
        build_parser().parse_args(config_first(shlex.split(line)[1:], COMMANDS))


REQUIRED = """
TransformerLayer_setting:
  d_model: 32
  num_heads: 4
  d_ff: 64
  use_gated_attention: true
  gate_type: headwise
  use_moe: true
  num_experts: 6
  moe_top_k: 3
diffusion:
  diffusion_steps: 500
training:
  batch_size: 2
  epochs: 3
  learning_rate: 1e-4
masking:
  enable: false
  expression_mask_ratio: 0.4
training_mode: joint
"""


@pytest.mark.parametrize("heads", ["num_heads", "n_heads", "n_head", "nhead"])
def test_sections_and_names_of_the_required_file(tmp_path, heads):
    path = tmp_path / "config.yaml"
    path.write_text(REQUIRED.replace("num_heads", heads))
    found = parsed("--config", path, "--lr", "5e-4")
    network = {"width": 32, "n_heads": 4, "n_hidden": 64, "use_gated_attention": True, "gate_type": "headwise"}
    network |= {"use_moe": True, "num_experts": 6, "moe_top_k": 3}
    assert network.items() <= found["network"].items()
    assert found["diffusion"]["diffusion_steps"] == 500
    assert {"batch_size": 2, "max_epochs": 3, "lr": 5e-4}.items() <= found["training"].items()
    assert {"enable_masking": False, "expression_mask_ratio": 0.4}.items() <= found["masking"].items()
    assert parsed("--config", path)["training"]["lr"] == 1e-4


def test_options_are_taken_with_underscores_and_other_names():
    given = """--use_gated_attention --gate_type headwise --use_moe --num_experts 4 --moe_top_k 1 --enable_masking
    --expression_mask_ratio 0.2 --position_mask_ratio 0.25 --batch_size 8 --epochs 7 --num_heads 4 --d_model 64"""
    found = parsed(*given.split())
    network = {"use_gated_attention": True, "gate_type": "headwise", "use_moe": True, "num_experts": 4}
    network |= {"moe_top_k": 1, "n_heads": 4, "width": 64}
    assert network.items() <= found["network"].items()
    masking = {"enable_masking": True, "expression_mask_ratio": 0.2, "position_mask_ratio": 0.25}
    assert masking == found["masking"]
    assert {"batch_size": 8, "max_epochs": 7}.items() <= found["training"].items()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss: {lambda_position: 2.0}", "option 'loss' in '{path}' has no counterpart here"),
        ("masking: {mask_strategy: block}", "genes are hidden at random. Leave it out."),
        ("training: {epochs: 3, max_epochs: 4}", "'training.epochs' and 'training.max_epochs' are the same option"),
        ("TransformerLayer_setting: {num_haeds: 3}", "Did you mean 'network.n_heads'?"),
    ],
)
def test_foreign_options_without_counterpart(text, message, tmp_path, capsys):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(SystemExit):
        run("train", "--data-dir", "d", "--exp-name", "e", "--config", path)
    assert message.format(path=path) in capsys.readouterr().err


# ------------------------------------------------------------------ preprocess


def test_preprocess_holds_out_whole_slices_and_chooses_genes_on_the_others(place):
    adata, parts = sections(), {p: ad.read_h5ad(place / "data" / f"{p}.h5ad") for p in ("train", "test")}
    assert parts["test"].obs_names.tolist() == adata.obs_names[adata.obs["section"] == "section1"].tolist()
    assert parts["train"].obs_names.tolist() == adata.obs_names[adata.obs["section"] != "section1"].tolist()
    own = adata[parts["train"].obs_names].layers["raw"].toarray()
    variance = np.where((own > 0).mean(axis=0) >= 0.1, log_cp10k(own).var(axis=0, dtype=float), 0)
    expected = adata.var_names[np.sort(np.argsort(-variance)[:16])].tolist()
    assert parts["train"].var_names.tolist() == parts["test"].var_names.tolist() == expected
    np.testing.assert_array_equal(parts["test"].obsm["xy"], adata[parts["test"].obs_names].obsm["xy"])


def test_preprocess_of_values_that_are_no_counts(place, tmp_path):
    adata = sections()
    values = adata.layers["raw"].toarray() / 7 - 1
    values[adata.obs["section"] == "section0", 3] = np.nan
    adata.X = values
    adata.write_h5ad(tmp_path / "a.h5ad")
    options = ("--spatial-key", "xy", "--batch-key", "section", "--num-genes", 5)
    assert run("preprocess", "--input", tmp_path / "a.h5ad", "--data-dir", tmp_path / "d", *options) == 0
    found = ad.read_h5ad(tmp_path / "d" / "train.h5ad")
    best = np.sort(np.argsort(-np.nanvar(values, axis=0))[:5])
    assert found.var_names.tolist() == adata.var_names[best].tolist()
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["train.h5ad"]


def test_preprocess_leaves_no_test_cells_of_an_earlier_call(place, tmp_path):
    options = ("--input", place / "all.h5ad", "--data-dir", tmp_path / "d", "--layer", "raw", "--spatial-key", "xy")
    options += ("--batch-key", "section")
    assert run("preprocess", *options, "--test-batches", "section0", "section2") == 0
    assert set(ad.read_h5ad(tmp_path / "d" / "test.h5ad").obs["section"]) == {"section0", "section2"}
    assert run("preprocess", *options) == 0
    assert not (tmp_path / "d" / "test.h5ad").exists()


def test_preprocess_of_a_folder(tmp_path, capsys):
    raw = tmp_path / "raw"
    raw.mkdir()
    adata = sections()
    names = adata.var_names.tolist()
    for number in range(3):
        part = adata[adata.obs["section"] == f"section{number}"].copy()
        part.obs_names = [f"cell{i}" for i in range(part.n_obs)]  # the same in every file
        del part.obs["section"]
        part[:, names[1:] if number == 1 else names].copy().write_h5ad(raw / f"s{number}.h5ad")
    (raw / "notes.txt").write_text("not a slice")
    options = ("--output_dir", tmp_path / "d", "--layer", "raw", "--spatial-key", "xy", "--test-batches", "s2")
    assert run("preprocess", "--raw_dir", raw, *options) == 0
    assert "genes that other files lack left out: {'s0': 1, 's2': 1}" in capsys.readouterr().out
    train, test = (ad.read_h5ad(tmp_path / "d" / f"{part}.h5ad") for part in ("train", "test"))
    assert set(train.obs["slice"]) == {"s0", "s1"}
    assert set(test.obs["slice"]) == {"s2"}
    assert set(train.var_names) == set(test.var_names) == set(names[1:])
    own = adata[adata.obs["section"] == "section2"]
    np.testing.assert_array_equal(test.layers["raw"].toarray(), own[:, test.var_names].layers["raw"].toarray())
    assert train.uns["stomics_diffusion"]["batch_key"] == "slice"


def test_controls_are_no_genes(tmp_path, capsys):
    adata = sections()
    adata.var_names = [f"Blank-{i}" if i < 4 else name for i, name in enumerate(adata.var_names)]
    adata.write_h5ad(tmp_path / "a.h5ad")
    options = (tmp_path / "a.h5ad", "--data-dir", tmp_path / "d", "--layer", "raw", "--spatial-key", "xy")
    assert run("preprocess", *options) == 0
    assert "left out control features: 4 'blank codeword'" in capsys.readouterr().out
    assert ad.read_h5ad(tmp_path / "d" / "train.h5ad").var_names.tolist() == adata.var_names[4:].tolist()
    assert run("preprocess", *options, "--keep-controls") == 0
    assert ad.read_h5ad(tmp_path / "d" / "train.h5ad").n_vars == adata.n_vars


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--input", "nowhere.h5ad"), "`input`: no such file 'nowhere.h5ad'"),
        (("--layer", "rwa"), "`layer`: key 'rwa' not found"),
        (("--spatial-key", "spatial"), "`spatial_key`: key 'spatial' not found"),
        (("--batch-key", "slice"), "`batch_key`: key 'slice' not found"),
        (("--num-genes", 0), "`num_genes` must be at least 1, found 0"),
        (("--test-batches", "section1"), "`test_batches` are slices: name their column by `batch_key`"),
        (("--batch-key", "section", "--test-batches", "section7"), "`test_batches`: unknown option 'section7'"),
        (("--batch-key", "section", "--test-batches", "section0", "section1", "section2"), "nothing is left"),
    ],
)
def test_preprocess_errors(place, tmp_path, capsys, options, message):
    data = ("--input", place / "all.h5ad", "--data-dir", tmp_path / "d", "--layer", "raw", "--spatial-key", "xy")
    assert run("preprocess", *data, *options) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "d").exists()


# ----------------------------------------------------------------------- train


def test_train_writes_the_effective_configuration_and_the_model(place):
    folder = place / "outputs" / "whole"
    content = yaml.safe_load((folder / "config.yaml").read_text())
    assert content["stomics_tools_version"] == st.__version__
    assert content["network"]["width"] == 16
    assert content["masking"]["enable_masking"] is False
    assert content["diffusion"]["diffusion_steps"] == Diffusion().diffusion_steps
    model = model_at(place, "whole")
    settings = model._arguments()
    for section in ("network", "diffusion", "masking"):
        assert {name: settings[name] for name in content[section]} == content[section]
    assert model._setup_arguments() == {"layer": "raw", "spatial_key": "xy", "batch_key": "section", "counts": None}
    assert len(model.history["train_loss"]) == 4
    logged = pd.read_csv(next(folder.glob("logs/*/metrics.csv")))
    assert "train_loss" in logged


def test_an_interrupted_training_goes_on_to_the_same_model(place, monkeypatch, capsys):
    write = EpochCheckpoint.on_train_epoch_end

    def write_and_fail(self, trainer, module):
        write(self, trainer, module)
        if trainer.current_epoch == 1:
            raise RuntimeError("the machine stopped")

    folder = place / "outputs" / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoint, "on_train_epoch_end", write_and_fail)
        assert run("train", *train_options(place, "broken")) == 1
    assert not (folder / "model").exists()
    assert run("test", "--checkpoint", folder) == 1
    assert "its training has not ended" in capsys.readouterr().err

    assert run("train", *train_options(place, "broken")) == 1
    assert f"`exp_name`: '{folder}' exists" in capsys.readouterr().err
    assert run("train", *train_options(place, "broken"), "--resume", "--lr", 0.5) == 1
    assert "`resume`: 'training.lr' is 0.5 here, 0.001 in" in capsys.readouterr().err

    checkpoint = folder / "checkpoints" / "last.ckpt"
    assert run("train", "--resume", checkpoint, "--lr", 0.5) == 1
    assert "`resume`: 'training.lr' is 0.5 here, 0.001 in" in capsys.readouterr().err
    shutil.copytree(folder, place / "outputs" / "copy")
    assert run("train", "--resume", place / "outputs" / "copy" / "checkpoints" / "last.ckpt") == 0
    assert "4 epochs, resumed" in capsys.readouterr().out
    assert run("train", "--config", folder / "config.yaml", "--resume") == 0
    assert "4 epochs, resumed" in capsys.readouterr().out
    copy = load_file(place / "outputs" / "copy" / "model" / "model.safetensors")
    first, second = (
        load_file(place / "outputs" / name / "model" / "model.safetensors") for name in ("whole", "broken")
    )
    assert set(first) == set(second)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)
        np.testing.assert_array_equal(values, copy[name], err_msg=name)
    assert run("train", "--config", folder / "config.yaml", "--resume") == 1
    assert "has ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data-dir", "nowhere"), "`data_dir`: no such folder 'nowhere'"),
        (("--data-dir", "."), "`data_dir`: no train.h5ad in '.'"),
        (("--exp-name", "a/b"), "`exp_name` must be the name of a folder"),
        (("--width", 15), "`width` (15) must be a multiple of `n_heads` (2)"),
        (("--max-epochs", 0), "`max_epochs` must be at least 1, found 0"),
        (("--resume",), "`resume`: there is no training in"),
        (("--resume", "nowhere/last.ckpt"), "`resume`: no such file or folder 'nowhere/last.ckpt'"),
        (("--resume", "."), "`resume`: '.' belongs to no training"),
    ],
)
def test_train_errors(place, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert run("train", *train_options(place, "wrong"), *options) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (place / "outputs" / "wrong").exists()


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_loggers_that_are_not_installed(place, monkeypatch, capsys, name):
    monkeypatch.setattr(_train, "find_spec", lambda package: None)
    assert run("train", *train_options(place, "logged"), "--logger", name) == 1
    assert f"`logger`: {name!r} needs the package {name}, which is not installed" in capsys.readouterr().err
    assert not (place / "outputs" / "logged").exists()


# ------------------------------------------------------------------------ test


def test_scores_are_those_of_the_model(place, capsys):
    folder = place / "outputs" / "whole"
    assert run("test", "--checkpoint", folder, "--num-samples", 2, *QUICK) == 0
    out = capsys.readouterr().out
    adata, model = ad.read_h5ad(place / "data" / "test.h5ad"), model_at(place, "whole")
    draws = model.sample(adata, mode="expr_to_pos", n_samples=2, n_steps=2, seed=3)
    positions = pd.read_csv(folder / "scores_positions.csv")
    assert positions["prediction"].tolist() == ["consensus", "draw", "draw"]
    agreed = model.consensus(adata, n_samples=1, n_steps=2, seed=3).position
    for row, predicted in enumerate((agreed, *draws)):
        expected = st.metrics.score_positions(adata.obsm["xy"], predicted, n_neighbors=29, seed=3)
        np.testing.assert_allclose(positions.loc[row, list(expected)].astype(float), list(expected.values()), rtol=1e-5)
    assert set(positions["slice"]) == {"section1"}

    expression = pd.read_csv(folder / "scores_expression.csv")
    assert expression["prediction"].tolist() == ["expected", "draw", "draw"]
    assert expression["n_cells"].tolist() == [18] * 3
    hidden = np.zeros(60, dtype=bool)
    hidden[np.random.default_rng(3).choice(np.arange(60), 18, replace=False)] = True
    nobody = np.zeros(60, dtype=bool)
    nobody[hidden.argmin()] = True  # of whom nothing is looked at: a sample gives what is not hidden as it is
    truth = model.sample(adata, mode="pos_to_expr", hidden=nobody, n_steps=1)[hidden]
    found = model.impute(adata, hidden=hidden, seed=3)[hidden]
    assert expression.loc[0, "pearson"] == pytest.approx(
        np.nanmean(st.metrics.pearson_per_gene(truth, found)), rel=1e-4
    )
    assert expression.loc[0, "rmse"] == pytest.approx(np.sqrt(((truth - found) ** 2).mean(axis=0)).mean(), rel=1e-4)

    scores = json.loads((folder / "scores.json").read_text())
    assert scores["stomics_tools_version"] == st.__version__
    assert scores["positions"][0]["nrmsd"] == pytest.approx(positions.loc[0, "nrmsd"])
    assert f"{positions.loc[0, 'nrmsd']:.3f}" in out
    assert f"{expression.loc[0, 'pearson']:.3f}" in out


def test_a_model_of_one_task_is_scored_in_it(place, capsys):
    options = ("--training-mode", "expr_to_pos", "--logger", "none", "--max-epochs", 1)
    assert run("train", *train_options(place, "one"), *options) == 0
    folder = place / "outputs" / "one"
    assert not (folder / "logs").exists()
    assert run("test", "--checkpoint", folder, "--num-samples", 1, *QUICK) == 0
    assert set(json.loads((folder / "scores.json").read_text())) >= {"positions"}
    assert not (folder / "scores_expression.csv").exists()
    joint = ("--mode", "joint", "--num-cells", 5, "--output", place / "never.h5ad")
    assert run("sample", "--checkpoint", folder, *joint) == 1
    assert "`mode`: 'joint' was not trained" in capsys.readouterr().err
    assert not (place / "never.h5ad").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--checkpoint", "nowhere"), "`checkpoint`: no such folder 'nowhere'"),
        (("--checkpoint", "."), "`checkpoint`: no config.yaml in '.'"),
        (("--data-dir", "nowhere"), "`data_dir`: no such folder 'nowhere'"),
        (("--data-dir", "."), "`data_dir`: no test.h5ad in '.'"),
        (("--num-samples", 0), "`num_samples` must be at least 1, found 0"),
        (("--hidden-share", 1), "`hidden_share` must be in (0.0, 0.95], found 1"),
    ],
)
def test_test_errors(place, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert run("test", "--checkpoint", place / "outputs" / "whole", *options) == 1
    assert message in capsys.readouterr().err


def test_a_model_of_a_newer_version(place, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("stomics_tools_version: 3.0\n")
    assert run("test", "--checkpoint", tmp_path) == 1
    assert f"was written by stomics-tools 3.0, this is {st.__version__}" in capsys.readouterr().err


# ---------------------------------------------------------------------- sample


def sampled(place: Path, tmp_path: Path, *options) -> ad.AnnData:
    output = tmp_path / "out.h5ad"
    assert run("sample", "--checkpoint", place / "outputs" / "whole", "--output", output, *options, *QUICK) == 0
    return ad.read_h5ad(output)


def test_sample_positions(place, tmp_path):
    query = ad.read_h5ad(place / "query.h5ad")
    options = ("--input", place / "query.h5ad", "--mode", "expr_to_pos", "--num-samples", 3, "--landmarks", "known")
    result = sampled(place, tmp_path, *options)
    assert result.obs_names.equals(query.obs_names)
    assert result.var_names.equals(query.var_names)
    model = model_at(place, "whole")
    draws = model.sample(query, mode="expr_to_pos", n_samples=3, n_steps=2, landmarks="known", seed=3)
    agreed = model.consensus(query, n_samples=3, n_steps=2, landmarks="known", seed=3)
    np.testing.assert_allclose(result.obsm["spatial_draws"], draws.swapaxes(0, 1), rtol=1e-5)
    np.testing.assert_allclose(result.obsm["spatial_predicted"], agreed.position, rtol=1e-5)
    np.testing.assert_allclose(result.obsm["spatial_dispersion"][:, 0], agreed.dispersion, rtol=1e-4)
    assert result.uns["masked_diffusion"]["sample"]["n_samples"] == 3


def test_sample_positions_of_a_temperature(place, tmp_path):
    query = ad.read_h5ad(place / "query.h5ad")
    options = ("--input", place / "query.h5ad", "--mode", "expr_to_pos", "--num-samples", 2)
    result = sampled(place, tmp_path, *options, "--temperature", 0.5, "--guidance", 0.3)
    model = model_at(place, "whole")
    how = {"temperature": 0.5, "guidance": 0.3}
    draws = model.sample(query, mode="expr_to_pos", n_samples=2, n_steps=2, seed=3, **how)
    np.testing.assert_allclose(result.obsm["spatial_draws"], draws.swapaxes(0, 1), rtol=1e-5)
    agreed = model.consensus(query, n_samples=2, n_steps=2, seed=3)
    np.testing.assert_allclose(result.obsm["spatial_predicted"], agreed.position, rtol=1e-5)
    np.testing.assert_allclose(result.obsm["spatial_dispersion"][:, 0], agreed.dispersion, rtol=1e-4)


def test_sample_expression(place, tmp_path):
    query = ad.read_h5ad(place / "query.h5ad")
    options = ("--input", place / "query.h5ad", "--mode", "pos_to_expr", "--hidden", "known")
    one, two = (sampled(place, tmp_path, *options, "--num-samples", n) for n in (1, 2))
    model = model_at(place, "whole")
    draws = model.sample(query, mode="pos_to_expr", n_samples=2, n_steps=2, hidden="known", seed=3)
    assert one.var_names.tolist() == two.var_names.tolist() == model.gene_names
    np.testing.assert_allclose(one.X, draws[0], rtol=1e-5)
    np.testing.assert_allclose(two.X, draws.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(two.layers["draw_1"], draws[1], rtol=1e-5)
    np.testing.assert_array_equal(one.obsm["xy"], query.obsm["xy"])


def test_sample_new_tissue(place, tmp_path):
    result = sampled(place, tmp_path, "--mode", "joint", "--num-cells", 12, "--num-samples", 2)
    draws = model_at(place, "whole").sample(mode="joint", n_cells=12, n_samples=2, n_steps=2, seed=3)
    assert result.obs["sample"].value_counts().to_dict() == {"0": 12, "1": 12}
    np.testing.assert_allclose(result[result.obs["sample"] == "1"].X, draws["expression"][1], rtol=1e-5)
    np.testing.assert_allclose(result[result.obs["sample"] == "1"].obsm["xy"], draws["position"][1], rtol=1e-5)


def test_sample_as_required(place, capsys):
    run_folder = place / "outputs" / "whole"
    command = ("--checkpoint", run_folder / "checkpoints" / "last.ckpt", "--num_samples", 40)
    for name in ("samples_joint.h5ad", "samples_joint_1.h5ad"):
        assert run("sample", *command, *QUICK) == 0
        assert str(run_folder / name) in capsys.readouterr().out
        found = ad.read_h5ad(run_folder / name)
        assert found.n_obs == 40
        assert found.obs["sample"].nunique() == 1
    draws = model_at(place, "whole").sample(mode="joint", n_cells=40, n_samples=1, n_steps=2, seed=3)
    np.testing.assert_allclose(found.X, draws["expression"], rtol=1e-5)


def test_sample_for_cells_without_a_mode(place, tmp_path):
    given = (place / "query.h5ad", "--checkpoint", place / "outputs" / "whole" / "model", "--output")
    assert run("sample", *given, tmp_path / "a.h5ad", *QUICK) == 0
    assert run("sample", *given, tmp_path / "b.h5ad", "--mode", "expr_to_pos", *QUICK) == 0
    one, two = (ad.read_h5ad(tmp_path / f"{name}.h5ad").obsm["spatial_predicted"] for name in "ab")
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mode", "expr_to_pos"), "`mode`: 'expr_to_pos' draws for cells: name their file by `input`"),
        (("--mode", "joint", "--input", "query.h5ad"), "`mode`: 'joint' draws new cells: leave `input` out"),
        (("--mode", "joint"), "name `n_cells`"),
        (("--mode", "expr_to_pos", "--input", "nowhere.h5ad"), "`input`: no such file 'nowhere.h5ad'"),
        (("--mode", "expr_to_pos", "--input", "query.h5ad", "--landmarks", "no"), "`landmarks`: key 'no' not found"),
        (("--mode", "joint", "--output", "nowhere/a.h5ad"), "`output`: no such folder 'nowhere'"),
        (("--mode", "joint", "--output", "a.csv"), "`output` must end in .h5ad, found 'a.csv'"),
        (("--mode", "expr_to_pos", "--input", "query.h5ad", "--output", "query.h5ad"), "is the input and would be"),
    ],
)
def test_sample_errors(place, monkeypatch, capsys, options, message):
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    assert run("sample", "--checkpoint", "outputs/whole", "--output", "out.h5ad", *options) == 1
    assert message in capsys.readouterr().err
    assert sorted(place.iterdir()) == before
