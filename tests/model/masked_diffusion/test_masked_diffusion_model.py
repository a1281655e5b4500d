"""Training, draws, determinism, saving, resuming."""

from __future__ import annotations

import json
import logging
import pickle
import random
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from scipy.linalg import orthogonal_procrustes

from stomics_tools.datasets import simulate_sections
from stomics_tools.metrics import distance_spearman, gyration_ratio, rmsd
from stomics_tools.model import MaskedDiffusion
from stomics_tools.model.masked_diffusion import _places, _priors

QUIET = {"enable_progress_bar": False}
SMALL = {
    "width": 16,
    "n_heads": 2,
    "n_layers": 1,
    "n_hidden": 32,
    "n_latent": 8,
    "n_window": 24,
    "n_neighbors": 5,
    "n_members": 2,
    "n_regression_hidden": 16,
}
HIDDEN = np.arange(180) % 3 == 0
LANDMARKS = np.arange(180) % 10 == 0


@pytest.fixture(autouse=True, scope="module")
def _short_regression():
    """What comes before the diffusion takes as long for few cells as for many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_priors, "_VISITS", 900)
        patch.setattr(_places, "_N_STEPS", 20)
        yield


def _data(n_sections=3, n_cells=60, n_genes=24, seed=0, **kwargs) -> AnnData:
    adata = simulate_sections(n_sections, n_cells, n_genes, seed=seed, **kwargs)
    del adata.uns["simulation"], adata.obsm["tissue"]
    return adata


def _model(adata, **kwargs) -> MaskedDiffusion:
    MaskedDiffusion.setup_anndata(adata, batch_key="section")
    return MaskedDiffusion(adata, **{**SMALL, **kwargs})


def _trained(adata, seed=0, max_epochs=2, train=None, **kwargs) -> MaskedDiffusion:
    model = _model(adata, **kwargs)
    model.train(max_epochs, seed=seed, **{"key_added": None, **QUIET, **(train or {})})
    return model


def _outputs(model, adata=None) -> list[np.ndarray]:
    """All that a model of ``training_mode="joint"`` says of 180 cells."""
    few = {"n_steps": 2, "seed": 3}
    return [
        model.sample(adata, mode="expr_to_pos", **few),
        model.sample(adata, mode="expr_to_pos", landmarks=LANDMARKS, **few),
        model.sample(adata, mode="pos_to_expr", hidden=HIDDEN, **few),
        *model.sample(mode="joint", n_cells=30, **few).values(),
        *model.consensus(adata, n_samples=2, **few),
        model.consensus(adata, n_samples=1, estimate="mean", **few).position,
        model.impute(adata, hidden=HIDDEN),
        model.get_latent_representation(adata),
    ]


def _same(first, second) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def _log_scaled(counts: np.ndarray, total: float) -> np.ndarray:
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * total)


@pytest.fixture
def adata() -> AnnData:
    return _data()


@pytest.fixture(scope="module")
def model(_short_regression) -> MaskedDiffusion:
    """Trained for all tests that do not change it."""
    return _trained(_data())


# ------------------------------------------------------------------- results


def test_results_are_written_and_survive_a_file(adata, tmp_path):
    before = adata.copy()
    model = _trained(adata, seed=4, train={"key_added": "masked_diffusion", "lr": 2e-3})
    latent = model.get_latent_representation()
    assert set(adata.obsm) - set(before.obsm) == {"X_masked_diffusion"}
    adata.write_h5ad(tmp_path / "a.h5ad")
    for data in (adata, anndata.read_h5ad(tmp_path / "a.h5ad")):
        assert data.obsm["X_masked_diffusion"].dtype == np.float32
        assert data.obsm["X_masked_diffusion"].shape == (180, 16)
        np.testing.assert_array_equal(data.obsm["X_masked_diffusion"], latent)
        params = data.uns["masked_diffusion"]["params"]
        assert (params["model"], params["seed"], params["max_epochs"]) == ("MaskedDiffusion", 4, 2)
        assert (params["lr"], params["width"], params["training_mode"]) == (2e-3, 16, "joint")
        assert (params["batch_key"], params["spatial_key"]) == ("section", "spatial")
        assert params["stomics_tools_version"]
    assert (adata.X != before.X).nnz == 0
    np.testing.assert_array_equal(adata.obsm["spatial"], before.obsm["spatial"])
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_write_results_for_another_object(model, adata):
    other = adata[40:140].copy()
    before = other.copy()
    model.get_latent_representation(other)
    model.sample(other, mode="expr_to_pos", n_steps=2)
    model.impute(other, hidden=np.arange(100) < 20)
    for what in ("obsm", "layers", "uns"):
        assert set(getattr(other, what)) == set(getattr(before, what))
    assert (other.X != before.X).nnz == 0
    np.testing.assert_array_equal(other.obsm["spatial"], before.obsm["spatial"])
    assert model.write_results(other, key_added="mine") is None
    np.testing.assert_array_equal(other.obsm["X_mine"], model.get_latent_representation(other))
    assert set(other.uns) == set(before.uns) | {"mine"}


def test_no_results_if_not_asked_for(model):
    assert set(model.adata.obsm) == {"spatial"}
    assert "masked_diffusion" not in model.adata.uns


def test_history(model):
    assert set(model.history) == {"train_loss", "position_loss", "expression_loss"}
    for name, table in model.history.items():
        assert list(table.columns) == [name]
        assert len(table) == 2
        assert np.isfinite(table[name]).all()


@pytest.fixture(scope="module")
def learnt() -> tuple[MaskedDiffusion, AnnData]:
    """A model of three sections, trained in earnest, and a fourth section."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_priors, "_VISITS", 6000)
        patch.setattr(_places, "_N_STEPS", 200)
        adata = _data(4, 200, 100, seed=1)
        test = adata[adata.obs["section"] == "section3"].copy()
        train = adata[adata.obs["section"] != "section3"].copy()
        return _trained(train, max_epochs=10, n_window=100, n_regression_hidden=64, train={"lr": 3e-3}), test


