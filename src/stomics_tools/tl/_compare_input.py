"""What a comparison is asked for, checked."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools import __version__
from stomics_tools._validate import check_integer, check_option
from stomics_tools.data._read import find_column
from stomics_tools.model import PRAGA, GraphST, PRAGASpike
from stomics_tools.model._arguments import REMOVED
from stomics_tools.model._full_graph import FullGraphModel
from stomics_tools.tl._compare_untrained import FittedComponents, SmoothedComponents

READY: Mapping[str, Mapping[str, Any]] = {
    "praga": {"model": "PRAGA"},
    "praga_spike": {},
    "original": {"model": "PRAGA"},  # the names of both in earlier versions
    "enhanced": {},
    "graphst": {"model": "GraphST"},
    "spatial_components": {"model": "spatial_components"},
    "pca": {"model": "smooth", "n_hops": 0},
    **{f"smooth{n}": {"model": "smooth", "n_hops": n} for n in (1, 2, 3)},
}
"""Contenders that need no more than their name."""

DEFAULT = ("praga", "praga_spike", "spatial_components", "pca", "smooth2")

_CLASSES: Mapping[str, type] = {
    "PRAGA": PRAGA,
    "PRAGASpike": PRAGASpike,
    "GraphST": GraphST,
    "spatial_components": FittedComponents,
    "smooth": SmoothedComponents,
}


@dataclass(frozen=True)
class Contender:
    """A model class by a name, with the arguments of its constructor and of its training."""

    name: str
    model: Any
    arguments: Mapping[str, Any]
    train: Mapping[str, Any]

    def described(self, n_domains: int) -> str:
        """All that decides on the result of a run but data and seed, as JSON."""
        fields = {
            "model": self.model.__name__,
            "arguments": self.arguments,
            "train": {name: value for name, value in self.train.items() if name != "enable_progress_bar"},
            "n_domains": n_domains,
            "stomics_tools_version": __version__,
        }
        return json.dumps(fields, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON does not know: arrays as lists, paths as text, other objects by their class."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value) if isinstance(value, Path) else type(value).__name__


def check_contenders(
    models: Sequence[str] | Mapping[str, Mapping[str, Any]] | None,
    max_epochs: int | None,
    train_kwargs: Mapping[str, Any],
) -> list[Contender]:
    """The models to be compared; `max_epochs` goes before their own, which go before `train_kwargs`."""
    quick = {} if max_epochs is None else {"max_epochs": check_integer(max_epochs, argument="max_epochs")}
    _check_train(train_kwargs, "train_kwargs")
    contenders = []
    for name, given in _named(models).items():
        where = f"models[{name!r}]"
        if not isinstance(name, str):
            raise TypeError(f"`models`: the name of a model must be a string, found {name!r}.")
        if not isinstance(given, Mapping):
            raise TypeError(f"`{where}` must be a mapping of arguments, found {type(given).__name__}.")
        arguments = dict(given)
        model, train = _class(arguments.pop("model", PRAGASpike), f"{where}['model']"), arguments.pop("train", {})
        _check_name(name, model)
        _check_train(train, f"{where}['train']")
        known = list(inspect.signature(model).parameters)[1:]  # the first is the data
        for argument in arguments:
            if argument in REMOVED.get(model.__name__, {}):
                raise ValueError(f"`{where}`: no argument {argument!r}. {REMOVED[model.__name__][argument]}")
            check_option(argument, known, argument=where)
        if not issubclass(model, FittedComponents | SmoothedComponents):
            train = {**train_kwargs, **train, **quick}
        elif train:
            raise ValueError(f"`{where}`: there is nothing to train, but 'train' holds {sorted(train)}. Leave it out.")
        contenders.append(Contender(name, model, arguments, train))
    return contenders


def _named(models: Sequence[str] | Mapping[str, Mapping[str, Any]] | None) -> Mapping[str, Mapping[str, Any]]:
    """Name to arguments, of ready ones also if only their names are given."""
    if models is None:
        models = DEFAULT
    if isinstance(models, str) or not isinstance(models, Mapping | Sequence):
        raise TypeError(f"`models` must be a mapping of names to arguments, or names, found {type(models).__name__}.")
    if not models:
        raise ValueError("`models` is empty. Name at least one, for example ['praga_spike'] or {'praga_spike': {}}.")
    if isinstance(models, Mapping):
        return models
    for name in models:
        check_option(name, list(READY), argument="models")
    return {name: READY[name] for name in models}


def _class(given: Any, where: str) -> type:
    if isinstance(given, str):
        check_option(given, list(_CLASSES), argument=where)
        return _CLASSES[given]
    if not (isinstance(given, type) and issubclass(given, FullGraphModel)):
        raise TypeError(
            f"`{where}` must be a model class of stomics_tools or one of {list(_CLASSES)}, found {given!r}."
        )
    return given


def _check_name(name: str, model: type) -> None:
    """A ready name must not stand for something else, such as ``{"pca": {}}`` for a PRAGASpike."""
    ready = _CLASSES[READY[name].get("model", "PRAGASpike")] if name in READY else model
    if not issubclass(model, ready):
        raise ValueError(
            f"`models[{name!r}]` is a {model.__name__} by the name of a ready {ready.__name__}. Give it another name, "
            f"or the arguments {dict(READY[name])}."
        )


def _check_train(arguments: Mapping[str, Any], where: str) -> None:
    if not isinstance(arguments, Mapping):
        raise TypeError(f"`{where}` must be a mapping of arguments, found {type(arguments).__name__}.")
    for argument in ("seed", "key_added"):
        if argument in arguments:
            raise ValueError(f"`{where}`: {argument!r} is set by the comparison itself. Leave it out.")


def label_codes(adata: AnnData | MuData, labels_key: str) -> np.ndarray:
    """Codes ``(n_obs,)`` of the true domains, -1 where there is none; of a MuData its modalities are searched as well."""
    kind = "mdata" if isinstance(adata, MuData) else "adata"
    column, where = find_column(adata, labels_key, kind, argument="labels_key")
    codes, names = pd.factorize(column.astype(object))
    if len(names) < 2:
        raise ValueError(f"`labels_key`: `{where}` holds the labels {list(names)}, at least two are needed.")
    return codes


def check_n_domains(n_domains: int | None, labels: np.ndarray | None, n_obs: int) -> int:
    """How many domains are to be found: as many as there are labels, unless said otherwise."""
    if n_domains is not None:
        check_integer(n_domains, argument="n_domains", minimum=2)
    elif labels is not None:
        n_domains = int(labels.max()) + 1
    else:
        raise ValueError(
            "`labels_key` and `n_domains` are both missing. Name the column of the true domains, or give the number "
            "of domains to be found."
        )
    if n_domains > n_obs:
        raise ValueError(f"`n_domains={n_domains}` domains cannot be made of {n_obs} spots. Lower `n_domains`.")
    return n_domains
