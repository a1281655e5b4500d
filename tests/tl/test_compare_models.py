from __future__ import annotations

import random

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import stomics_tools as st
from stomics_tools.model import GraphST, PRAGASpike
from stomics_tools.tl._peak_memory import PeakMemory

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False}
N = 60
TRUE = np.repeat([0, 1], N // 2)
ACROSS = np.tile([0, 1], N // 2)
"""Half of each true domain: all four cells of the contingency table hold 15 of the 60 spots."""

# ARI = (s - e) / (m - e) with s = 4 C(15, 2) = 420, m = 2 C(30, 2) = 870 and e = 870^2 / C(60, 2), C(60, 2) = 1770.
ARI_ACROSS = -1 / 58


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    obsm = {"X_pca": rng.normal(size=(N, 9)), "X_protein": rng.normal(size=(N, 5)), "xy": rng.uniform(size=(N, 2))}
    obsm["X_protein"][3] = np.nan  # not measured
    adata = AnnData(rng.poisson(1.0, (N, 4)).astype(np.float32), obsm=obsm)
    adata.obs["truth"] = pd.Categorical(np.array(["left", "right"])[TRUE], categories=["left", "right", "unused"])
    adata.obs["slice"] = ["a"] * 30 + ["b"] * 30
    adata.uns["note"] = {"kept": np.arange(3)}
    return adata


@pytest.fixture
def fake():
    """A model class whose domains are the true ones, but those across them with the seeds in `across`."""

    class Fake(PRAGASpike):
        trained: list[tuple[str, int, dict]] = []
        stop_after: int | None = None

        def __init__(self, adata, *, name="fake", across=(), diverges=(), n_spatial_neighbors=6):
            super().__init__(adata, n_spatial_neighbors=n_spatial_neighbors)
            self.name, self.across, self.diverges = name, across, diverges

        def train(self, max_epochs=None, *, seed=0, key_added="praga_spike", **kwargs):
            assert key_added is None
            if self.stop_after is not None and len(self.trained) == self.stop_after:
                raise KeyboardInterrupt
            self.trained.append((self.name, seed, {"max_epochs": max_epochs, **kwargs}))
            if seed in self.diverges:
                raise FloatingPointError("the loss is nan")
            self.seed = seed

        def get_latent_representation(self, adata=None, **kwargs):
            partition = ACROSS if self.seed in self.across else TRUE
            noise = np.random.default_rng(self.seed).normal(0, 0.01, (N, 2))
            return (np.eye(2)[partition] + noise).astype(np.float32)

        def get_denoised(self, adata=None, *, modality=None):
            rna, protein = (self.adata.obsm[self._spec.modalities[name]] for name in ("rna", "protein"))
            means = np.broadcast_to(rna.mean(axis=0), rna.shape)
            return {"rna": means.astype(np.float32), "protein": np.nan_to_num(protein, nan=7.0)}

    return Fake


def assert_same(a, b):
    """Everything in one object is as it is in the other."""
    np.testing.assert_array_equal(a.X, b.X)
    for name in ("obs", "var"):
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name), check_exact=True)
    for name in ("obsm", "varm", "layers", "obsp"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert list(ours) == list(theirs)
        for key in ours:
            assert ours[key].dtype == theirs[key].dtype
            np.testing.assert_array_equal(ours[key], theirs[key])
    assert list(a.uns) == list(b.uns) == ["note"]
    np.testing.assert_array_equal(a.uns["note"]["kept"], b.uns["note"]["kept"])


def compare(adata, models, seeds=3, **kwargs):
    kwargs = {"modalities": MODALITIES, "spatial_key": "xy", **kwargs}
    return st.tl.compare_models(adata, models, seeds, **kwargs)


def test_the_scores_are_those_computed_by_hand(adata, fake):
    models = {"good": {"model": fake}, "shaky": {"model": fake, "across": (1,)}}
    table = compare(adata, models, labels_key="truth")
    assert table.columns.tolist() == [
        *("model", "seed", "ari", "nmi", "silhouette", "reconstruction_mse"),
        *("seconds", "peak_mib", "n_domains", "stability", "error"),
    ]
    assert table["model"].tolist() == ["good"] * 3 + ["shaky"] * 3
    assert table["seed"].tolist() == [0, 1, 2] * 2
    np.testing.assert_allclose(table["ari"], [1, 1, 1, 1, ARI_ACROSS, 1])
    np.testing.assert_allclose(table["nmi"], [1, 1, 1, 1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(table["stability"], [1] * 3 + [(1 + 2 * ARI_ACROSS) / 3] * 3)
    np.testing.assert_allclose(table["reconstruction_mse"], 0.5, rtol=1e-5)  # the means of one, all of the other
    assert (table["silhouette"] > 0.95).all()
    assert (table["n_domains"] == 2).all()
    assert (table["error"] == "").all()
    assert (table[["seconds", "peak_mib"]] >= 0).all(axis=None)


def test_unlabelled_spots_are_not_scored(adata, fake):
    # Of ACROSS, the spots that agree with the truth.
    adata.obs["truth"] = adata.obs["truth"].where(TRUE == ACROSS)
    table = compare(adata, {"across": {"model": fake, "across": (0,)}}, 1, labels_key="truth")
    assert table["ari"].tolist() == [1.0]
    assert np.isnan(table["stability"]).all()  # of one seed there is none


def test_without_labels_there_is_no_agreement(adata, fake):
    table = compare(adata, {"fake": {"model": fake}}, [4, 2], n_domains=3)
    assert not {"ari", "nmi"} & set(table)
    assert table["n_domains"].tolist() == [3, 3]
    assert table["seed"].tolist() == [4, 2]
    assert table.notna().all(axis=None)


def test_arguments_of_training(adata, fake):
    models = {"a": {"model": fake, "name": "a", "train": {"lr": 0.1, "max_epochs": 9}}, "b": {"model": fake}}
    compare(adata, models, 2, n_domains=2, train_kwargs={"lr": 0.5, "patience": 3})
    a, b = {"max_epochs": 9, "lr": 0.1, "patience": 3}, {"max_epochs": None, "lr": 0.5, "patience": 3}
    assert fake.trained == [("a", 0, a), ("fake", 0, b), ("a", 1, a), ("fake", 1, b)]
    compare(adata, models, 1, n_domains=2, max_epochs=1)
    assert [kwargs["max_epochs"] for _, _, kwargs in fake.trained[4:]] == [1, 1]


def test_a_diverged_run_is_a_row(adata, fake, tmp_path):
    models = {"fake": {"model": fake, "diverges": (1,)}}
    for _ in range(2):  # made, then read
        table = compare(adata, models, labels_key="truth", out=tmp_path / "runs.csv")
        assert table["error"].tolist() == ["", "the loss is nan", ""]
        scores = table[["ari", "nmi", "silhouette", "reconstruction_mse", "n_domains"]]
        assert scores.isna().to_numpy().tolist() == [[False] * 5, [True] * 5, [False] * 5]
        assert table["stability"].tolist() == [1.0] * 3
        assert table["seconds"].notna().all()
    assert len(fake.trained) == 3


def test_a_latent_representation_that_is_not_finite_is_a_diverged_run(adata, fake, monkeypatch):
    monkeypatch.setattr(fake, "get_latent_representation", lambda self: np.full((N, 2), np.nan, np.float32))
    table = compare(adata, {"fake": {"model": fake}, "pca": {"model": "smooth", "n_hops": 0}}, 1, n_domains=2)
    assert table["error"].tolist() == ["the latent representation is not finite", ""]
    assert table["silhouette"].isna().tolist() == [True, False]


def test_other_errors_propagate(adata, fake, monkeypatch):
    monkeypatch.setattr(fake, "get_denoised", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        compare(adata, {"fake": {"model": fake}}, n_domains=2)


def test_a_stopped_comparison_goes_on(adata, fake, tmp_path, monkeypatch):
    models = {"NA": {"model": fake, "name": "NA"}, "shaky": {"model": fake, "name": "shaky", "across": (1,)}}
    whole = compare(adata, models, labels_key="truth")
    fake.trained.clear()
    out = tmp_path / "new" / "runs.csv"
    monkeypatch.setattr(fake, "stop_after", 3)
    with pytest.raises(KeyboardInterrupt):
        compare(adata, models, labels_key="truth", out=out)
    assert len(pd.read_csv(out)) == 3
    assert [path.name for path in out.parent.iterdir()] == ["runs.csv"]
    monkeypatch.setattr(fake, "stop_after", None)
    fake.trained.clear()
    resumed = compare(adata, models, labels_key="truth", out=out)
    assert [run[:2] for run in fake.trained] == [("shaky", 1), ("NA", 2), ("shaky", 2)]
    timing = ["seconds", "peak_mib"]
    pd.testing.assert_frame_equal(resumed.drop(columns=timing), whole.drop(columns=timing), check_exact=True)
    again = compare(adata, models, labels_key="truth", out=out)
    assert len(fake.trained) == 3
    pd.testing.assert_frame_equal(again, resumed, check_exact=True)


def test_models_and_seeds_may_be_added(adata, fake, tmp_path):
    out = tmp_path / "runs.csv"
    a, b = {"model": fake, "name": "a"}, {"model": fake, "name": "b", "across": (0, 1)}
    compare(adata, {"a": a}, [0], n_domains=2, out=out)
    compare(adata, {"b": b}, [0, 1], n_domains=2, out=out)
    table = compare(adata, {"b": b, "a": a}, [1, 0], n_domains=2, out=out)
    assert [run[:2] for run in fake.trained] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert list(zip(table["model"], table["seed"], strict=True)) == [("b", 1), ("b", 0), ("a", 1), ("a", 0)]
    assert table["stability"].tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {"fake": {"across": (2,)}}}, r"holds model 'fake' with other arguments.*\[1\].*there.*\[2\]"),
        ({"train_kwargs": {"lr": 0.2}}, "other arguments"),
        ({"max_epochs": 3}, "other arguments"),
        ({"n_domains": 3}, "other arguments"),
        ({"modalities": {"rna": "X_pca"}}, "other data or labels"),
        ({"batch_key": "slice"}, "other data or labels"),
        ({"labels_key": "slice"}, r"has the columns.*labels_key"),
    ],
)
def test_a_file_of_other_arguments_is_left_alone(adata, fake, tmp_path, change, message):
    out = tmp_path / "runs.csv"
    compare(adata, {"fake": {"model": fake, "across": (1,)}}, 1, n_domains=2, out=out)
    before, n_runs = out.read_bytes(), len(fake.trained)
    models = {
        name: {"model": fake, **given} for name, given in change.pop("models", {"fake": {"across": (1,)}}).items()
    }
    with pytest.raises(ValueError, match=message):
        compare(adata, models, 2, **{"n_domains": 2, "out": out, **change})
    assert out.read_bytes() == before
    assert len(fake.trained) == n_runs