def test_it_places_cells_of_an_unseen_section(learnt):
    model, test = learnt
    truth = test.obsm["spatial"]
    del test.obsm["spatial"]
    consensus = model.consensus(test, n_samples=8, n_steps=10)
    draw = model.sample(test, mode="expr_to_pos", n_steps=10)
    test.obsm["spatial"] = truth
    assert distance_spearman(truth, consensus.position) > 0.8
    assert distance_spearman(truth, draw) > 0.7
    assert distance_spearman(truth, consensus.position) > distance_spearman(truth, draw)
    assert 0.8 < gyration_ratio(truth, draw) < 1.2
    # where draws scatter more, their mean errs more
    known = np.arange(200) % 10 == 0
    there = model.consensus(test, n_samples=8, n_steps=10, landmarks=known)
    error = np.linalg.norm(there.position - truth, axis=1)[~known]
    radius = np.sqrt(np.square(truth - truth.mean(axis=0)).sum(axis=1).mean())
    assert np.sqrt(np.square(error).mean()) < 0.6 * radius
    assert np.corrcoef(error, there.dispersion[~known])[0, 1] > 0.1


def test_it_predicts_expression_from_positions_and_other_genes(learnt):
    model, test = learnt
    total = model.adata.X.toarray().mean(axis=0).sum()
    truth = _log_scaled(test.X.toarray(), total)
    training_mean = _log_scaled(model.adata.X.toarray(), total).mean(axis=0)

    def share_of_variance(said: np.ndarray, cells: np.ndarray, genes: np.ndarray) -> float:
        there = np.ix_(cells, genes)
        error = np.square(said[there] - truth[there]).mean()
        return 1 - error / np.square(training_mean[genes] - truth[there]).mean()

    cells = np.arange(200) % 4 == 0
    from_neighbors = share_of_variance(model.impute(test, hidden=cells), cells, np.ones(100, dtype=bool))
    assert from_neighbors > 0.1
    genes = np.arange(100) % 4 == 0
    part = test[:, ~genes].copy()
    from_genes = share_of_variance(model.impute(part), np.ones(200, dtype=bool), genes)
    assert from_genes > 0.2
    alone = share_of_variance(model.impute(part, use_positions=False), np.ones(200, dtype=bool), genes)
    assert alone > 0.2
    mean = share_of_variance(model.impute(test, hidden=cells, use_positions=False), cells, np.ones(100, dtype=bool))
    assert mean < from_neighbors


