"""Plans of training: on all spots at once, or on batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

Scheduler = Literal["cosine", "plateau"]


class LossModule(Protocol):
    """What a plan asks of a module."""

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalars of one step by name; ``"train_loss"`` is minimised."""
        ...


class Plan(pl.LightningModule):
    """What all plans share: losses that must stay finite, and checkpoints from which a run goes on exactly.

    Parameters
    ----------
    module
        With a method ``loss``, see :class:`LossModule`.
    make_optimizer
        Parameters to optimiser.
    meta
        Plain values written into checkpoints: what a resumed run must agree with.
    prefix
        Before the names of losses in the history and in loggers.

    Attributes
    ----------
    trained_on
        Device of the last training. Lightning leaves the module on the CPU.
    """

    def __init__(
        self,
        module: nn.Module,
        make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        meta: dict[str, Any],
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.module = module
        self.monitor = f"{prefix}train_loss"
        self._prefix = prefix
        self._make_optimizer = make_optimizer
        self._meta = meta
        self.trained_on = torch.device("cpu")

    def _losses(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and the values of all losses."""
        losses = self.module.loss(batch)  # type: ignore[operator]
        values = {name: value.detach() for name, value in losses.items()}
        if not math.isfinite(float(values["train_loss"])):
            raise FloatingPointError(
                f"The training loss became {float(values['train_loss'])} in epoch {self.current_epoch}. "
                "Lower `lr`, set `clip_grad`, or scale the features."
            )
        return losses["train_loss"], values

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run is checked against."""
        checkpoint["stomics_tools"] = self._meta


class FullBatchPlan(Plan):
    """One optimiser step an epoch, on the whole of the data.

    Parameters
    ----------
    module, make_optimizer, meta
        See :class:`Plan`.
    scheduler
        ``"cosine"`` to zero over `max_epochs`, ``"plateau"`` on the training loss (factor 0.5 after 10 epochs
        without gain), or none.
    max_epochs
        Length of the cosine.
    """

    def __init__(
        self,
        module: nn.Module,
        make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        scheduler: Scheduler | None,
        max_epochs: int,
        meta: dict[str, Any],
    ) -> None:
        super().__init__(module, make_optimizer, meta=meta)
        self._scheduler = scheduler
        self._max_epochs = max_epochs
        self.last_losses: dict[str, Tensor] = {}
        self._on_device: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Losses of one step, logged by their names."""
        loss, values = self._losses(batch)
        self.last_losses = values
        # Logging through Lightning takes longer than a step on a small slice: what only loggers read goes to them only.
        logged = values if self.trainer.loggers else {"train_loss": values["train_loss"]}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def configure_optimizers(self) -> Any:
        """Optimiser and scheduler in Lightning's form."""
        groups = getattr(self.module, "parameter_groups", self.module.parameters)
        optimizer = self._make_optimizer(groups())
        if self._scheduler is None:
            return optimizer
        schedule: Any
        if self._scheduler == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self._max_epochs)
        else:
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=10)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "train_loss"}}

    def on_train_epoch_end(self) -> None:
        """Step of the plateau schedule, before a checkpoint of this epoch is written: Lightning's own comes after it."""
        schedule = self.lr_schedulers()
        if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            schedule.step(self.last_losses["train_loss"])

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Lightning's steps, but for those of the plateau schedule."""
        if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move the data once, not every epoch."""
        if self._on_device is None:
            self._on_device = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return self._on_device

    @staticmethod
    def loader(batch: Any) -> DataLoader:
        """A data loader that yields `batch` once an epoch, as it is."""
        # With a generator of its own, the loader draws no seed for workers from torch's, which a resumed run would not do.
        return DataLoader([batch], batch_size=None, generator=torch.Generator())  # type: ignore[arg-type]
