"""Random numbers of a training: other ones on each device, and the same after an interruption."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
import torch

from stomics_tools._random import generator_states, seed_generators, set_generator_states

logger = logging.getLogger("stomics_tools")


class Generators(pl.Callback):
    """Seeds torch's generators on each device, and keeps their states in checkpoints.

    Parameters
    ----------
    seed
        Of the first device; the others draw from generators of their own, and so see other data.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._restored: list[dict[str, torch.Tensor]] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, or go on where an interrupted run left its generators."""
        device, rank = trainer.strategy.root_device, trainer.global_rank
        if self._restored is None:
            if trainer.world_size > 1:
                seed_generators(self._seed + rank, device)
        elif len(self._restored) == trainer.world_size:
            set_generator_states(self._restored[rank], device)
        else:
            logger.warning(
                "The checkpoint was written on %d devices, this training goes on on %d: it draws other random numbers, "
                "and its result is not that of an uninterrupted one.",
                len(self._restored),
                trainer.world_size,
            )
            seed_generators(self._seed + rank + trainer.world_size * trainer.global_step, device)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the states of all devices; Lightning calls this on each of them."""
        states: list[Any] = [generator_states(trainer.strategy.root_device)]
        if trainer.world_size > 1:
            states = states * trainer.world_size
            torch.distributed.all_gather_object(states, states[0])
        checkpoint["generators"] = states

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the states for the start of training, which comes later."""
        self._restored = checkpoint["generators"]
