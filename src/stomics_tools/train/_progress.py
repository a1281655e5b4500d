"""A progress bar over epochs."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm.auto import tqdm

from stomics_tools.train._scvi_settings import progress_bar


class EpochProgress(ProgressBar):
    """One bar for the whole training, with the training loss: an epoch here is often a single step.

    Parameters
    ----------
    monitor
        Name of the loss.
    """

    def __init__(self, monitor: str) -> None:
        super().__init__()
        self._monitor = monitor
        self._bar: tqdm | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            self._bar = progress_bar(
                total=trainer.max_epochs, initial=trainer.current_epoch, desc="Training", unit="epoch"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Advance the bar."""
        if self._bar is not None:
            loss = trainer.callback_metrics.get(self._monitor)
            if loss is not None:
                self._bar.set_description(f"Training, {self._monitor}={float(loss):.4g}", refresh=False)
            self._bar.update(1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
