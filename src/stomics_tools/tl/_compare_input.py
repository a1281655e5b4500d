"""What a comparison is asked for, checked."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools import __version__
from stomics_tools._validate import check_integer, check_key, check_option
from stomics_tools.model import PRAGASpike
from stomics_tools.model._full_graph import FullGraphModel


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
            "train": self.train,
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
    models: Mapping[str, Mapping[str, Any]], max_epochs: int | None, train_kwargs: Mapping[str, Any]
) -> list[Contender]:
    """The models to be compared; `max_epochs` goes before their own, which go before `train_kwargs`."""
    if not isinstance(models, Mapping):
        raise TypeError(f"`models` must be a mapping of names to arguments, found {type(models).__name__}.")
    if not models:
        raise ValueError("`models` is empty. Name at least one, for example {'enhanced': {}}.")
    quick = {} if max_epochs is None else {"max_epochs": check_integer(max_epochs, argument="max_epochs")}
    _check_train(train_kwargs, "train_kwargs")
    contenders = []
    for name, given in models.items():
        where = f"models[{name!r}]"
        if not isinstance(name, str):
            raise TypeError(f"`models`: the name of a model must be a string, found {name!r}.")
        if not isinstance(given, Mapping):
            raise TypeError(f"`{where}` must be a mapping of arguments, found {type(given).__name__}.")
        arguments = dict(given)
        model, train = arguments.pop("model", PRAGASpike), arguments.pop("train", {})
        if not (isinstance(model, type) and issubclass(model, FullGraphModel)):
            raise TypeError(f"`{where}['model']` must be a model class of stomics_tools, found {model!r}.")
        _check_train(train, f"{where}['train']")
        known = list(inspect.signature(model).parameters)[1:]  # the first is the data
        for argument in arguments:
            check_option(argument, known, argument=where)
        contenders.append(Contender(name, model, arguments, {**train_kwargs, **train, **quick}))
    return contenders


def _check_train(arguments: Mapping[str, Any], where: str) -> None:
    if not isinstance(arguments, Mapping):
        raise TypeError(f"`{where}` must be a mapping of arguments, found {type(arguments).__name__}.")
    for argument in ("seed", "key_added"):
        if argument in arguments:
            raise ValueError(f"`{where}`: {argument!r} is set by the comparison itself. Leave it out.")


def label_codes(adata: AnnData | MuData, labels_key: str) -> np.ndarray:
    """Codes ``(n_obs,)`` of the true domains, -1 where there is none."""
    check_key(labels_key, adata.obs.columns, argument="labels_key", where="adata.obs")
    codes, names = pd.factorize(adata.obs[labels_key].astype(object))
    if len(names) < 2:
        raise ValueError(
            f"`labels_key`: `adata.obs[{labels_key!r}]` holds the labels {list(names)}, at least two are needed."
        )
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