# --------------------------------------------------------------- determinism


def test_same_seed_same_bits_and_no_global_state_touched():
    how = {"use_moe": True, "num_experts": 4, "use_gated_attention": True}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first, second, other = (_trained(_data(), seed=seed, **how) for seed in (1, 1, 2))
    _same(_outputs(first), _outputs(second))
    assert np.abs(first.get_latent_representation() - other.get_latent_representation()).max() > 1e-3
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()
    for name, table in first.history.items():
        assert table.equals(second.history[name])


def test_priors_do_not_depend_on_the_network():
    plain, gated = (_trained(_data(), seed=1, max_epochs=1, use_gated_attention=gate).module for gate in (False, True))
    state = plain.state_dict()
    for name, value in gated.state_dict().items():
        if name.startswith(("regression.", "places.", "references.", "latent.", "around_")):
            assert torch.equal(value, state[name]), name


def test_draws_depend_on_their_seed_alone(model):
    state = torch.get_rng_state()
    for how in ({"mode": "expr_to_pos"}, {"mode": "pos_to_expr", "hidden": HIDDEN}, {"mode": "joint", "n_cells": 20}):
        first, again, other, two = (
            model.sample(**how, n_steps=3, seed=seed, n_samples=n) for seed, n in ((0, 1), (0, 1), (1, 1), (0, 2))
        )
        if how["mode"] != "joint":
            first, again, other, two = ({"": one} for one in (first, again, other, two))
        for key in first:
            np.testing.assert_array_equal(first[key], again[key])
            assert (first[key] != other[key]).any()
            assert two[key].shape == (2, *first[key].shape)
            np.testing.assert_array_equal(two[key][0], first[key])
            assert (two[key][0] != two[key][1]).any()
    np.testing.assert_array_equal(model.impute(hidden=HIDDEN), model.impute(hidden=HIDDEN))
    np.testing.assert_array_equal(model.get_latent_representation(), model.get_latent_representation())
    assert torch.equal(state, torch.get_rng_state())


def test_training_again_goes_on(adata):
    model = _trained(adata, seed=1)
    weights = {name: value.detach().clone() for name, value in model.module.named_parameters()}
    loss = model.history["train_loss"]["train_loss"].to_numpy()
    model.train(2, lr=1e-9, weight_decay=0.0, seed=0, key_added=None, **QUIET)
    for name, value in model.module.named_parameters():  # not new weights
        torch.testing.assert_close(value, weights[name], atol=1e-6, rtol=0)
    after = model.history["train_loss"]["train_loss"].to_numpy()
    np.testing.assert_array_equal(after[: len(loss)], loss)
    assert len(after) == len(loss) + 2
    adata.X = adata.X * 2
    with pytest.raises(ValueError, match="data changed.*Make a new MaskedDiffusion"):
        model.train(1, **QUIET)


# --------------------------------------------------------------------- draws


def test_dispersion_is_the_scatter_of_draws(model):
    how = {"n_samples": 5, "n_steps": 3, "landmarks": LANDMARKS, "seed": 2}
    draws = model.sample(mode="expr_to_pos", **how).astype(np.float64)
    found = model.consensus(**how)
    scatter = np.sqrt(np.square(draws - draws.mean(axis=0)).sum(axis=2).mean(axis=0))
    np.testing.assert_allclose(found.dispersion, scatter, rtol=1e-3, atol=1e-4)
    assert found.position.shape == (180, 2)
    assert found.dispersion.shape == (180,)
    assert found.position.dtype == found.dispersion.dtype == np.float32
    np.testing.assert_array_equal(found.position[LANDMARKS], draws[0, LANDMARKS].astype(np.float32))
    assert (found.dispersion[LANDMARKS] == 0).all()
    assert (found.dispersion[~LANDMARKS] > 1).all()
    # the scatter depends on the number of draws, the consensus does not
    fewer = model.consensus(**{**how, "n_samples": 1})
    np.testing.assert_array_equal(fewer.position, found.position)
    np.testing.assert_array_equal(fewer.dispersion, 0)
    with pytest.raises(ValueError, match="`n_samples` must be at least 1"):
        model.consensus(n_samples=0)


