from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.linear_model import Ridge

import stomics_tools as st
from stomics_tools.metrics import noise_ceiling, score_expression

N_GENES = 12
ARGUMENTS = {"features_key": "X_features", "patient_key": "patient", "section_key": "section", "n_genes": N_GENES}


@pytest.fixture
def adata():
    """Counts that follow the features, of 3 patients with 5 sections; a few spots nearly without counts."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(250, 6))
    rates = np.exp(x @ rng.normal(0, 0.4, (6, 30))) * np.r_[np.geomspace(0.5, 30, 29), 0.01]
    counts = rng.poisson(rates * np.where(np.arange(250) % 50 == 7, 0.005, 1)[:, None])
    section = np.repeat(["a1", "a2", "b1", "b2", "c1"], 50)
    obs = pd.DataFrame({"section": section, "patient": [s[0] for s in section]}, index=[f"spot{i}" for i in range(250)])
    obs["patient"] = obs["patient"].astype("category")
    obsm = {"X_features": x.astype(np.float32), "spatial": rng.uniform(size=(250, 2))}
    return AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, obsm=obsm)


class Recorder:
    """Predicts the training mean, and keeps what it is shown."""

    def __init__(self):
        self.seen = []

    def __deepcopy__(self, memo):  # all copies write into one list
        copied = Recorder()
        copied.seen = self.seen
        return copied

    def fit(self, train):
        self.train = train
        self.mean = train.X.mean(axis=0)

    def predict(self, test):
        self.seen.append((self.train, test))
        return np.tile(self.mean, (test.n_obs, 1))


def test_rows(adata):
    methods = {
        "mean": "training_mean",
        "ridge": st.baselines.PCARidge(),
        "sk": Ridge(),
        "net": st.baselines.MLP(epochs=2),
    }
    table = st.tl.evaluate_expression(adata, methods, **ARGUMENTS, seeds=2, deep_counts=300)
    assert list(table.columns[:5]) == ["method", "fold", "seed", "section", "min_counts"]
    assert not table.duplicated(["method", "fold", "seed", "section", "min_counts"]).any()
    runs = table[["method", "fold", "seed"]].drop_duplicates()
    assert runs.groupby("method").size().to_dict() == {"mean": 3, "net": 6, "ridge": 6, "sk": 6}
    a = table[(table["method"] == "sk") & (table["fold"] == "a") & (table["seed"] == 0)]
    assert set(a["section"]) == {"all", "a1", "a2"}
    assert set(a["min_counts"]) == {100, 300}
    whole = a.set_index(["section", "min_counts"]).sort_index()["n_obs"]
    assert whole["all", 100] == whole["a1", 100] + whole["a2", 100] == 98
    assert whole["all", 300] < whole["all", 100]
    all_spots = table[(table["section"] == "all") & (table["min_counts"] == 100)]
    means = all_spots.groupby("method")["pcc"].mean()
    assert means["mean"] == 0
    assert means["sk"] > 0.3
    assert means["ridge"] > 0.3
    assert {"pcc_depth_out", "pcc_section_depth_out", "spearman", "mse", "n_genes_undefined"} <= set(table.columns)
    assert set(all_spots["n_genes"]) == {N_GENES}
    net = all_spots[(all_spots["method"] == "net")].pivot(index="fold", columns="seed", values="pcc")
    assert (net[0] != net[1]).all()


def test_scores_are_those_of_a_fold_made_by_hand(adata):
    table = st.tl.evaluate_expression(adata, {"sk": Ridge()}, **ARGUMENTS, held_out=["b"])
    counts = adata.X.toarray().astype(np.float64)
    total = counts.sum(axis=1)
    kept = total >= 100
    x, patient = adata.obsm["X_features"][kept], adata.obs["patient"][kept]
    log = np.log1p(1e4 * counts[kept] / total[kept, None])
    train, test = (patient != "b").to_numpy(), (patient == "b").to_numpy()
    found = (counts[kept][train] > 0).mean(axis=0) >= 0.1
    panel = np.argsort(np.where(found, -log[train].var(axis=0), np.inf))[:N_GENES]
    assert table.attrs["panels"] == {"b": adata.var_names[panel].tolist()}
    expected = score_expression(
        log[test][:, panel],
        Ridge().fit(x[train], log[train][:, panel]).predict(x[test]),
        train_mean=log[train][:, panel].mean(axis=0),
        sections=adata.obs["section"][kept][test],
        log_depth=np.log(total[kept][test]),
        gene_rank=np.arange(N_GENES),
    )
    row = table[(table["section"] == "all") & (table["min_counts"] == 100)].iloc[0]
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-4), name
    assert row["n_train"] == train.sum()


def test_methods_see_nothing_of_the_test_part(adata):
    recorder = Recorder()
    before = adata.copy()
    st.tl.evaluate_expression(adata, {"recorder": recorder}, **ARGUMENTS)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert (adata.X != before.X).nnz == len(adata.uns) == 0
    assert set(adata.layers) == set(before.layers)
    assert set(adata.obsm) == set(before.obsm)
    assert len(recorder.seen) == 3
    for (train, test), patient in zip(recorder.seen, "abc", strict=True):
        assert set(test.obs["patient"]) == {patient}
        assert patient not in set(train.obs["patient"].cat.categories)
        assert not set(train.obs_names) & set(test.obs_names)
        assert list(train.var_names) == list(test.var_names)
        assert not test.X.any()
        assert not test.layers["counts"].any()
        np.testing.assert_array_equal(test.obsm["spatial"], adata[test.obs_names].obsm["spatial"])
        counts = adata[train.obs_names]
        np.testing.assert_array_equal(train.layers["counts"], counts[:, train.var_names].X.toarray())
        expected = np.log1p(1e4 * train.layers["counts"] / np.asarray(counts.X.sum(axis=1)))
        np.testing.assert_allclose(train.X, expected, rtol=1e-5)
        assert train.X.dtype == np.float32


def test_the_panel_and_the_model_do_not_change_with_the_test_counts(adata):
    other = adata.copy()
    b = (adata.obs["patient"] == "b").to_numpy()
    dense = other.X.toarray()
    dense[b] = np.random.default_rng(1).permuted(dense[b], axis=1) + 5
    other.X = sparse.csr_matrix(dense)
    shown = []
    for data in (adata[(np.asarray(adata.X.sum(axis=1)).ravel() >= 100)], other):
        recorder = Recorder()
        st.tl.evaluate_expression(data, {"recorder": recorder}, **ARGUMENTS, held_out=["b"])
        shown.append(recorder.seen[0][0])
    assert shown[0].var_names.equals(shown[1].var_names)
    np.testing.assert_array_equal(shown[0].X, shown[1].X)


def test_groups_are_patients_or_the_sections_of_a_single_one(adata):
    class Groups:
        def fit(self, X, Y, groups=None):
            seen.append(None if groups is None else set(groups))
            self.shape = Y.shape[1]

        def predict(self, X):
            return np.zeros((len(X), self.shape))

    seen: list = []
    st.tl.evaluate_expression(adata, {"m": Groups()}, **ARGUMENTS, held_out=["a"])
    st.tl.evaluate_expression(adata[adata.obs["patient"] != "c"], {"m": Groups()}, **ARGUMENTS, held_out=["a"])
    without = {**ARGUMENTS, "section_key": None}
    st.tl.evaluate_expression(adata[adata.obs["patient"] != "c"], {"m": Groups()}, **without, held_out=["a"])
    assert seen == [{"b", "c"}, {"b1", "b2"}, None]


def test_sections_of_one_patient_only_when_asked_for(adata):
    one = adata[adata.obs["patient"] == "b"]
    with pytest.raises(ValueError, match='single patient.*split="section"'):
        st.tl.evaluate_expression(one, {"m": "training_mean"}, **ARGUMENTS)
    table = st.tl.evaluate_expression(one, {"m": "training_mean"}, **ARGUMENTS, split="section")
    assert set(table["fold"]) == {"b1", "b2"}
    assert one.is_view
    table = st.tl.evaluate_expression(one, {"m": "training_mean"}, **ARGUMENTS, split="random_spots", n_folds=3)
    assert table["fold"].nunique() == 3


def test_intervals_samples_and_ceiling(adata):
    methods = {"ridge": st.baselines.GaussianResiduals(st.baselines.PCARidge()), "plain": "pca_ridge"}
    table = st.tl.evaluate_expression(
        adata, methods, **ARGUMENTS, levels=(0.5, 0.8, 0.9), n_samples=30, ceiling=True, deep_counts=None
    )
    assert table["coverage_0.9"].isna().all()  # two patients to train on are too few
    table = table[table["section"] == "all"].groupby("method").mean(numeric_only=True)
    assert table.loc["ridge", "coverage_0.5"] == pytest.approx(0.5, abs=0.12)
    assert table.loc["ridge", "coverage_0.8"] == pytest.approx(0.8, abs=0.15)
    assert table.loc["ridge", "width_0.5"] < table.loc["ridge", "width_0.8"]
    assert table.loc["ridge", "crps"] < table.loc["plain", "mae"]
    assert np.isnan(table.loc["plain", "crps"])
    assert table.loc["ridge", "pcc"] == pytest.approx(table.loc["plain", "pcc"])
    assert table.loc["noise ceiling", "pcc"] > table.loc["ridge", "pcc"]


def test_the_ceiling_is_that_of_the_test_part(adata):
    table = st.tl.evaluate_expression(adata, {"m": "training_mean"}, **ARGUMENTS, held_out=["c"], ceiling=True)
    row = table[(table["method"] == "noise ceiling") & (table["section"] == "c1") & (table["min_counts"] == 100)]
    part = adata[(adata.obs["patient"] == "c").to_numpy() & (np.asarray(adata.X.sum(axis=1)).ravel() >= 100)]
    panel = adata.var_names.get_indexer(table.attrs["panels"]["c"])
    assert row["pcc"].item() == pytest.approx(noise_ceiling(part.X, panel).mean())
    assert row["pcc_depth_out"].item() == pytest.approx(noise_ceiling(part.X, panel, without_depth=True).mean())


def test_genes_that_were_not_measured(adata):
    dense = adata.X.toarray()
    gene = int(np.argmax(dense.mean(axis=0)))
    dense[(adata.obs["section"] == "a2").to_numpy(), gene] = np.nan
    dense[(adata.obs["patient"] == "b").to_numpy(), gene - 1] = np.nan
    gaps = AnnData(dense, obs=adata.obs, obsm=dict(adata.obsm))
    methods = {"ridge": "pca_ridge", "mean": "training_mean"}
    table = st.tl.evaluate_expression(gaps, methods, **{**ARGUMENTS, "n_genes": 25})
    rows = table[(table["method"] == "ridge") & (table["section"] == "all") & (table["min_counts"] == 100)]
    undefined = rows.set_index("fold")["n_genes_undefined"]
    assert undefined["b"] == undefined["c"] + 1
    assert rows["pcc"].min() > 0.3
    assert np.isfinite(table[["mse", "r2", "gene_correlation_error"]]).all(axis=None)


@pytest.mark.parametrize(("preset", "depth_kept"), [("log1p_cp10k", False), ("hest", True), ("stem", True)])
def test_normalisation_presets(adata, preset, depth_kept):
    recorder = Recorder()
    st.tl.evaluate_expression(adata, {"m": recorder}, **ARGUMENTS, held_out=["a"], normalization=preset)
    train = recorder.seen[0][0]
    counts = train.layers["counts"]
    assert np.allclose(train.X, np.log1p(counts) / (np.log(2) if preset == "stem" else 1), rtol=1e-5) == depth_kept


class StandIn:
    """What the coming model offers, as far as an evaluation asks for it."""

    calls: list = []

    @classmethod
    def setup_anndata(cls, adata, **keys):
        cls.calls.append(keys)
        cls.key = keys["features_key"]

    def __init__(self, adata, size="small"):
        self.adata, self.size = adata, size

    def train(self, *, seed, key_added, epochs=3):
        self.calls.append((self.size, seed, key_added, epochs))
        self.model = Ridge().fit(self.adata.obsm[self.key], self.adata.X)

    def predict(self, adata):
        return self.model.predict(adata.obsm[self.key])

    def sample(self, adata, *, n, seed):
        mean = self.predict(adata)
        return mean + np.random.default_rng(seed).normal(size=(n, *mean.shape))

    def interval(self, adata, *, level):
        mean = self.predict(adata)
        return mean - 2 * level, mean + 2 * level


def test_var_st_by_name(adata, monkeypatch):
    import stomics_tools.model

    monkeypatch.setattr(stomics_tools.model, "VARST", StandIn, raising=False)
    monkeypatch.setattr(StandIn, "calls", [])
    methods = {
        "var_st": "var_st",
        "tiny": {"size": "tiny", "setup": {"layer": "counts"}, "train": {"epochs": 1}},
        "sk": Ridge(),
    }
    table = st.tl.evaluate_expression(adata, methods, **ARGUMENTS, held_out=["a"], seeds=[3, 4], n_samples=4)
    keys = {"features_key": "X_features", "spatial_key": "spatial", "patient_key": "patient", "section_key": "section"}
    assert StandIn.calls[:2] == [keys, ("small", 3, None, 3)]
    assert StandIn.calls[4:6] == [keys | {"layer": "counts"}, ("tiny", 3, None, 1)]
    assert StandIn.calls[-1] == ("tiny", 4, None, 1)
    rows = table[(table["section"] == "all") & (table["min_counts"] == 100) & (table["seed"] == 3)].set_index("method")
    assert rows.loc["var_st", "pcc"] == pytest.approx(rows.loc["sk", "pcc"])
    assert (
        rows["crps"].notna().to_dict()
        == rows["coverage_0.8"].notna().to_dict()
        == {"var_st": True, "tiny": True, "sk": False}
    )


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"features_key": "X_feature"}, KeyError, "`features_key`.*Did you mean 'X_features'"),
        ({"patient_key": "donor"}, KeyError, "`patient_key`: key 'donor' not found"),
        ({"section_key": "slide"}, KeyError, "`section_key`: key 'slide' not found"),
        ({"patient_key": None}, ValueError, "`patient_key` must be given"),
        ({"layer": "raw"}, KeyError, "`layer`: key 'raw' not found"),
        ({"split": "spot"}, ValueError, "`split`: unknown option 'spot'"),
        ({"held_out": ["q"]}, ValueError, "`held_out`: unknown option 'q'"),
        ({"min_counts": 1e9}, ValueError, "`min_counts`: no spot has"),
        ({"n_samples": 1}, ValueError, "`n_samples` must be 0 or at least 2"),
        ({"levels": (80,)}, ValueError, "`levels` must be in"),
        ({"seeds": [1, 1]}, ValueError, "`seeds`: some occur twice"),
        ({"normalization": "hest", "ceiling": True}, ValueError, "`ceiling`"),
    ],
)
def test_bad_arguments(adata, changed, error, message):
    with pytest.raises(error, match=message):
        st.tl.evaluate_expression(adata, {"m": "training_mean"}, **{**ARGUMENTS, **changed})


def test_coordinates_are_not_needed(adata):
    del adata.obsm["spatial"]
    recorder = Recorder()
    st.tl.evaluate_expression(adata, {"m": recorder}, **ARGUMENTS, held_out=["a"])
    assert set(recorder.seen[0][1].obsm) == {"X_features"}


def test_bad_data(adata):
    methods = {"m": "training_mean"}
    rare = adata.copy()
    rare.X = sparse.csr_matrix(np.tile(200 * np.eye(30), (9, 1))[:250])
    with pytest.raises(ValueError, match="`min_share`: no gene is found in 0.1 of the training spots of 'a'"):
        st.tl.evaluate_expression(rare, methods, **ARGUMENTS)
    for value, message in [(-1.0, "negative"), (0.5, "fractional"), (np.inf, "NaN or infinite")]:
        bad = adata.copy()
        bad.X[0, 0] = value
        with pytest.raises(ValueError, match=f"`layer`: `adata.X` holds.*{message}"):
            st.tl.evaluate_expression(bad, methods, **ARGUMENTS)
    bad = adata.copy()
    bad.obsm["X_features"][3, 1] = np.nan
    with pytest.raises(ValueError, match="`features_key`.*1 NaN or infinite"):
        st.tl.evaluate_expression(bad, methods, **ARGUMENTS)
    bad = adata.copy()
    bad.obs_names = ["spot"] * 250
    with pytest.raises(ValueError, match="`adata.obs_names` are not unique"):
        st.tl.evaluate_expression(bad, methods, **ARGUMENTS)
    bad = adata.copy()
    bad.obs["section"] = "s"
    with pytest.raises(ValueError, match="belong to several patients"):
        st.tl.evaluate_expression(bad, methods, **ARGUMENTS)


class Wrong(Recorder):
    def __init__(self, change):
        self.change = change

    def __deepcopy__(self, memo):
        return Wrong(self.change)

    def predict(self, test):
        return self.change(np.tile(self.mean, (test.n_obs, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:, 1:], r"`methods\['m'\]`: `predict` returned shape \(98, 11\), expected \(98, 12\)"),
        (lambda p: p[1:], r"`predict` returned shape \(97, 12\)"),
        (lambda p: np.where(p > p[0, 0], np.nan, p), "`predict` returned .* NaN or infinite values"),
    ],
)
def test_bad_predictions(adata, change, message):
    with pytest.raises(ValueError, match=message):
        st.tl.evaluate_expression(adata, {"m": Wrong(change)}, **ARGUMENTS)


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        ({}, ValueError, "`methods` is empty"),
        (["pca_ridge"], TypeError, "`methods` must be a mapping"),
        ({"m": "ridge"}, ValueError, r"`methods\['m'\]`: unknown option 'ridge'.*Did you mean 'pca_ridge'"),
        ({"m": 3}, TypeError, "must be the name of a baseline"),
        ({"m": Ridge}, TypeError, "must be the name of a baseline"),
    ],
)
def test_bad_methods(adata, methods, error, message):
    with pytest.raises(error, match=message):
        st.tl.evaluate_expression(adata, methods, **ARGUMENTS)


def test_ridge_on_sections_of_a_patient(data_dir):
    """The reference: .372 and .189 without depth, leaving out one of four sections at a time."""
    parts = []
    for name in ("C2", "C3", "C4", "C5"):
        part = ad.read_h5ad(data_dir / f"her2st_{name}_image.h5ad")
        part.obsm["X_image"] = np.load(data_dir / "features" / f"her2st_{name}_handcrafted.npy")
        parts.append(part)
    adata = ad.concat(parts, join="outer", fill_value=0)
    table = st.tl.evaluate_expression(adata, {"ridge": "pca_ridge"}, section_key="section", split="section")
    scores = table[(table["section"] == "all") & (table["min_counts"] == 100)].mean(numeric_only=True)
    assert scores["pcc"] == pytest.approx(0.372, abs=0.01)
    assert scores["pcc_depth_out"] == pytest.approx(0.189, abs=0.015)
