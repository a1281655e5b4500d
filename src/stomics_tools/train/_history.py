"""What was logged, epoch by epoch."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import pandas as pd


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


def history_tables(values: dict[str, list[float]]) -> dict[str, pd.DataFrame]:
    """One table a quantity, as scvi-tools has them: index ``epoch``, one column of the same name."""
    return {
        name: pd.DataFrame({name: column}, index=pd.RangeIndex(len(column), name="epoch"))
        for name, column in values.items()
    }
