from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import stomics_tools as st
from stomics_tools._compat import columns_as_given
from stomics_tools.cli import main
from stomics_tools.tl._compare_untrained import SmoothedComponents

TIMING = ["seconds", "peak_mib"]


@pytest.fixture(autouse=True)
def backend():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def few_starts(monkeypatch):
    """Clustering is what takes time here."""
    monkeypatch.setattr("stomics_tools.tl._compare.spatial_domains", partial(st.tl.spatial_domains, n_starts=3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two slices with labels, one without, one that is no file of data, and one of another kind."""
    folder = tmp_path_factory.mktemp("slices")
    with columns_as_given():
        st.datasets.simulate_multiomics(n_obs=120, n_domains=3, n_batches=2, seed=1).write_h5mu(folder / "two.h5mu")
        rna = st.datasets.simulate_multiomics(n_obs=100, n_domains=3, seed=2)["rna"]
        rna.write_h5ad(folder / "rna.h5ad")
        rna.obs = rna.obs[[]]
        rna.write_h5ad(folder / "bare.h5ad")
    (folder / "broken.h5ad").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("of another kind")
    return folder


def run(*arguments) -> int:
    return main(["compare", *map(str, arguments)])


def printed(out: str) -> pd.DataFrame:
    """The first table of the output, in words."""
    header, *rows = out.split("\n\n")[1].splitlines()
    cells = [re.split(r"\s{2,}", row.replace(" ± ", "±").strip()) for row in rows]
    return pd.DataFrame([cell[1:] for cell in cells], [cell[0] for cell in cells], header.split())


def test_one_slice(folder, tmp_path, capsys):
    options = ["--input", folder / "two.h5mu", "--models", "pca", "smooth1", "--seeds", 3]
    assert run(*options, "--output-dir", tmp_path / "new") == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["compare.csv", "compare.png"]
    assert plt.imread(tmp_path / "new" / "compare.png").shape[1] > 1000
    runs = pd.read_csv(tmp_path / "new" / "compare.csv")
    assert sorted(zip(runs["model"], runs["seed"], strict=True)) == [
        (m, s) for m in ("pca", "smooth1") for s in range(3)
    ]
    out = capsys.readouterr().out
    assert "120 spots, 3 labels in 'domain'" in out
    table = printed(out)
    assert table.columns.tolist() == ["ARI", "NMI", "silhouette", "stability", "error", "seconds", "MiB"]
    for model in ("pca", "smooth1"):
        ari = runs.loc[runs["model"] == model, "ari"].to_numpy()
        assert table.loc[model, "ARI"] == f"{ari.mean():.3f}±{np.std(ari, ddof=1):.3f}"

    mdata = st.datasets.read_slice(folder / "two.h5mu")
    st.pp.rna(mdata["rna"])
    st.pp.protein(mdata["protein"])
    modalities = {"rna": "X_pca", "protein": "X_protein"}
    expected = st.tl.compare_models(
        mdata, ["smooth1"], 1, modalities=modalities, labels_key="domain", batch_key="slice"
    )
    found = runs[(runs["model"] == "smooth1") & (runs["seed"] == 0)]
    for column in ("ari", "nmi", "silhouette", "reconstruction_mse"):
        assert found[column].item() == pytest.approx(expected[column].item(), rel=1e-3)


def test_a_stopped_command_goes_on(folder, tmp_path, monkeypatch, capsys):
    options = ["--input", folder / "rna.h5ad", "--models", "pca", "smooth1", "--seeds", 2]
    assert run(*options, "--output-dir", tmp_path / "whole") == 0
    trained, train = [], SmoothedComponents.train

    def stopping(self, **kwargs):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(kwargs["seed"])
        train(self, **kwargs)

    monkeypatch.setattr(SmoothedComponents, "train", stopping)
    assert run(*options, "--output-dir", tmp_path / "stopped") == 130
    assert len(pd.read_csv(tmp_path / "stopped" / "compare.csv")) == 3
    trained[:] = ["again"]
    assert run(*options, "--output-dir", tmp_path / "stopped") == 0
    assert trained == ["again", 1]
    whole, stopped = (
        pd.read_csv(tmp_path / name / "compare.csv").drop(columns=TIMING) for name in ("whole", "stopped")
    )
    pd.testing.assert_frame_equal(stopped, whole, check_exact=True)
    before = (tmp_path / "stopped" / "compare.csv").read_bytes()
    trained.extend([0, 0])  # any further run would be an interruption
    assert run(*options, "--output-dir", tmp_path / "stopped") == 0
    assert (tmp_path / "stopped" / "compare.csv").read_bytes() == before


def test_a_bad_file_does_not_stop_the_others(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STOMICS_DATA", str(folder))
    options = ["--data", "all", "--models", "pca", "--seeds", 1]
    assert run(*options, "--output-dir", tmp_path) == 1
    captured = capsys.readouterr()
    assert "bare.h5ad\nskipped: it has no labels." in captured.out
    assert "failed: `path`" in captured.err
    assert captured.err.splitlines()[-1] == "stomics: error: 1 of 4 files could not be compared: broken.h5ad."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.csv", "rna", "two"]
    joined = pd.read_csv(tmp_path / "compare.csv")
    assert joined[["data", "model", "seed"]].to_numpy().tolist() == [["rna", "pca", 0], ["two", "pca", 0]]
    for name, ari in zip(joined["data"], joined["ari"], strict=True):
        assert pd.read_csv(tmp_path / name / "compare.csv")["ari"].item() == ari
        assert re.search(rf"^{name} +{ari:.3f}$".replace("-", "[-]"), captured.out, flags=re.MULTILINE)


def test_without_labels_but_with_a_number_of_domains(folder, tmp_path, capsys):
    options = ["--input", folder / "bare.h5ad", "--models", "pca", "--seeds", 1, "--output-dir", tmp_path]
    assert run(*options) == 1
    assert "no labels. Name their column in `label_key`, or give `n_domains`." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert run(*options, "--n-domains", 4) == 0
    assert printed(capsys.readouterr().out).columns.tolist() == ["silhouette", "error", "seconds", "MiB"]


def test_settings_from_a_file(folder, tmp_path):
    config = tmp_path / "options.yaml"
    config.write_text(
        "seeds: 1\nmodels: [pca, mine, graph]\nsettings:\n"
        "  mine: {model: smooth, n_hops: 4, n_components: 3}\n"
        "  graph: {model: GraphST, n_latent: 4, train: {max_epochs: 2}}\n"
        "  unused: {n_latent: 8}\n"
    )
    options = ["--config", config, "--input", folder / "rna.h5ad"]
    assert run(*options, "--output-dir", tmp_path / "a") == 0
    assert pd.read_csv(tmp_path / "a" / "compare.csv")["model"].tolist() == ["pca", "mine", "graph"]
    assert run(*options, "--output-dir", tmp_path / "b", "--models", "mine", "--seeds", 2) == 0
    runs = pd.read_csv(tmp_path / "b" / "compare.csv")
    assert runs[["model", "seed"]].to_numpy().tolist() == [["mine", 0], ["mine", 1]]
    assert '"n_hops": 4' in runs["arguments"][0]


def test_praga_against_praga_spike_is_the_default(folder, tmp_path, capsys):
    options = ["--input", folder / "two.h5mu", "--max-epochs", 2, "--seeds", 1, "--output-dir", tmp_path]
    assert run(*options) == 0
    runs = pd.read_csv(tmp_path / "compare.csv")
    assert runs["model"].tolist() == ["praga", "praga_spike", "spatial_components", "pca", "smooth2"]
    assert printed(capsys.readouterr().out).index.tolist() == runs["model"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "all"], "`data`: 'all' stands for the folder of the variable STOMICS_DATA, which is not set."),
        (["--data", "nowhere"], "`data`: no such folder 'nowhere'."),
        (["--data", "{out}"], "`data`: '{out}' holds no file that ends in one of"),
        (["--data", "all", "--input", "{slice}"], "`input` names one file and `data` a folder of them."),
        (["--input", "nothing.h5ad"], "`input`: no such file 'nothing.h5ad'."),
        (["--input", "{slice}", "--seeds", "0"], "`seeds` must be at least 1, found 0."),
        (["--input", "{slice}", "--max-epochs", "0"], "`max_epochs` must be at least 1, found 0."),
        (["--input", "{slice}", "--n-domains", "1"], "`n_domains` must be at least 2, found 1."),
        (["--input", "{slice}", "--models", "enhansed"], "`models`: unknown option 'enhansed'."),
        (["--input", "{slice}", "--settings", "{{a: {{latent: 3}}}}"], "`models['a']`: unknown option 'latent'."),
        (["--input", "{slice}", "--settings", "{{pca: {{}}}}"], "`models['pca']` is a PRAGASpike by the name of"),
        (["--input", "{slice}", "--label-key", "domian"], "`label_key`: key 'domian' not found"),
    ],
)
def test_errors_are_one_line_and_come_before_any_training(folder, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.delenv("STOMICS_DATA", raising=False)
    monkeypatch.setattr(SmoothedComponents, "train", lambda self, **kwargs: pytest.fail("trained"))
    known = {"slice": folder / "rna.h5ad", "out": tmp_path}
    assert run(*[option.format(**known) for option in options], "--output-dir", tmp_path) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"stomics: error: {message.format(**known)}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