def test_other_labels_are_other_data(adata, fake, tmp_path):
    models = {"fake": {"model": fake}}
    compare(adata, models, 1, labels_key="truth", out=tmp_path / "runs.csv")
    adata.obs["truth"] = adata.obs["truth"].mask(np.arange(N) == 0)
    with pytest.raises(ValueError, match="other data or labels"):
        compare(adata, models, 1, labels_key="truth", out=tmp_path / "runs.csv")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_a_file_that_is_something_else_is_left_alone(adata, fake, tmp_path, text):
    out = tmp_path / "runs.csv"
    out.write_text(text)
    with pytest.raises(ValueError, match="`out`: .*runs.csv"):
        compare(adata, {"fake": {"model": fake}}, n_domains=2, out=out)
    assert out.read_text() == text
    assert not fake.trained


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels_key": "trut"}, KeyError, "`labels_key`: key 'trut' not found.*Did you mean 'truth'"),
        ({"labels_key": "one"}, ValueError, r"`labels_key`.*holds the labels \['a'\]"),
        ({}, ValueError, "`labels_key` and `n_domains` are both missing"),
        ({"n_domains": 61}, ValueError, "`n_domains=61`.*60 spots"),
        ({"n_domains": 1}, ValueError, "`n_domains` must be at least 2"),
        ({"n_domains": 2, "max_epochs": 0}, ValueError, "`max_epochs` must be at least 1"),
        ({"n_domains": 2, "models": {}}, ValueError, "`models` is empty"),
        ({"n_domains": 2, "models": "praga_spike"}, TypeError, "`models` must be a mapping of names.*or names.*str"),
        (
            {"n_domains": 2, "models": ["praga_spik"]},
            ValueError,
            "`models`: unknown option 'praga_spik'.*mean 'praga_spike'",
        ),
        (
            {"n_domains": 2, "models": {"mine": {"preset": "praga"}}},
            ValueError,
            r"`models\['mine'\]`: no argument 'preset'. The published model is `stomics_tools.model.PRAGA",
        ),
        ({"n_domains": 2, "models": {"pca": {}}}, ValueError, r"`models\['pca'\]` is a PRAGASpike.*'model': 'smooth'"),
        ({"n_domains": 2, "models": {"a": {"model": "Graph"}}}, ValueError, "unknown option 'Graph'.*mean 'GraphST'"),
        ({"n_domains": 2, "models": {"a": {"model": "GraphST", "hops": 1}}}, ValueError, "Did you mean 'n_hops'"),
        (
            {"n_domains": 2, "models": {"a": {"model": "smooth", "n_hops": -1}}},
            ValueError,
            "`n_hops` must be at least 0",
        ),
        ({"n_domains": 2, "models": {"a": {"model": "smooth", "n_neighbors": 60}}}, ValueError, "`n_neighbors=60`"),
        ({"n_domains": 2, "models": {"a": {"model": "smooth", "train": {"lr": 1}}}}, ValueError, "nothing to train"),
        ({"n_domains": 2, "models": {"a": "praga"}}, TypeError, r"`models\['a'\]` must be a mapping.*str"),
        ({"n_domains": 2, "models": {3: {}}}, TypeError, "name of a model must be a string, found 3"),
        ({"n_domains": 2, "models": {"a": {"model": AnnData}}}, TypeError, r"`models\['a'\]\['model'\]` must be a mod"),
        ({"n_domains": 2, "models": {"a": {"latents": 3}}}, ValueError, r"`models\['a'\]`.*Did you mean 'n_latent'"),
        ({"n_domains": 2, "models": {"a": {"n_latent": 0}}}, ValueError, "`n_latent` must be at least 1"),
        ({"n_domains": 2, "models": {"a": {"train": 3}}}, TypeError, r"`models\['a'\]\['train'\]` must be a mapping"),
        ({"n_domains": 2, "models": {"a": {"train": {"seed": 3}}}}, ValueError, "'seed' is set by the comparison"),
        ({"n_domains": 2, "train_kwargs": {"key_added": "x"}}, ValueError, "`train_kwargs`: 'key_added' is set"),
        ({"n_domains": 2, "seeds": []}, ValueError, "`seeds` is empty"),
        ({"n_domains": 2, "seeds": 0}, ValueError, "`seeds` must be at least 1"),
        ({"n_domains": 2, "seeds": [1, 2, 1]}, ValueError, r"`seeds`: some occur twice in \[1, 2, 1\]"),
        ({"n_domains": 2, "seeds": [0, 1.0]}, TypeError, "`seeds` must be an integer, found 1.0"),
        ({"n_domains": 2, "seeds": "12"}, TypeError, "`seeds` must be an integer, found '12'"),
        ({"n_domains": 2, "seeds": [-1]}, ValueError, "`seeds` must be at least 0"),
        ({"n_domains": 2, "modalities": {"rna": "X_pc"}}, KeyError, "X_pc.*X_pca"),
        ({"n_domains": 2, "modalities": {}}, ValueError, "`modalities` is empty"),
        ({"n_domains": 2, "spatial_key": "spatial"}, KeyError, "spatial_key.*xy"),
        ({"n_domains": 2, "batch_key": "patient"}, KeyError, "batch_key.*slice"),
    ],
)
def test_bad_input_is_found_before_any_training(adata, monkeypatch, tmp_path, arguments, error, message):
    adata.obs["one"] = "a"
    before = adata.copy()
    monkeypatch.setattr(PRAGASpike, "train", lambda *args, **kwargs: pytest.fail("trained"))
    with pytest.raises(error, match=message):
        compare(adata, arguments.pop("models", None), **{"out": tmp_path / "new" / "runs.csv", **arguments})
    assert_same(adata, before)
    assert not (tmp_path / "new").exists()


