"""Training, results, determinism, saving, resuming."""

from __future__ import annotations

import inspect
import json

import anndata
import mudata
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from stomics_tools.model import PRAGASpike

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False}
ALL = {"early_stopping": False}
"""Every epoch is run, on all spots."""


def _model(data, **kwargs):
    setup = PRAGASpike.setup_anndata if isinstance(data, anndata.AnnData) else PRAGASpike.setup_mudata
    setup(data, MODALITIES)
    return PRAGASpike(data, n_latent=8, n_prototypes=4, **kwargs)


def _trained(data, max_epochs=8, seed=0, **kwargs):
    model = _model(data)
    model.train(max_epochs, seed=seed, **{**QUIET, **ALL, **kwargs})
    return model


def test_results_are_written_and_survive_a_file(adata, tmp_path):
    model = _trained(adata)
    latent = adata.obsm["X_praga_spike"]
    assert latent.shape == (adata.n_obs, 8)
    assert latent.dtype == np.float32
    np.testing.assert_array_equal(latent, model.get_latent_representation())
    for name in MODALITIES:
        graph = adata.obsp[f"praga_spike_{name}_connectivities"]
        np.testing.assert_allclose(graph.sum(axis=1), 1, atol=1e-5)
        assert graph.min() >= 0
        assert graph.diagonal().max() == 0
    for table in ("modality_weights", "spatial_weights"):
        weights = adata.obsm[f"praga_spike_{table}"]
        assert list(weights.columns) == sorted(MODALITIES)
        assert weights.to_numpy().min() >= 0
        assert weights.to_numpy().max() <= 1
    np.testing.assert_allclose(adata.obsm["praga_spike_modality_weights"].sum(axis=1), 1, atol=1e-5)
    spatial = adata.obsp["praga_spike_spatial_connectivities"]
    np.testing.assert_allclose(spatial.sum(axis=1), 1, atol=1e-5)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.obsm["X_praga_spike"], latent)
    assert back.uns["praga_spike"]["params"]["model"] == "PRAGASpike"
    assert back.uns["praga_spike"]["params"]["modalities"] == MODALITIES


def test_mudata_gives_the_result_of_anndata(adata, mdata, tmp_path):
    _trained(adata)
    _trained(mdata)
    np.testing.assert_array_equal(adata.obsm["X_praga_spike"], mdata.obsm["X_praga_spike"])
    mdata.write_h5mu(tmp_path / "m.h5mu")
    back = mudata.read_h5mu(tmp_path / "m.h5mu")
    np.testing.assert_array_equal(back.obsm["X_praga_spike"], mdata.obsm["X_praga_spike"])


def test_it_learns(adata):
    model = _model(adata)
    model.train(60, lr=0.01, **ALL, **QUIET)
    losses = model.history["reconstruction_loss"]["reconstruction_loss"]
    assert len(losses) == 60
    assert losses.iloc[-20:].mean() < losses.iloc[:20].mean()
    labels = GaussianMixture(4, n_init=5, random_state=0).fit_predict(adata.obsm["X_praga_spike"])
    joint = adjusted_rand_score(adata.obs["domain"], labels)
    raw = np.hstack([adata.obsm["X_pca"], adata.obsm["X_protein"]])
    alone = adjusted_rand_score(adata.obs["domain"], GaussianMixture(4, n_init=5, random_state=0).fit_predict(raw))
    assert joint > 0.6
    assert joint > alone


def test_same_seed_same_bits_and_no_global_state_touched(adata):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = _trained(adata.copy(), seed=1).get_latent_representation()
    second = _trained(adata.copy(), seed=1).get_latent_representation()
    other = _trained(adata.copy(), seed=2).get_latent_representation()
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_the_order_of_spots_does_not_matter(adata):
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    _trained(adata)
    _trained(shuffled)
    np.testing.assert_array_equal(shuffled[adata.obs_names].obsm["X_praga_spike"], adata.obsm["X_praga_spike"])
    graph = adata.obsp["praga_spike_rna_connectivities"]
    back = shuffled[adata.obs_names].obsp["praga_spike_rna_connectivities"]
    np.testing.assert_allclose(back.toarray(), graph.toarray(), atol=1e-7)


