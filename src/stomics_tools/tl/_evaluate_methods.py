"""What can be evaluated: baselines by name, estimators over arrays, and models over AnnData."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from anndata import AnnData

from stomics_tools import baselines
from stomics_tools._validate import check_option

BASELINES: Mapping[str, Callable[[], Any]] = {
    "training_mean": baselines.TrainingMean,
    "pca_ridge": baselines.PCARidge,
    "knn_retrieval": baselines.KNNRetrieval,
    "mlp": baselines.MLP,
    "gradient_boosting": baselines.GradientBoosting,
    "mfbp": baselines.MFBP,
}
VAR_ST = "var_st"
_SEEDS = ("seed", "random_state")


class ExpressionModel(Protocol):
    """A model over AnnData. It may also have ``sample(test, n, seed)`` and ``interval(test, level)``."""

    def fit(self, train: AnnData) -> Any:
        """Fit to training spots."""

    def predict(self, test: AnnData) -> np.ndarray:
        """Predict ``(n_obs, n_genes)``."""


@dataclass(frozen=True)
class Keys:
    """Where a model finds features, coordinates, patients and sections."""

    features: str
    spatial: str
    patient: str | None
    section: str | None

    def groups(self, train: AnnData) -> str | None:
        """``obs`` column whose groups an inner cross-validation leaves out: patients, or sections of a single one."""
        for key in (self.patient, self.section):
            if key is not None and train.obs[key].nunique() > 1:
                return key
        return None


class OverArrays:
    """An estimator ``fit(X, Y[, groups])``, ``predict(X[, groups])`` as an :class:`ExpressionModel`."""

    def __init__(self, estimator: Any, keys: Keys) -> None:
        self._estimator = estimator
        self._keys = keys
        if hasattr(estimator, "sample"):
            self.sample = self._sample
        if hasattr(estimator, "interval"):
            self.interval = self._interval

    def fit(self, train: AnnData) -> None:
        self._groups = self._keys.groups(train)
        self._call("fit", train, train.X)

    def predict(self, test: AnnData) -> np.ndarray:
        return self._call("predict", test)

    def _sample(self, test: AnnData, n: int, seed: int) -> np.ndarray:
        return self._call("sample", test, n=n, seed=seed)

    def _interval(self, test: AnnData, level: float) -> tuple[np.ndarray, np.ndarray]:
        return self._call("interval", test, level=level)

    def _call(self, name: str, adata: AnnData, *arguments: Any, **named: Any) -> Any:
        method = getattr(self._estimator, name)
        if self._groups is not None and "groups" in inspect.signature(method).parameters:
            named["groups"] = adata.obs[self._groups].astype(str).to_numpy()
        return method(adata.obsm[self._keys.features], *arguments, **named)


class VarST:
    """:class:`stomics_tools.model.VARST` as an :class:`ExpressionModel`.

    `arguments` are those of its constructor; ``"setup"`` and ``"train"`` among them hold further ones of
    ``setup_anndata`` and of ``train``.
    """

    seed = 0

    def __init__(self, keys: Keys, arguments: Mapping[str, Any]) -> None:
        self._keys = keys
        self._arguments = dict(arguments)
        self._setup = dict(self._arguments.pop("setup", {}))
        self._train = dict(self._arguments.pop("train", {}))

    def fit(self, train: AnnData) -> None:
        model = import_module("stomics_tools.model").VARST  # brings torch
        keys = self._keys
        found = {
            "features_key": keys.features,
            "spatial_key": keys.spatial if keys.spatial in train.obsm else None,
            "patient_key": keys.patient,
            "section_key": keys.section,
        }
        model.setup_anndata(train, **{**found, **self._setup})
        self._model = model(train, **self._arguments)
        self._model.train(**{"seed": self.seed, "key_added": None, **self._train})

    def predict(self, test: AnnData) -> np.ndarray:
        return self._model.predict(test)

    def sample(self, test: AnnData, n: int, seed: int) -> np.ndarray:
        return self._model.sample(test, n=n, seed=seed)

    def interval(self, test: AnnData, level: float) -> tuple[np.ndarray, np.ndarray]:
        return self._model.interval(test, level=level)


def check_methods(methods: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` or ``ValueError`` for what cannot be evaluated."""
    if not isinstance(methods, Mapping):
        raise TypeError(f"`methods` must be a mapping of names to methods, found {type(methods).__name__}.")
    if not methods:
        raise ValueError("`methods` is empty. Name at least one, for example {'ridge': 'pca_ridge'}.")
    for name, method in methods.items():
        where = f"methods[{name!r}]"
        if isinstance(method, str):
            check_option(method, [*BASELINES, VAR_ST], argument=where)
        elif isinstance(method, type) or not (
            isinstance(method, Mapping) or all(callable(getattr(method, needed, None)) for needed in ("fit", "predict"))
        ):
            raise TypeError(
                f"`{where}` must be the name of a baseline, arguments of VARST, or an object with `fit` and `predict`, "
                f"found {method!r}."
            )


def has_seed(method: Any) -> bool:
    """Whether a method gives something else with another seed."""
    if method == VAR_ST or isinstance(method, Mapping):
        return True
    return any(hasattr(BASELINES[method]() if isinstance(method, str) else method, name) for name in _SEEDS)


def fresh_model(method: Any, seed: int, keys: Keys) -> Any:
    """A model that has seen nothing yet, with the seed of the run."""
    if isinstance(method, Mapping) or method == VAR_ST:
        model = VarST(keys, method if isinstance(method, Mapping) else {})
        model.seed = seed
        return model
    made = BASELINES[method]() if isinstance(method, str) else copy.deepcopy(method)
    for name in _SEEDS:
        if hasattr(made, name):
            setattr(made, name, seed)
    return made if _is_over_adata(made) else OverArrays(made, keys)


def _is_over_adata(method: Any) -> bool:
    """Whether ``fit`` takes one positional argument, the AnnData, and not two arrays."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds for p in inspect.signature(method.fit).parameters.values()) == 1