def test_not_an_object(fake):
    with pytest.raises(TypeError, match="`adata` must be AnnData or MuData, found DataFrame"):
        compare(pd.DataFrame(), {"fake": {"model": fake}}, n_domains=2)


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.parametrize("view", [False, True])
def test_data_and_random_states_are_untouched(adata, view):
    data = adata[::-1] if view else adata
    before, states = adata.copy(), random_states()
    known = {model: len(model._setup_adata_manager_store) for model in (PRAGASpike, GraphST)}
    models = {
        "small": {"n_latent": 8, "n_feature_neighbors": 5},
        "graph": {"model": GraphST, "n_latent": 4},
        "smooth1": {"model": "smooth", "n_hops": 1},
    }
    kwargs = {"labels_key": "truth", "batch_key": "slice", "max_epochs": 2, "train_kwargs": QUIET}
    table = compare(data, models, 2, **kwargs)
    assert len(table) == 6
    assert data.is_view == view
    assert_same(adata, before)
    assert random_states() == states
    for model in (PRAGASpike, GraphST):
        assert len(model._setup_adata_manager_store) == known[model]  # where the data would be kept


def test_it_equals_the_models_one_by_one():
    """PRAGA and PRAGASpike on a MuData some spots of which lack a modality."""
    mdata = st.datasets.simulate_multiomics(n_obs=300, n_domains=4, seed=1)
    st.pp.rna(mdata["rna"])
    st.pp.protein(mdata["protein"])
    mdata = mudata.MuData({"rna": mdata["rna"], "protein": mdata["protein"][20:].copy()})
    mdata.obs["domain"] = mdata["rna"].obs["domain"].reindex(mdata.obs_names)
    table = st.tl.compare_models(
        mdata,
        ["praga", "praga_spike"],
        [3, 4],
        modalities=MODALITIES,
        labels_key="domain",
        max_epochs=4,
        train_kwargs=QUIET,
    )
    assert table["model"].tolist() == ["praga", "praga", "praga_spike", "praga_spike"]
    assert table["reconstruction_mse"].between(0.05, 50).all()
    for _, row in table.iterrows():
        function = getattr(st.tl, row["model"])
        one = function(mdata, MODALITIES, max_epochs=4, seed=row["seed"], train_kwargs=QUIET, copy=True)
        st.tl.spatial_domains(one, 4, use_rep=f"X_{row['model']}", seed=row["seed"], key_added="found")
        scores = st.metrics.score_labels(mdata.obs["domain"], one.obs["found"])
        assert (row["ari"], row["nmi"]) == (scores["ari"], scores["nmi"])


def test_peak_memory_is_what_was_held_at_most():
    with PeakMemory(0.005) as memory:
        held = np.ones(2**24)  # 128 MiB
        assert held.sum() == 2**24
        del held
        kept = np.ones(2**22)  # 32 MiB
    assert 120 < memory.mib < 180
    assert kept.size
