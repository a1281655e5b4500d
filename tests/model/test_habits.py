"""What users of scvi-tools expect of every model, and what they are told where it is otherwise."""

from __future__ import annotations

import inspect
import re

import anndata
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import stomics_tools as st

QUIET = {"enable_progress_bar": False}
PRIVATE = ["ModalitiesModel", "FullGraphModel", "SpatialModel", "BaseModelClass"]
PRIVATE += [
    "VarST",
    "MaskedDiffusionTraining",
    "MaskedDiffusionQueries",
    "MaskedDiffusionPredictions",
    "Trainer.__init__",
]
MODELS = {name: getattr(st.model, name) for name in ("PRAGA", "PRAGASpike", "GraphST", "VARST", "MaskedDiffusion")}
METHODS = [
    (name, method)
    for name, cls in MODELS.items()
    for method in [*(m for m in dir(cls) if not m.startswith("_")), "__init__"]
    if method
    not in ("differential_abundance", "get_normalized_expression")  # scvi-tools': they take anything, and refuse
    and (
        callable(inspect.getattr_static(cls, method))
        or isinstance(inspect.getattr_static(cls, method), classmethod | staticmethod)
    )
]


def weights(model) -> list[torch.Tensor]:
    return [value.detach().clone() for value in model.module.state_dict().values()]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a.cpu(), b.cpu(), equal_nan=a.is_floating_point()) for a, b in zip(first, second, strict=True)
    )


# ------------------------------------------------------------------ arguments


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_no_message_names_a_class_that_nobody_knows(name, method):
    cls = MODELS[name]
    target = cls if method == "__init__" else getattr(cls, method)
    with pytest.raises((TypeError, NotImplementedError)) as error:
        target(None, bogus_argument=1)
    message = str(error.value)
    assert re.search(rf"\b{name}\b", message)
    assert not [private for private in PRIVATE if private in message]
    if method.startswith("train") or method in ("save", "load", "setup_anndata", "get_latent_representation"):
        assert "has no argument `bogus_argument`" in message


@pytest.mark.parametrize(
    ("argument", "value", "advice"),
    [
        ("train_size", 0.9, "All observations are trained on"),
        ("plan_kwargs", {"lr": 1e-3}, "`lr`"),
        ("datasplitter_kwargs", {}, "All observations are trained on"),
        ("use_gpu", False, "accelerator"),
        ("learning_rate", 1e-3, "`lr`"),
        ("gradient_clip_val", 1.0, "`clip_grad`"),
        ("max_epoch", 3, "Did you mean `max_epochs`"),
        ("devices_", 1, "Did you mean `devices`"),
    ],
)
def test_arguments_of_train_that_others_have(model, name, argument, value, advice):
    before = weights(model)
    with pytest.raises(TypeError, match=re.escape(f"{name}.train() has no argument `{argument}`")) as error:
        model.train(**{argument: value})
    assert advice in str(error.value)
    assert same(weights(model), before)


def test_batch_size_where_all_is_one_batch(name, new_model):
    made = new_model()
    if name in ("PRAGA", "PRAGASpike", "GraphST"):
        with pytest.raises(TypeError, match="at once"):
            made.train(batch_size=8)
    else:
        made.train(1, batch_size=1 if name == "MaskedDiffusion" else 8, **QUIET)
        assert made.is_trained


def test_every_argument_of_lightning_that_is_left_is_handed_on(new_model):
    made = new_model()
    made.train(1, check_val_every_n_epoch=1, accumulate_grad_batches=1, logger=False, **QUIET)
    assert made.is_trained
    with pytest.raises(TypeError, match="all_devices"):
        made.train(1, all_devices=3, **QUIET)
    assert "check_val_every_n_epoch" in inspect.signature(pl.Trainer.__init__).parameters


@pytest.mark.parametrize(
    ("method", "arguments", "advice"),
    [
        ("get_latent_representation", {"give_mean": True}, "without a distribution"),
        ("save", {"dir_path": "x", "prefix": "a_"}, "folder of its own"),
        ("load", {"dir_path": "x", "map_location": "cpu"}, "accelerator"),
        ("load", {"dir_path": "x", "prefix": "a_"}, "folder of its own"),
        ("__init__", {"n_clusters": 7}, "spatial_domains"),
        ("__init__", {"max_epochs": 7}, "argument of `train`"),
        ("__init__", {"spatial_key": "x"}, "argument of `setup_anndata`"),
        ("setup_anndata", {"labels_key": "x"}, "score_labels"),
    ],
)
def test_advice(model, name, method, arguments, advice):
    target = MODELS[name] if method == "__init__" else getattr(model, method)
    data = {"adata": model.adata} if method in ("__init__", "setup_anndata") else {}
    with pytest.raises(TypeError, match="has no argument") as error:
        target(**data, **arguments)
    assert advice in str(error.value)
    assert name in str(error.value)


