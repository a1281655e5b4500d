"""Training, results, determinism, saving, resuming."""

from __future__ import annotations

import json
import logging
import pickle
import random

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback

from stomics_tools.datasets import simulate_histology
from stomics_tools.model import VARST, LazySlidePredictor

KEYS = {"patient_key": "patient", "section_key": "section"}
QUIET = {"enable_progress_bar": False}
SCALES = (1, 8, 12)


def _data(n_patients=3, n_sections=2, n_genes=12, seed=0) -> AnnData:
    adata = simulate_histology(n_patients, n_sections, 20, n_genes=n_genes, n_features=6, seed=seed)
    del adata.layers["expected"], adata.uns["simulate_histology"]
    return adata


def _model(adata, setup=None, **kwargs) -> VARST:
    VARST.setup_anndata(adata, **(KEYS if setup is None else setup))
    return VARST(adata, size="tiny", **kwargs)


def _trained(adata, setup=None, seed=0, max_epochs=2, train=None, **kwargs) -> VARST:
    model = _model(adata, setup, **kwargs)
    model.train(max_epochs=max_epochs, seed=seed, **QUIET, **(train or {}))
    return model


def _outputs(model, adata=None) -> list[np.ndarray]:
    return [
        model.predict(adata),
        model.sample(adata, 2, seed=3),
        *model.interval(adata),
        model.get_latent_representation(adata),
        model.get_latent_representation(adata, source="expression"),
        model.reconstruct(adata),
    ]


def _same(first, second) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def adata() -> AnnData:
    return _data()


@pytest.fixture(scope="module")
def model() -> VARST:
    """Trained for all tests that do not change it."""
    return _trained(_data())


# ------------------------------------------------------------------- results


def test_results_are_written_and_survive_a_file(adata, tmp_path):
    before = adata.copy()
    model = _trained(adata, max_epochs=3)
    lower, upper = model.interval(level=0.8)
    expected = {"var_st": model.predict(), "var_st_lower": lower, "var_st_upper": upper}
    assert set(adata.layers) - {None} == set(expected)
    tokens = {f"var_st_tokens_{size}": size for size in SCALES}
    assert set(adata.obsm) - set(before.obsm) == {"X_var_st", *tokens}
    adata.write_h5ad(tmp_path / "a.h5ad")
    for data in (adata, anndata.read_h5ad(tmp_path / "a.h5ad")):
        for name, values in expected.items():
            assert data.layers[name].dtype == np.float32
            np.testing.assert_array_equal(data.layers[name], values)
        assert data.obsm["X_var_st"].dtype == np.float32
        np.testing.assert_array_equal(data.obsm["X_var_st"], model.get_latent_representation())
        for name, size in tokens.items():
            assert data.obsm[name].dtype == np.int32
            assert data.obsm[name].shape == (120, size)
        params = data.uns["var_st"]["params"]
        assert (params["model"], params["size"], params["seed"], params["level"]) == ("VARST", "tiny", 0, 0.8)
        assert (params["stage1_epochs"], params["stage2_epochs"], params["folds"]) == (3, 3, "patient")
        assert (params["patient_key"], params["section_key"]) == ("patient", "section")
        assert list(params["scales"]) == [1, 8, 32, 200]
        pd.testing.assert_frame_equal(data.uns["var_st"]["codebook"], model.codebook_report())
    assert (adata.X != before.X).nnz == 0
    for key in before.obsm:
        np.testing.assert_array_equal(adata.obsm[key], before.obsm[key])
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_codebook_report_counts_codes(model):
    report = model.codebook_report()
    assert list(report.index) == [*map(str, SCALES), "all"]
    codes = {str(size): model.adata.obsm[f"var_st_tokens_{size}"] for size in SCALES}
    codes["all"] = np.hstack(list(codes.values()))
    for name, values in codes.items():
        n = np.bincount(values.ravel(), minlength=64)
        share = n[n > 0] / n.sum()
        row = report.loc[name]
        assert (row["n_codes"], row["n_tokens"], row["n_dead"]) == (64, values.size, (n == 0).sum())
        np.testing.assert_allclose(row["usage"], (n > 0).mean())
        np.testing.assert_allclose(row["perplexity"], np.exp(-(share * np.log(share)).sum()), rtol=1e-5)


