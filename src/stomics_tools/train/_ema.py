"""A smoothed copy of the weights."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn


class EMA(pl.Callback):
    """Keeps an exponential moving average of the parameters of a plan's ``module``.

    After optimiser step n = 0, 1, ... it is ``d a + (1 - d) p`` with ``d = min(decay, (1 + n) / (10 + n))``, which
    forgets the initial weights fast; it begins at the weights training begins with. The average is in float32 at least.
    Buffers are not averaged. It is part of checkpoints, so that a resumed run goes on with it.

    Parameters
    ----------
    decay
        Share of the average kept by a step, from 0 to below 1.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be at least 0 and below 1, found {decay}.")
        self.decay = decay
        self._n_updates = 0
        self._last_step = 0
        self._average: dict[str, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin at the weights as they are, or go on with those of a checkpoint on the device of training."""
        parameters = self._take(pl_module)
        self._average = {name: self._average.get(name, p).to(p, copy=True) for name, p in parameters.items()}
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights, if the optimiser has moved them: it may wait for several batches."""
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        parameters = self._take(pl_module)
        kept = min(self.decay, (1 + self._n_updates) / (10 + self._n_updates))
        for name, parameter in parameters.items():
            self._average[name].lerp_(parameter, 1 - kept)
        self._n_updates += 1

    def _take(self, plan: pl.LightningModule) -> dict[str, Tensor]:
        """Parameters in float32 at least; the buffers are kept by reference."""
        module = plan.get_submodule("module")
        self._buffers = _buffers(module)
        return {name: p.to(torch.promote_types(p.dtype, torch.float32)) for name, p in _parameters(module).items()}

    def copy_to(self, module: nn.Module) -> None:
        """Write the average, and the buffers of the module trained, into `module`.

        Raises
        ------
        ValueError
            If nothing was trained yet, or `module` has other parameters or buffers than the one trained.
        """
        if not self._average:
            raise ValueError("there is no average yet: train with this callback first.")
        kept = self._average | self._buffers
        targets = _parameters(module) | _buffers(module)
        if differing := sorted(
            name
            for name in kept.keys() | targets.keys()
            if name not in kept or name not in targets or kept[name].shape != targets[name].shape
        ):
            raise ValueError(f"`module` is not like the one trained: {differing[:5]} are missing or of other shapes.")
        for name, tensor in kept.items():
            targets[name].copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {"n_updates": self._n_updates, "average": self._average, "buffers": self._buffers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the average of a checkpoint."""
        self._n_updates = state_dict["n_updates"]
        self._average, self._buffers = state_dict["average"], state_dict["buffers"]


def _parameters(module: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, each once."""
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to the state, by name."""
    state = module.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if not isinstance(tensor, nn.Parameter)}