@pytest.mark.parametrize("estimate", ["layout", "mean", None])
def test_dispersion_is_about_the_mean_of_draws_whichever_estimate_is_returned(model, estimate):
    how = {"n_samples": 4, "n_steps": 3, "seed": 2}
    draws = model.sample(mode="expr_to_pos", temperature=1.0, **how).astype(np.float64)
    mean = model.consensus(**how, estimate="mean")
    found = model.consensus(**how, estimate=estimate)
    np.testing.assert_array_equal(found.dispersion, mean.dispersion)
    scatter = np.sqrt(np.square(draws - draws.mean(axis=0)).sum(axis=2).mean(axis=0))
    np.testing.assert_allclose(found.dispersion, scatter, rtol=1e-3)
    _same(found, model.consensus(**how, estimate=estimate))
    assert (found.position == mean.position).all() == (estimate == "mean")
    assert found.position.shape == (180, 2)
    assert found.position.dtype == np.float32
    _same(found, model.consensus(**how, estimate=estimate or "layout"))  # the default without landmarks


def test_layouts_take_no_draws(model, adata):
    """Slice by slice, whatever the seed, the steps, and the coordinates."""
    layout = model.consensus(adata, n_samples=1, n_steps=2).position
    for section in adata.obs["section"].cat.categories:
        own = (adata.obs["section"] == section).to_numpy()
        alone = model.consensus(adata[own].copy(), n_samples=1, n_steps=3, seed=7).position
        np.testing.assert_array_equal(alone, layout[own])
    del adata.obsm["spatial"]
    np.testing.assert_array_equal(model.consensus(adata, n_samples=1, n_steps=2).position, layout)


def test_layouts_lie_as_the_mean_does(learnt):
    """In its middle and its pose, give or take the noise of means."""
    model, test = learnt
    layout, mean = (model.consensus(test, n_samples=1, n_steps=2, estimate=one).position for one in ("layout", "mean"))
    here, there = (part - part.mean(axis=0) for part in (layout, mean))
    size = np.sqrt(np.square(here).mean())
    np.testing.assert_allclose(layout.mean(axis=0), mean.mean(axis=0), atol=0.01 * size)
    np.testing.assert_allclose(orthogonal_procrustes(here, there)[0], np.eye(2), atol=0.02)
    assert np.abs(layout - mean).max() > 0.1 * size


def test_what_is_estimated_among_landmarks_is_the_mean(model):
    how = {"n_samples": 1, "n_steps": 2, "landmarks": LANDMARKS}
    found = model.consensus(**how)
    _same(found, model.consensus(**how, estimate="mean"))
    np.testing.assert_array_equal(found.position[LANDMARKS], model.adata.obsm["spatial"][LANDMARKS].astype(np.float32))
    with pytest.raises(ValueError, match="`estimate` is 'layout': with `landmarks` it must be 'mean'. Leave it out"):
        model.consensus(**how, estimate="layout")
    with pytest.raises(ValueError, match=r"`estimate`: unknown option 'median'.*'layout'.*'mean'"):
        model.consensus(estimate="median")


def test_consensus_is_where_the_mean_of_draws_goes_to(learnt):
    model, test = learnt
    consensus = model.consensus(test, n_samples=1, n_steps=10, estimate="mean").position
    draws = model.sample(test, mode="expr_to_pos", n_samples=16, n_steps=10, temperature=1.0)
    gap = [np.sqrt(np.square(draws[:n].mean(axis=0) - consensus).sum(axis=1).mean()) for n in (1, 4, 16)]
    assert gap[0] > 1.5 * gap[1] > 1.5 * 1.3 * gap[2]