def test_parameter_table_counts_all(model):
    table = model.parameter_table()
    total = sum(p.numel() for p in model.module.parameters())
    assert table.loc["all", "parameters"] == total == table["parameters"].iloc[:-1].sum()
    assert table.loc["stage 1", "parameters"] == sum(p.numel() for p in model.module.stage1.parameters())
    assert table.loc["all", "published"] == 85_484_996 == table["published"].iloc[:-1].sum()
    assert table["why"].iloc[:-1].str.len().min() > 10


def test_history(model):
    assert {f"stage1_{name}_loss" for name in ("train", "reconstruction", "quantizer")} <= set(model.history)
    assert {f"stage2_{name}_loss" for name in ("train", "mean", "code")} <= set(model.history)
    for name, table in model.history.items():
        assert list(table.columns) == [name]
        assert len(table) == 2
        assert np.isfinite(table[name]).all()
    total = (
        model.history["stage2_mean_loss"]["stage2_mean_loss"] + model.history["stage2_code_loss"]["stage2_code_loss"]
    )
    np.testing.assert_allclose(model.history["stage2_train_loss"]["stage2_train_loss"], total, rtol=1e-5)


def test_it_learns():
    """Of patients that were not seen, the mean tells more than the training mean."""
    adata = _data(n_patients=4, seed=1)
    test = adata[adata.obs["patient"] == "patient3"].copy()
    train = adata[adata.obs["patient"] != "patient3"].copy()
    model = _trained(train, max_epochs=40)
    expected, truth = model.predict(test), model._expression(model._read(test, expression=True))[0]
    mean = model._expression(model._read(expression=True))[0].mean(axis=0)
    assert ((expected - truth) ** 2).mean() < 0.9 * ((mean - truth) ** 2).mean()
    for name in ("stage1_train_loss", "stage2_mean_loss", "stage2_code_loss"):
        losses = model.history[name][name]
        assert losses.iloc[-10:].mean() < losses.iloc[:10].mean()


def test_write_results_for_another_object(model, adata):
    other = adata[5:40].copy()
    before = other.copy()
    _outputs(model, other)
    assert set(other.obsm) == set(before.obsm)
    assert set(other.layers) == set(before.layers)
    assert set(other.uns) == set(before.uns)
    assert model.write_results(other, key_added="mine", level=0.5) is None
    lower, upper = model.interval(other, 0.5)
    np.testing.assert_array_equal(other.layers["mine"], model.predict(other))
    np.testing.assert_array_equal(other.layers["mine_lower"], lower)
    np.testing.assert_array_equal(other.layers["mine_upper"], upper)
    np.testing.assert_array_equal(other.obsm["X_mine"], model.get_latent_representation(other))
    np.testing.assert_array_equal(other.obsm["mine_tokens_8"], model.adata.obsm["var_st_tokens_8"][5:40])
    assert other.uns["mine"]["params"]["level"] == 0.5


