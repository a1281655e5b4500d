"""Training that stops by its validation loss and keeps the weights of the best epoch."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

_LEAST_GAIN = 1e-3
"""Relative fall of the loss that counts as one: the last thousandth takes longer than all before."""


class KeepBest(pl.Callback):
    """Evaluate ``module.validation_loss(batch)`` before the first epoch and after each, and keep the best weights.

    The untrained weights count as an epoch of their own: training that makes nothing better changes nothing. Part of
    checkpoints, so that a resumed run ends as an uninterrupted one.

    Parameters
    ----------
    batch
        What the validation loss is of.
    patience
        Epochs within which the validation loss must fall by 0.1 %, or training stops; None: it goes on to the end.
    """

    def __init__(self, batch: Any, patience: int | None) -> None:
        self._batch, self._patience = batch, patience
        self._best: dict[str, Tensor] | None = None
        self._least = self._reference = float("inf")
        self._since = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the weights that training begins with."""
        self._batch = self._batch.to(pl_module.device)
        if self._best is None:  # else they come from a checkpoint
            self._look(pl_module)
        elif self._has_stalled:  # the run of the checkpoint had stopped
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the weights of this epoch, and stop if the loss has not fallen for long enough."""
        loss = self._look(pl_module)
        pl_module.last_losses["validation_loss"] = loss  # type: ignore[operator, index]
        if trainer.loggers:
            pl_module.log("validation_loss", loss, batch_size=1)
        if self._has_stalled:
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the best weights, also where a checkpoint leaves no epoch to run."""
        if self._best is not None:
            pl_module.module.load_state_dict(self._best)  # type: ignore[union-attr]

    @property
    def _has_stalled(self) -> bool:
        return self._patience is not None and self._since >= self._patience

    @torch.no_grad()
    def _look(self, pl_module: pl.LightningModule) -> Tensor:
        module: Any = pl_module.module
        training = module.training
        module.eval()
        loss = module.validation_loss(self._batch)
        module.train(training)
        if float(loss) < self._reference * (1 - _LEAST_GAIN):
            self._reference, self._since = float(loss), 0
        else:
            self._since += 1
        if float(loss) < self._least:
            self._least = float(loss)
            self._best = {name: value.detach().clone() for name, value in module.state_dict().items()}
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Best weights, their loss, and the epochs since the last fall that counts."""
        return {"best": self._best, "least": self._least, "reference": self._reference, "since": self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them from a checkpoint."""
        self._best, self._least = state_dict["best"], state_dict["least"]
        self._reference, self._since = state_dict["reference"], state_dict["since"]