def test_save_and_load(adata, tmp_path):
    model = _trained(adata)
    other = adata[:100].copy()
    expected, unseen = model.get_latent_representation(), model.get_latent_representation(other)
    model.save(tmp_path / "model")
    loaded = PRAGASpike.load(tmp_path / "model", adata.copy())
    np.testing.assert_array_equal(loaded.get_latent_representation(), expected)
    np.testing.assert_array_equal(loaded.get_latent_representation(other), unseen)
    assert loaded.history["train_loss"].equals(model.history["train_loss"])
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)
    loaded.train(5, **QUIET, **ALL)
    model.train(5, **QUIET, **ALL)
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    assert len(loaded.history["train_loss"]) == 13


def test_load_for_another_slice(adata, tmp_path):
    model = _trained(adata)
    model.save(tmp_path / "model")
    other = adata[:100].copy()
    loaded = PRAGASpike.load(tmp_path / "model", other)
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation(other))


class _Kill(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt("killed")


@pytest.mark.parametrize(
    "given",
    [{"scheduler": None}, {"scheduler": "plateau"}, {"scheduler": "cosine", **ALL}, {"lr": 0.01, "patience": 4}],
    ids=str,
)
def test_a_killed_run_goes_on_to_the_same_result(adata, tmp_path, given):
    """With early stopping too: best weights, their loss and the epochs since are in the checkpoint."""
    given = {"early_stopping_patience" if k == "patience" else k: v for k, v in given.items()}
    straight = _model(adata.copy())
    straight.train(14, **given, **QUIET)
    n = len(straight.history["train_loss"])
    assert n >= 4
    assert (n < 14) == ("early_stopping" not in given)
    killed = _model(adata.copy())
    with pytest.raises(BaseException, match="killed|Killed|1"):
        killed.train(14, checkpoint_dir=tmp_path, checkpoint_every=2, callbacks=[_Kill(n - 1)], **given, **QUIET)
    assert not killed.is_trained
    resumed = _model(adata.copy())
    resumed.train(14, ckpt_path=tmp_path, **given, **QUIET)
    np.testing.assert_array_equal(resumed.get_latent_representation(), straight.get_latent_representation())
    for name, table in straight.history.items():
        assert table.equals(resumed.history[name])


def test_a_run_that_had_stopped_early_stays_as_it_was(adata, tmp_path):
    given = {"lr": 0.05, "early_stopping_patience": 2, **QUIET}
    stopped = _model(adata.copy())
    stopped.train(40, checkpoint_dir=tmp_path, checkpoint_every=1, **given)
    n_epochs = len(stopped.history["train_loss"])
    assert n_epochs < 40
    resumed = _model(adata.copy())
    resumed.train(40, ckpt_path=tmp_path, **given)
    assert len(resumed.history["train_loss"]) == n_epochs
    np.testing.assert_array_equal(resumed.get_latent_representation(), stopped.get_latent_representation())


def test_history_and_a_second_training(adata):
    model = _trained(adata)
    before = model.get_latent_representation()
    model.train(7, **QUIET, **ALL)
    assert len(model.history["train_loss"]) == 15
    assert np.abs(model.get_latent_representation() - before).max() > 0


def test_a_second_training_takes_nothing_from_the_first(adata, monkeypatch):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model, seen = PRAGASpike(adata, n_latent=8), []
    monkeypatch.setattr(model, "_fit", lambda **given: seen.append({**given, **given["train_args"]}))
    given = {
        "lr": 0.5,
        "weight_decay": 0.1,
        "optimizer": "sgd",
        "early_stopping_patience": 3,
        "clip_grad": 2.0,
        "scheduler": "cosine",
    }
    model.train(3, **given)
    model.train()
    first, second = seen
    assert first["max_epochs"] == 3
    assert {name: first[name] for name in given} == given
    assert tuple(second[name] for name in ("max_epochs", *given)) == (100, 2e-3, 0.0, "adam", 5, None, None)


def test_a_second_training_goes_on_from_the_weights(adata):
    model = _trained(adata, 20, lr=0.02)
    first = model.history["reconstruction_loss"]["reconstruction_loss"]
    model.train(20, lr=1e-12, **ALL, **QUIET)  # which leaves the weights where they are
    second = model.history["reconstruction_loss"]["reconstruction_loss"].iloc[20:]
    assert second.mean() < first.iloc[:5].mean()
    assert int(model.module.n_epochs) == 40


def test_divergence_is_named(adata):
    with pytest.raises(FloatingPointError, match="Lower `lr`"):
        _trained(adata, lr=1e30)
    assert "X_praga_spike" not in adata.obsm


def test_modality_latents_and_write_results(adata):
    model = _trained(adata, key_added=None)
    assert "X_praga_spike" not in adata.obsm
    other = adata[:90].copy()
    before = other.copy()
    model.get_latent_representation(other, modality="rna")
    assert set(other.uns) == set(before.uns)
    assert set(other.obsm) == set(before.obsm)
    model.write_results(other, key_added="mine")
    np.testing.assert_array_equal(other.obsm["X_mine"], model.get_latent_representation(other))
    assert other.obsp["mine_protein_connectivities"].shape == (90, 90)


def test_blocks_do_not_change_the_latent(adata):
    model = _trained(adata)
    whole = model.get_latent_representation()
    for size in (7, 33, 1000):
        np.testing.assert_allclose(model.get_latent_representation(batch_size=size), whole, atol=1e-5)
    with pytest.raises(ValueError, match="batch_size"):
        model.get_latent_representation(batch_size=0)


def test_reordered_modalities_give_the_same(adata):
    PRAGASpike.setup_anndata(adata, dict(reversed(MODALITIES.items())))
    model = PRAGASpike(adata, n_latent=8)
    model.train(5, **QUIET)
    other = adata.copy()
    PRAGASpike.setup_anndata(other, MODALITIES)
    again = PRAGASpike(other, n_latent=8)
    again.train(5, **QUIET)
    np.testing.assert_array_equal(adata.obsm["X_praga_spike"], other.obsm["X_praga_spike"])


def test_defaults_stand_in_the_signature_and_are_recorded(adata):
    defaults = {name: p.default for name, p in inspect.signature(PRAGASpike).parameters.items()}
    known = {"n_latent": 64, "n_layers": 1, "n_heads": 8, "n_levels": 5, "n_copies": 4, "weight_bits": 4}
    known |= {"encoder": "spike", "residual": "membrane", "graph_fusion": "attention", "blind_fraction": 0.25}
    assert {name: defaults[name] for name in known} == known
    nothing = {name for name, value in defaults.items() if value is None}
    assert nothing == {"loss_weights", "n_prototypes", "registry"}
    trained = {name: p.default for name, p in inspect.signature(PRAGASpike.train).parameters.items()}
    assert (trained["max_epochs"], trained["lr"], trained["optimizer"]) == (100, 2e-3, "adam")
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata)
    for name, value in model._arguments().items():
        assert value == (list(defaults[name]) if isinstance(defaults[name], tuple) else defaults[name])