def test_cooler_draws_are_nearer_the_truth_and_as_large_as_tissue(learnt):
    model, test = learnt
    truth = test.obsm["spatial"] - test.obsm["spatial"].mean(axis=0)
    warm, default, cold = (
        model.sample(test, mode="expr_to_pos", n_steps=10, **temperature)
        for temperature in ({"temperature": 1.0}, {}, {"temperature": 0.0})
    )
    assert rmsd(cold, truth) < 1.02 * rmsd(default, truth) < 0.9 * rmsd(warm, truth)
    assert np.sqrt(np.square(default).sum(1).mean() / np.square(truth).sum(1).mean()) == pytest.approx(1, abs=0.06)
    np.testing.assert_array_equal(default, model.sample(test, mode="expr_to_pos", n_steps=10, temperature=0.1))
    with pytest.raises(ValueError, match=r"`temperature` must be in \[0.0, 1.0\]|`temperature` must be in \[0, 1\]"):
        model.sample(test, mode="expr_to_pos", temperature=1.5)
    known = np.arange(test.n_obs) < 20
    with pytest.raises(ValueError, match="`temperature` is 0.5: with `landmarks` it must be 1"):
        model.sample(test, mode="expr_to_pos", landmarks=known, temperature=0.5)
    with pytest.raises(ValueError, match="`temperature` is of `mode='expr_to_pos'`"):
        model.sample(mode="joint", n_cells=10, temperature=1.0)


def test_draws_of_one_consensus_lie_in_one_pose(learnt):
    """They need not be aligned to be averaged: aligning them brings them little nearer."""
    model, test = learnt
    first, second = model.sample(test, mode="expr_to_pos", n_samples=2, n_steps=10)
    gap = np.sqrt(np.square(first - second).sum(axis=1).mean())
    assert gap < 1.1 * rmsd(first, second)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "ancestral"])
def test_samplers(model, sampler):
    found = model.sample(mode="expr_to_pos", n_steps=4, sampler=sampler)
    assert found.shape == (180, 2)
    assert np.isfinite(found).all()
    assert (found != model.sample(mode="expr_to_pos", n_steps=5, sampler=sampler)).any()


def test_landmarks_keep_their_positions_and_give_the_frame(model, adata):
    """Positions follow the landmarks turned, reflected, stretched and moved; other coordinates are not read."""
    how = {"mode": "expr_to_pos", "n_steps": 3}
    plain = model.sample(adata, landmarks=LANDMARKS, **how)
    np.testing.assert_array_equal(plain[LANDMARKS], adata.obsm["spatial"][LANDMARKS].astype(np.float32))
    for section in adata.obs["section"].cat.categories:
        own = (adata.obs["section"] == section).to_numpy()
        there = adata.obsm["spatial"][own & LANDMARKS]
        assert np.abs(plain[own] - there.mean(axis=0)).max() < 10 * np.abs(there - there.mean(axis=0)).max()
    cos, sin = np.cos(0.7), np.sin(0.7)
    for pose in (np.array([[cos, -sin], [sin, cos]]), np.array([[cos, sin], [sin, -cos]])):
        moved = adata.copy()
        moved.obsm["spatial"] = np.where(LANDMARKS[:, None], 3.5 * adata.obsm["spatial"] @ pose + 1e4, np.nan)
        moved.obs["known"] = LANDMARKS
        found = model.sample(moved, landmarks="known", **how)
        np.testing.assert_allclose(found, 3.5 * plain @ pose + 1e4, atol=5.0)  # of 6,000 across
        np.testing.assert_array_equal(found[LANDMARKS], moved.obsm["spatial"][LANDMARKS].astype(np.float32))
    everybody = model.sample(adata, landmarks=np.ones(180, dtype=bool), **how)
    np.testing.assert_array_equal(everybody, adata.obsm["spatial"].astype(np.float32))


def test_without_landmarks_coordinates_are_not_read(model, adata):
    plain = model.sample(adata, mode="expr_to_pos", n_steps=3)
    assert (plain != model.sample(adata, mode="expr_to_pos", n_steps=3, landmarks=LANDMARKS)).any()
    for coordinates in (np.full((180, 2), np.nan), adata.obsm["spatial"][::-1]):
        adata.obsm["spatial"] = coordinates
        np.testing.assert_array_equal(model.sample(adata, mode="expr_to_pos", n_steps=3), plain)
    del adata.obsm["spatial"]
    np.testing.assert_array_equal(model.sample(adata, mode="expr_to_pos", n_steps=3), plain)
    assert np.abs(model.impute(adata, hidden=HIDDEN, use_positions=False)).max() < 10
    assert np.isfinite(model.get_latent_representation(adata, use_positions=False)).all()


