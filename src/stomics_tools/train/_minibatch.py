"""Training on batches of spots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from stomics_tools.train._plan import Plan

Batch = dict[str, Tensor]


class MiniBatchPlan(Plan):
    """One optimiser step a batch; the learning rate rises over the first tenth of the steps and falls as a cosine.

    Parameters
    ----------
    module, make_optimizer, meta, prefix
        See :class:`Plan`.
    n_steps
        Steps of the whole training.
    """

    def __init__(
        self,
        module: nn.Module,
        make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        n_steps: int,
        meta: dict[str, Any],
        prefix: str = "",
    ) -> None:
        super().__init__(module, make_optimizer, meta=meta, prefix=prefix)
        self._n_steps = n_steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Losses of one step; their means over an epoch are logged by their names."""
        loss, values = self._losses(batch)
        logged = {f"{self._prefix}{name}": value for name, value in values.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(next(iter(batch.values()))))
        return loss

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule in Lightning's form."""
        optimizer = self._make_optimizer(p for p in self.module.parameters() if p.requires_grad)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._share_of_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share_of_rate(self, step: int) -> float:
        warm = max(self._n_steps // 10, 1)
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * min((step - warm) / max(self._n_steps - warm, 1), 1.0)))


class _Rows(Dataset):
    """Rows of tensors of the same length, fetched a batch at a time."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        index = torch.as_tensor(rows)
        return {name: tensor[index] for name, tensor in self._tensors.items()}


def row_batches(tensors: Mapping[str, Tensor], batch_size: int) -> DataLoader:
    """Batches of the same rows of all `tensors`, shuffled anew each epoch by torch's generator."""
    rows = _Rows(tensors)
    # With a generator of its own, the loader draws no seed for workers from torch's, which a resumed run would not do.
    own = torch.Generator()
    return DataLoader(rows, batch_size, sampler=RandomSampler(rows), generator=own, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Batch:
    return batch
