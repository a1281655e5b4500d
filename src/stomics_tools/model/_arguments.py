"""Arguments of the public methods of models: what is unknown or missing is met, in our words, before a method begins."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import lightning.pytorch as pl
import numpy as np

_NO_SPLIT = "All observations are trained on. Keep some aside before setup, and name them in `adata=` afterwards."
_NO_DISTRIBUTION = "There is one latent representation of a spot, without a distribution. Leave it out."
_OWN_FORMAT = "Models are saved in a format of this package, see the documentation of `save`. Leave it out."
_LOSS = "Training stops by the training loss: see `early_stopping_patience`."
_DOMAINS = (
    "The number of domains goes to `stomics_tools.tl.spatial_domains(adata, n_domains, use_rep=...)` after training."
)
_SLICES = "Slices are named by `batch_key`."
_HINTS: dict[str, dict[str, str]] = {
    "train": {
        "train_size": _NO_SPLIT,
        "validation_size": _NO_SPLIT,
        "shuffle_set_split": _NO_SPLIT,
        "external_indexing": _NO_SPLIT,
        "datasplitter_kwargs": _NO_SPLIT,
        "batch_size": "All spots of the object are trained on at once. Leave it out.",
        "plan_kwargs": "Its entries are arguments here, such as `lr` and `weight_decay`.",
        "optimizer_kwargs": "Its entries are arguments here, such as `lr` and `weight_decay`.",
        "use_gpu": "Say `accelerator='gpu'` or `accelerator='cpu'`.",
        "device": "Say `accelerator='gpu'` or `accelerator='cpu'`, and which of several by `devices`.",
        "early_stopping_monitor": _LOSS,
        "early_stopping_mode": _LOSS,
        "early_stopping_min_delta": _LOSS,
        "early_stopping_warmup_epochs": _LOSS,
        "learning_rate": "It is called `lr`.",
        **dict.fromkeys(("n_epochs", "epochs", "num_epochs"), "It is called `max_epochs`."),
        "gradient_clip_val": "It is called `clip_grad`.",
        "enable_checkpointing": "Name a folder by `checkpoint_dir`.",
        "enable_model_summary": "It is off. Print `model.module`.",
        "log_every_n_steps": "Every step is logged. Leave it out.",
        "num_sanity_val_steps": "There is no validation. Leave it out.",
        "datamodule": "Data come from the object of setup. Leave it out.",
        "load_sparse_tensor": "Data are made dense a part at a time. Leave it out.",
    },
    "setup": {
        "layer": "The layer is a value of `modalities`, for example `modalities={'rna': 'counts'}`.",
        "use_rep": "The key is a value of `modalities`, for example `modalities={'rna': 'X_pca'}`.",
        "labels_key": "Labels are not learned from. Compare domains with them by `stomics_tools.metrics.score_labels`.",
        "library_key": _SLICES,
        "sample_key": _SLICES,
        "slice_key": _SLICES,
    },
    "__init__": {"n_clusters": _DOMAINS, "n_domains": _DOMAINS, "n_cluster": _DOMAINS},
    "get_latent_representation": dict.fromkeys(
        ("give_mean", "mc_samples", "return_dist", "distribution"), _NO_DISTRIBUTION
    ),
    "save": {
        "prefix": "A model has a folder of its own: put the prefix into its name.",
        **dict.fromkeys(("save_kwargs", "legacy_mudata_format", "datamodule"), _OWN_FORMAT),
    },
    "load": {
        "prefix": "A model has a folder of its own: put the prefix into its name.",
        "map_location": "Say `accelerator='cpu'`, or `device=`.",
        "use_gpu": "Say `accelerator='gpu'` or `accelerator='cpu'`.",
        **dict.fromkeys(("backup_url", "datamodule", "allowed_classes_names_list"), _OWN_FORMAT),
    },
}
_PRAGA = "The published model is `stomics_tools.model.PRAGA(adata, data_type=...)`."
REMOVED: dict[str, dict[str, str]] = {
    "PRAGASpike": {
        "preset": f"{_PRAGA} What `preset='enhanced'` was is `PRAGASpike(adata)` with `train(max_epochs=1000, lr=1e-4, "
        "scheduler='plateau', patience=50, clip_grad=1.0)`.",
        **dict.fromkeys(("data_type", "feature_weights", "standardize"), f"{_PRAGA} Leave it out here."),
        "hidden_share": "It is called `blind_fraction`.",
    },
    "PRAGASpike.train": {
        "patience": "It is called `early_stopping_patience`, and counts epochs of the validation loss."
    },
}
"""Arguments that constructors, or the named methods, had in earlier versions, and what to write instead."""
REMOVED_OPTIONS: dict[str, dict[tuple[str, str], str]] = {
    "PRAGASpike": {
        ("encoder", "spikformer"): "Its attention is `encoder='ssa'`.",
        (
            "encoder",
            "linear",
        ): "Without spikes and training see `stomics_tools.tl.spatial_components`; `encoder='relu'` is "
        "the model in floating point.",
    }
}
"""Values that arguments of constructors had in earlier versions, and what to write instead."""
_TRAINER = frozenset(inspect.signature(pl.Trainer.__init__).parameters) - {"self", *_HINTS["train"]}


def check_arguments(model: type) -> None:
    """Make every public method of `model`, inherited ones too, check the names of its arguments.

    An error then names the class that the user knows, and numbers of numpy arrive as Python's.
    """
    for name in dir(model):
        if name.startswith("_") and name != "__init__":
            continue
        static = inspect.getattr_static(model, name)
        kind = type(static) if isinstance(static, classmethod | staticmethod) else None
        function = static.__func__ if kind is not None else static
        if inspect.isfunction(function) and not getattr(function, "__isabstractmethod__", False):
            checked = _checked(function, model, name)
            setattr(model, name, checked if kind is None else kind(checked))


def check_call(model: type, name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` unless a method of `model` takes these arguments; values are not looked at."""
    _check(inspect.signature(getattr(model, name)), model, name, (None,), kwargs)


