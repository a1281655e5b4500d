from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scanpy.plotting import palettes

import stomics_tools as st
from stomics_tools._compat import columns_as_given
from stomics_tools._paths import replacing
from stomics_tools.cli import main
from stomics_tools.cli._picture import picture

QUICK = ["--max-epochs", "2"]


@pytest.fixture(autouse=True)
def backend():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def slice_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("slices") / "slice.h5mu"
    with columns_as_given():
        st.datasets.simulate_multiomics(n_obs=200, n_domains=4, n_batches=2, seed=1).write_h5mu(path)
    return path


def run(*arguments) -> int:
    return main(["demo", *map(str, arguments)])


def table(out: str) -> pd.DataFrame:
    """The table of scores at the end of the output."""
    header, *rows = out.split("\n\n")[-1].splitlines()
    values = {row[:14].split("  ")[0].strip(): re.findall(r"-?\d\.\d{3}", row) for row in rows}
    return pd.DataFrame.from_dict(values, orient="index", columns=header.split(), dtype=float)


def test_simulated_slice(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    assert run("--output-dir", folder, "--n-obs", 800, "--n-domains", 4, "--seed", 3, "--max-epochs", 30) == 0
    out = capsys.readouterr().out
    steps = re.findall(r"^(\w+) +\d+\.\d s", out, flags=re.MULTILINE)
    assert steps == ["import", "read", "prepare", "prepare", "train", "domains", "score", "write", "total"]
    assert sorted(path.name for path in folder.iterdir()) == ["demo.h5mu", "demo.png"]
    assert plt.imread(folder / "demo.png").shape[1] > 1000

    result = st.datasets.read_slice(folder / "demo.h5mu")
    assert result.n_obs == 800
    found = result.obs["praga_spike_domain"]
    assert found.nunique() == result.obs["domain"].nunique() == 4
    assert result.obsm["X_praga_spike"].dtype == np.float32
    assert result.uns["praga_spike"]["params"]["seed"] == 3
    scores = table(out)
    assert scores.index.tolist() == ["rna alone", "protein alone", "PRAGASpike"]
    expected = st.metrics.score_labels(result.obs["domain"], found)
    assert scores.loc["PRAGASpike", "ari"] == pytest.approx(expected["ari"], abs=6e-4)
    assert scores.loc["PRAGASpike", "ari"] > scores.loc["rna alone", "ari"]


def test_own_slices(slice_file, tmp_path, capsys):
    before = slice_file.read_bytes()
    assert run("--input", slice_file, "--output-dir", tmp_path, *QUICK) == 0
    assert slice_file.read_bytes() == before
    out = capsys.readouterr().out
    assert "200 spots in 2 slices by 'slice'" in out
    assert "4 domains, as many as labels in 'domain'" in out
    result = st.datasets.read_slice(tmp_path / "demo.h5mu")
    assert result.uns["praga_spike"]["params"]["batch_key"] == "slice"


def test_own_anndata_without_labels(slice_file, tmp_path, capsys):
    adata = st.datasets.read_slice(slice_file)["protein"]
    adata.obs = adata.obs[[]]
    adata.obsm["xy"] = adata.obsm.pop("spatial")
    adata.write_h5ad(tmp_path / "own.h5ad")
    options = ["--spatial-key", "xy", "--modality", "protein", *QUICK]
    assert run("--input", tmp_path / "own.h5ad", "--output-dir", tmp_path, *options) == 0
    out = capsys.readouterr().out
    assert "suggested by the data" in out
    assert "protein: recipe pp.protein on counts" in out
    assert table(out).columns.tolist() == ["morans_i", "local_purity"]


def test_same_seed_same_result(slice_file, tmp_path):
    for folder in ("a", "b"):
        assert run("--input", slice_file, "--output-dir", tmp_path / folder, *QUICK) == 0
    first, second = (st.datasets.read_slice(tmp_path / folder / "demo.h5mu") for folder in ("a", "b"))
    np.testing.assert_array_equal(first.obsm["X_praga_spike"], second.obsm["X_praga_spike"])
    assert first.obs["praga_spike_domain"].tolist() == second.obs["praga_spike_domain"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-obs", 100], "`n_obs` is the size of the simulated slice, but `input` names a file"),
        (["--n-domains", 1], "`n_domains` must be at least 2, found 1"),
        (["--max-epochs", 0], "`max_epochs` must be at least 1, found 0"),
        (["--seed", -1], "`seed` must be at least 0, found -1"),
        (["--label-key", "domian"], "`label_key`: key 'domian' not found"),
        (["--batch-key", "slise"], "`batch_key`: key 'slise' not found"),
        (["--spatial-key", "xy"], "`spatial_key`: key 'xy' not found"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(slice_file, tmp_path, capsys, options, message):
    folder = tmp_path / "out"
    assert run("--input", slice_file, "--output-dir", folder, *options) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"stomics: error: {message}")
    assert err.count("\n") == 1
    assert not folder.exists() or not list(folder.iterdir())


def test_files_that_are_no_slices(tmp_path, capsys):
    damaged = tmp_path / "damaged.h5ad"
    table = tmp_path / "table.csv"
    for path, message in ((damaged, "cannot be read as a .h5ad file"), (table, "must be an h5ad or h5mu file")):
        path.write_bytes(b"no slice")
        assert run("--input", path, "--output-dir", tmp_path) == 1
        assert message in capsys.readouterr().err


def test_the_input_is_never_overwritten(slice_file, tmp_path, capsys):
    own = tmp_path / "demo.h5mu"
    own.write_bytes(slice_file.read_bytes())
    assert run("--input", own, "--output-dir", tmp_path, *QUICK) == 1
    assert "is the input and would be overwritten" in capsys.readouterr().err
    assert own.read_bytes() == slice_file.read_bytes()


def test_files_are_replaced_once_they_are_complete(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text(str(part.write_text("half") / 0))
    assert path.read_text() == "old"
    with replacing(path) as part:
        assert part.suffix == ".txt"
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_picture_gives_domains_the_colours_of_the_labels_they_overlap():
    n = 60
    xy = np.stack(np.unravel_index(np.arange(n), (6, 10)), axis=1).astype(float)
    truth = pd.Series(np.repeat(["a", "b", "c"], 20), index=[f"spot{i}" for i in range(n)])
    found = truth.map({"a": "2", "b": "0", "c": "1"}).where(np.arange(n) != 59, "3")
    slices = pd.Series(np.tile(["one", "two"], 30), index=truth.index)
    history = {"train_loss": pd.DataFrame({"train_loss": [2.0, 1.0]})}
    figure = picture(xy, {"truth": truth, "found": found}, slices, history)
    by_title = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert set(by_title) == {"one: truth", "one: found", "two: truth", "two: found"}
    for name in ("one", "two"):
        colors = [by_title[f"{name}: {title}"].collections[0].get_facecolor() for title in ("truth", "found")]
        assert len(colors[0]) == 30
        same = (colors[0] == colors[1]).all(axis=1)
        assert same.sum() == (30 if name == "one" else 29)
    legend = by_title["two: found"].get_legend()
    assert legend.legend_handles[-1].get_color() == palettes.default_20[3]


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("her2st_C3_image", "rna", None),
        ("mob_st_rep12", "rna", "layer"),
        ("sim_spamosaic_r1_adt", "protein", "gt"),
        ("starmap_visual_cortex", "rna", "layer"),
        ("visium_lymph_node_subset", "rna", None),
    ],
)
def test_real_slices(data_dir, tmp_path, capsys, name, kind, labels):
    assert run("--input", data_dir / f"{name}.h5ad", "--output-dir", tmp_path, *QUICK) == 0
    out = capsys.readouterr().out
    assert f"recipe pp.{kind} on counts" in out
    assert (f"labels in {labels!r}" if labels else "suggested by the data") in out
    assert (tmp_path / "demo.png").exists()
    assert "praga_spike_domain" in st.datasets.read_slice(tmp_path / "demo.h5mu").obs


def test_real_slices_that_are_no_counts(data_dir, tmp_path, capsys):
    options = ["--n-domains", 5, *QUICK]
    assert run("--input", data_dir / "drosophila_bdtnp_reference.h5ad", "--output-dir", tmp_path, *options) == 0
    assert "rna: no counts: scaled, PCA, 50 components" in capsys.readouterr().out