def test_hidden_expression_is_not_read(model, adata):
    adata.obs["asked"] = HIDDEN
    drawn = model.sample(adata, mode="pos_to_expr", hidden="asked", n_steps=3)
    expected = model.impute(adata, hidden="asked")
    other = adata.copy()
    other.X = other.X.toarray()
    other.X[HIDDEN] = np.random.default_rng(0).poisson(30, size=(HIDDEN.sum(), 24))
    missing = adata.copy()
    missing.X = missing.X.toarray()
    missing.X[HIDDEN] = np.nan
    for data, hidden in ((other, HIDDEN), (missing, None)):
        np.testing.assert_array_equal(model.sample(data, mode="pos_to_expr", hidden=hidden, n_steps=3), drawn)
        np.testing.assert_array_equal(model.impute(data, hidden=hidden), expected)
    other.X[~HIDDEN] = other.X[~HIDDEN][:, ::-1]
    assert (model.impute(other, hidden=HIDDEN)[HIDDEN] != expected[HIDDEN]).any()


def test_imputation_fills_what_was_missing_and_nothing_else(model, adata):
    counts, training = adata.X.toarray(), model.adata.X.toarray()
    mean = training.mean(axis=0)
    whole = _log_scaled(counts, mean.sum())
    for said in (model.impute(adata, hidden=HIDDEN), model.sample(adata, mode="pos_to_expr", hidden=HIDDEN, n_steps=2)):
        assert said.dtype == np.float32
        np.testing.assert_allclose(said[~HIDDEN], whole[~HIDDEN], rtol=1e-4, atol=1e-5)
        assert np.isfinite(said).all()
        assert (said[HIDDEN] != whole[HIDDEN]).mean() > 0.99
    seen = np.arange(24) % 4 != 0
    part = adata[:, seen].copy()
    said = model.impute(part)
    np.testing.assert_allclose(said[:, seen], _log_scaled(counts[:, seen], mean[seen].sum()), rtol=1e-4, atol=1e-5)
    assert np.isfinite(said).all()
    with pytest.raises(ValueError, match=r"Nothing is asked for.*Name cells by `hidden`"):
        model.impute(adata)
    with pytest.raises(ValueError, match="Nothing is asked for"):
        model.sample(adata, mode="pos_to_expr", hidden=np.zeros(180, dtype=bool))


def test_guidance_and_self_conditioning():
    adata = _data(2, 60)
    model = _trained(adata, self_conditioning=True)
    some = np.arange(120) % 4 == 0
    for ask in (
        lambda **how: model.sample(mode="expr_to_pos", n_steps=3, **how),
        lambda **how: model.sample(mode="pos_to_expr", hidden=some, n_steps=3, **how),
    ):
        guided = ask(guidance=1.0)
        assert np.isfinite(guided).all()
        assert not np.array_equal(guided, ask())
        np.testing.assert_array_equal(ask(guidance=0.0), ask())
    with pytest.raises(ValueError, match=r"`guidance` needs .*: found 'joint' and 'joint'"):
        model.sample(mode="joint", n_cells=10, guidance=1.0)
    with pytest.raises(ValueError, match=r"`guidance` needs .*: found 'expr_to_pos' and 'expr_to_pos'"):
        _trained(adata, training_mode="expr_to_pos").sample(mode="expr_to_pos", guidance=1.0)
    with pytest.raises(ValueError, match="`guidance` must be in"):
        model.sample(mode="expr_to_pos", guidance=-1.0)