def test_a_layer_is_a_value_of_modalities(adata):
    with pytest.raises(TypeError, match=r"modalities=\{'rna': 'counts'\}"):
        st.model.PRAGASpike.setup_anndata(adata, layer="counts")


# --------------------------------------------------------------------- numbers


def test_numbers_of_numpy(name, new_model, tmp_path):
    given = {
        "PRAGA": {"n_latent": np.int64(8), "loss_weights": np.array([1.0, 2.0]), "standardize": np.bool_(True)},
        "PRAGASpike": {
            "n_latent": np.int64(8),
            "attention_windows": np.array([None, 100]),
            "loss_weights": {"rna": np.float32(2), "protein": np.float64(1)},
            "use_fusion": np.bool_(True),
            "weight_bits": np.int8(4),
        },
        "GraphST": {"n_latent": np.int64(4), "dropout": np.float32(0.25), "orient": np.bool_(False)},
        "VARST": {"scales": np.array([1, 10]), "dropout": np.float32(0.25), "use_coordinates": np.bool_(True)},
        "MaskedDiffusion": {"width": np.int32(16), "dropout": np.float32(0.25), "qk_norm": np.bool_(False)},
    }[name]
    made = new_model(**given)
    how = {"lr": np.float32(1e-3), "weight_decay": np.float64(0.0), "seed": np.int64(3)}
    how["early_stopping_patience" if name == "PRAGASpike" else "patience"] = np.int16(9)
    made.train(np.min([np.int64(2), 7]), clip_grad=np.float32(1), checkpoint_dir=tmp_path / "c", **how, **QUIET)
    made.save(tmp_path / "m")
    loaded = MODELS[name].load(tmp_path / "m", made.adata.copy())
    np.testing.assert_array_equal(loaded.get_latent_representation(), made.get_latent_representation())
    made.adata.write_h5ad(tmp_path / "a.h5ad")
    params = anndata.read_h5ad(tmp_path / "a.h5ad").uns[made._key]["params"]
    assert int(params["seed"]) == 3
    plain = [type(v).__module__ for v in made._arguments().values()]
    assert set(plain) <= {"builtins"}
    other = new_model(**given)
    where = tmp_path / "c"
    other.train(2, clip_grad=1.0, ckpt_path=where, **{k: v.item() for k, v in how.items()}, **QUIET)
    np.testing.assert_array_equal(other.get_latent_representation(), made.get_latent_representation())


def test_epochs(new_model):
    made = new_model()
    made.train(np.ceil(1.5), **QUIET)
    (first, *_) = made.history
    assert len(made.history[first]) == 2
    for wrong in (1.5, "3", True, np.float64(2.5)):
        with pytest.raises(TypeError, match="`max_epochs` must be an integer"):
            made.train(wrong, **QUIET)
    with pytest.raises(ValueError, match="`max_epochs` must be at least 1"):
        made.train(0, **QUIET)


def test_early_stopping(name, new_model):
    # The running means of PRAGA draw near its graphs, so that their distance falls in every epoch.
    made = new_model(**({"homogeneity_weight": 0.0} if name == "PRAGA" else {}))
    if name == "PRAGASpike":  # which stops by its validation loss, with one name for the number
        with pytest.raises(TypeError, match="no argument `patience`.*`early_stopping_patience`"):
            made.train(patience=3)
        with pytest.raises(ValueError, match="early_stopping=False"):
            made.train(early_stopping_patience=3, early_stopping=False)
    else:
        with pytest.raises(ValueError, match="two names of one number"):
            made.train(patience=3, early_stopping_patience=4)
        with pytest.raises(ValueError, match="early_stopping=False"):
            made.train(patience=3, early_stopping=False)
    with pytest.raises(ValueError, match="early_stopping"):
        made.train(early_stopping="yes")
    made.train(40, lr=1e-12, early_stopping=True, early_stopping_patience=2, **QUIET)
    assert max(len(table) for table in made.history.values()) < 40
    assert made._patience(None, True, None) == 45


# ----------------------------------------------------------------- before training