def test_results_without_the_genes_of_training(model, adata, tmp_path):
    others = {
        "table": AnnData(adata.obsm["X_image"]),
        "no expression": AnnData(obs=adata.obs[[]], var=adata.var[[]], obsm={"X_image": adata.obsm["X_image"]}),
        "not measured": AnnData(
            np.full(adata.shape, np.nan), adata.obs[[]], adata.var[[]], obsm={"X_image": adata.obsm["X_image"]}
        ),
        "more genes": AnnData(
            np.ones((120, 30)), adata.obs[[]], obsm={"X_image": adata.obsm["X_image"], "spatial": np.zeros((120, 2))}
        ),
    }
    for name, other in others.items():
        model.write_results(other)
        where = other.layers if name in ("no expression", "not measured") else other.obsm
        np.testing.assert_array_equal(where["var_st"], model.predict())
        np.testing.assert_array_equal(where["var_st_upper"], model.interval()[1])
        if where is other.obsm:
            assert where["var_st"].dtype == np.float32
            assert list(other.uns["var_st"]["gene_names"]) == model.gene_names
        assert not any("tokens" in key for key in other.obsm)
        other.write_h5ad(tmp_path / "o.h5ad")
        np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "o.h5ad").obsm["X_var_st"], other.obsm["X_var_st"])


def test_no_results_if_not_asked_for(adata):
    before = set(adata.obsm)
    _trained(adata, train={"key_added": None})
    assert set(adata.obsm) == before
    assert "var_st" not in adata.uns


# --------------------------------------------------------------- determinism


@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
def test_same_seed_same_bits_and_no_global_state_touched(quantizer):
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first, second, other = (_trained(_data(), seed=seed, quantizer=quantizer) for seed in (1, 1, 2))
    _same(_outputs(first), _outputs(second))
    for key in ("var_st_tokens_1", "var_st_tokens_12"):
        np.testing.assert_array_equal(first.adata.obsm[key], second.adata.obsm[key])
    assert np.abs(first.get_latent_representation() - other.get_latent_representation()).max() > 1e-3
    assert (first.adata.obsm["var_st_tokens_12"] != other.adata.obsm["var_st_tokens_12"]).any()
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()