def test_new_tissue(learnt):
    """As large and as expressed as what was trained on."""
    model, test = learnt
    drawn = model.sample(mode="joint", n_cells=200, n_steps=10)
    assert set(drawn) == {"position", "expression"}
    assert drawn["position"].shape == (200, 2)
    assert drawn["expression"].shape == (200, 100)
    assert 0.5 < gyration_ratio(test.obsm["spatial"], drawn["position"]) < 1.5
    real = _log_scaled(model.adata.X.toarray(), model.adata.X.toarray().mean(axis=0).sum())
    assert np.corrcoef(drawn["expression"].mean(axis=0), real.mean(axis=0))[0, 1] > 0.9


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("mode", ["joint", "expr_to_pos", "pos_to_expr"])
def test_modes_of_training(mode, n_dims):
    """A model serves what it was trained for, in two dimensions and in three."""
    adata = _data(2, 60, n_dims=n_dims)
    model = _trained(adata, training_mode=mode)
    some = np.arange(120) % 4 == 0
    calls = {
        "expr_to_pos": lambda: model.sample(mode="expr_to_pos", n_steps=2, landmarks=some),
        "pos_to_expr": lambda: model.sample(mode="pos_to_expr", n_steps=2, hidden=some),
        "joint": lambda: model.sample(mode="joint", n_steps=2, n_cells=10)["position"],
    }
    shapes = {"expr_to_pos": (120, n_dims), "pos_to_expr": (120, 24), "joint": (10, n_dims)}
    others = {
        "expr_to_pos": [lambda: model.consensus(n_samples=2, n_steps=2)],
        "pos_to_expr": [lambda: model.impute(hidden=some)],
    }
    for name, call in calls.items():
        for one in (call, *others.get(name, [])):
            if mode not in ("joint", name):
                with pytest.raises(
                    ValueError, match=f"`mode`: '{name}' was not trained.*training_mode='{mode}'.*'joint'"
                ):
                    one()
            else:
                assert all(np.isfinite(part).all() for part in (one() if isinstance(one(), tuple) else [one()]))
        if mode in ("joint", name):
            assert call().shape == shapes[name]
    assert np.isfinite(model.get_latent_representation()).all()


# ------------------------------------------------------------- saving, resuming


def test_save_and_load(model, adata, tmp_path):
    model.save(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.json", "model.safetensors"}
    meta = json.loads((tmp_path / "model" / "model.json").read_text())
    assert meta["setup"] == {"layer": None, "spatial_key": "spatial", "batch_key": "section", "counts": None}
    expected = _outputs(model)
    fresh = _data()
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    loaded = MaskedDiffusion.load(tmp_path / "model", fresh)
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    _same(_outputs(loaded), expected)
    assert loaded.adata is fresh
    assert loaded.gene_names == model.gene_names == list(adata.var_names)
    assert all(loaded.history[name].equals(table) for name, table in model.history.items())
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "model")
    loaded.save(tmp_path / "model", overwrite=True)

    alone = MaskedDiffusion.load(tmp_path / "model")
    _same(_outputs(alone, adata), expected)
    alone.write_results(adata)
    np.testing.assert_array_equal(adata.obsm["X_masked_diffusion"], expected[-1])
    calls = (
        alone.write_results,
        alone.train,
        alone.get_latent_representation,
        alone.consensus,
        alone.impute,
        lambda: alone.sample(mode="expr_to_pos", landmarks=LANDMARKS),
    )
    for call in calls:
        with pytest.raises(ValueError, match="loaded without data"):
            call()
    twin = MaskedDiffusion.load(tmp_path / "model", _data())
    loaded.train(2, key_added=None, **QUIET)
    twin.train(2, key_added=None, **QUIET)
    _same(_outputs(loaded), _outputs(twin))


def test_load_for_other_data_keeps_the_scale_of_training(model, adata, tmp_path):
    model.save(tmp_path / "model")
    other = adata[adata.obs["section"] == "section1"][:, 4:].copy()
    other.X = np.minimum(other.X.toarray(), 20)
    expected = model.impute(other)
    loaded = MaskedDiffusion.load(tmp_path / "model", other)
    np.testing.assert_array_equal(loaded.impute(), expected)
    with pytest.raises(ValueError, match="gene 'gene0' was measured in no cell"):
        loaded.train(1, **QUIET)
    view = adata[:60]
    viewed = MaskedDiffusion.load(tmp_path / "model", view)
    np.testing.assert_array_equal(
        viewed.get_latent_representation(), model.get_latent_representation(adata[:60].copy())
    )
    assert not view.is_view


