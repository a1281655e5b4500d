"""The published model as a class of its own."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from stomics_tools.model import PRAGA, PRAGASpike
from stomics_tools.model.praga._settings import resolve

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False}


@pytest.mark.parametrize(
    ("data_type", "epochs", "k", "lr", "decay", "weights"),
    [
        ("10x", 30, 3, 0.01, 5e-3, (5, 5)),
        ("spots", 200, 3, 0.01, 5e-3, (5, 5)),
        ("stereo", 300, 6, 0.01, 5e-2, (5, 5)),
        ("epigenome", 300, 6, 0.01, 5e-2, (1, 10)),
        ("simulation", 200, 3, 0.001, 2e-2, (1, 3)),
    ],
)
def test_published_settings(data_type, epochs, k, lr, decay, weights):
    found = resolve(data_type)
    assert (found.max_epochs, found.n_spatial_neighbors, found.lr, found.weight_decay) == (epochs, k, lr, decay)
    assert found.loss_weights == weights
    assert found.n_latent == (128 if data_type == "simulation" else 64)
    assert found.optimizer == "sgd"
    assert resolve(data_type, n_latent=3, n_prototypes=None).n_latent == 3
    assert resolve(data_type, n_prototypes=None) == found


def test_results_and_what_is_recorded(adata):
    PRAGA.setup_anndata(adata, MODALITIES)
    model = PRAGA(adata, data_type="stereo", n_latent=8)
    model.train(4, **QUIET)
    assert adata.obsm["X_praga"].shape == (adata.n_obs, 8)
    np.testing.assert_array_equal(adata.obsm["X_praga"], model.get_latent_representation())
    np.testing.assert_allclose(np.linalg.norm(adata.obsm["X_praga"], axis=1), 1, atol=1e-5)
    assert {"praga_rna_connectivities", "praga_protein_connectivities"} <= set(adata.obsp)
    params = adata.uns["praga"]["params"]
    assert (params["model"], params["data_type"], params["optimizer"]) == ("PRAGA", "stereo", "sgd")
    assert (params["lr"], params["weight_decay"]) == (0.01, 5e-2)


def test_arguments_go_before_the_published_values(adata):
    PRAGA.setup_anndata(adata, MODALITIES)
    model = PRAGA(adata, data_type="epigenome", n_prototypes=3)
    assert model._settings.n_prototypes == 3
    assert model._settings.max_epochs == 300
    assert model._loss_weights == [10.0, 1.0]  # protein, rna: by name, the first of setup is rna
    assert PRAGA(adata, loss_weights={"protein": 2.0, "rna": 7.0})._loss_weights == [2.0, 7.0]
    assert PRAGA(adata, loss_weights=[7, 2])._loss_weights == [2.0, 7.0]


def test_a_second_training_takes_nothing_from_the_first(adata, monkeypatch):
    PRAGA.setup_anndata(adata, MODALITIES)
    model, seen = PRAGA(adata), []
    monkeypatch.setattr(model, "_fit", lambda **given: seen.append({**given, **given["train_args"]}))
    given = {
        "lr": 0.5,
        "weight_decay": 0.1,
        "optimizer": "adam",
        "patience": 3,
        "clip_grad": 2.0,
        "scheduler": "cosine",
    }
    model.train(3, **given)
    model.train()
    assert {name: seen[0][name] for name in given} == given
    assert tuple(seen[1][name] for name in ("max_epochs", *given)) == (30, 0.01, 5e-3, "sgd", None, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_type": "visium"}, "`data_type`.*'visium'.*10x"),
        ({"data_type": "epigenom"}, "Did you mean 'epigenome'"),
        ({"feature_weights": "similar"}, "`feature_weights`.*Did you mean 'similarity'"),
        ({"standardize": "yes"}, "`standardize`"),
        ({"encoder": "relu"}, r"PRAGA\(\) has no argument `encoder`"),
        ({"n_heads": 4}, r"PRAGA\(\) has no argument `n_heads`"),
        ({"preset": "praga"}, r"PRAGA\(\) has no argument `preset`"),
        ({"n_latent": 0}, "`n_latent` must be at least 1, found 0"),
        ({"n_prototypes": 1}, "`n_prototypes` must be at least 2"),
        ({"ema_decay": 1.5}, "`ema_decay`"),
        ({"temperature": 0.0}, "`temperature`"),
        ({"loss_weights": [1, 2, 3]}, "`loss_weights` has 3 values for 2 modalities"),
        ({"loss_weights": {"rna": 1}}, "`loss_weights` names"),
        ({"loss_weights": [1, -2]}, "`loss_weights` must be in"),
        ({"ema_decay": 0.5, "homogeneity_weight": 0.0}, "`ema_decay=0.5` has no effect unless"),
        ({"n_prototypes": 4, "prototype_weight": 0.0}, "`n_prototypes=4` has no effect unless"),
        (
            {"n_feature_neighbors": 160},
            "`n_feature_neighbors=160` needs at least 161 spots.*found a slice with 160",
        ),
        ({"n_spatial_neighbors": 200}, "`n_spatial_neighbors=200`"),
    ],
)
def test_bad_arguments(adata, arguments, message):
    PRAGA.setup_anndata(adata, MODALITIES)
    with pytest.raises((ValueError, TypeError), match=message):
        PRAGA(adata, **arguments)


@pytest.mark.parametrize("arguments", [{"lr": -1.0}, {"optimizer": "lion"}, {"weight_decay": -1.0}, {"max_epochs": 0}])
def test_bad_arguments_of_training(adata, arguments):
    PRAGA.setup_anndata(adata, MODALITIES)
    model = PRAGA(adata)
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        model.train(**arguments)
    assert not model.is_trained_


def _as_saved_before(folder, **arguments):
    """Make a saved PRAGA what earlier versions wrote: a PRAGASpike with a preset."""
    meta = json.loads((folder / "model.json").read_text())
    meta["model"], meta["arguments"] = "PRAGASpike", {**meta["arguments"], **arguments}
    (folder / "model.json").write_text(json.dumps(meta))


def test_a_model_that_an_earlier_version_saved(adata, tmp_path):
    PRAGA.setup_anndata(adata, MODALITIES)
    model = PRAGA(adata, data_type="spots", n_latent=8)
    model.train(3, **QUIET)
    model.save(tmp_path / "m")
    _as_saved_before(tmp_path / "m", preset="praga")
    loaded = PRAGA.load(tmp_path / "m", adata.copy())
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    assert PRAGA.load_registry(tmp_path / "m")["model_name"] == "PRAGA"
    for read in (PRAGASpike.load, PRAGASpike.load_registry):
        with pytest.raises(ValueError, match=re.escape("Load it by `stomics_tools.model.PRAGA.load`")):
            read(tmp_path / "m")


@pytest.mark.parametrize("preset", [None, "enhanced"])
def test_other_models_that_an_earlier_version_saved(adata, tmp_path, preset):
    """Their network is another: the error says what to do, also where only what the user had given was recorded."""
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata, n_latent=8)
    model.train(2, **QUIET)
    model.save(tmp_path / "m")
    meta = json.loads((tmp_path / "m" / "model.json").read_text())
    meta["arguments"] = {"n_latent": 8, "data_type": "10x", **({} if preset is None else {"preset": preset})}
    (tmp_path / "m" / "model.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="saved by an earlier version.* Train a new model"):
        PRAGASpike.load(tmp_path / "m", adata.copy())
    with pytest.raises(ValueError, match="holds a PRAGASpike, not a PRAGA"):
        PRAGA.load(tmp_path / "m")
