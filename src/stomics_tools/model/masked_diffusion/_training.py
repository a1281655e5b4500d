"""The training of MaskedDiffusion."""

from __future__ import annotations

import copy
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, SequentialSampler

from stomics_tools import _validate
from stomics_tools._random import local_seed
from stomics_tools.data import Cells, read_cells
from stomics_tools.model._base import SpatialModel
from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._places import n_places
from stomics_tools.model.masked_diffusion._preparation import N_FOLDS, training_slices
from stomics_tools.model.masked_diffusion._priors import fit_neighbor_prior, fit_position_prior
from stomics_tools.model.masked_diffusion._retrieval import MAX_REFERENCES
from stomics_tools.model.masked_diffusion._settings import DiffusionSettings
from stomics_tools.model.masked_diffusion._windows import Windows
from stomics_tools.train import EMA, MiniBatchPlan, check_callbacks, fit, read_checkpoint, yielding

_LEAST_SETS = 6
_VISITS_OF_HELD_OUT = 3


class MaskedDiffusionTraining(SpatialModel):
    """Training of :class:`~stomics_tools.model.MaskedDiffusion`."""

    module: MaskedDiffusionModule
    _settings: DiffusionSettings
    _spec: Any

    @yielding()
    def train(
        self,
        max_epochs: int = 40,
        *,
        batch_size: int = 1,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        ema_decay: float = 0.995,
        patience: int | None = None,
        early_stopping: bool | None = None,
        early_stopping_patience: int | None = None,
        clip_grad: float | None = 1.0,
        seed: int | None = None,
        checkpoint_dir: str | Path | None = None,
        ckpt_path: str | Path | None = None,
        key_added: str | None = "masked_diffusion",
        **fit_kwargs: Any,
    ) -> None:
        """Train on all slices of the object of setup.

        The weights of an untrained model are drawn from `seed`; a second call goes on from the weights there are, with a
        new optimiser, for `max_epochs` more.

        Parameters
        ----------
        max_epochs
            Passes over the data: an epoch has as many sets as hold all cells once, and six at least.
        batch_size
            Sets of a step.
        lr, weight_decay
            Of AdamW; the rate rises over a tenth of the steps and falls as a cosine.
        ema_decay
            Share of the running average of the weights that a step keeps; the average is what is used afterwards.
        patience
            Stop when the training loss has not fallen for so many epochs.
        early_stopping, early_stopping_patience
            The same in the words of scvi-tools: True is a `patience` of 45 epochs, or of `early_stopping_patience`.
        clip_grad
            Largest norm of the gradient.
        seed
            Of weights, sets and noise, by default that of ``scvi.settings`` or 0. Same seed and machine, same result.
        checkpoint_dir
            Folder for checkpoints, from which an interrupted run goes on.
        ckpt_path
            Checkpoint of an interrupted run, or its folder; the rest of the arguments as in that run.
        key_added
            Name of the outputs that are written at the end, see :meth:`write_results`; None to write nothing.
        **fit_kwargs
            ``accelerator``, ``devices``, ``logger``, ``callbacks``, ``enable_progress_bar`` and others of
            :class:`lightning.pytorch.Trainer`; ``checkpoint_every``: epochs between two checkpoints (10).

        Raises
        ------
        FloatingPointError
            If the loss does not stay finite.
        TypeError, ValueError
            If an argument cannot be used, or `ckpt_path` is of a run with other arguments, data or seed.
        """
        patience = self._patience(patience, early_stopping, early_stopping_patience)
        max_epochs, seed = self._check_training(max_epochs, seed, patience, clip_grad, key_added)
        _validate.check_integer(batch_size, argument="batch_size")
        lr = _validate.check_number(lr, argument="lr", low=0, open_low=True)
        weight_decay = _validate.check_number(weight_decay, argument="weight_decay", low=0)
        cells = read_cells(self._data(), self._spec, genes=self._state["gene_names"])
        average = EMA(ema_decay)
        how = {"max_epochs": max_epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
        meta: dict[str, Any] = {
            "model": type(self).__name__,
            "arguments": {**self._arguments(), **how, "ema_decay": ema_decay},
            "data": cells.fingerprint(),
            "seed": seed,
        }
        if ckpt_path is not None:
            self._check_resumable(read_checkpoint(ckpt_path)["stomics_tools"], meta)
        if self.is_trained_ and meta["data"] != self._trained_on:
            raise ValueError(
                "The data changed since the model was trained on them, and cells of the old ones are a part of it. "
                f"Make a new {type(self).__name__}."
            )

        def optimizer(parameters: Any) -> torch.optim.Optimizer:
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99))

        with self._all_or_nothing():
            with local_seed(seed):
                # An interrupted training leaves the module that there is as it was.
                module = copy.deepcopy(self.module).cpu() if self.is_trained_ else self._new_module(cells)
            with local_seed(seed):  # the priors are the same whatever the network draws for its weights
                # A second training keeps the folds of the first: the priors were fitted to these.
                fold_seed = self._train_args["fold_seed"] if self.is_trained_ else seed
                slices = training_slices(module, cells, self._state, fold_seed)
                if not self.is_trained_:
                    fit_position_prior(module, slices)
                    fit_neighbor_prior(module, slices)
            loader = self._loader(module, slices, cells, batch_size)
            plan = MiniBatchPlan(module, optimizer, meta=meta)
            self.history_ = fit(
                plan,
                loader,
                max_epochs=max_epochs,
                seed=seed,
                patience=patience,
                clip_grad=clip_grad,
                checkpoint_dir=checkpoint_dir,
                ckpt_path=ckpt_path,
                callbacks=[average, *check_callbacks(fit_kwargs.pop("callbacks", ()))],
                history=self.history_,
                **fit_kwargs,
            )
            average.copy_to(module)
            with local_seed(seed):
                module.eval().weigh(batch for _ in range(_VISITS_OF_HELD_OUT) for batch in loader)
            self.module = module.eval().to(plan.trained_on)
            self.is_trained_ = True
            self._trained_on = meta["data"]
            self._train_args = {**how, "ema_decay": ema_decay, "seed": seed, "fold_seed": fold_seed}
        if key_added is not None:
            self.write_results(key_added=key_added)

    def _draw_module(self) -> MaskedDiffusionModule:
        return self._new_module(read_cells(self._data(), self._spec, genes=self._state["gene_names"]))

    def _new_module(self, cells: Cells) -> MaskedDiffusionModule:
        return self._make_module(n_places(cells.n_obs), min(MAX_REFERENCES, cells.n_obs))

    def _loader(self, module: MaskedDiffusionModule, slices: Any, cells: Cells, batch_size: int) -> DataLoader:
        n_sets = max(_LEAST_SETS, -(-cells.n_obs // self._settings.n_window))
        sets = Windows(slices, module.latent, self._settings, module.schedule, n_sets)
        # With a generator of its own, the loader draws no seed for workers from torch's, which a resumed run would not do.
        return DataLoader(sets, batch_size, sampler=SequentialSampler(sets), generator=torch.Generator())

    def _make_module(self, n_places: int, n_references: int) -> MaskedDiffusionModule:
        return MaskedDiffusionModule(
            self._settings,
            n_genes=len(self._state["gene_names"]),
            n_dims=self._state["n_dims"],
            n_folds=N_FOLDS,
            n_places=n_places,
            n_references=n_references,
        )

    @abstractmethod
    def write_results(self, adata: Any = None, *, key_added: str | None = None) -> None:
        """Write the latent representation into an object."""