def test_module_and_device_before_training(name, new_model):
    state = torch.get_rng_state()
    made, again = new_model(), new_model()
    assert made.device == torch.device("cpu")
    assert same(weights(made), weights(again))
    assert torch.equal(torch.get_rng_state(), state)
    assert not made.is_trained
    with pytest.raises(RuntimeError, match="not trained"):
        made.get_latent_representation()
    again = new_model()
    made.train(1, seed=4, **QUIET)  # drawn anew: that the module was looked at makes no difference
    again.train(1, seed=4, **QUIET)
    assert same(weights(made), weights(again))
    made.to_device("cpu")


def test_repr_and_setup_are_shown(model, name, capsys):
    assert repr(model).startswith(name)
    assert "Trained" in repr(model)
    assert len(repr(model).splitlines()[0]) > len(name) + 10
    model.view_anndata_setup()
    assert "spatial" in capsys.readouterr().out
    model.view_registry(hide_state_registries=True)
    model.view_setup_method_args()
    assert name in capsys.readouterr().out
    assert len(model.get_var_names()) > 0


def test_where_expression_is_found(model):
    with pytest.raises(
        NotImplementedError, match=f"{type(model).__name__} has no get_normalized_expression.*`[a-z_]+\\(\\)`"
    ):
        model.get_normalized_expression()


def test_rows_of_the_latent_representation(model):
    whole = model.get_latent_representation()
    rows = [5, 0, 5, -1]
    np.testing.assert_array_equal(model.get_latent_representation(indices=rows), whole[rows])
    mask = np.arange(len(whole)) % 3 == 0
    np.testing.assert_array_equal(model.get_latent_representation(model.adata, indices=mask), whole[mask])
    named = pd.Series(mask, index=model.adata.obs_names)[::-1]
    np.testing.assert_array_equal(model.get_latent_representation(indices=named), whole[mask])
    assert model.get_latent_representation(indices=[]).shape == (0, whole.shape[1])
    with pytest.raises(IndexError, match="no row 9999"):
        model.get_latent_representation(indices=[9999])
    with pytest.raises(TypeError, match="row numbers"):
        model.get_latent_representation(indices=["spot1"])


def test_batches_of_the_latent_representation(model, name):
    whole = model.get_latent_representation()
    batched = model.get_latent_representation(batch_size=7)
    assert batched.shape == whole.shape
    if name != "MaskedDiffusion":
        np.testing.assert_allclose(batched, whole, atol=1e-4)
    with pytest.raises(ValueError, match="batch_size"):
        model.get_latent_representation(batch_size=0)


# ------------------------------------------------------------------- lost work


class _Interrupt(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"callbacks": [_Interrupt()]}, KeyboardInterrupt),
        ({"strategy": "nonsense"}, Exception),
        ({"lr": -1.0}, ValueError),
        ({"key_added": "a/b"}, ValueError),
        ({"lr": 1e30}, (FloatingPointError, RuntimeError)),
    ],
)
def test_a_failed_training_leaves_the_trained_model(model, name, arguments, error):
    before, latent = weights(model), model.get_latent_representation()
    history = {key: table.copy() for key, table in model.history.items()}
    arguments = {"seed": 7, "max_epochs": 30, **arguments}
    if name == "VARST" and "callbacks" in arguments:  # in the second stage, after the first has changed
        arguments = {"seed": 7, "max_epochs": 3, "stage2": {"callbacks": arguments["callbacks"]}}
    try:
        model.train(**arguments, **QUIET)
    except error:
        pass
    else:
        assert "lr" in arguments  # a large rate need not diverge in every model
        return
    assert model.is_trained
    assert same(weights(model), before)
    np.testing.assert_array_equal(model.get_latent_representation(), latent)
    assert all(model.history[key].equals(table) for key, table in history.items())


@pytest.mark.parametrize("callbacks", [3, "bar", [None]])
def test_callbacks_that_are_none(model, callbacks):
    before = weights(model)
    with pytest.raises(TypeError, match="`callbacks` must be callbacks of Lightning, found"):
        model.train(1, callbacks=callbacks, **QUIET)
    assert same(weights(model), before)


def test_checkpoints_without_a_folder(model):
    with pytest.raises(ValueError, match="`checkpoint_every=3` has no effect unless `checkpoint_dir`"):
        model.train(1, checkpoint_every=3, **QUIET)


# ------------------------------------------------------------------------ keys