def test_draws_depend_on_their_seed_alone(model):
    state = torch.get_rng_state()
    first, again, other = (model.sample(n=3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(model.sample(seed=0)[0], first[0])
    assert torch.equal(state, torch.get_rng_state())


def test_batches_do_not_change_predictions(model, adata):
    for size in (1, 7, 1000):
        np.testing.assert_allclose(model.predict(batch_size=size), model.predict(), atol=1e-5)
        np.testing.assert_allclose(model.interval(batch_size=size), model.interval(), atol=1e-5)
        for source in ("features", "expression"):
            whole = model.get_latent_representation(source=source)
            np.testing.assert_allclose(
                model.get_latent_representation(source=source, batch_size=size), whole, atol=1e-4
            )
        # likeliest codes are no draws
        np.testing.assert_allclose(model.sample(temperature=0, batch_size=size), model.sample(temperature=0), atol=1e-4)
    np.testing.assert_allclose(model.predict(adata[3].copy()), model.predict()[3:4], atol=1e-5)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    np.testing.assert_allclose(model.predict(adata[order].copy()), model.predict()[order], atol=1e-5)


def test_stages_one_by_one_are_both_at_once(adata):
    whole = _trained(adata.copy())
    parts = _model(adata)
    parts.train_stage1(max_epochs=2, **QUIET)
    assert not parts.is_trained
    assert "var_st" not in adata.layers
    parts.train_stage2(max_epochs=2, **QUIET)
    _same(_outputs(parts), _outputs(whole))
    np.testing.assert_array_equal(adata.layers["var_st"], whole.predict())
    chosen = _model(adata.copy())
    for stage in (1, 2):
        chosen.set_training_stage(stage)
        chosen.train(max_epochs=2, **QUIET)
        assert chosen.is_trained == (stage == 2)
    _same(_outputs(chosen), _outputs(whole))
    with pytest.raises(ValueError, match="`stage`: unknown option 3"):
        chosen.set_training_stage(3)


def test_arguments_of_one_stage(adata):
    model = _model(adata)
    model.train(stage1={"max_epochs": 3}, stage2={"max_epochs": 1, "key_added": "mine"}, **QUIET)
    assert [len(model.history[f"stage{n}_train_loss"]) for n in (1, 2)] == [3, 1]
    assert "mine" in adata.layers
    assert "var_st" not in adata.layers


def test_stage_2_leaves_stage_1_and_depends_on_it_and_the_seed_alone(adata):
    model = _model(adata, quantizer="ema")
    model.train_stage1(max_epochs=2, **QUIET)
    before = {name: value.clone() for name, value in model.module.stage1.state_dict().items()}
    codes = model.reconstruct()
    model.train_stage2(max_epochs=2, **QUIET)
    first = _outputs(model)
    for name, value in model.module.stage1.state_dict().items():
        assert torch.equal(value, before[name]), name
    np.testing.assert_array_equal(model.reconstruct(), codes)
    other = _model(adata.copy(), quantizer="ema")
    other.train_stage1(max_epochs=2, **QUIET)
    other.train_stage2(max_epochs=2, seed=5, **QUIET)
    assert (other.predict() != first[0]).any()
    again = _model(adata.copy(), quantizer="ema")
    again.train_stage1(max_epochs=2, **QUIET)
    again.train_stage2(max_epochs=2, **QUIET)
    _same(_outputs(again), first)
    assert len(model.history["stage2_train_loss"]) == 2


def test_training_again_goes_on(adata):
    model = _trained(adata, max_epochs=8)
    loss = {name: table[name].to_numpy() for name, table in model.history.items()}
    weights = {name: value.detach().clone() for name, value in model.module.named_parameters()}
    model.train(2, lr=1e-9, weight_decay=0.0, **QUIET)
    for name, value in model.module.named_parameters():  # not new weights
        torch.testing.assert_close(value, weights[name], atol=1e-6, rtol=0)
    for stage in ("stage1_train_loss", "stage2_train_loss"):
        after = model.history[stage][stage].to_numpy()
        np.testing.assert_array_equal(after[:8], loss[stage])
        assert len(after) == 10
    model.train_stage2(max_epochs=1, **QUIET)
    assert len(model.history["stage2_train_loss"]) == 11
    assert model.is_trained
    model.train_stage1(max_epochs=1, **QUIET)
    assert not model.is_trained  # stage 2 was made for other codes
    model.train_stage2(max_epochs=1, **QUIET)
    assert len(model.history["stage2_train_loss"]) == 12


def test_a_failed_training_leaves_no_trained_model(adata):
    model = _model(adata)
    with pytest.raises(BaseException, match="killed|Killed|1"):
        model.train(stage1={"callbacks": [_Kill(0)]}, max_epochs=2, **QUIET)
    assert not model.is_trained
    with pytest.raises(RuntimeError, match="not trained"):
        model.predict()
    with pytest.raises(RuntimeError, match="Stage 1 is not trained"):
        model.reconstruct()


# ------------------------------------------------------------- saving, resuming


def test_save_and_load(model, adata, tmp_path):
    model.save(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.json", "model.safetensors"}
    meta = json.loads((tmp_path / "model" / "model.json").read_text())
    assert meta["setup"]["patient_key"] == "patient"
    expected = _outputs(model)
    fresh = _data()
    loaded = VARST.load(tmp_path / "model", fresh)
    _same(_outputs(loaded), expected)
    assert loaded.adata is fresh
    assert loaded.gene_names == model.gene_names
    assert all(loaded.history[name].equals(table) for name, table in model.history.items())
    pd.testing.assert_frame_equal(loaded.codebook_report(), model.codebook_report())
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "model")
    loaded.save(tmp_path / "model", overwrite=True)

    alone = VARST.load(tmp_path / "model")
    _same(_outputs(alone, adata), expected)
    alone.write_results(adata)
    np.testing.assert_array_equal(adata.layers["var_st"], expected[0])
    assert set(adata.uns["var_st"]) == {"params"}
    for call in (alone.predict, alone.codebook_report, alone.write_results, alone.train):
        with pytest.raises(ValueError, match="loaded without data"):
            call()


def test_load_for_other_data_keeps_the_encodings_of_training(tmp_path):
    """Covariates are scaled, categories numbered and counts told from logarithms as in training."""
    adata = _data()
    rng = np.random.default_rng(0)
    adata.obs["age"] = rng.uniform(40, 80, size=120)
    adata.obs["stage"] = np.array(["I", "II", "III"])[np.arange(120) % 3]
    model = _trained(adata, {**KEYS, "covariate_keys": ["age", "stage"]})
    model.save(tmp_path / "model")
    other = adata[(adata.obs["patient"] == "patient1") & (adata.obs["stage"] != "I")].copy()
    other.X = np.minimum(other.X.toarray(), 20)
    other.X[:, 0] = np.nan
    expected = _outputs(model, other)
    loaded = VARST.load(tmp_path / "model", other)
    _same(_outputs(loaded), expected)
    with pytest.raises(ValueError, match=r"No spot tells of 1 genes \(\['gene0'\]\)"):
        loaded.train(max_epochs=1, **QUIET)
    view = adata[:30]
    viewed = VARST.load(tmp_path / "model", view)
    np.testing.assert_array_equal(viewed.predict(), model.predict(adata[:30].copy()))
    assert not view.is_view


def test_nothing_is_pickled(model, adata, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pickled")

    for name in ("load", "loads", "dump", "dumps"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch, "save", refuse)
    model.save(tmp_path / "model")
    model.save_stage1(tmp_path / "stage1")
    VARST.load(tmp_path / "model")
    _model(adata).load_stage1(tmp_path / "stage1")


class _Kill(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt("killed")


@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
@pytest.mark.parametrize(("stage", "epoch"), [(1, 2), (2, 2), (2, 0)])
def test_a_killed_run_goes_on_to_the_same_result(adata, tmp_path, stage, epoch, quantizer):
    straight = _trained(adata.copy(), max_epochs=4, quantizer=quantizer)
    killed = _model(adata.copy(), quantizer=quantizer)
    with pytest.raises(BaseException, match="killed|Killed|1"):
        killed.train(
            **{f"stage{stage}": {"callbacks": [_Kill(epoch)]}},
            max_epochs=4,
            checkpoint_dir=tmp_path,
            checkpoint_every=2,
            **QUIET,
        )
    assert not killed.is_trained
    assert (tmp_path / "stage2" / "last.ckpt").exists() == (stage == 2 and epoch == 2)
    for fresh in (_model(adata.copy(), quantizer=quantizer), killed):
        fresh.train(max_epochs=4, ckpt_path=tmp_path, **QUIET)
        _same(_outputs(fresh), _outputs(straight))
        assert set(fresh.history) == set(straight.history)
        assert all(fresh.history[name].equals(table) for name, table in straight.history.items())
        params = (m.adata.uns["var_st"]["params"] for m in (fresh, straight))
        assert next(params) == next(params)


def test_stage_1_for_another_model(adata, tmp_path):
    first = _model(adata.copy())
    first.train_stage1(max_epochs=2, **QUIET)
    first.save_stage1(tmp_path / "stage1")
    other = _data(n_patients=2, seed=5)
    second = _model(other, n_layers=1, n_condition=8, n_mean_hidden=16)
    second.train(stage1=tmp_path / "stage1", max_epochs=2, **QUIET)
    assert not any(name.startswith("stage1_") for name in second.history)
    for name, value in second.module.stage1.state_dict().items():
        assert torch.equal(value, first.module.stage1.state_dict()[name]), name
    np.testing.assert_array_equal(second.reconstruct(), first.reconstruct(other))
    assert second.adata.uns["var_st"]["params"]["stage1"] == "loaded"
    again = _model(adata)
    again.load_stage1(tmp_path / "stage1")
    again.train_stage2(max_epochs=2, **QUIET)
    np.testing.assert_array_equal(again.predict(), _trained(adata.copy()).predict())


def test_stage_1_of_other_genes_or_settings(adata, tmp_path):
    model = _model(adata)
    model.train_stage1(max_epochs=1, **QUIET)
    model.save_stage1(tmp_path / "stage1")
    fewer = _model(adata[:, 1:].copy())
    renamed = adata.copy()
    renamed.var_names = ["new", *adata.var_names[1:]]
    for other, message in (
        (fewer, "is of 12 genes.*Subset the data"),
        (_model(adata[:, ::-1].copy()), "others or in another order"),
        (_model(renamed), r"without 1 of these \(\['new'\]\)"),
        (_model(adata.copy(), n_codes=256), "has `n_codes` 64, this model 256"),
        (_model(adata.copy(), quantizer="ema"), "has `quantizer` 'fsq', this model 'ema'"),
        (_model(adata.copy(), scales=(1, 4)), r"has `scales` \[1, 8, 32, 200\], this model \[1, 4\]"),
        (_model(adata.copy(), likelihood="nb"), "has `likelihood` 'normal', this model 'nb'"),
    ):
        with pytest.raises(ValueError, match=message):
            other.train(stage1=str(tmp_path / "stage1"), max_epochs=1, **QUIET)
        assert not other.is_trained
    whole = _trained(adata.copy(), max_epochs=1)
    whole.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a VARST, not a stage 1"):
        whole.load_stage1(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a VARST stage 1, not a VARST"):
        VARST.load(tmp_path / "stage1")
    with pytest.raises(FileNotFoundError, match="no model.json"):
        whole.load_stage1(tmp_path / "nowhere")


# ------------------------------------------------------------------ intervals


def test_intervals(model):
    bounds = [model.interval(level=level) for level in (0.1, 0.5, 0.8, 0.95)]
    for lower, upper in bounds:
        assert lower.dtype == upper.dtype == np.float32
        assert (lower <= upper).all()
    for (inner_low, inner_high), (outer_low, outer_high) in zip(bounds, bounds[1:], strict=False):
        assert (outer_low <= inner_low).all()
        assert (inner_high <= outer_high).all()
        assert (outer_high - outer_low).mean() > (inner_high - inner_low).mean()
    for level in (0.0, 1.1, -0.5):
        with pytest.raises(ValueError, match="`level` must be in"):
            model.interval(level=level)
    # The message says which levels there are.
    assert model.largest_level == pytest.approx(0.971, abs=1e-3)
    assert _model(_data()).largest_level == model.largest_level
    for level in (0.985, 0.999, 1.0):
        with pytest.raises(ValueError, match=r"3 left-out groups with 120 observations support at most 0\.97"):
            model.interval(level=level)
        with pytest.raises(ValueError, match="support at most"):
            model.write_results(_data(1), level=level)


def test_two_patients_support_lower_levels_only():
    model = _trained(_data(2, 1), train={"key_added": None})
    assert model.largest_level == pytest.approx(0.849, abs=1e-3)
    assert (np.subtract(*model.interval(level=0.8)) < 0).any()
    with pytest.raises(ValueError, match="2 left-out groups"):
        model.interval(level=0.9)


def test_genes_that_few_patients_have_are_named(adata, caplog):
    adata.X = adata.X.astype(np.float32)
    adata.X[np.asarray(adata.obs["patient"] != adata.obs["patient"].iloc[0]), 3] = np.nan
    model = _trained(adata, train={"key_added": None})
    with caplog.at_level(logging.WARNING, logger="stomics_tools"):
        lower, upper = model.interval()
    assert "Intervals of 1 genes rest on too few left-out patients for a level of 0.8" in caplog.text
    assert adata.var_names[3] in caplog.text
    assert np.isfinite(lower).all()
    assert np.isfinite(upper).all()


@pytest.mark.parametrize("n_patients", [3, 5])
def test_new_patients_are_covered(n_patients):
    """Patients shift each gene by a normal effect (sd 1), spots scatter about it (sd 0.3), the image tells nothing."""
    rng = np.random.default_rng(0)
    n_spots, n_genes, n_new = 30, 120, 4
    patient = np.repeat(np.arange(n_patients + n_new), n_spots)
    values = 8 + rng.normal(size=(n_patients + n_new, n_genes))[patient]
    values += 0.3 * rng.normal(size=values.shape)
    both = AnnData(values.astype(np.float32), obsm={"X_image": rng.normal(size=(len(values), 5)).astype(np.float32)})
    both.obs["patient"] = patient.astype(str)
    train, new = both[patient < n_patients].copy(), both[patient >= n_patients].copy()
    setup = {"patient_key": "patient", "spatial_key": None}
    model = _trained(train, setup, max_epochs=30, train={"key_added": None}, gene_tree="order")
    lower, upper = model.interval(new, 0.8)
    assert 0.76 < ((new.X >= lower) & (new.X <= upper)).mean() < 0.88


@pytest.mark.parametrize(
    ("setup", "n_patients", "n_sections", "message"),
    [
        (KEYS, 2, 1, None),
        (KEYS, 1, 2, "within the patient: they were calibrated on sections"),
        ({"section_key": "section"}, 2, 2, "within the patient: they were calibrated on sections"),
        ({}, 1, 1, "within the patient: they were calibrated on parts of one section"),
        ({"spatial_key": None}, 1, 1, "within the patient: they were calibrated on parts of one section"),
    ],
)
def test_intervals_say_what_they_were_calibrated_on(caplog, setup, n_patients, n_sections, message):
    model = _trained(_data(n_patients, n_sections), setup, train={"key_added": None})
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="stomics_tools"):
        lower, upper = model.interval()
    found = [record.getMessage() for record in caplog.records]
    if message is None:
        assert not found
    else:
        assert len(found) == 1
        assert message in found[0]
        assert "patient_key" in found[0]
    assert np.isfinite(lower).all()
    assert np.isfinite(upper).all()


def test_the_interval_of_the_patients_left_out_holds_their_share(adata):
    """What members not trained on a patient say of it is off by more than the bounds in a fifth of its values."""
    model = _trained(adata, max_epochs=10, train={"key_added": None})
    spots, folds = model._training_spots()
    truth = model._expression(spots)[0]
    inputs, fold = model._inputs(spots).rows(np.arange(120)), torch.as_tensor(folds.fold)
    with torch.no_grad():
        said = model.module.restore(model.module.mean.left_out(inputs, fold)).numpy()
    lower, upper = (bound.numpy() for bound in model.module.residuals.bounds(0.8))
    inside = (said + lower <= truth) & (truth <= said + upper)
    assert 0.7 < inside.mean() < 0.9
    assert folds.kind == "patient"


# -------------------------------------------------------------------- samples


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.5},
        {"temperature": 0},
        {"top_k": 1},
        {"top_k": 1000},
        {"top_p": 1.0},
        {"top_p": 1e-6},
        {"guidance": 2.0},
        {"temperature": 0.7, "top_k": 10, "top_p": 0.9, "guidance": 1.0},
    ],
)
@pytest.mark.parametrize("head", ["factorized", "joint"])
def test_ways_of_drawing(heads, how, head):
    model = heads[head]
    drawn = model.sample(n=2, **how)
    assert drawn.shape == (2, 120, 12)
    assert drawn.dtype == np.float32
    assert np.isfinite(drawn).all()
    if how in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-6}):
        np.testing.assert_array_equal(drawn[0], drawn[1])
    else:
        assert (drawn[0] != drawn[1]).any()
    if how == {"top_k": 1}:
        np.testing.assert_array_equal(drawn[0], model.sample(top_p=1e-6)[0])


