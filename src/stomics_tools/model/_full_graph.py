"""Models of all spots of an object at once: setup, training, results, saving and loading."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from mudata import MuData
from torch import nn

from stomics_tools import _keys, _validate
from stomics_tools._params import plain_params
from stomics_tools._random import local_seed
from stomics_tools.data import Spots, SpotsSpec, check_same_features, read_spots
from stomics_tools.data._field import SpotsField
from stomics_tools.data._origin import recipes_of
from stomics_tools.data._tensors import to_csr
from stomics_tools.model._base import SpatialModel
from stomics_tools.model._objects import own_data
from stomics_tools.model._outputs import Outputs
from stomics_tools.train import (
    FullBatchPlan,
    Scheduler,
    check_callbacks,
    count_devices,
    fit,
    read_checkpoint,
    yielding,
)

logger = logging.getLogger("stomics_tools")


class FullGraphModel(SpatialModel):
    """A model of all spots of an object and the graphs that join them.

    Subclasses give the module (:meth:`_make_module`), its inputs (:meth:`_prepare`) and the outputs (:meth:`_outputs`).
    """

    _field_key: ClassVar[str] = SpotsField.registry_key
    _optimizer: dict[str, Any]

    def __init__(self, data: AnnData | MuData | None, registry: dict[str, Any] | None = None) -> None:
        super().__init__(data, registry)
        manager = self.adata_manager
        self._spec: SpotsSpec = SpotsSpec(**self.registry["setup_args"]) if manager is None else manager.fields[0].spec

    # ---------------------------------------------------------------- setup

    @classmethod
    def _setup(
        cls,
        data: AnnData | MuData,
        spec: SpotsSpec,
        setup_args: dict[str, Any],
        *,
        source: dict[str, Any] | None = None,
        opened: Mapping[str, Any] | None = None,
    ) -> None:
        """Register `data`, like other data with the registry `source`; nothing is changed if it cannot be used.

        Matrices of modalities that were `opened` before are not opened again.
        """
        field = SpotsField(spec)
        state = None if source is None else source["field_registries"][field.registry_key]["state_registry"]
        field.check(data, state, opened=opened)
        own_data(data)
        cls._register(data, field, setup_args, source=source)

    def _read(self, data: AnnData | MuData | None, *, learn: bool = False) -> Spots:
        """Spots of `data` (default: the object of setup), which must have the features of setup; it is not written.

        Raw counts are prepared by the recipes of setup, where the arrays of setup are not there. Unless it is to `learn`
        from them, a slice may lack a modality altogether.
        """
        spots = read_spots(self._data(data), self._spec, recipes_of(self._state), learn=learn)
        check_same_features(spots, self._state)
        return spots

    # ------------------------------------------------------- given by models

    @abstractmethod
    def _prepare(self, spots: Spots, *, trained_on: bool) -> Any:
        """Inputs of the module; what the module holds of the data that it was trained on need not be made again."""

    @abstractmethod
    def _make_module(self, inputs: Any) -> nn.Module:
        """A module with new weights, drawn from torch's generator."""

    def _draw_module(self) -> nn.Module:
        return self._make_module(self._prepare(self._read(None), trained_on=False))

    def _make_optimizer(self, parameters: Iterable[Any]) -> torch.optim.Optimizer:
        """A new optimiser, of the arguments that :func:`optimizer_arguments` gave.

        The learning rate of a group of parameters is multiplied by its ``lr_factor``, if it has one.
        """
        given = dict(self._optimizer)
        sgd = given.pop("optimizer", "adam") == "sgd"
        optimizer = torch.optim.SGD(parameters, momentum=0.9, **given) if sgd else torch.optim.Adam(parameters, **given)
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_factor", 1.0)
        return optimizer

    def _begin(self, module: nn.Module, inputs: Any) -> list[Callback]:
        """What is to be done before every training; callbacks of it."""
        return []

    def _finish(self, module: nn.Module, inputs: Any) -> None:
        """What is left to do when training has ended; random numbers come from torch's generator."""

    @abstractmethod
    def _outputs(self, inputs: Any, *, trained_on: bool, batch_size: int = 8192) -> Outputs:
        """All that is written into an object, rows in the order of the inputs."""

    # -------------------------------------------------------------- training

    @yielding()
    def _fit(
        self,
        *,
        max_epochs: int,
        seed: int | None,
        patience: int | None,
        clip_grad: float | None,
        scheduler: Scheduler | None,
        ckpt_path: str | Path | None,
        key_added: str | None,
        train_args: Mapping[str, Any],
        attributes: Mapping[str, Any],
        **fit_kwargs: Any,
    ) -> None:
        """Train with `attributes` of this model, then write the results into the object of setup."""
        max_epochs, seed = self._check_training(max_epochs, seed, patience, clip_grad, key_added)
        _validate.check_option(scheduler, [None, "cosine", "plateau"], argument="scheduler")
        n_devices = count_devices(
            fit_kwargs.get("devices", "auto"), fit_kwargs.get("accelerator", "auto"), fit_kwargs.get("num_nodes", 1)
        )
        if n_devices > 1:
            raise ValueError(
                f"`devices`: {type(self).__name__} is trained on all spots at once, so that each of {n_devices} devices "
                "would do the same work. Name one."
            )
        spots = self._read(None, learn=not self.is_trained_)
        fingerprint = spots.fingerprint()
        if self.is_trained_ and fingerprint != self._trained_on:
            raise ValueError(
                "The data changed since the model was trained on them, and what it learned of their graphs belongs to "
                f"the old ones. Make a new {type(self).__name__}."
            )
        meta = {"model": type(self).__name__, "arguments": self._arguments(), "data": fingerprint, "seed": seed}
        if ckpt_path is not None:
            self._check_resumable(read_checkpoint(ckpt_path)["stomics_tools"], meta)
        inputs = self._prepare(spots, trained_on=self.is_trained_)
        with self._all_or_nothing():
            self.__dict__.update(attributes)
            if self.is_trained_:
                module = copy.deepcopy(self.module).cpu()  # an interrupted training leaves the one there is
                inputs = inputs.to("cpu")
            else:
                with local_seed(seed):
                    module = self._make_module(inputs)
            callbacks = [*self._begin(module, inputs), *check_callbacks(fit_kwargs.pop("callbacks", ()))]
            plan = FullBatchPlan(module, self._make_optimizer, scheduler=scheduler, max_epochs=max_epochs, meta=meta)
            self.history_ = fit(
                plan,
                plan.loader(inputs),
                max_epochs=max_epochs,
                seed=seed,
                patience=patience,
                clip_grad=clip_grad,
                ckpt_path=ckpt_path,
                history=self.history_,
                callbacks=callbacks,
                **fit_kwargs,
            )
            self.module = module.eval()
            with local_seed(seed):
                self._finish(module, inputs)
            module.to(plan.trained_on)
            self.is_trained_ = True
            self._trained_on = fingerprint
            self._train_args = {"max_epochs": max_epochs, "seed": seed, **train_args}
        if key_added is not None:
            self._write(self.adata, inputs, True, key_added)

    # --------------------------------------------------------------- results

    def _inputs(self, data: AnnData | MuData | None) -> tuple[Any, bool]:
        """Inputs of the module, on its device, and whether they are the data that it was trained on."""
        spots = self._read(data)
        known = spots.fingerprint() == self._trained_on
        return self._prepare(spots, trained_on=known).to(self.device), known

    @yielding()
    def write_results(self, adata: AnnData | MuData | None = None, *, key_added: str | None = None) -> None:
        """Write the outputs of the model into an object.

        Parameters
        ----------
        adata
            The object of setup by default, or another one, see :meth:`get_latent_representation`.
        key_added
            Name of the outputs, by default that of the method.

        Sets the following fields:

        ``adata.obsm["X_<key>"]``
            Latent representation, float32 ``(n_obs, n_latent)``.
        ``adata.obsp["<key>_<graph>_connectivities"]``
            Learned graphs, CSR float32 ``(n_obs, n_obs)``.
        ``adata.obsm["<key>_<table>"]``
            Weights of every spot, float32 DataFrames ``(n_obs, n_columns)``, where the model has any; in a MuData arrays,
            with their columns in ``uns["<key>"]["columns"]["<table>"]``.
        ``adata.uns["<key>"]["params"]``
            Settings, seed and versions.
        """
        self._require_trained()
        if key_added is not None:
            _validate.check_new_key(key_added, argument="key_added")
        data = self._data(adata)
        spots = self._read(data)
        own_data(data)
        known = spots.fingerprint() == self._trained_on
        self._write(data, self._prepare(spots, trained_on=known), known, key_added or self._key)

    def _write(self, data: AnnData | MuData, inputs: Any, trained_on: bool, key: str) -> None:
        inputs = inputs.to(self.device)
        outputs = self._outputs(inputs, trained_on=trained_on)
        data.obsm[_keys.latent(key)] = restored(inputs, outputs.latent)
        record: dict[str, Any] = {"params": plain_params(self._description())}
        for name, (columns, values) in outputs.tables.items():
            table = pd.DataFrame(restored(inputs, values), index=data.obs_names, columns=columns)
            if isinstance(data, MuData):  # whose `update()` cannot reorder a DataFrame
                record.setdefault("columns", {})[name] = list(columns)
                data.obsm[_keys.table(key, name)] = table.to_numpy()
            else:
                data.obsm[_keys.table(key, name)] = table
        for name, parts in outputs.graphs.items():
            graph = sum((to_csr(*part) for part in parts[1:]), start=to_csr(*parts[0]))
            data.obsp[_keys.connectivities(key, name)] = inputs.restore_graph(graph)
        data.uns[key] = record
        logger.info("Wrote `obsm[%r]`, `obsp[%r]` and `uns[%r]`.", _keys.latent(key), f"{key}_*_connectivities", key)

    def _description(self) -> dict[str, Any]:
        return {
            "model": type(self).__name__,
            "modalities": dict(self._spec.modalities),
            "spatial_key": self._spec.spatial_key,
            "batch_key": self._spec.batch_key,
            **self._arguments(),
            **self._train_args,
        }

    # ------------------------------------------------------- saving, loading

    def _setup_arguments(self) -> dict[str, Any]:
        return {
            "modalities": dict(self._spec.modalities),
            "spatial_key": self._spec.spatial_key,
            "batch_key": self._spec.batch_key,
            "spatial_graph_key": self._spec.spatial_graph_key,
            "feature_graph_keys": dict(self._spec.feature_graph_keys or {}) or None,
            "features": {name: list(names) for name, names in (self._spec.features or {}).items()} or None,
            "totals": dict(self._spec.totals or {}) or None,
            "total_genes": {name: dict(shares) for name, shares in (self._spec.total_genes or {}).items()} or None,
            "total_key": self._spec.total_key,
        }

    @classmethod
    def _register_like(cls, data: AnnData | MuData, registry: dict[str, Any]) -> None:
        setup = registry["setup_args"]
        kind = "mdata" if isinstance(data, MuData) else "adata"
        args = cls._get_setup_method_args(**{"cls": cls, kind: data}, **setup)
        cls._setup(data, SpotsSpec(**setup), args, source=registry)


def optimizer_arguments(*, lr: float, weight_decay: float, optimizer: str | None = None) -> dict[str, Any]:
    """Arguments of an optimiser, checked; without a name it is Adam, and the name is not recorded."""
    checked: dict[str, Any] = {
        "lr": _validate.check_number(lr, argument="lr", low=0, open_low=True),
        "weight_decay": _validate.check_number(weight_decay, argument="weight_decay", low=0),
    }
    if optimizer is not None:
        _validate.check_option(optimizer, ["sgd", "adam"], argument="optimizer")
        checked["optimizer"] = optimizer
    return checked


def restored(inputs: Any, values: torch.Tensor) -> np.ndarray:
    """Rows of a tensor in the order of the object, float32."""
    return inputs.restore(values.detach().float().cpu().numpy())