@pytest.mark.parametrize("key", ["a/b", "a\\b", "", ".", "..", "__x", 3])
def test_keys_that_files_cannot_hold(name, new_model, key):
    made = new_model()
    with pytest.raises((TypeError, ValueError), match="`key_added`"):
        made.train(2, key_added=key, **QUIET)
    assert not made.is_trained
    made.train(1, key_added=None, **QUIET)
    with pytest.raises((TypeError, ValueError), match="`key_added`"):
        made.write_results(key_added=key)


@pytest.mark.parametrize("wrong", ["RNA/GEX", "", "."])
def test_names_of_modalities_that_files_cannot_hold(adata, wrong):
    with pytest.raises(ValueError, match=r"`modalities`.*Choose another name"):
        st.model.PRAGASpike.setup_anndata(adata, {wrong: "X_pca"})
    assert "_scvi_uuid" not in adata.uns


@pytest.mark.parametrize("key", ["a b", "ä", "x.y", "(1)", "-"])
def test_other_keys_survive_files(adata, key, tmp_path):
    st.model.PRAGASpike.setup_anndata(adata, {key: "X_pca", "protein": "X_protein"})
    model = st.model.PRAGASpike(adata, n_latent=8)
    model.train(1, key_added=key, **QUIET)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for back in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(back.obsm[f"X_{key}"], adata.obsm[f"X_{key}"])
        assert f"{key}_{key}_connectivities" in back.obsp
        assert back.uns[key]["params"]["modalities"][key] == "X_pca"


@pytest.mark.parametrize(
    "call",
    [
        lambda a: st.pp.rna(a, n_comps=2, key_added="a/b"),
        lambda a: st.pp.protein(a, key_added="a/b"),
        lambda a: st.pp.atac(a, n_comps=2, key_added="a/b"),
        lambda a: st.pp.smooth(a, use_rep="X_pca", key_added="a/b"),
        lambda a: st.pp.thin_counts(a, key_added="a/b"),
        lambda a: st.tl.spatial_domains(a, 2, use_rep="X_pca", key_added="a/b"),
        lambda a: st.tl.graphst(a, key_added="a/b"),
        lambda a: st.tl.praga_spike(a, {"rna": "X_pca"}, key_added="a/b"),
        lambda a: st.tl.praga(a, {"rna": "X_pca"}, key_added="a/b"),
        lambda a: st.tl.var_st(a, key_added="a/b"),
        lambda a: st.tl.masked_diffusion(a, key_added="a/b"),
    ],
)
def test_keys_of_functions(adata, call):
    before = {*adata.uns, *adata.obsm, *adata.obs, *adata.layers}
    with pytest.raises(ValueError, match="`key_added`: 'a/b' holds a slash"):
        call(adata)
    assert {*adata.uns, *adata.obsm, *adata.obs, *adata.layers} == before


# ----------------------------------------------------------------------- setup


def test_modalities_however_they_are_named(adata, mdata):
    cls = st.model.PRAGASpike
    cls.setup_anndata(adata, "X_pca")
    assert cls(adata, n_latent=8)._spec.modalities == {"rna": "X_pca"}
    adata.obsm["other"] = adata.obsm["X_pca"]
    cls.setup_anndata(adata, "other")
    assert cls(adata, n_latent=8)._spec.modalities == {"expression": "other"}
    with pytest.raises(ValueError, match=r"holds \['X_pca', 'X_protein'\]. Say which"):
        cls.setup_anndata(adata)
    del adata.obsm["X_protein"]
    cls.setup_anndata(adata)
    assert cls(adata, n_latent=8)._spec.modalities == {"rna": "X_pca"}
    del adata.obsm["X_pca"]
    with pytest.raises(KeyError, match=r"pp\.rna"):
        cls.setup_anndata(adata)
    for wrong in (["X_pca"], {"rna": 3}, 5):
        with pytest.raises(TypeError, match=r"must map names to keys, for example \{'rna'"):
            cls.setup_anndata(adata, wrong)
    with pytest.raises(ValueError, match="empty"):
        cls.setup_anndata(adata, {})
    every = {"rna": "X_pca", "protein": "X_protein"}
    for given, found in ((None, every), (["rna", "protein"], every), ("protein", {"protein": "X_protein"})):
        cls.setup_mudata(mdata, given)
        assert cls(mdata, n_latent=8)._spec.modalities == found
    with pytest.raises(KeyError, match=r"mdata\.mod"):
        cls.setup_mudata(mdata, ["rna", "proteins"])
