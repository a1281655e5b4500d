"""The one seam to scvi-tools: what every model here shares, whatever it is trained on."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.data.fields import BaseAnnDataField
from scvi.model.base import BaseModelClass
from torch import nn

from stomics_tools import __version__, _validate
from stomics_tools.model._files import read_model, write_model
from stomics_tools.train import follow_verbosity, history_tables, seed_or_default

follow_verbosity(logging.getLogger("stomics_tools"))


class SpatialModel(BaseModelClass):
    """A model with one field of data, a module, and a folder of safetensors and JSON that it is saved to.

    Subclasses have a field with a ``spec``, whose attributes are the arguments of setup (:meth:`_setup_arguments`), and
    give the arguments of their constructor (:meth:`_arguments`).
    """

    _key: ClassVar[str]
    module: nn.Module

    def __init__(self, data: AnnData | MuData | None, registry: dict[str, Any] | None = None) -> None:
        if registry is None and not isinstance(data, AnnData | MuData):
            raise TypeError(f"Expected AnnData or MuData, found {type(data).__name__}.")
        super().__init__(data, registry)
        self._trained_on: str | None = None
        self._train_args: dict[str, Any] = {}
        self.history_: dict[str, pd.DataFrame] = {}
        self.is_trained_: bool = False

    @classmethod
    def _register(
        cls,
        data: AnnData | MuData,
        field: BaseAnnDataField,
        setup_args: dict[str, Any],
        *,
        source: dict[str, Any] | None = None,
    ) -> None:
        """Register `data`, which the field checks first; nothing is changed if it cannot be used.

        With the registry of other data as `source`, the field is one of these.
        """
        manager = AnnDataManager(
            fields=[field],
            setup_method_args=setup_args,
            validation_checks=AnnDataManagerValidationCheck(check_fully_paired_mudata=False),
        )
        manager.register_fields(data, source)
        cls.register_manager(manager)

    @abstractmethod
    def _setup_arguments(self) -> dict[str, Any]:
        """Arguments of setup, as plain values."""

    @abstractmethod
    def _arguments(self) -> dict[str, Any]:
        """Arguments of the constructor, as plain values."""

    @property
    def _state(self) -> dict[str, Any]:
        """What other data must share with those of setup."""
        (field,) = self.registry["field_registries"].values()
        return field["state_registry"]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.module.parameters()).device

    def _require_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError(f"This {type(self).__name__} is not trained. Call `model.train()` first.")

    @staticmethod
    def _check_training(max_epochs: int, seed: int | None, patience: int | None, clip_grad: float | None) -> int:
        """Check what all trainings share, and return the seed to use."""
        _validate.check_integer(max_epochs, argument="max_epochs")
        if patience is not None:
            _validate.check_integer(patience, argument="patience")
        if clip_grad is not None:
            _validate.check_number(clip_grad, argument="clip_grad", low=0, open_low=True)
        return _validate.check_integer(seed_or_default(seed), argument="seed", minimum=0)

    @staticmethod
    def _check_resumable(saved: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        for name, what in (("model", "model class"), ("arguments", "arguments"), ("data", "data"), ("seed", "seed")):
            if saved[name] != meta[name]:
                found = "" if name == "data" else f": {saved[name]!r} there, {meta[name]!r} here"
                raise ValueError(f"`ckpt_path`: the checkpoint was written with other {what}{found}.")

    # ------------------------------------------------------- saving, loading

    def save(self, dir_path: str | Path, *, overwrite: bool = False) -> None:
        """Save the model to a folder, as safetensors and JSON.

        Parameters
        ----------
        dir_path
            Made by this call.
        overwrite
            Replace a model saved there before.
        """
        self._require_trained()
        meta = {
            "version": __version__,
            "torch": torch.__version__,
            "model": type(self).__name__,
            "setup": self._setup_arguments(),
            "state": self._state,
            "arguments": self._arguments(),
            "train_args": self._train_args,
            "trained_on": self._trained_on,
            "history": {name: table[name].tolist() for name, table in self.history_.items()},
        }
        write_model(dir_path, self.module.state_dict(), meta, overwrite=overwrite)

    @classmethod
    def _read_saved(cls, dir_path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and description of a model of this class."""
        tensors, meta = read_model(dir_path)
        if meta["model"] != cls.__name__:
            raise ValueError(f"`dir_path`: {str(dir_path)!r} holds a {meta['model']}, not a {cls.__name__}.")
        return tensors, meta

    @classmethod
    def _saved_registry(cls, key: str, setup: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        """What scvi-tools would have registered for the data of training, which are not here; `key` is the field's."""
        return {
            "model_name": cls.__name__,
            "setup_method_name": "setup_anndata",
            "setup_args": setup,
            "field_registries": {key: {"data_registry": {}, "state_registry": state, "summary_stats": {}}},
        }

    def _restore(self, module: nn.Module, tensors: dict[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """Take up the weights and the record of a saved model."""
        module.load_state_dict(tensors)
        self.module = module.eval()
        self.is_trained_ = True
        self._trained_on = meta["trained_on"]
        self._train_args = meta["train_args"]
        self.history_ = history_tables(meta["history"])