@pytest.fixture(scope="module")
def heads(model) -> dict[str, VARST]:
    return {"factorized": model, "joint": _trained(_data(), head="joint", label_softness=0.1)}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"n": 0}, "`n` must be at least 1"),
        ({"n": 1.5}, "`n` must be an integer"),
        ({"temperature": -1.0}, "`temperature`"),
        ({"temperature": np.nan}, "`temperature`"),
        ({"top_k": 0}, "`top_k`"),
        ({"top_k": 2.5}, "`top_k`"),
        ({"top_p": 0.0}, "`top_p`"),
        ({"top_p": 1.5}, "`top_p`"),
        ({"guidance": -0.1}, "`guidance`"),
        ({"seed": -1}, "`seed`"),
        ({"batch_size": 0}, "`batch_size`"),
    ],
)
def test_bad_ways_of_drawing(model, how, message):
    with pytest.raises((ValueError, TypeError), match=message):
        model.sample(**how)


def test_the_mean_of_draws(model):
    draws = model.sample(n=3, seed=4, batch_size=1024)
    np.testing.assert_allclose(model.predict(method="samples", n_samples=3, seed=4), draws.mean(axis=0), atol=1e-6)
    with pytest.raises(ValueError, match="`method`: unknown option 'median'"):
        model.predict(method="median")
    with pytest.raises(ValueError, match="`n_samples`"):
        model.predict(method="samples", n_samples=0)


