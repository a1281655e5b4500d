"""Settings of scvi-tools that hold for our models as well."""

from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import pytest
import scvi
import torch

import stomics_tools as st

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def settings():
    """The settings, put back after the test."""
    before = {name: getattr(scvi.settings, name) for name in ("seed", "verbosity", "progress_bar_style")}
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    yield scvi.settings
    for name, value in before.items():
        setattr(scvi.settings, name, value)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic


def test_the_seed_is_that_of_the_settings(each_new, settings):
    latents, seeds = [], []
    for of_settings, given in ((7, None), (None, 7), (3, 7), (3, None)):
        settings.seed = of_settings
        model = each_new()
        model.train(max_epochs=1, **({} if given is None else {"seed": given}), **QUIET)
        latents.append(model.get_latent_representation())
        seeds.append(model.adata.uns[model._key]["params"]["seed"])
    assert seeds == [7, 7, 7, 3]
    for first, second in pairwise(latents[:3]):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(latents[2], latents[3])


def test_without_any_seed_it_is_zero(each_new, settings):
    settings.seed = None
    model = each_new()
    model.train(max_epochs=1, **QUIET)
    assert model.adata.uns[model._key]["params"]["seed"] == 0


def test_functions_follow_the_seed_of_the_settings(trained, settings):
    settings.seed = 11
    adata = trained("GraphST").data.copy()
    st.tl.graphst(adata, n_top_genes=100, n_latent=8, max_epochs=1, train_kwargs=QUIET, key_added="own")
    assert adata.uns["own"]["params"]["seed"] == 11


def test_verbosity(trained, settings, caplog):
    model, data, _ = trained("GraphST")
    caplog.set_level(logging.INFO, logger="stomics_tools")
    view = data.copy()[:50]
    for level, expected in ((logging.INFO, ["INFO"]), (logging.WARNING, []), (logging.ERROR, [])):
        settings.verbosity = level
        caplog.clear()
        model.write_results(data.copy())
        assert [record.levelname for record in caplog.records] == expected
    settings.verbosity = logging.WARNING
    model.write_results(view)
    assert "Received a view" in caplog.text
    caplog.clear()
    settings.verbosity = logging.ERROR
    model.write_results(data.copy()[:50])
    assert not caplog.records


@pytest.mark.parametrize("style", ["tqdm", "rich"])
def test_style_of_the_progress_bar(each_new, settings, capfd, style):
    settings.progress_bar_style = style
    model = each_new()
    model.train(max_epochs=2, accelerator="cpu", key_added=None)
    shown = capfd.readouterr().err
    loss = model.history["stage2_train_loss" if "stage2_train_loss" in model.history else "train_loss"]
    assert "2/2" in shown
    assert f"train_loss={loss.iloc[-1, 0]:.4g}"[:14] in shown
    assert ("━" in shown) == (style == "rich")
    assert ("epoch" in shown) or style == "rich"


def test_no_progress_bar(each_new, capfd):
    each_new().train(max_epochs=1, key_added=None, **QUIET)
    out, err = capfd.readouterr()
    assert "Training" not in out + err