def test_weights_of_modalities(adata):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    for given, found in ((None, [1.0, 1.0]), ([7, 2], [2.0, 7.0]), ({"protein": 2.0, "rna": 7.0}, [2.0, 7.0])):
        assert PRAGASpike(adata, loss_weights=given)._loss_weights == found


def test_a_saved_model_is_plain(adata, tmp_path):
    _trained(adata).save(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.json", "model.safetensors"}
    meta = json.loads((tmp_path / "model" / "model.json").read_text())
    assert meta["setup"]["modalities"] == MODALITIES


def test_changed_data_are_noticed(adata):
    model = _trained(adata)
    adata.obsm["X_pca"][0] += 1
    with pytest.raises(ValueError, match="data changed"):
        model.train(2, **QUIET)


# ------------------------------------------------------------- the best epoch


def _validation(model):
    """Validation loss of the weights a model has now, by its own module."""
    inputs, _ = model._inputs(None)
    model.module.validation_size = 0.2
    with torch.no_grad():
        return float(model.module.eval().validation_loss(inputs))


class _First(Callback):
    """Validation loss before training."""

    def on_train_start(self, trainer, pl_module):
        self.module = pl_module.module

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            batch = next(iter(trainer.train_dataloader))
            batch = batch[0] if isinstance(batch, list | tuple) else batch
            training = pl_module.module.training
            with torch.no_grad():
                self.loss = float(pl_module.module.eval().validation_loss(batch))
            pl_module.module.train(training)


@pytest.mark.parametrize("lr", [0.01, 0.3])
def test_the_weights_are_those_of_the_least_validation_loss(adata, lr):
    model, first = _model(adata), _First()
    model.train(12, lr=lr, validation_size=0.2, early_stopping_patience=12, callbacks=[first], **QUIET)
    losses = model.history["validation_loss"]["validation_loss"]
    assert len(losses) == 12
    assert _validation(model) == pytest.approx(min(first.loss, losses.min()), rel=1e-6)
    assert losses.iloc[-1] > min(first.loss, losses.min()) or lr < 0.1  # not the last epoch


class _Start(Callback):
    """Parameters before training."""

    def on_train_start(self, trainer, pl_module):
        self.parameters = {name: p.detach().clone() for name, p in pl_module.module.named_parameters()}


def test_training_that_cannot_help_leaves_the_start(adata):
    """Steps that spoil everything: what is left are the weights of the closed form."""
    model, start = _model(adata), _Start()
    model.train(6, lr=3.0, callbacks=[start], **QUIET)
    for name, p in model.module.named_parameters():
        assert torch.equal(p, start.parameters[name]), name
    other = _model(adata.copy())
    other.train(6, lr=3.0, callbacks=[start], **ALL, **QUIET)
    assert not all(torch.equal(p, start.parameters[name]) for name, p in other.module.named_parameters())


def test_training_stops_when_the_validation_loss_does(adata):
    model = _model(adata)
    model.train(100, lr=1e-12, early_stopping_patience=3, **QUIET)
    assert len(model.history["train_loss"]) == 3
    assert len(_trained(adata.copy(), 9, lr=1e-12).history["train_loss"]) == 9


def test_without_early_stopping_all_spots_teach(adata):
    model = _trained(adata, 2)
    assert model.module.validation_size == 0
    assert "validation_loss" not in model.history
    model.train(2, **QUIET)
    assert model.module.validation_size == 0.1
    assert len(model.history["validation_loss"]) == 2
    model.train(2, **ALL, **QUIET)
    assert model.module.validation_size == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"early_stopping": False, "early_stopping_patience": 3}, "`early_stopping_patience=3` has no effect"),
        ({"early_stopping": False, "validation_size": 0.2}, "`validation_size=0.2` has no effect"),
        ({"early_stopping": "no"}, "`early_stopping`"),
        ({"validation_size": 0.0}, "`validation_size`"),
        ({"validation_size": 0.9}, "`validation_size`"),
        ({"early_stopping_patience": 0}, "`early_stopping_patience`"),
    ],
)
def test_bad_arguments_of_early_stopping(adata, arguments, message):
    model = _model(adata)
    with pytest.raises(ValueError, match=message):
        model.train(3, **arguments, **QUIET)
    assert not model.is_trained


