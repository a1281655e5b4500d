"""The one seam to scvi-tools: what every model here shares, whatever it is trained on."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pandas as pd
import rich.pretty  # noqa: F401  (scvi-tools calls it and does not import it)
import torch
from anndata import AnnData
from mudata import MuData
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.data.fields import BaseAnnDataField
from scvi.model.base import BaseModelClass
from torch import nn

from stomics_tools import __version__, _validate
from stomics_tools._random import local_seed
from stomics_tools.model._arguments import check_arguments
from stomics_tools.model._files import read_data, read_model, write_model
from stomics_tools.train import follow_verbosity, history_tables, resolve_device, seed_or_default

follow_verbosity(logging.getLogger("stomics_tools"))

_PATIENCE = 45  # as in scvi-tools


class SpatialModel(BaseModelClass):
    """A model with one field of data, a module, and a folder of safetensors and JSON that it is saved to.

    Subclasses have a field with a ``spec``, whose attributes are the arguments of setup (:meth:`_setup_arguments`), and
    give the arguments of their constructor (:meth:`_arguments`).
    """

    _key: ClassVar[str]
    _field_key: ClassVar[str]
    _module: nn.Module | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_key" in vars(cls):  # a model that users see, not a part of one
            check_arguments(cls)

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

    @abstractmethod
    def _draw_module(self) -> nn.Module:
        """A module for the data of setup with new weights, drawn from torch's generator."""

    @property
    def module(self) -> nn.Module:
        """Networks of the model.

        Before training, they are drawn when they are first asked for, from the seed of ``scvi.settings`` or 0.
        :meth:`train` draws them anew, from its own seed.
        """
        if self._module is None:
            self._data()
            with local_seed(seed_or_default(None)):
                self._module = self._draw_module().eval()
        return self._module

    @module.setter
    def module(self, module: nn.Module) -> None:
        self._module = module

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return torch.device("cpu") if self._module is None else next(self._module.parameters()).device

    def __repr__(self) -> str:
        return self.summary_string

    def _data(self, adata: AnnData | MuData | None = None) -> Any:
        """`adata`, or the object of setup."""
        data = self.adata if adata is None else adata
        if data is None:
            raise ValueError(
                f"`adata`: this {type(self).__name__} was loaded without data. Name the object to work on, or load the "
                "model with it: `load(dir_path, adata)`."
            )
        return data

    def _validate_anndata(self, adata: AnnData | MuData | None = None, copy_if_view: bool = True) -> Any:
        """Set up an object that is assigned to ``model.adata`` like the data of training."""
        if adata is None or self.adata_manager is not None:
            return super()._validate_anndata(adata, copy_if_view)
        self._register_like(adata, self.registry)
        self._register_manager_for_instance(self._get_most_recent_anndata_manager(adata, required=True))
        return adata

    def _require_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError(f"This {type(self).__name__} is not trained. Call `model.train()` first.")

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """If training ends by an error or an interruption, the model is what it was before."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _check_training(
        self,
        max_epochs: int,
        seed: int | None,
        patience: int | None,
        clip_grad: float | None,
        key_added: str | None,
    ) -> tuple[int, int]:
        """Check what all trainings share, and return the number of epochs and the seed to use."""
        self._data()
        max_epochs = _validate.check_whole(max_epochs, argument="max_epochs")
        if patience is not None:
            _validate.check_integer(patience, argument="patience")
        if clip_grad is not None:
            _validate.check_number(clip_grad, argument="clip_grad", low=0, open_low=True)
        if key_added is not None:
            _validate.check_new_key(key_added, argument="key_added")
        return max_epochs, _validate.check_integer(seed_or_default(seed), argument="seed", minimum=0)

    @staticmethod
    def _patience(patience: int | None, early_stopping: bool | None, early_stopping_patience: int | None) -> int | None:
        """Epochs without gain after which training stops, whichever way they were given; None for no such stop."""
        if early_stopping is not None:
            _validate.check_option(early_stopping, [True, False], argument="early_stopping")
        if early_stopping_patience is not None:
            _validate.check_integer(early_stopping_patience, argument="early_stopping_patience")
            if patience not in (None, early_stopping_patience):
                raise ValueError(
                    f"`patience={patience}` and `early_stopping_patience={early_stopping_patience}` are two names of one "
                    "number. Give one."
                )
            patience = early_stopping_patience
        if early_stopping is False and patience is not None:
            raise ValueError(f"`early_stopping=False` has no `patience`, found {patience}. Leave one of them out.")
        return _PATIENCE if early_stopping and patience is None else patience

    @staticmethod
    def _check_resumable(saved: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        for name, what in (("model", "model class"), ("arguments", "arguments"), ("data", "data"), ("seed", "seed")):
            if saved[name] != meta[name]:
                found = "" if name == "data" else f": {saved[name]!r} there, {meta[name]!r} here"
                raise ValueError(f"`ckpt_path`: the checkpoint was written with other {what}{found}.")

    # ------------------------------------------------------- saving, loading

    def save(self, dir_path: str | Path, *, overwrite: bool = False, save_anndata: bool = False) -> None:
        """Save the model to a folder, as safetensors and JSON.

        A model that was saved there before stays until the new one is whole and on disk.

        Parameters
        ----------
        dir_path
            Made by this call; ``~`` is the home folder.
        overwrite
            Replace a model saved there before.
        save_anndata
            Write the object of setup beside the model, as ``adata.h5ad`` or ``mdata.h5mu``; :meth:`load` then reads it
            where it is given no other.

        Raises
        ------
        FileExistsError
            If there is something at `dir_path` and `overwrite` is false, or if other files lie there.
        RuntimeError
            If the model is not trained.
        """
        self._require_trained()
        _validate.check_option(save_anndata, [True, False], argument="save_anndata")
        data = self._data() if save_anndata else None
        meta = {
            "version": __version__,
            "torch": torch.__version__,
            "model": type(self).__name__,
            "setup_method": self.registry.get("setup_method_name", "setup_anndata"),
            "setup": self._setup_arguments(),
            "state": self._state,
            "arguments": self._arguments(),
            "train_args": self._train_args,
            "trained_on": self._trained_on,
            "history": {name: table[name].tolist() for name, table in self.history_.items()},
        }
        write_model(dir_path, self.module.state_dict(), meta, overwrite=overwrite, data=data)

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | MuData | Literal[False] | None = None,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Load a saved model. No code from the folder is run.

        Parameters
        ----------
        dir_path
            Folder written by :meth:`save`; ``~`` is the home folder.
        adata
            Object to go on with, which is set up like the data of training: these, for which the outputs are the same as
            before, or others with the same features. By default the object that was saved with the model, if there is
            one. Without an object (or with False) the model takes others alone: name them by `adata=` in each call.
        accelerator
            ``"auto"`` (CUDA where there is one, else CPU), ``"cpu"``, ``"gpu"``, ``"mps"``.
        device
            Which of several, by its number, or by torch's name, such as ``"cuda:1"``.

        Raises
        ------
        FileNotFoundError
            If there is no saved model.
        ValueError
            If it is damaged, of another class or format, or if `adata` lacks what the model was trained on.
        """
        tensors, found = read_model(dir_path)
        meta = cls._upgraded(dir_path, found)
        registry = cls._saved_registry(dir_path, meta)
        where = resolve_device(accelerator, device)
        data = read_data(dir_path) if adata is None else None if adata is False else adata
        if data is not None:
            cls._register_like(data, registry)
        model = cls(data, **meta["arguments"], registry=registry)
        with local_seed(None):  # weights are drawn before they are read
            module = model._module_of(tensors)
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(
                f"`dir_path`: the networks in {str(dir_path)!r} are not those of this version ({__version__}); they were "
                f"saved by {meta.get('version')}. Use that version, or train again. ({error})"
            ) from error
        model.module = module.eval().to(where)
        model.is_trained_ = True
        model._trained_on, model._train_args = meta["trained_on"], meta["train_args"]
        model.history_ = history_tables(meta["history"])
        return model

    @classmethod
    @abstractmethod
    def _register_like(cls, data: AnnData | MuData, registry: dict[str, Any]) -> None:
        """Set up `data` like those that `registry` tells of; nothing is changed if they cannot be used."""

    @abstractmethod
    def _module_of(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """A module into which these saved tensors fit."""

    @classmethod
    def _upgraded(cls, dir_path: str | Path, meta: Mapping[str, Any]) -> Mapping[str, Any]:
        """Description of a saved model as this version would write it; raise what to do with one that it cannot read."""
        return meta

    @classmethod
    def _saved_registry(cls, dir_path: str | Path, meta: Mapping[str, Any]) -> dict[str, Any]:
        """What scvi-tools registered for the data of training, which need not be here."""
        if meta["model"] != cls.__name__:
            raise ValueError(f"`dir_path`: {str(dir_path)!r} holds a {meta['model']}, not a {cls.__name__}.")
        field = {"data_registry": {}, "state_registry": meta["state"], "summary_stats": {}}
        return {
            "model_name": cls.__name__,
            "setup_method_name": meta.get("setup_method", "setup_anndata"),
            "setup_args": meta["setup"],
            "field_registries": {cls._field_key: field},
        }

    @classmethod
    def load_registry(cls, dir_path: str | Path) -> dict[str, Any]:
        """Registry of the data of training, out of a saved model: arguments of setup, and what was found there.

        Parameters
        ----------
        dir_path
            Folder written by :meth:`save`.

        Returns
        -------
        Plain values, in the form of scvi-tools.
        """
        return cls._saved_registry(dir_path, cls._upgraded(dir_path, read_model(dir_path)[1]))

    @classmethod
    def view_setup_args(cls, dir_path: str | Path) -> None:
        """Print the arguments of setup of a saved model.

        Parameters
        ----------
        dir_path
            Folder written by :meth:`save`.
        """
        AnnDataManager.view_setup_method_args(cls.load_registry(dir_path))

    @classmethod
    def convert_legacy_save(cls, *args: Any, **kwargs: Any) -> None:
        """Raise an error: no version of this package has used the format that this method of scvi-tools converts.

        Parameters
        ----------
        *args, **kwargs
            Not read.
        """
        raise NotImplementedError(
            f"{cls.__name__}.convert_legacy_save() has nothing to convert: models of this package were never saved in the "
            "format of scvi-tools before 0.15. `load` reads all that `save` has written."
        )

    def get_normalized_expression(self, *args: Any, **kwargs: Any) -> None:
        """Raise an error: models here have results of their own names, which the message lists.

        Parameters
        ----------
        *args, **kwargs
            Not read.
        """
        own = ["get_expression", "get_denoised", "get_reconstruction", "predict", "reconstruct", "impute"]
        found = [f"`{name}()`" for name in own if hasattr(self, name)]
        raise NotImplementedError(
            f"{type(self).__name__} has no get_normalized_expression(): expression is given by {', '.join(found)}."
        )

    def view_anndata_setup(self, adata: AnnData | MuData | None = None, hide_state_registries: bool = False) -> None:
        """Print what was found in the object of setup, or in another one that was set up for this class.

        Parameters
        ----------
        adata
            The object of setup by default.
        hide_state_registries
            Leave out what was found under each key.
        """
        super().view_anndata_setup(self._data(adata), hide_state_registries)

    def view_registry(self, hide_state_registries: bool = False) -> None:
        """Print what was found in the object of setup.

        Parameters
        ----------
        hide_state_registries
            Leave out what was found under each key.
        """
        self.view_anndata_setup(hide_state_registries=hide_state_registries)

    def get_var_names(self) -> Any:
        """Names of the variables of the object of setup, by modality for a MuData."""
        self._data()
        return super().get_var_names()