def test_reconstruction_from_coarse_scales(model):
    whole = model.reconstruct()
    np.testing.assert_array_equal(model.reconstruct(n_scales=3), whole)
    assert (model.reconstruct(n_scales=1) != whole).any()
    for n_scales in (0, 4):
        with pytest.raises(ValueError, match="`n_scales`"):
            model.reconstruct(n_scales=n_scales)
    latent = model.get_latent_representation(source="expression")
    assert latent.shape == (120, 8 * 16)
    with pytest.raises(ValueError, match="`source`: unknown option 'expresion'.*Did you mean 'expression'"):
        model.get_latent_representation(source="expresion")


# ------------------------------------------------------------------- the rest


def test_through_lazyslide(model, adata):
    found = LazySlidePredictor(model, batch_size=50).predict(adata.obsm["X_image"])
    assert list(found) == list(adata.var_names)
    np.testing.assert_allclose(np.stack(list(found.values()), axis=1), model.predict(), atol=1e-5)


def test_places_through_lazyslide(adata):
    one = adata[:20].copy()
    one.obsm["spatial"] = np.random.default_rng(0).uniform(0, 1000, size=(20, 2))  # no ties between neighbours
    model = _trained(one, {}, use_coordinates=True, n_neighbors=3)
    predictor = LazySlidePredictor(model)
    assert predictor.needs_coords
    found = predictor.predict(one.obsm["X_image"], one.obsm["spatial"] + 100.0)
    np.testing.assert_allclose(np.stack(list(found.values()), axis=1), model.predict(), atol=1e-4)


def test_training_stops_when_the_loss_does(adata):
    model = _model(adata)
    model.train(max_epochs=60, lr=1e-12, patience=2, key_added=None, **QUIET)
    for stage in (1, 2):
        assert len(model.history[f"stage{stage}_train_loss"]) < 60


def test_changed_data_are_noticed(adata):
    model = _model(adata)
    model.train_stage1(max_epochs=1, **QUIET)
    adata.obsm["X_image"][0] += 1
    with pytest.raises(ValueError, match="data changed since stage 1"):
        model.train_stage2(max_epochs=1, **QUIET)


@pytest.mark.parametrize(("stage", "unused"), [(1, {"stage2": {"max_epochs": 1}}), (2, {"stage1": {"max_epochs": 1}})])
def test_arguments_of_a_stage_that_is_not_trained(adata, stage, unused):
    model = _model(adata)
    model.set_training_stage(stage)
    with pytest.raises(ValueError, match=rf"has no effect after `set_training_stage\({stage}\)`"):
        model.train(max_epochs=1, **unused, **QUIET)
