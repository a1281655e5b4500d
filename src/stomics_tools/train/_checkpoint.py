"""Checkpoints that let a killed run go on to the result of an uninterrupted one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from stomics_tools._paths import user_path

FILE_NAME = "last.ckpt"


class EpochCheckpoint(pl.callbacks.Checkpoint):
    """Writes ``<folder>/last.ckpt`` every few epochs and at the end, each time whole or not at all.

    It holds weights, optimiser, scheduler, callbacks and the states of torch's generators.

    Parameters
    ----------
    folder
        Made if it does not exist.
    every
        Epochs between two checkpoints.
    """

    def __init__(self, folder: str | Path, every: int = 1) -> None:
        self._path = user_path(folder) / FILE_NAME
        self._every = every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write if it is time to."""
        done = trainer.current_epoch + 1
        if done % self._every == 0 or done == trainer.max_epochs or trainer.should_stop:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            trainer.save_checkpoint(
                partial, weights_only=False
            )  # on every device: their states are gathered, the first one writes
            if trainer.is_global_zero:
                os.replace(partial, self._path)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Content of a checkpoint, without running code from it.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is truncated, corrupt, or no checkpoint of this package.
    """
    path = user_path(path)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"`ckpt_path`: no checkpoint at {str(path)!r}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"`ckpt_path`: {str(path)!r} is damaged or no checkpoint ({error}).") from error
    if not isinstance(content, dict) or not {"stomics_tools", "generators"} <= content.keys():
        raise ValueError(f"`ckpt_path`: {str(path)!r} is not a checkpoint of this version of stomics-tools.")
    return content
