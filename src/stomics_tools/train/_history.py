"""What callbacks hold in the end: what was logged, epoch by epoch, and the way back from other processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher


class History(pl.Callback):
    """Keeps the logged values of every epoch; part of checkpoints, so that a resumed run has all of them.

    Parameters
    ----------
    earlier
        History of a training before this one, continued.
    """

    def __init__(self, earlier: dict[str, pd.DataFrame] | None = None) -> None:
        self._values = {name: table[name].tolist() for name, table in (earlier or {}).items()}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append the values of this epoch."""
        for name, value in {**trainer.callback_metrics, **getattr(pl_module, "last_losses", {})}.items():
            self._values.setdefault(name, []).append(float(value))

    def state_dict(self) -> dict[str, Any]:
        """Plain lists of floats."""
        return {"values": self._values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the values of a checkpoint."""
        self._values = {name: list(values) for name, values in state_dict["values"].items()}

    def tables(self) -> dict[str, pd.DataFrame]:
        """See :func:`history_tables`."""
        return history_tables(self._values)


class BringBack(pl.Callback):
    """Brings what callbacks hold back from a process that was forked to train; Lightning brings the weights alone.

    Parameters
    ----------
    callbacks
        Of the training.
    folder
        For one file.
    """

    def __init__(self, callbacks: Sequence[pl.Callback], folder: Path) -> None:
        self._callbacks, self._path = callbacks, folder / "callbacks.pt"

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write their states, on the first device."""
        if trainer.is_global_zero and isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            torch.save([callback.state_dict() for callback in self._callbacks], self._path)

    def restore(self) -> None:
        """Read them, in the process that waits."""
        states = torch.load(self._path, map_location="cpu", weights_only=False)  # written by ourselves just now
        for callback, state in zip(self._callbacks, states, strict=True):
            callback.load_state_dict(state)


def history_tables(values: dict[str, list[float]]) -> dict[str, pd.DataFrame]:
    """One table a quantity, as scvi-tools has them: index ``epoch``, one column of the same name."""
    return {
        name: pd.DataFrame({name: column}, index=pd.RangeIndex(len(column), name="epoch"))
        for name, column in values.items()
    }