# ----------------------------------------------------------------- the family


@pytest.mark.parametrize(
    "given",
    [
        *({"encoder": e} for e in ("ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa", "relu")),
        {"residual": "sew"},
        {"graph_fusion": "conv"},
        {"encoder": "ssa", "n_layers": 2, "n_steps": 2, "residual": "sew"},
        {"use_attention": False, "weight_bits": "learned"},
        {"edges": "free", "attention_windows": (None, 30)},
    ],
    ids=str,
)
def test_every_member_trains_saves_and_takes_new_data(adata, tmp_path, given):
    model = _model(adata, **given)
    model.train(3, **ALL, **QUIET)
    latent = model.get_latent_representation()
    assert np.isfinite(latent).all()
    assert np.isfinite(model.get_denoised()["rna"]).all()
    model.save(tmp_path / "model")
    loaded = PRAGASpike.load(tmp_path / "model", adata)
    np.testing.assert_array_equal(loaded.get_latent_representation(), latent)
    half = adata[:80].copy()
    unseen = loaded.get_latent_representation(half)
    order = np.random.default_rng(0).permutation(80)
    np.testing.assert_allclose(loaded.get_latent_representation(half[order].copy()), unseen[order], atol=1e-4)


def test_encoders_and_steps_are_different_models(adata):
    given = [{}, {"encoder": "ssa"}, {"encoder": "ssa", "n_steps": 1}, {"encoder": "sdt3"}, {"residual": "sew"}]
    latents = []
    for arguments in given:
        model = _model(adata, layer_scale=0.5, **arguments)
        model.train(2, **ALL, **QUIET)
        latents.append(model.get_latent_representation())
    for i, one in enumerate(latents):
        for other in latents[i + 1 :]:
            assert np.abs(one - other).max() > 1e-3


def test_a_model_of_an_earlier_version_says_what_to_do(adata, tmp_path):
    _trained(adata, 1).save(tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    meta = json.loads(path.read_text())
    meta["arguments"]["hidden_share"] = meta["arguments"].pop("blind_fraction")
    path.write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="saved by an earlier version.*Train a new model"):
        PRAGASpike.load(tmp_path / "model", adata)