def _checked(function: Callable[..., Any], model: type, name: str) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tuple(map(_plain_number, args)), {k: _plain_number(v) for k, v in kwargs.items()}
        _check(signature, model, name, args, kwargs)
        return function(*args, **kwargs)

    call.__qualname__ = f"{model.__name__}.{name}"
    return call


def _plain_number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _check(
    signature: inspect.Signature, model: type, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Raise ``TypeError`` unless a method can be called with these arguments."""
    call = f"{model.__name__}()" if name == "__init__" else f"{model.__name__}.{name}()"
    parameters = {n: p for n, p in signature.parameters.items() if n not in ("self", "cls")}
    named = [n for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    known, hands_on = set(named), len(named) < len(parameters)
    if hands_on and name.startswith("train"):
        known |= _TRAINER | {"checkpoint_every"}
        for stage in ("train_stage1", "train_stage2") if name == "train" else ():
            known |= set(inspect.signature(getattr(model, stage, _nothing)).parameters)
        known -= {"self", "fit_kwargs", "trainer_kwargs"}
        hands_on = False
    for argument in kwargs:
        if argument not in known and not hands_on:
            hint = _hint(model, name, argument, sorted(known))
            raise TypeError(f"{call} has no argument `{argument}`. {hint}")
    if name == "__init__":
        for (argument, value), hint in REMOVED_OPTIONS.get(model.__name__, {}).items():
            if kwargs.get(argument) == value:
                raise ValueError(f"`{argument}={value!r}` is gone. {hint}")
    places = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(args) > len(places) and not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        own = [p.name for p in places if p.name not in ("self", "cls")]
        n_given = len(args) - len(places) + len(own)
        raise TypeError(f"{call} takes {own} by position, found {n_given} values. Give the others by name.")
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{call}: {error}.") from None


def _nothing() -> None:
    """Stands for a method that a model does not have."""


def _hint(model: type, name: str, argument: str, known: list[str]) -> str:
    """What to do about an argument that a method does not have."""
    kind = "train" if name.startswith("train") else "setup" if name.startswith("setup") else name
    hint = _HINTS.get(kind, {}).get(argument)
    if hint is not None and ("`modalities`" not in hint or "modalities" in known):
        return hint
    if argument in REMOVED.get(f"{model.__name__}.{name}", {}):
        return REMOVED[f"{model.__name__}.{name}"][argument]
    if name == "__init__":
        if argument in REMOVED.get(model.__name__, {}):
            return REMOVED[model.__name__][argument]
        for other in ("train", "setup_anndata"):
            if argument in inspect.signature(getattr(model, other)).parameters:
                return f"It is an argument of `{other}`."
        if argument in _HINTS["train"]:
            return f"See `train`: {_HINTS['train'][argument]}"
    close = get_close_matches(argument, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else f"Its arguments are {known}."