def test_load_refuses(model, adata, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match=r"no model\.json"):
        MaskedDiffusion.load(tmp_path)
    solid = _data(1, 30, n_dims=3)
    renamed = adata.copy()
    renamed.var_names = [f"other{i}" for i in range(24)]
    for data, message in ((solid, "trained in 2 dimensions.*has 3"), (renamed, "none of the 24 genes of training")):
        with pytest.raises(ValueError, match=message):
            MaskedDiffusion.load(tmp_path / "model", data)
    meta = tmp_path / "model" / "model.json"
    meta.write_text(meta.read_text().replace('"MaskedDiffusion"', '"VARST"'))
    with pytest.raises(ValueError, match="holds a VARST, not a MaskedDiffusion"):
        MaskedDiffusion.load(tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match="truncated"):
        MaskedDiffusion.load(tmp_path / "model")


def test_nothing_is_pickled(model, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pickled")

    for name in ("load", "loads", "dump", "dumps"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch, "save", refuse)
    model.save(tmp_path / "model")
    MaskedDiffusion.load(tmp_path / "model")


class _Kill(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt("killed")


def _killed(adata: AnnData, folder: Path, **how) -> MaskedDiffusion:
    model = _model(adata, **how)
    with pytest.raises(BaseException, match="killed|Killed|1"):
        model.train(
            4, checkpoint_dir=folder, checkpoint_every=2, callbacks=[_Kill()], key_added="masked_diffusion", **QUIET
        )
    assert not model.is_trained
    assert "masked_diffusion" not in adata.uns
    return model


@pytest.mark.parametrize("how", [{}, {"use_moe": True, "num_experts": 4}], ids=["", "moe"])
def test_a_killed_run_goes_on_to_the_same_result(adata, tmp_path, how):
    straight = _trained(adata.copy(), max_epochs=4, **how)
    killed = _killed(adata, tmp_path, **how)
    for model, path in ((_model(adata.copy(), **how), tmp_path), (killed, tmp_path / "last.ckpt")):
        torch.rand(3)
        model.train(4, ckpt_path=path, key_added=None, **QUIET)
        _same(_outputs(model), _outputs(straight))
        for name, table in straight.history.items():
            assert model.history[name].equals(table)


def test_a_run_is_resumed_as_it_was_only(adata, tmp_path):
    _killed(adata.copy(), tmp_path)
    changed = adata.copy()
    changed.obsm["spatial"][0] += 1
    for model, how, message in (
        (_model(adata.copy()), {"seed": 1}, "other seed: 0 there, 1 here"),
        (_model(adata.copy()), {"lr": 0.5}, "other arguments"),
        (_model(adata.copy(), n_read=3), {}, "other arguments"),
        (_model(changed), {}, "other data"),
    ):
        with pytest.raises(ValueError, match=f"`ckpt_path`: the checkpoint was written with {message}"):
            model.train(**{"max_epochs": 4, **how}, ckpt_path=tmp_path, **QUIET)
        assert not model.is_trained
    with pytest.raises(FileNotFoundError, match="`ckpt_path`: no checkpoint"):
        model.train(4, ckpt_path=tmp_path / "nowhere", **QUIET)
    (tmp_path / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        model.train(4, ckpt_path=tmp_path, **QUIET)


# ------------------------------------------------------------------- the rest


def test_training_stops_when_the_loss_does(adata):
    model = _trained(adata, max_epochs=60, train={"lr": 1e-12, "patience": 2})
    assert len(model.history["train_loss"]) < 60


def test_several_sets_a_step(adata):
    model = _trained(adata, train={"batch_size": 3})
    assert all(np.isfinite(part).all() for part in _outputs(model))
    assert (model.get_latent_representation() != _trained(adata.copy()).get_latent_representation()).any()


def test_what_was_written_is_said(model, adata, caplog):
    with caplog.at_level(logging.INFO, logger="stomics_tools"):
        model.write_results(adata, key_added="mine")
    assert "Wrote `obsm['X_mine']` and `uns['mine']`." in caplog.text
